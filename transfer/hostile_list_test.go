package transfer_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// honest entries, for attacks that lie elsewhere.
func oneFile(t testing.TB) []manifest.Entry { return files(t, false, random(1000, 1)) }

// justList lists what it is given.
func justList(g *rogue, entries []manifest.Entry) { g.list(entries) }

// file is an entry of three bytes with a path.
func file(path string) manifest.Entry {
	return manifest.Entry{Kind: manifest.KindFile, Perm: 0o644, Size: 3, Path: path}
}

func link(path, target string) manifest.Entry {
	return manifest.Entry{Kind: manifest.KindSymlink, Path: path, Target: target}
}

// entries gives them numbers.
func entries(all ...manifest.Entry) func(testing.TB) []manifest.Entry {
	for i := range all {
		all[i].ID = uint32(i)
	}
	return func(testing.TB) []manifest.Entry { return all }
}

var (
	portable = manifest.Rules{Portable: true}
	setuid   = manifest.Entry{Kind: manifest.KindFile, Perm: 0o4755, Size: 1, Path: "a"}
)

// tricks are lists of files that nobody may take.
var tricks = map[string]attack{
	"absolute":                  {entries: entries(file("/etc/passwd")), code: "path_unsafe"},
	"the parent":                {entries: entries(file("../victim")), code: "path_unsafe"},
	"the parent, further down":  {entries: entries(file("a/../../victim")), code: "path_unsafe"},
	"the parent, at the end":    {entries: entries(file("a/..")), code: "path_unsafe"},
	"here":                      {entries: entries(file("./a")), code: "path_unsafe"},
	"two slashes":               {entries: entries(file("a//b")), code: "path_unsafe"},
	"a backslash":               {entries: entries(file(`..\victim`)), code: "path_unsafe"},
	"a zero":                    {entries: entries(file("a\x00b")), code: "path_unsafe"},
	"a line":                    {entries: entries(file("a\nb")), code: "path_unsafe"},
	"no UTF-8":                  {entries: entries(file("a\xff")), code: "path_unsafe"},
	"a staging directory":       {entries: entries(file(".xfer-0123456789abcdef/journal")), code: "path_unsafe"},
	"one in capitals":           {entries: entries(file(".XFER-0123456789abcdef/journal")), code: "path_unsafe"},
	"a component of 256 bytes":  {entries: entries(file(strings.Repeat("n", 256))), code: "too_large"},
	"256 folders":               {entries: entries(file(strings.Repeat("a/", 256) + "a")), code: "too_large"},
	"a link out":                {entries: entries(link("a", "../../victim")), code: "path_unsafe", rules: withLinks},
	"an absolute link":          {entries: entries(link("a", "/etc/passwd")), code: "path_unsafe", rules: withLinks},
	"a link where none is":      {entries: entries(link("a", "b")), code: "path_unsafe"},
	"a file below a link":       {entries: entries(link("a", "b"), file("a/victim")), code: "path_unsafe", rules: withLinks},
	"a file below a file":       {entries: entries(file("a"), file("a/b")), code: "exists"},
	"one name twice":            {entries: entries(file("a"), file("a")), code: "exists"},
	"one name in two cases":     {entries: entries(file("A"), file("a")), code: "exists", rules: portable},
	"one name in two forms":     {entries: entries(file("a\u0308"), file("\u00e4")), code: "exists", rules: portable},
	"a device of Windows":       {entries: entries(file("a/con.txt")), code: "path_unsafe", rules: portable},
	"a stream of NTFS":          {entries: entries(file("a:b")), code: "path_unsafe", rules: portable},
	"a dot at the end":          {entries: entries(file("a.")), code: "path_unsafe", rules: portable},
	"not in order":              {entries: entries(file("b"), file("a")), code: "protocol"},
	"more bytes than rules say": {entries: entries(file("a"), file("b")), code: "too_large", rules: manifest.Rules{Bytes: 5}},
	"more files than rules say": {entries: entries(file("a"), file("b")), code: "too_large", rules: manifest.Rules{Entries: 1}},
	"a file of 2^60 bytes": {
		entries: entries(manifest.Entry{Kind: manifest.KindFile, Size: 1 << 60, Path: "a"}), code: "too_large",
	},
	"a file of 8 TiB": {
		entries: entries(manifest.Entry{Kind: manifest.KindFile, Size: 8 << 40, Path: "a"}), code: "too_large",
	},
	"more than the disk has": {
		entries: entries(manifest.Entry{Kind: manifest.KindFile, Size: 4<<40 - 1, Path: "a"}), code: "no_space", keeps: true,
	},
}

func TestAListOfFilesWithATrickIsRefused(t *testing.T) {
	for name, a := range tricks {
		a.do = justList
		t.Run(name+", pushed", a.push)
		t.Run(name+", fetched", a.fetch)
	}
}

