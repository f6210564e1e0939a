package transfer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// The contents that attacks are about: of one piece, and of three.
var (
	one   = random(1000, 1)
	three = random(600000, 2)
)

func plain(t testing.TB) []manifest.Entry { return files(t, false, one, three) }
func known(t testing.TB) []manifest.Entry { return files(t, true, one, three) }

const piece = b3tree.MinPieceSize

// asked lists the entries, waits until something is wanted, and returns a lane.
func asked(g *rogue, entries []manifest.Entry) func([]byte) {
	g.list(entries)
	if _, ok := g.expect(wire.KindWant); !ok {
		return func([]byte) {}
	}
	l := g.lane()
	return func(b []byte) {
		if l != nil {
			_, _ = l.Write(b)
		}
	}
}

// sum returns the hash of a piece of three, or of one.
func sum(t testing.TB, i int, data []byte) []byte {
	shape, err := b3tree.ShapeOf(int64(len(three)))
	require.NoError(t, err)
	cv, err := shape.PieceCV(i, data)
	require.NoError(t, err)
	return cv[:]
}

func pack(hashed bool, contents map[uint32][]byte) []byte {
	var b []byte
	for id := range uint32(3) {
		data, ok := contents[id]
		if !ok {
			continue
		}
		head := make([]byte, wire.PackedHead)
		wire.PutPackedHead(head, id, len(data))
		b = append(b, head...)
		if hashed {
			root := b3tree.Sum(data)
			b = append(b, root[:]...)
		}
		b = append(b, data...)
	}
	return b
}

// just returns an attack that sends some frame when something is wanted.
func just(frames ...func(t testing.TB) []byte) func(*rogue, []manifest.Entry) {
	return func(g *rogue, entries []manifest.Entry) {
		write := asked(g, entries)
		for _, f := range frames {
			write(f(g.t))
		}
	}
}

// fixed returns a frame.
func fixed(h wire.DataHeader, hash, body []byte) func(testing.TB) []byte {
	return func(testing.TB) []byte { return frame(h, hash, body) }
}

func header(kind wire.DataKind, file, piece, count uint32) wire.DataHeader {
	return wire.DataHeader{Kind: kind, File: file, Piece: piece, Count: count}
}

var noHash = make([]byte, wire.HashSize)

// breaches are frames that nobody may send; plain, if not said otherwise.
var breaches = map[string]attack{
	"a file that there is not":      {do: just(fixed(header(wire.Data, 2, 0, 1), noHash, one))},
	"the file 2^32-1":               {do: just(fixed(header(wire.Data, 1<<32-1, 0, 1), noHash, one))},
	"a piece that there is not":     {do: just(fixed(header(wire.Data, 1, 3, 1), noHash, three[:piece]))},
	"the piece 2^32-1":              {do: just(fixed(header(wire.Data, 1, 1<<32-1, 1), noHash, three[:piece]))},
	"a piece that is too long":      {do: just(fixed(header(wire.Data, 0, 0, 1), noHash, append(one, 1)))},
	"a piece that is too short":     {do: just(fixed(header(wire.Data, 1, 0, 1), noHash, three[:piece-1]))},
	"a last one that is too long":   {do: just(fixed(header(wire.Data, 1, 2, 1), noHash, three[:piece]))},
	"a piece without its hash":      {do: just(fixed(header(wire.Data, 0, 0, 1), nil, one))},
	"a piece with a hash":           {entries: known, do: just(fixed(header(wire.Data, 0, 0, 1), noHash, one))},
	"zeros beyond the end":          {do: just(fixed(header(wire.Zeros, 1, 0, 4), nil, nil))},
	"zeros without end":             {do: just(fixed(header(wire.Zeros, 1, 1, 1<<32-1), nil, nil))},
	"a file of zeros":               {do: just(fixed(header(wire.Zeros, 0, 0, 1), nil, nil))},
	"a large file in a PACK":        {do: just(fixed(header(wire.Pack, 0, 0, 2), noHash[:0], pack(true, map[uint32][]byte{0: one, 1: three})))},
	"a PACK of more than it has":    {do: just(fixed(header(wire.Pack, 0, 0, 3), noHash[:0], pack(true, map[uint32][]byte{0: one})))},
	"a PACK of less than it has":    {do: just(fixed(header(wire.Pack, 0, 0, 1), noHash[:0], append(pack(true, map[uint32][]byte{0: one}), 7)))},
	"a PACK that is cut":            {do: just(fixed(header(wire.Pack, 0, 0, 1), noHash[:0], pack(true, map[uint32][]byte{0: one})[:500]))},
	"a PACK of a short file":        {do: just(fixed(header(wire.Pack, 0, 0, 1), noHash[:0], pack(true, map[uint32][]byte{0: one[:999]})))},
	"a PACK without hashes":         {do: just(fixed(header(wire.Pack, 0, 0, 1), nil, pack(false, map[uint32][]byte{0: one})))},
	"a PACK of none":                {do: just(fixed(header(wire.Pack, 0, 0, 0), noHash[:0], one))},
	"an unknown frame on a lane":    {do: just(func(testing.TB) []byte { return frame(header(9, 0, 0, 1), nil, nil) })},
	"a piece before its layer":      {entries: known, do: just(fixed(header(wire.Data, 1, 0, 1), nil, three[:piece]))},
	"a piece once too often":        {do: just(aPiece, aPiece, aPiece, aPiece, aPiece)},
	"data of a folder":              {entries: withFolder, do: just(fixed(header(wire.Data, 0, 0, 1), noHash, one))},
	"ROOT that nobody has asked":    {do: says(wire.KindRoot, wire.Root{File: 1}.Append)},
	"LAYER that nobody has asked":   {do: says(wire.KindLayer, wire.Layer{File: 1, CVs: noHash}.Append)},
	"LAYER of a file of one":        {entries: known, do: says(wire.KindLayer, wire.Layer{CVs: noHash}.Append)},
	"LAYER of the second part":      {entries: known, do: says(wire.KindLayer, wire.Layer{File: 1, First: 1, CVs: noHash}.Append)},
	"LAYER that is too long":        {entries: known, do: says(wire.KindLayer, wire.Layer{File: 1, CVs: make([]byte, 32*4)}.Append)},
	"FAILED of a file there is not": {do: says(wire.KindFailed, func(b []byte) []byte { return wire.AppendFailed(b, 7, wire.Why{Code: "io"}) })},
	"COMPLETE before the end":       {do: says(wire.KindComplete, nil)},
	"OFFER once more":               {do: says(wire.KindOffer, nil)},
	"WANT of a sender":              {do: says(wire.KindWant, func(b []byte) []byte { return wire.AppendWants(b, []wire.Want{{File: 0, Files: 1}}) })},
	"PAUSE of a sender":             {do: says(wire.KindPause, wire.Why{Code: "no_space"}.Append)},
}

