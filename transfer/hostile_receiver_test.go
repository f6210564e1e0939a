package transfer_test

import (
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/source"
)

// demand is what a rogue receiver does once it has been listed to.
type demand struct {
	do     func(g *rogue)
	hashed bool
	early  bool // it does not ACCEPT
}

func wants(items ...wire.Want) func(*rogue) {
	return func(g *rogue) {
		g.send(wire.KindWant, false, func(b []byte) []byte { return wire.AppendWants(b, items) })
	}
}

func wantsHash(kind wire.Kind, file uint32) func(*rogue) {
	return func(g *rogue) { g.send(kind, false, func(b []byte) []byte { return wire.AppendFile(b, file) }) }
}

// The tree that they are after: the folder, "large" of 16 pieces, "small".
var prey = content{"large": 4 << 20, "small": 100}

var demands = map[string]demand{
	"a file that there is not": {do: wants(wire.Want{File: 3, Files: 1})},
	"files beyond the end":     {do: wants(wire.Want{File: 1, Files: 3})},
	"2^32-1 files":             {do: wants(wire.Want{File: 1, Files: 1<<32 - 1})},
	"the file 2^32-1":          {do: wants(wire.Want{File: 1<<32 - 1, Files: 1})},
	"no file":                  {do: wants(wire.Want{File: 1})},
	"a folder":                 {do: wants(wire.Want{File: 0, Files: 1})},
	"everything, again and again": {do: func(g *rogue) {
		items := slices.Repeat([]wire.Want{{File: 0, Files: 3}}, wire.MaxWants)
		wants(items...)(g)
		wants(items...)(g)
	}},
	"a piece that there is not": {do: wants(wire.Want{File: 1, Files: 1, Piece: 16, Pieces: 1})},
	"pieces beyond the end":     {do: wants(wire.Want{File: 1, Files: 1, Piece: 1, Pieces: 16})},
	"2^32-1 pieces":             {do: wants(wire.Want{File: 1, Files: 1, Piece: 1, Pieces: 1<<32 - 1})},
	"pieces of several files":   {do: wants(wire.Want{File: 1, Files: 2, Piece: 1, Pieces: 1})},
	"a layer that there is not": {do: wantsHash(wire.KindWantLayer, 1)},
	"a root that there is":      {do: wantsHash(wire.KindWantRoot, 1), hashed: true},
	"the root of a folder":      {do: wantsHash(wire.KindWantRoot, 0)},
	"the layer of a small file": {do: wantsHash(wire.KindWantLayer, 2), hashed: true},
	"the layer of 2^32-1":       {do: wantsHash(wire.KindWantLayer, 1<<32-1), hashed: true},
	"FAILED of a file there is not": {do: func(g *rogue) {
		g.send(wire.KindFailed, false, func(b []byte) []byte { return wire.AppendFailed(b, 9, wire.Why{Code: "io"}) })
	}},
	"a frame of a sender":    {do: func(g *rogue) { g.send(wire.KindRoot, false, wire.Root{}.Append) }},
	"HELLO again":            {do: func(g *rogue) { g.send(wire.KindHello, false, wire.Hello{Role: wire.Receiver, Lanes: 1}.Append) }},
	"an unknown frame":       {do: func(g *rogue) { g.raw([]byte{0x7f, 0, 0, 0, 0, 0, 0, 0}) }},
	"COMPLETE that is none":  {do: func(g *rogue) { g.send(wire.KindComplete, false, nil) }},
	"ACCEPT twice":           {do: func(g *rogue) { g.send(wire.KindAccept, false, nil) }},
	"WANT before ACCEPT":     {do: wants(wire.Want{File: 1, Files: 1}), early: true},
	"COMPLETE before ACCEPT": {do: func(g *rogue) { g.send(wire.KindComplete, false, wire.Summary{}.Append) }, early: true},
	"a flood of WANT": {do: func(g *rogue) {
		items := make([]wire.Want, wire.MaxWants)
		for i := range items {
			items[i] = wire.Want{File: 1, Files: 1}
		}
		for range 100 {
			wants(items...)(g)
		}
	}},
}

// prowl runs a rogue receiver on a Service that shares prey, and then an honest Fetch.
func prowl(t *testing.T, hashed, early bool, do func(t *testing.T, g *rogue)) {
	t.Helper()
	from, to := write(t, prey), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p, tree := newPair(t), walk(t, from)
		if hashed {
			require.NoError(t, tree.Hash(t.Context(), &source.HashOptions{Workers: 1}))
		}
		v := service(t, p, nil)
		share, err := v.Share(tree, nil)
		require.NoError(t, err)
		g := &rogue{t: t, s: p.Alice}
		g.hello(wire.Receiver)
		_ = g.st.SetReadDeadline(time.Now().Add(within))
		g.send(wire.KindGet, false, wire.Get(share.Ref()).Append)
		_, ok := g.expect(wire.KindListed)
		require.True(t, ok)
		if !early {
			g.send(wire.KindAccept, false, nil)
		}
		do(t, g)
		_ = g.st.Reset(0)
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil).Wait()
		require.NoError(t, err)
		share.Close()
		require.NoError(t, v.Close())
	})
	same(t, from, filepath.Join(to, "tree"))
}

