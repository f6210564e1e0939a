package source

import (
	"context"
	"slices"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// HashOptions configure Tree.Hash. Nil and the zero value are useful.
type HashOptions struct {
	// Workers is how many goroutines read and hash: several files at once, and several pieces of a large one. Each needs memory for a piece.
	// If not above zero, one for each processor.
	Workers int
	// OnProgress, if not nil, is called with the number of hashed files and bytes so far, by the goroutine of Hash.
	OnProgress func(files int, bytes int64)
}

// Hash gives every file its hash, which Entries returns from then on. It reads all files except the large ones whose layers the Cache has. If
// all files have their hashes already, it does nothing. o may be nil.
//
// The error is an *transfer.Error if a file is not as Walk found it, if it changes while it is read, or if the manifest with the hashes is larger than
// Rules allow. It is ctx's error if that is done. With an error, no file has a hash.
func (t *Tree) Hash(ctx context.Context, o *HashOptions) error {
	if t.hashed() {
		return ctx.Err()
	}
	if o == nil {
		o = &HashOptions{}
	}
	hashes := make([]b3tree.Root, len(t.found))
	h := newHashing(t, 0, len(t.found), func(id uint32, root b3tree.Root, layer []b3tree.CV) {
		hashes[id] = root
		t.keep(id, root, layer)
	})
	if err := h.run(ctx, o.Workers, o.OnProgress); err != nil {
		return err
	}
	entries := slices.Clone(t.found)
	for i := range entries {
		if e := &entries[i]; e.Kind == manifest.KindFile {
			e.Flags |= manifest.FlagHashed
			e.Hash = hashes[i]
		}
	}
	if err := t.check(entries); err != nil {
		return err
	}
	t.entries.Store(&entries)
	return nil
}

// check sees that hashes have not made the manifest larger than a receiver takes. Names are what they were.
func (t *Tree) check(entries []manifest.Entry) error {
	rules := t.rules
	rules.Portable = false
	c, err := manifest.NewChecker(rules)
	if err != nil {
		return wrap("hash", "", err)
	}
	for i := range entries {
		if err := c.Add(entries[i]); err != nil {
			return wrap("hash", entries[i].Path, err)
		}
	}
	return nil
}

// hashed reports that Hash has been there.
func (t *Tree) hashed() bool {
	return t.files == 0 || t.entries.Load() != &t.found
}

// layer returns the layer and the root of a file; a file of one piece or none has no layer. It is what was found by Hash or an earlier
// Layer, as far as 32 MiB of memory keep it, what the Cache has, or what is read then, all of it and on every processor: so it fails as
// Hash does. The layer is not to be written to. A file that has changed since is found by whoever reads it.
func (t *Tree) layer(ctx context.Context, id uint32) ([]b3tree.CV, b3tree.Root, error) {
	if _, err := t.file("hash", id); err != nil {
		return nil, b3tree.Root{}, err
	}
	if k, ok := t.layerOf(id); ok {
		return k.layer, k.root, nil
	}
	var layer []b3tree.CV
	var root b3tree.Root
	h := newHashing(t, int(id), int(id)+1, func(_ uint32, r b3tree.Root, l []b3tree.CV) { root, layer = r, l })
	if err := h.run(ctx, 0, nil); err != nil {
		return nil, b3tree.Root{}, err
	}
	t.keep(id, root, layer)
	return layer, root, nil
}