// aPiece is the first one of three, as it is: dropped when it is here, as often as something was wanted.
func aPiece(t testing.TB) []byte {
	return frame(header(wire.Data, 1, 0, 1), sum(t, 0, three[:piece]), three[:piece])
}

func withFolder(t testing.TB) []manifest.Entry {
	t.Helper()
	return entries(manifest.Entry{Kind: manifest.KindDir, Perm: 0o755, Path: "a"}, file("b"))(t)
}

// says returns an attack that says something on control once something is wanted.
func says(kind wire.Kind, body func([]byte) []byte) func(*rogue, []manifest.Entry) {
	return func(g *rogue, entries []manifest.Entry) {
		g.list(entries)
		g.expect(wire.KindWant)
		g.send(kind, false, body)
	}
}

func TestDataThatBreaksTheProtocolEndsTheTransfer(t *testing.T) {
	for name, a := range breaches {
		if a.entries == nil {
			a.entries = plain
		}
		a.code, a.keeps = transfer.CodeProtocol, true
		t.Run(name+", pushed", a.push)
		t.Run(name+", fetched", a.fetch)
	}
}

// wrong are contents that are not what they are said to be.
var wrong = map[string]attack{
	"another file":         {do: repeat(fixed(header(wire.Data, 0, 0, 1), noHash, one))},
	"another known file":   {entries: known, do: repeat(fixed(header(wire.Data, 0, 0, 1), nil, random(1000, 9)))},
	"another file, packed": {entries: known, do: repeat(fixed(header(wire.Pack, 0, 0, 1), nil, pack(false, map[uint32][]byte{0: random(1000, 9)})))},
	"another piece":        {do: repeat(fixed(header(wire.Data, 1, 1, 1), noHash, three[:piece]))},
	"a piece elsewhere": {do: repeat(func(t testing.TB) []byte {
		return frame(header(wire.Data, 1, 1, 1), sum(t, 0, three[:piece]), three[:piece])
	})},
	"a known piece elsewhere": {entries: known, do: layered(fixed(header(wire.Data, 1, 1, 1), nil, three[:piece]))},
	"zeros that are none":     {entries: known, do: layered(fixed(header(wire.Zeros, 1, 0, 1), nil, nil))},
	"another layer": {entries: known, do: func(g *rogue, entries []manifest.Entry) {
		g.list(entries)
		g.expect(wire.KindWantLayer)
		g.send(wire.KindLayer, false, wire.Layer{File: 1, CVs: make([]byte, 3*32)}.Append)
	}},
}

