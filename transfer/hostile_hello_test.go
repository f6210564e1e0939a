package transfer_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// answers are what a peer may say to HELLO, and the code that it has.
var answers = map[string]struct {
	say  func(g *rogue, h wire.Hello)
	code transfer.Code
}{
	"nothing":                {func(*rogue, wire.Hello) {}, transfer.CodeStalled},
	"half a HELLO":           {func(g *rogue, _ wire.Hello) { g.raw([]byte{1, 0, 0, 0, 0, 0}) }, transfer.CodeStalled},
	"the end":                {func(g *rogue, _ wire.Hello) { _ = g.st.Close() }, transfer.CodeLost},
	"another frame":          {func(g *rogue, _ wire.Hello) { g.send(wire.KindAccept, false, nil) }, transfer.CodeProtocol},
	"something else":         {func(g *rogue, _ wire.Hello) { g.raw([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, transfer.CodeProtocol},
	"a HELLO to someone":     {func(g *rogue, h wire.Hello) { h.ID[3]++; g.send(wire.KindHello, false, h.Append) }, transfer.CodeProtocol},
	"the role that we have":  {func(g *rogue, h wire.Hello) { h.Role = 3 - h.Role; g.send(wire.KindHello, false, h.Append) }, transfer.CodeProtocol},
	"no lanes":               {func(g *rogue, h wire.Hello) { h.Lanes = 0; g.send(wire.KindHello, false, h.Append) }, transfer.CodeProtocol},
	"more lanes than may be": {func(g *rogue, h wire.Hello) { h.Lanes = 17; g.send(wire.KindHello, false, h.Append) }, transfer.CodeProtocol},
	"another version": {func(g *rogue, h wire.Hello) {
		b := wire.AppendFrame(nil, wire.KindHello, false, h.Append)
		b[8+4]++
		g.raw(b)
	}, transfer.CodeProtocol},
	"no": {func(g *rogue, _ wire.Hello) {
		g.send(wire.KindAbort, false, wire.Why{Code: "denied", Text: "go away"}.Append)
	}, transfer.CodeDenied},
	"an ABORT that is none": {func(g *rogue, _ wire.Hello) {
		g.send(wire.KindAbort, false, func(b []byte) []byte { return append(b, 9, 'x') })
	}, transfer.CodeProtocol},
}

// A peer that answers HELLO with something else ends the attempt, whichever way the files go.
func TestAPeerThatAnswersSomethingElseIsNoPeer(t *testing.T) {
	from := write(t, content{"a": 10})
	for name, answer := range answers {
		for _, way := range []string{"push", "fetch"} {
			t.Run(name+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t)
					p.ToBob.SetStream("transfer", func(st *session.Stream) {
						g := &rogue{t: t, s: st.Session(), st: st, in: wire.NewReader(st)}
						f, ok := g.expect(wire.KindHello)
						require.True(t, ok)
						h, err := wire.ConsumeHello(f.Body)
						require.NoError(t, err)
						h.Role = 3 - h.Role
						answer.say(g, h)
						for ok {
							_, ok = g.expect(wire.KindAbort)
						}
					})
					ctx, cancel := context.WithTimeout(t.Context(), hour)
					defer cancel()
					o := transfer.ReceiveOptions{Options: transfer.Options{ResumeWindow: -1}}
					tr := transfer.Push(ctx, always(p.Alice), walk(t, from), &o.Options)
					if way == "fetch" {
						_, _ = tr.Wait()
						tr = transfer.Fetch(ctx, []transfer.Dialer{always(p.Alice)}, transfer.Ref{}, t.TempDir(), &o)
					}
					began := time.Now()
					_, err := tr.Wait()
					require.Equal(t, answer.code, transfer.CodeOf(err), "%v", err)
					require.Less(t, time.Since(began), time.Minute)
				})
			})
		}
	}
}

