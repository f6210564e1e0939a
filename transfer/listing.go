package transfer

import (
	"time"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// listing is a sender's description of its tree.
type listing struct {
	name    string
	root    [32]byte
	hashed  bool
	left    wire.LeftOut
	entries []manifest.Entry
}

// isHashed reports whether all files of a manifest have hashes, and fails when only some have.
func isHashed(entries []manifest.Entry) (bool, error) {
	with, without := 0, 0
	for i := range entries {
		switch e := &entries[i]; {
		case e.Kind != manifest.KindFile:
		case e.Flags&manifest.FlagHashed != 0:
			with++
		default:
			without++
		}
	}
	if with > 0 && without > 0 {
		return false, wire.Breachf("%d files have hashes and %d have none", with, without)
	}
	return without == 0, nil
}

// isTree reports whether root is the root of the entries.
func isTree(entries []manifest.Entry, root [32]byte) bool {
	is, err := manifest.Root(entries)
	return err == nil && is == root
}

// listTimeout bounds the wait for each frame of a listing. It is as long as a session looks for another connection.
const listTimeout = time.Minute

// readListing reads a sender's listing (spec 3.3). known means that GET has said that the entries need not be sent. hold, if not nil, is
// called with the number of bytes of arriving entries before they are kept, and may refuse them.
func readListing(ctl *control, rules manifest.Rules, known bool, hold func(bytes int) error) (listing, error) {
	f, err := ctl.readWithin(listTimeout)
	if err != nil {
		return listing{}, err
	}
	if f.Kind != wire.KindOffer {
		return listing{}, wire.Breachf("%v where OFFER is due", f.Kind)
	}
	l := listing{name: wire.CutName(string(f.Body)), hashed: f.Flag}
	check, err := manifest.NewChecker(rules)
	if err != nil {
		return l, &Error{Code: CodeInvalid, Text: "ReceiveOptions.Rules", Err: err}
	}
	for {
		if f, err = ctl.readWithin(listTimeout); err != nil {
			return l, err
		}
		switch {
		case f.Kind == wire.KindListed:
			return l, l.complete(wire.ConsumeListed(f.Body), known)
		case f.Kind == wire.KindLeftOut && l.left.Count == 0:
			if l.left, err = wire.ConsumeLeftOut(f.Body); err != nil {
				return l, err
			}
			continue
		case f.Kind != wire.KindManifest || known:
			return l, wire.Breachf("%v in a manifest", f.Kind)
		}
		if hold != nil {
			if err := hold(len(f.Body)); err != nil {
				return l, err
			}
		}
		from := len(l.entries)
		if l.entries, err = manifest.ConsumeBatch(l.entries, f.Body); err != nil {
			return l, err
		}
		for i := range l.entries[from:] {
			if err := l.add(check, from+i); err != nil {
				return l, err
			}
		}
	}
}

// add checks the entry at i.
func (l *listing) add(check *manifest.Checker, i int) error {
	if e := &l.entries[i]; e.ID != uint32(i) {
		return wire.Breachf("entry %d has the number %d", i, e.ID)
	}
	return check.Add(l.entries[i])
}

// complete compares a listing with the sender's summary of it.
func (l *listing) complete(said wire.Listed, known bool) error {
	l.root = said.Root
	if known {
		return nil
	}
	hashed, err := isHashed(l.entries)
	switch {
	case err != nil:
		return err
	case !isTree(l.entries, said.Root) || len(l.entries) != int(said.Entries):
		return wire.Breachf("the manifest is not the one that the sender names")
	case hashed != l.hashed:
		return wire.Breachf("OFFER and the manifest say different things about hashes")
	}
	return nil
}