// Claim: transfer.CodeProtocol
func TestAReceiverThatBreaksTheProtocolIsEnded(t *testing.T) {
	for name, d := range demands {
		t.Run(name, func(t *testing.T) {
			prowl(t, d.hashed, d.early, func(t *testing.T, g *rogue) {
				d.do(g)
				require.Equal(t, transfer.CodeProtocol, g.why())
			})
		})
	}
}

func TestAReceiverThatReadsNothingCostsLittle(t *testing.T) {
	for name, flood := range map[string]func(g *rogue){
		"the lanes": func(g *rogue) {
			for range 4 {
				l := g.lane()
				_ = l.SetReadDeadline(time.Now().Add(-1))
			}
			wants(wire.Want{File: 1, Files: 1}, wire.Want{File: 1, Files: 1}, wire.Want{File: 1, Files: 1})(g)
		},
		"the layers": func(g *rogue) {
			for range 10000 {
				wantsHash(wire.KindWantLayer, 1)(g)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			prowl(t, true, false, func(t *testing.T, g *rogue) {
				before := heap()
				flood(g)
				synctest.Wait()
				time.Sleep(time.Minute) // in virtual time
				require.Less(t, heap()-before, int64(16<<20))
			})
		})
	}
}

func TestASenderBelievesNoMoreThanCanBe(t *testing.T) {
	from := write(t, prey)
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		begun := make(chan *transfer.Transfer, 1)
		share, err := service(t, p, nil).Share(walk(t, from), &transfer.ShareOptions{OnBegun: func(t *transfer.Transfer) { begun <- t }})
		require.NoError(t, err)
		defer share.Close()
		g := &rogue{t: t, s: p.Alice}
		g.hello(wire.Receiver)
		g.send(wire.KindGet, false, wire.Get(share.Ref()).Append)
		g.expect(wire.KindListed)
		g.send(wire.KindAccept, false, nil)
		g.send(wire.KindAck, false, wire.Ack{Durable: 1<<64 - 1, Verified: 1<<64 - 1, Published: 1<<32 - 1}.Append)
		synctest.Wait()
		sent := <-begun
		now := sent.Progress()
		require.Equal(t, now.Bytes, now.Durable)
		require.Equal(t, now.Bytes, now.Verified)
		require.Equal(t, 2, now.FilesDone)
		g.send(wire.KindComplete, false, wire.Summary{Bytes: 1<<64 - 1, Files: 1<<32 - 1}.Append)
		_, ok := g.expect(wire.KindComplete)
		require.True(t, ok)
		_ = g.st.Close()
		result, err := sent.Wait()
		require.NoError(t, err)
		require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
	})
}

// Claim: transfer.Ref.Root
func TestWhatIsSharedTakesItsToken(t *testing.T) {
	from := write(t, few)
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		share, err := service(t, p, nil).Share(walk(t, from), nil)
		require.NoError(t, err)
		defer share.Close()
		right := share.Ref()
		for name, ref := range map[string]transfer.Ref{
			"no token":       {Root: right.Root},
			"another token":  {Root: right.Root, Token: make([]byte, 16)},
			"a longer token": {Root: right.Root, Token: append(right.Token[:16:16], 0)},
			"another root":   {Token: right.Token},
		} {
			_, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, ref, t.TempDir(), nil).Wait()
			require.Equal(t, transfer.CodeNotFound, transfer.CodeOf(err), "%s: %v", name, err)
		}
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, right, t.TempDir(), nil).Wait()
		require.NoError(t, err)
	})
}

// Claim: transfer.CodeBusy, transfer.ServiceConfig.Pending
func TestTransfersOfOnePeerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		service(t, p, &transfer.ServiceConfig{Pending: 3})
		open := make([]*session.Stream, 3)
		for i := range open {
			g := &rogue{t: t, s: p.Alice}
			g.hello(wire.Receiver) // and no more
			open[i] = g.st
		}
		once := transfer.ReceiveOptions{Options: transfer.Options{ResumeWindow: -1}}
		_, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{}, t.TempDir(), &once).Wait()
		require.Equal(t, transfer.CodeBusy, transfer.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "try again")
		began := time.Now()
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{}, t.TempDir(), nil).Wait()
		require.Equal(t, transfer.CodeNotFound, transfer.CodeOf(err), "it comes again, when those are given up: %v", err)
		require.Greater(t, time.Since(began), 10*time.Second)
		for _, st := range open {
			_ = st.Reset(0)
		}
	})
}
