package transfer_test

import (
	"context"

	"io"

	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// rogue is one side of the protocol, spoken by hand.
type rogue struct {
	t     *testing.T
	s     *session.Session
	st    *session.Stream
	in    *wire.Reader
	id    wire.ID
	caps  wire.Caps
	lanes chan *bulk.Lane // that the other side has opened
	code  transfer.Code   // with which the other side has ended it
	known bool            // the other side has said in GET that it has the list
}

// send sends a frame, whatever becomes of it.
func (g *rogue) send(kind wire.Kind, flag bool, body func([]byte) []byte) {
	_, _ = g.st.Write(wire.AppendFrame(nil, kind, flag, body))
}

// raw sends bytes.
func (g *rogue) raw(b []byte) { _, _ = g.st.Write(b) }

// expect returns the next frame of a kind, or false when the stream ends before.
func (g *rogue) expect(kind wire.Kind) (wire.Frame, bool) {
	for {
		f, err := g.in.Read()
		if err != nil {
			return f, false
		}
		if f.Kind == wire.KindAbort {
			w, err := wire.ConsumeWhy(f.Body)
			require.NoError(g.t, err)
			g.code = transfer.Code(w.Code)
			return f, false
		}
		if f.Kind == wire.KindGet {
			g.known = f.Flag
		}
		if f.Kind == kind {
			return f, true
		}
	}
}

// why returns the code with which the other side ends the transfer, or "" if it says none.
func (g *rogue) why() transfer.Code {
	for g.code == "" {
		if _, ok := g.expect(wire.KindAbort); !ok {
			break
		}
	}
	return g.code
}

// hello opens control in a role and takes the answer.
func (g *rogue) hello(role wire.Role) {
	var err error
	g.st, err = g.s.OpenStream(g.t.Context(), "transfer", nil)
	require.NoError(g.t, err)
	g.in = wire.NewReader(g.st)
	g.id = wire.ID{byte(role), 1, 2, 3}
	g.send(wire.KindHello, false, wire.Hello{Role: role, Lanes: 4, Caps: g.caps, ID: g.id}.Append)
	_, ok := g.expect(wire.KindHello)
	require.True(g.t, ok)
}

// list offers entries, and says how many and which there are.
func (g *rogue) list(entries []manifest.Entry) {
	g.send(wire.KindOffer, isHashed(entries), func(b []byte) []byte { return append(b, "rogue"...) })
	for rest := entries; len(rest) > 0 && !g.known; {
		batch, n, err := manifest.AppendBatch(nil, rest)
		require.NoError(g.t, err)
		rest = rest[n:]
		g.send(wire.KindManifest, false, func(b []byte) []byte { return append(b, batch...) })
	}
	g.send(wire.KindListed, false, listed(g.t, entries).Append)
}

func isHashed(entries []manifest.Entry) bool {
	for i := range entries {
		if entries[i].Kind == manifest.KindFile && entries[i].Flags&manifest.FlagHashed == 0 {
			return false
		}
	}
	return true
}

func listed(t testing.TB, entries []manifest.Entry) wire.Listed {
	root, err := manifest.Root(entries)
	require.NoError(t, err)
	bytes := int64(0)
	for i := range entries {
		bytes += entries[i].Size
	}
	return wire.Listed{Root: root, Entries: uint32(len(entries)), Bytes: uint64(bytes)}
}

// lane returns a data lane, once its hello has been said, or nil when none comes any more.
func (g *rogue) lane() *bulk.Lane {
	if g.lanes != nil {
		select {
		case l := <-g.lanes:
			return l
		case <-g.s.Context().Done():
			return nil
		}
	}
	l, err := bulk.Open(g.t.Context(), g.s, "transfer-data", &bulk.Options{Mode: bulk.Dedicated})
	require.NoError(g.t, err)
	_, _ = l.Write(wire.AppendLaneHello(nil, g.id))
	return l
}

// frame returns a data frame.
func frame(h wire.DataHeader, hash, body []byte) []byte {
	b := make([]byte, wire.DataHeaderSize)
	h.Hashed = hash != nil
	h.Length = uint32(len(body))
	h.Put(b)
	return append(append(b, hash...), body...)
}

// files are entries with the contents that they are to have; hashed says whether their hashes are known.
func files(t testing.TB, hashed bool, contents ...[]byte) []manifest.Entry {
	t.Helper()
	entries := make([]manifest.Entry, len(contents))
	for i, b := range contents {
		e := manifest.Entry{ID: uint32(i), Kind: manifest.KindFile, Perm: 0o644, Size: int64(len(b)), Path: string(rune('a' + i))}
		if hashed {
			e.Flags = manifest.FlagHashed
			e.Hash = rootOf(t, b)
		}
		entries[i] = e
	}
	return entries
}

// layerOf returns the chaining values of a content of several pieces.
func layerOf(t testing.TB, b []byte) []b3tree.CV {
	t.Helper()
	shape, err := b3tree.ShapeOf(int64(len(b)))
	require.NoError(t, err)
	cvs := make([]b3tree.CV, shape.Pieces())
	for i := range cvs {
		off, n := shape.Span(i)
		cvs[i], err = shape.PieceCV(i, b[off:off+int64(n)])
		require.NoError(t, err)
	}
	return cvs
}

func rootOf(t testing.TB, b []byte) [32]byte {
	t.Helper()
	shape, err := b3tree.ShapeOf(int64(len(b)))
	require.NoError(t, err)
	if shape.Pieces() < 2 {
		return b3tree.Sum(b)
	}
	root, err := shape.Fold(layerOf(t, b))
	require.NoError(t, err)
	return root
}

// random returns n bytes.
func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	fill(b, seed)
	return b
}