// beginnings are what an opener may begin with, and the code that it is told.
var beginnings = map[string]struct {
	say  func(g *rogue)
	code transfer.Code
}{
	"nothing":       {func(*rogue) {}, transfer.CodeStalled},
	"another frame": {func(g *rogue) { g.send(wire.KindGet, false, wire.Get{}.Append) }, transfer.CodeProtocol},
	"junk":          {func(g *rogue) { g.raw(bytes.Repeat([]byte{0xff}, 100)) }, transfer.CodeProtocol},
	"no role": {func(g *rogue) {
		g.send(wire.KindHello, false, wire.Hello{Role: 3, Lanes: 1}.Append)
	}, transfer.CodeProtocol},
	"HELLO, and nothing": {func(g *rogue) {
		g.send(wire.KindHello, false, wire.Hello{Role: wire.Receiver, Lanes: 1}.Append)
	}, transfer.CodeStalled},
	"HELLO, and another": {func(g *rogue) {
		g.send(wire.KindHello, false, wire.Hello{Role: wire.Receiver, Lanes: 1}.Append)
		g.send(wire.KindHello, false, wire.Hello{Role: wire.Receiver, Lanes: 1}.Append)
	}, transfer.CodeProtocol},
	"HELLO, and a GET of nothing": {func(g *rogue) {
		g.send(wire.KindHello, false, wire.Hello{Role: wire.Receiver, Lanes: 1}.Append)
		g.send(wire.KindGet, false, wire.Get{Root: [32]byte{1}}.Append)
	}, transfer.CodeNotFound},
	"HELLO, and a push that nobody takes": {func(g *rogue) {
		g.send(wire.KindHello, false, wire.Hello{Role: wire.Sender, Lanes: 1}.Append)
	}, transfer.CodeDenied},
}

func TestAnOpenerThatBeginsWithSomethingElseIsToldSo(t *testing.T) {
	for name, v := range beginnings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				service(t, p, nil)
				st, err := p.Alice.OpenStream(t.Context(), "transfer", nil)
				require.NoError(t, err)
				g := &rogue{t: t, s: p.Alice, st: st, in: wire.NewReader(st)}
				v.say(g)
				began := time.Now()
				require.Equal(t, v.code, g.why())
				require.Less(t, time.Since(began), time.Minute)
				_ = st.Close()
			})
		})
	}
}

// A lane that does not say whose it is, or says it wrongly, is dropped.
func TestALaneThatDoesNotSayWhoseItIsIsDropped(t *testing.T) {
	for name, hello := range map[string][]byte{
		"silent": nil, "half": wire.AppendLaneHello(nil, wire.ID{1})[:10], "junk": bytes.Repeat([]byte{7}, wire.LaneHelloSize),
		"of nobody": wire.AppendLaneHello(nil, wire.ID{9}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				service(t, p, nil)
				l, err := bulk.Open(t.Context(), p.Alice, "transfer-data", &bulk.Options{Mode: bulk.Dedicated})
				require.NoError(t, err)
				if len(hello) > 0 {
					_, err = l.Write(hello)
					require.NoError(t, err)
				}
				began := time.Now()
				_, err = l.Read(make([]byte, 1))
				require.Error(t, err)
				require.Less(t, time.Since(began), time.Minute)
				_ = l.Close()
			})
		})
	}
}

func TestATreeThatWasNotAskedForIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		serveRogue(t, p, func(g *rogue) {
			g.expect(wire.KindGet)
			g.list(oneFile(g.t))
		})
		o := transfer.ReceiveOptions{Options: transfer.Options{ResumeWindow: -1}}
		to := t.TempDir()
		_, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{Root: [32]byte{1}}, to, &o).Wait()
		require.Equal(t, transfer.CodeProtocol, transfer.CodeOf(err))
		require.ErrorContains(t, err, "another tree")
		all, err := transfer.FindUnfinished(to)
		require.NoError(t, err)
		require.Empty(t, all)
	})
}

// Without hashes nobody could say which of several sources sends the right bytes.
func TestSeveralSourcesNeedHashes(t *testing.T) {
	from := write(t, content{"a": 1000})
	synctest.Test(t, func(t *testing.T) {
		tree := walk(t, from)
		first, ref := shared(t, newPair(t), tree, transfer.Options{})
		second, _ := shared(t, newPair(t), tree, transfer.Options{})
		_, err := transfer.Fetch(t.Context(), []transfer.Dialer{first, second}, ref, t.TempDir(), nil).Wait()
		require.Equal(t, transfer.CodeInvalid, transfer.CodeOf(err))
		require.ErrorContains(t, err, "hashed before they were shared")
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{first}, ref, t.TempDir(), nil).Wait()
		require.NoError(t, err, "one alone may")
	})
}

