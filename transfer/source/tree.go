package source

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// A Tree is the result of Walk: the entries, and the files behind them. Goroutines may use it concurrently.
type Tree struct {
	name    string
	tops    []top // by name
	found   []manifest.Entry
	bytes   int64
	files   int
	left    LeftOut
	rules   manifest.Rules
	cache   *Cache
	folders folders

	entries atomic.Pointer[[]manifest.Entry] // found, or with hashes

	mu     sync.Mutex
	layers map[uint32]keptLayer
	kept   int // chaining values in layers
}

// keptLayer is the result of hashing a file.
type keptLayer struct {
	layer []b3tree.CV
	root  b3tree.Root
}

// maxKept bounds the chaining values that a Tree keeps: 32 MiB of them, for 256 GiB of files.
const maxKept = 1 << 20

// keep stores the layer of a file if there is room.
func (t *Tree) keep(id uint32, root b3tree.Root, layer []b3tree.CV) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, is := t.layers[id]; is || len(layer) == 0 || t.kept+len(layer) > maxKept {
		return
	}
	if t.layers == nil {
		t.layers = make(map[uint32]keptLayer)
	}
	t.layers[id] = keptLayer{layer, root}
	t.kept += len(layer)
}

// layerOf returns the stored layer of a file.
func (t *Tree) layerOf(id uint32) (keptLayer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.layers[id]
	return k, ok
}

func newTree(w *walker, tops []top) *Tree {
	t := &Tree{tops: tops, found: w.entries, bytes: w.checker.Bytes(), files: w.files, left: w.left, rules: w.opts.Rules, cache: w.opts.Cache}
	if t.cache.keepsNothing() {
		t.cache = nil
	}
	t.folders.open = make(map[string]*folder)
	t.entries.Store(&t.found)
	if t.name = tops[0].name; len(tops) > 1 {
		t.name = fmt.Sprintf("%d items", len(tops))
	}
	return t
}

// Entries returns the manifest: in its order, with the ids 0, 1, 2 and so on, as a manifest.Checker accepts it. After Hash, files have
// their hashes; slices returned before do not change. The slice must not be written to.
func (t *Tree) Entries() []manifest.Entry {
	if all := t.entries.Load(); all != nil {
		return *all
	}
	return nil
}

// Root returns the hash of Entries, which identifies the transfer: transfer.Ref.Root, and the first half of it is the transfer's ID.
func (t *Tree) Root() ([32]byte, error) { return manifest.Root(t.Entries()) }

// Bytes returns the total size of the files.
func (t *Tree) Bytes() int64 { return t.bytes }

// Files returns how many of the entries are files.
func (t *Tree) Files() int { return t.files }

// LeftOut returns the counts of items that Walk left out.
func (t *Tree) LeftOut() LeftOut { return t.left }

// Name returns a name for the transfer: that of the only path, or text such as "2 items".
func (t *Tree) Name() string { return t.name }

// Close closes what the Tree holds open, except open files. After Close, nothing can be opened.
func (t *Tree) Close() error {
	t.folders.close()
	closeTops(t.tops)
	return nil
}

// file returns the entry of a file.
func (t *Tree) file(op string, id uint32) (*manifest.Entry, error) {
	if int64(id) >= int64(len(t.found)) {
		return nil, errorf(op, "", fault.CodeProtocol, "there are %d entries, and none has the number %d", len(t.found), id)
	}
	if e := &t.found[id]; e.Kind != manifest.KindFile {
		return nil, errorf(op, e.Path, fault.CodeProtocol, "it is a %v", e.Kind)
	}
	return &t.found[id], nil
}

// topOf returns the given path that an entry is below.
func (t *Tree) topOf(id uint32) *top {
	return &t.tops[sort.Search(len(t.tops), func(i int) bool { return t.tops[i].first > id })-1]
}
