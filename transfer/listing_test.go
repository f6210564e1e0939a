package transfer

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// listingFrames are the frames of a listing.
type listingFrames struct {
	name    string
	hashed  bool
	left    []wire.LeftOut
	entries []manifest.Entry
	batch   int // entries in a MANIFEST
	listed  wire.Listed
}

func newListing(t require.TestingT, entries []manifest.Entry) *listingFrames {
	root, err := manifest.Root(entries)
	require.NoError(t, err)
	return &listingFrames{name: "tree", entries: entries, batch: 1, listed: wire.Listed{Root: root, Entries: uint32(len(entries))}}
}

func (l *listingFrames) write(to net.Conn) {
	send := func(kind wire.Kind, flag bool, body func([]byte) []byte) {
		_, _ = to.Write(wire.AppendFrame(nil, kind, flag, body))
	}
	send(wire.KindOffer, l.hashed, func(b []byte) []byte { return append(b, l.name...) })
	for _, left := range l.left {
		send(wire.KindLeftOut, false, left.Append)
	}
	for rest := l.entries; len(rest) > 0; {
		n := min(l.batch, len(rest))
		batch, _, err := manifest.AppendBatch(nil, rest[:n])
		if err != nil {
			panic(err)
		}
		rest = rest[n:]
		send(wire.KindManifest, false, func(b []byte) []byte { return append(b, batch...) })
	}
	send(wire.KindListed, false, l.listed.Append)
}

// readThis returns what a listing is read as.
func (l *listingFrames) readThis(t *testing.T, rules manifest.Rules, known bool, hold func(int) error) (got listing, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := newControl(pipeStream{ours})
		go l.write(theirs)
		got, err = readListing(c, rules, known, hold)
		closeBoth(c, theirs)
	})
	return got, err
}

func namedFiles(names ...string) []manifest.Entry {
	entries := make([]manifest.Entry, len(names))
	for i, name := range names {
		entries[i] = manifest.Entry{ID: uint32(i), Kind: manifest.KindFile, Path: name, Size: 10}
	}
	return entries
}

func TestAListingIsReadAsItWasSent(t *testing.T) {
	entries := namedFiles("a", "b", "c/d")
	for _, batch := range []int{1, 2, 3} {
		l := newListing(t, entries)
		l.batch, l.left = batch, []wire.LeftOut{{Count: 3, Text: "3 symlinks"}}
		got, err := l.readThis(t, manifest.Rules{}, false, nil)
		require.NoError(t, err)
		require.Equal(t, listing{name: "tree", root: l.listed.Root, left: l.left[0], entries: entries}, got)
	}
	empty := newListing(t, nil)
	empty.hashed = true // vacuously
	got, err := empty.readThis(t, manifest.Rules{}, false, nil)
	require.NoError(t, err)
	require.Empty(t, got.entries)
}

func TestAListingWithHashesSaysSo(t *testing.T) {
	entries := namedFiles("a", "b")
	for i := range entries {
		entries[i].Flags, entries[i].Hash = manifest.FlagHashed, [32]byte{1}
	}
	l := newListing(t, entries)
	_, err := l.readThis(t, manifest.Rules{}, false, nil)
	require.ErrorContains(t, err, "OFFER and the manifest say different things")
	l.hashed = true
	got, err := l.readThis(t, manifest.Rules{}, false, nil)
	require.NoError(t, err)
	require.True(t, got.hashed)

	entries[1].Flags, entries[1].Hash = 0, [32]byte{}
	_, err = newListing(t, entries).readThis(t, manifest.Rules{}, false, nil)
	require.ErrorContains(t, err, "1 files have hashes and 1 have none")
	require.Equal(t, CodeProtocol, CodeOf(err))
}

func TestAListingThatIsKnownIsNotSentAgain(t *testing.T) {
	l := newListing(t, nil)
	l.listed = wire.Listed{Root: [32]byte{7}, Entries: 1000}
	got, err := l.readThis(t, manifest.Rules{}, true, nil)
	require.NoError(t, err)
	require.Equal(t, [32]byte{7}, got.root, "it is not compared with entries that did not come")
	_, err = newListing(t, namedFiles("a")).readThis(t, manifest.Rules{}, true, nil)
	require.Equal(t, CodeProtocol, CodeOf(err), "though it is known")
}

func TestAListingThatIsWrongIsRefused(t *testing.T) {
	for name, v := range map[string]struct {
		change func(l *listingFrames)
		rules  manifest.Rules
		code   Code
	}{
		"another root":       {change: func(l *listingFrames) { l.listed.Root[0]++ }, code: CodeProtocol},
		"another number":     {change: func(l *listingFrames) { l.listed.Entries++ }, code: CodeProtocol},
		"a number too large": {change: func(l *listingFrames) { l.entries[1].ID = 7 }, code: CodeProtocol},
		"one name twice":     {change: func(l *listingFrames) { l.entries[1].Path = "a" }, code: CodeExists},
		"a path that leads out": {
			change: func(l *listingFrames) { l.entries[0].Path = "../a" }, code: CodePathUnsafe},
		"too many for the rules": {change: func(*listingFrames) {}, rules: manifest.Rules{Entries: 1}, code: CodeTooLarge},
		"left out twice": {
			change: func(l *listingFrames) { l.left = []wire.LeftOut{{Count: 1}, {Count: 1}} }, code: CodeProtocol},
	} {
		l := newListing(t, namedFiles("a", "b"))
		v.change(l)
		_, err := l.readThis(t, v.rules, false, nil)
		require.Equal(t, v.code, CodeOf(err), "%s: %v", name, err)
	}
	_, err := newListing(t, nil).readThis(t, manifest.Rules{Entries: -1}, false, nil)
	require.Equal(t, CodeInvalid, CodeOf(err), "rules of this side")
}

func TestAListingIsHeldBeforeItIsKept(t *testing.T) {
	full := errors.New("full")
	held := 0
	got, err := newListing(t, namedFiles("a", "b", "c")).readThis(t, manifest.Rules{}, false, func(n int) error {
		if held += n; held > 70 {
			return full
		}
		return nil
	})
	require.ErrorIs(t, err, full)
	require.Less(t, len(got.entries), 3)
}

func TestAListingThatStopsIsAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := newControl(pipeStream{ours})
		go func() {
			_, _ = theirs.Write(wire.AppendFrame(nil, wire.KindOffer, false, nil))
			for i := range 3 { // as long as something comes it may take its time
				time.Sleep(listTimeout - time.Second)
				batch, _, _ := manifest.AppendBatch(nil, namedFiles("a", "b", "c")[i:i+1])
				_, _ = theirs.Write(wire.AppendFrame(nil, wire.KindManifest, false, func(b []byte) []byte { return append(b, batch...) }))
			}
		}()
		began := time.Now()
		_, err := readListing(c, manifest.Rules{}, false, nil)
		require.Equal(t, CodeStalled, CodeOf(err))
		require.Equal(t, 3*(listTimeout-time.Second)+listTimeout, time.Since(began))
		closeBoth(c, theirs)
	})
}