// lies are lists that say one thing and then another.
var lies = map[string]attack{
	"another root": {do: func(g *rogue, entries []manifest.Entry) {
		l := listed(g.t, entries)
		l.Root[3]++
		sendList(g, false, entries, l)
	}},
	"another number": {do: func(g *rogue, entries []manifest.Entry) {
		l := listed(g.t, entries)
		l.Entries++
		sendList(g, false, entries, l)
	}},
	"hashes that are not there": {do: func(g *rogue, entries []manifest.Entry) { sendList(g, true, entries, listed(g.t, entries)) }},
	"LISTED before OFFER": {do: func(g *rogue, entries []manifest.Entry) {
		g.send(wire.KindListed, false, listed(g.t, entries).Append)
	}},
	"OFFER twice": {do: func(g *rogue, _ []manifest.Entry) {
		g.send(wire.KindOffer, false, nil)
		g.send(wire.KindOffer, false, nil)
	}},
	"a frame of a receiver": {do: func(g *rogue, _ []manifest.Entry) { g.send(wire.KindAccept, false, nil) }},
	"an unknown frame":      {do: func(g *rogue, _ []manifest.Entry) { g.raw([]byte{0x7f, 0, 0, 0, 0, 0, 0, 0}) }},
	"a frame of 4 GiB":      {do: func(g *rogue, _ []manifest.Entry) { g.raw([]byte{4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}) }},
	"a batch that is none": {do: func(g *rogue, _ []manifest.Entry) {
		g.send(wire.KindOffer, false, nil)
		g.send(wire.KindManifest, false, func(b []byte) []byte { return append(b, 0xff, 0xff) })
	}},
	"bits that are set": {do: func(g *rogue, _ []manifest.Entry) {
		g.send(wire.KindOffer, false, nil)
		e := setuid
		e.Perm = 0
		b, err := manifest.AppendEntry([]byte{0, 1}, &e)
		require.NoError(g.t, err)
		binary.BigEndian.PutUint16(b[4:], setuid.Perm)
		g.send(wire.KindManifest, false, func(to []byte) []byte { return append(to, b...) })
	}},
	"numbers with a gap": {do: func(g *rogue, _ []manifest.Entry) {
		e := file("a")
		e.ID = 1
		sendList(g, false, []manifest.Entry{e}, wire.Listed{Entries: 1})
	}},
	"nothing but silence": {do: func(*rogue, []manifest.Entry) {}, code: "stalled"},
	"half an OFFER":       {do: func(g *rogue, _ []manifest.Entry) { g.raw([]byte{3, 0, 0, 0, 0, 0, 0, 9, 'h'}) }, code: "stalled"},
	"no LISTED": {do: func(g *rogue, _ []manifest.Entry) {
		g.send(wire.KindOffer, false, nil)
	}, code: "stalled"},
}

func sendList(g *rogue, hashed bool, entries []manifest.Entry, l wire.Listed) {
	g.send(wire.KindOffer, hashed, nil)
	batch, _, err := manifest.AppendBatch(nil, entries)
	require.NoError(g.t, err)
	g.send(wire.KindManifest, false, func(b []byte) []byte { return append(b, batch...) })
	g.send(wire.KindListed, false, l.Append)
}

func TestAListOfFilesThatLiesIsRefused(t *testing.T) {
	for name, a := range lies {
		a.entries = oneFile
		if a.code == "" {
			a.code = transfer.CodeProtocol
		}
		t.Run(name+", pushed", a.push)
		t.Run(name+", fetched", a.fetch)
	}
}

func TestASymlinkInTheDestinationIsNotFollowed(t *testing.T) {
	for name, a := range map[string]attack{
		"for a folder": {entries: entries(file("d/victim"))},
		"for a file":   {entries: entries(file("victim"))},
	} {
		a.do, a.keeps = justList, true
		a.code = transfer.CodePathUnsafe
		a.setup = func(t *testing.T, to string) { require.NoError(t, os.Symlink("..", filepath.Join(to, "d"))) }
		if name == "for a file" {
			a.code = transfer.CodeExists
			a.setup = func(t *testing.T, to string) {
				require.NoError(t, os.Symlink("../victim", filepath.Join(to, "victim")))
			}
		}
		t.Run(name+", pushed", a.push)
		t.Run(name+", fetched", a.fetch)
	}
}

// Claim: transfer.CodeTooLarge
func TestAListThatDoesNotEndIsRefusedAtTheLimit(t *testing.T) {
	const limit = 50000
	var grown int64
	endless := func(g *rogue, _ []manifest.Entry) {
		g.send(wire.KindOffer, false, nil)
		before := heap()
		var f []byte
		for id := uint32(0); id < 10e6; id += manifest.MaxBatch {
			if id < 4*limit { // whoever reads on refuses what is there twice with another code
				f = batch(id)
			}
			if _, err := g.st.Write(f); err != nil {
				break
			}
		}
		grown = heap() - before
	}
	attack{entries: oneFile, do: endless, code: transfer.CodeTooLarge, rules: manifest.Rules{Entries: limit}}.fetch(t)
	require.Less(t, grown, int64(32<<20))
}

// batch returns the frame of as many files as it takes, from an id on.
func batch(id uint32) []byte {
	b := binary.BigEndian.AppendUint16(nil, manifest.MaxBatch)
	for range manifest.MaxBatch {
		e := file(fmt.Sprintf("%08d", id))
		e.ID = id
		id++
		b, _ = manifest.AppendEntry(b, &e)
	}
	return wire.AppendFrame(nil, wire.KindManifest, false, func(to []byte) []byte { return append(to, b...) })
}