// A layer may come in parts, in their order.
func TestALayerMayComeInParts(t *testing.T) {
	to := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		entries := files(t, true, three)
		serveRogue(t, p, func(g *rogue) {
			g.expect(wire.KindGet)
			g.list(entries)
			g.expect(wire.KindWantLayer)
			for i, cv := range layerOf(t, three) {
				g.send(wire.KindLayer, false, wire.Layer{First: uint32(i), CVs: b3tree.AppendLayer(nil, []b3tree.CV{cv})}.Append)
			}
			g.expect(wire.KindWant)
			l := g.lane()
			for i := range uint32(3) {
				end := min(len(three), int(i+1)*piece)
				_, _ = l.Write(frame(header(wire.Data, 0, i, 1), nil, three[int(i)*piece:end]))
			}
			g.expect(wire.KindComplete)
			g.send(wire.KindComplete, false, nil)
		})
		_, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{Root: listed(t, entries).Root}, to, nil).Wait()
		require.NoError(t, err)
	})
	require.Equal(t, string(three), read(t, to)["a"].Data)
}

// A transfer whose receiver says that a file is not wanted any more goes on with the others, and says so on this side too.
func TestAFileThatTheReceiverGivesUpFailsAtTheSender(t *testing.T) {
	from := write(t, content{"a": 100, "b": 200})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		v := service(t, p, nil)
		var served *transfer.Transfer
		share, err := v.Share(walk(t, from), &transfer.ShareOptions{OnBegun: func(tr *transfer.Transfer) { served = tr }})
		require.NoError(t, err)
		g := &rogue{t: t, s: p.Alice}
		g.hello(wire.Receiver)
		g.send(wire.KindGet, false, wire.Get(share.Ref()).Append)
		_, ok := g.expect(wire.KindListed)
		require.True(t, ok)
		g.send(wire.KindAccept, false, nil)
		for range 2 { // a second time says nothing new
			g.send(wire.KindFailed, false, func(b []byte) []byte {
				return wire.AppendFailed(b, 1, wire.Why{Code: "exists", Text: "there is one"})
			})
		}
		g.send(wire.KindPause, false, wire.Why{Code: "no_space", Text: "full"}.Append)
		synctest.Wait()
		require.Equal(t, transfer.PhasePaused, served.Progress().Phase)
		g.send(wire.KindResume, false, nil)
		synctest.Wait()
		require.Equal(t, transfer.PhaseData, served.Progress().Phase)
		g.send(wire.KindComplete, false, wire.Summary{Bytes: 200, Files: 1, Failed: 1}.Append)
		_, ok = g.expect(wire.KindComplete)
		require.True(t, ok)
		require.NoError(t, g.st.Close())
		result, err := served.Wait()
		require.Equal(t, transfer.CodeExists, transfer.CodeOf(err))
		require.Len(t, result.Failed, 1)
		e := result.Failed[0]
		require.Equal(t, "tree/a", e.Path)
		require.Equal(t, "send", e.Op)
		require.True(t, e.Remote)
		require.Equal(t, "there is one", e.Text)
		require.Equal(t, 1, result.Progress.FilesDone)
	})
}

// The transfers of a peer that has lost its connection make room for those that it begins again.
func TestLostTransfersMakeRoomForNewOnes(t *testing.T) {
	from := write(t, content{"a": 8 << 20})
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{ResumeWindow: time.Hour}})
		v := service(t, p, &transfer.ServiceConfig{Pending: 2, Options: transfer.Options{Rate: 1 << 20}})
		tree := walk(t, from)
		share, err := v.Share(tree, &transfer.ShareOptions{Many: true})
		require.NoError(t, err)
		for range 2 {
			transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), t.TempDir(), nil)
		}
		time.Sleep(time.Second)
		o := transfer.ReceiveOptions{Options: transfer.Options{ResumeWindow: -1}}
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), t.TempDir(), &o).Wait()
		require.Equal(t, transfer.CodeBusy, transfer.CodeOf(err), "%v", err)
		for _, l := range p.Links() {
			l.Vanish()
		}
		time.Sleep(2 * time.Minute) // its heartbeat misses it
		other, _ := p.Dial(t)
		to := t.TempDir()
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(other)}, share.Ref(), to, &o).Wait()
		require.NoError(t, err)
		same(t, from, filepath.Join(to, "tree"))
		die(p)
	})
}