// attack is what a rogue sender does.
type attack struct {
	entries func(t testing.TB) []manifest.Entry // what a Fetch asks for; and what do lists, unless it says otherwise
	do      func(g *rogue, entries []manifest.Entry)
	code    transfer.Code
	rules   manifest.Rules
	setup   func(t *testing.T, to string) // of the destination
	keeps   bool                          // what it has left may stay, for another time
	names   int                           // how many right files it has brought
}

// within is how long, in virtual time, an attack may take.
const within = 3 * time.Minute

// guard makes a destination with neighbours, and returns what requires that they are as they were.
func guard(t *testing.T) (to string, untouched func()) {
	t.Helper()
	base := t.TempDir()
	to = filepath.Join(base, "to")
	require.NoError(t, os.MkdirAll(to, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(base, "victim"), []byte("as it was"), 0o600))
	return to, func() {
		t.Helper()
		all, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, all, 2)
		b, err := os.ReadFile(filepath.Join(base, "victim"))
		require.NoError(t, err)
		require.Equal(t, "as it was", string(b))
	}
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// push runs an attack on a Service, and then an honest push.
func (a attack) push(t *testing.T) {
	to, untouched := guard(t)
	if a.setup != nil {
		a.setup(t, to)
	}
	honest := write(t, content{"honest": 300000})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		v := service(t, p, &transfer.ServiceConfig{Receive: func(_ context.Context, in transfer.Incoming) (*transfer.Destination, error) {
			rules := withLinks
			if in.Name != "tree" {
				rules = a.rules
			}
			return &transfer.Destination{Dir: to, ReceiveOptions: transfer.ReceiveOptions{Rules: &rules}}, nil
		}})
		began := time.Now()
		g := &rogue{t: t, s: p.Alice}
		g.hello(wire.Sender)
		_ = g.st.SetReadDeadline(began.Add(within))
		a.do(g, a.entries(t))
		code := g.why()
		require.Less(t, time.Since(began), within)
		require.Equal(t, a.code, code)
		_ = g.st.Reset(0)
		_, err := transfer.Push(t.Context(), always(p.Alice), walk(t, honest), nil).Wait()
		require.NoError(t, err)
		require.NoError(t, v.Close())
	})
	same(t, honest, filepath.Join(to, "tree"))
	require.NoError(t, os.RemoveAll(filepath.Join(to, "tree")))
	a.left(t, to)
	untouched()
}

// fetch runs an attack on a Fetch.
func (a attack) fetch(t *testing.T) {
	to, untouched := guard(t)
	if a.setup != nil {
		a.setup(t, to)
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		serveRogue(t, p, func(g *rogue) { a.do(g, a.entries(t)) })
		ref := transfer.Ref{Root: listed(t, a.entries(t)).Root, Token: []byte("any")}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		o := transfer.ReceiveOptions{Rules: &a.rules, Options: transfer.Options{ResumeWindow: -1}}
		_, err := transfer.Fetch(ctx, []transfer.Dialer{always(p.Alice)}, ref, to, &o).Wait()
		var e *transfer.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, a.code, e.Code, "%v", err)
		require.NoError(t, ctx.Err())
	})
	a.left(t, to)
	untouched()
}

// left requires that nothing was published.
func (a attack) left(t *testing.T, to string) {
	t.Helper()
	all, err := os.ReadDir(to)
	require.NoError(t, err)
	published := 0
	for _, d := range all {
		if strings.HasPrefix(d.Name(), ".xfer-") {
			require.True(t, a.keeps, "%s is left", d.Name())
		} else if a.setup == nil {
			published++
		}
	}
	require.LessOrEqual(t, published, a.names)
}

// serveRogue has bob be a rogue sender for each transfer that is fetched from him.
func serveRogue(t *testing.T, p *peerlanetest.Sessions, do func(g *rogue)) {
	lanes := make(chan *bulk.Lane, 100)
	over := t.Context().Done()
	bulk.Handle(p.ToBob, "transfer-data", nil, func(l *bulk.Lane) {
		hello := make([]byte, wire.LaneHelloSize)
		if _, err := io.ReadFull(l, hello); err != nil {
			return
		}
		select {
		case lanes <- l:
		default:
		}
		_, _ = l.Read(hello[:1]) // until it is over
	})
	p.ToBob.SetStream("transfer", func(st *session.Stream) {
		g := &rogue{t: t, s: st.Session(), st: st, in: wire.NewReader(st), lanes: lanes}
		f, ok := g.expect(wire.KindHello)
		if !ok {
			return
		}
		h, err := wire.ConsumeHello(f.Body)
		require.NoError(t, err)
		g.id = h.ID
		g.send(wire.KindHello, false, wire.Hello{Role: wire.Sender, Lanes: 4, ID: h.ID}.Append)
		do(g)
		for {
			if _, err := g.in.Read(); err != nil {
				return
			}
			select {
			case <-over:
				return
			default:
			}
		}
	})
}