// repeat sends the same as often as it is wanted.
func repeat(f func(testing.TB) []byte) func(*rogue, []manifest.Entry) {
	return func(g *rogue, entries []manifest.Entry) {
		write := asked(g, entries)
		for range 5 {
			write(f(g.t))
			if _, ok := g.expect(wire.KindWant); !ok {
				return
			}
		}
	}
}

// layered is repeat, after the layer of three.
func layered(f func(testing.TB) []byte) func(*rogue, []manifest.Entry) {
	return func(g *rogue, entries []manifest.Entry) {
		g.list(entries)
		g.expect(wire.KindWantLayer)
		g.send(wire.KindLayer, false, wire.Layer{File: 1, CVs: b3tree.AppendLayer(nil, layerOf(g.t, three))}.Append)
		l := g.lane()
		for l != nil {
			w, ok := g.expect(wire.KindWant)
			if !ok {
				return
			}
			if wire.ConsumeFile(w.Body) == 0 {
				continue // the layer may not have come
			}
			_, _ = l.Write(f(g.t))
		}
	}
}

func TestDataThatIsNotWhatWasSaidEndsTheTransfer(t *testing.T) {
	for name, a := range wrong {
		if a.entries == nil {
			a.entries = plain
		}
		a.code, a.keeps = transfer.CodeHashMismatch, true
		t.Run(name+", pushed", a.push)
		t.Run(name+", fetched", a.fetch)
	}
}

// still are senders that say no wrong word, and bring nothing.
var still = map[string]attack{
	"nothing that is wanted": {do: func(g *rogue, entries []manifest.Entry) { g.list(entries) }},
	"no layer":               {entries: known, do: just(fixed(header(wire.Data, 0, 0, 1), nil, one))},
	"half a piece":           {do: just(func(testing.TB) []byte { return frame(header(wire.Data, 0, 0, 1), sum0(one), one)[:500] })},
	"no root": {do: func(g *rogue, entries []manifest.Entry) {
		write := asked(g, entries)
		write(frame(header(wire.Data, 0, 0, 1), sum0(one), one))
		for i := range 3 {
			data := three[i*piece : min(len(three), (i+1)*piece)]
			write(frame(header(wire.Data, 1, uint32(i), 1), sum(g.t, i, data), data))
		}
	}},
}

func sum0(b []byte) []byte {
	root := b3tree.Sum(b)
	return root[:]
}

func TestASenderThatBringsNothingIsGivenUp(t *testing.T) {
	for name, a := range still {
		if a.entries == nil {
			a.entries = plain
		}
		a.code, a.keeps, a.names = transfer.CodeStalled, true, 1
		t.Run(name+", pushed", a.push)
		t.Run(name+", fetched", a.fetch)
	}
}

// Claim: transfer.CodeHashMismatch
func TestAWrongRootFailsTheFileAfterOneMoreTry(t *testing.T) {
	to, untouched := guard(t)
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		asks := 0
		serveRogue(t, p, func(g *rogue) {
			write := asked(g, plain(g.t))
			write(frame(header(wire.Data, 0, 0, 1), sum0(one), one))
			for range 2 {
				for i := range 3 {
					data := three[i*piece : min(len(three), (i+1)*piece)]
					write(frame(header(wire.Data, 1, uint32(i), 1), sum(g.t, i, data), data))
				}
				if _, ok := g.expect(wire.KindWantRoot); ok {
					asks++
					g.send(wire.KindRoot, false, wire.Root{File: 1}.Append)
				}
				if asks == 1 {
					g.expect(wire.KindWant)
				}
			}
			if _, ok := g.expect(wire.KindComplete); ok {
				g.send(wire.KindComplete, false, nil)
			}
		})
		ref := transfer.Ref{Root: listed(t, plain(t)).Root}
		result, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, ref, to, nil).Wait()
		require.Equal(t, transfer.CodeHashMismatch, transfer.CodeOf(err), "%v", err)
		require.Len(t, result.Failed, 1)
		require.Equal(t, "b", result.Failed[0].Path)
		require.Equal(t, 2, asks)
		require.Equal(t, 1, result.Progress.FilesDone)
		require.Equal(t, 1, result.Progress.FilesBad)
	})
	require.FileExists(t, to+"/a")
	require.NoFileExists(t, to+"/b")
	untouched()
}

func TestALaneOfAnUnknownTransferIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		service(t, p, nil)
		g := &rogue{t: t, s: p.Alice, id: wire.ID{9}}
		for _, say := range [][]byte{nil, []byte("no lane begins so, and this is longer than a hello")} {
			l := g.lane()
			_, _ = l.Write(say)
			began := time.Now()
			_, err := l.Read(make([]byte, 1))
			require.Error(t, err)
			require.Less(t, time.Since(began), time.Minute)
			_ = l.Close() // it may say that the peer has not read all of it
		}
	})
}
