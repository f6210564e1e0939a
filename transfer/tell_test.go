package transfer_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// Claim: transfer.Incoming.Peer, transfer.Incoming.Name, transfer.Incoming.ID, transfer.Incoming.Files, transfer.Incoming.Bytes
// Claim: transfer.Incoming.Entries, transfer.Result.Name, transfer.Result.ID, transfer.Result.Took, transfer.Result.Progress
// Claim: transfer.ServiceConfig.Admit
func TestAPushTellsWhatItIsAndWhatBecameOfIt(t *testing.T) {
	from := write(t, content{"a": 10, "d/b": 1 << 20, "empty": 0})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		to := t.TempDir()
		var asked []string
		refuse := true
		var in transfer.Incoming
		service(t, p, &transfer.ServiceConfig{
			Admit: func(peer string) error {
				asked = append(asked, peer)
				if refuse {
					return &transfer.Error{Code: transfer.CodeDenied, Text: "not you"}
				}
				return nil
			},
			Receive: func(_ context.Context, what transfer.Incoming) (*transfer.Destination, error) {
				in = what
				time.Sleep(time.Minute)
				return &transfer.Destination{Dir: to}, nil
			},
		})
		tree := walk(t, from)
		_, err := transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
		var e *transfer.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, transfer.CodeDenied, e.Code)
		require.Equal(t, "not you", e.Text)
		require.Zero(t, in, "Receive is not asked then")

		refuse = false
		sent := transfer.Push(t.Context(), func(ctx context.Context) (*session.Session, error) {
			time.Sleep(time.Hour) // until the peer is there: that is not the time of the transfer
			return p.Alice, nil
		}, tree, nil)
		result, err := sent.Wait()
		require.NoError(t, err)
		require.Equal(t, []string{"alice", "alice"}, asked)
		require.Equal(t, "alice", in.Peer)
		require.Equal(t, "tree", in.Name)
		require.Equal(t, 3, in.Files)
		require.EqualValues(t, 10+1<<20, in.Bytes)
		require.Equal(t, tree.Entries(), in.Entries)
		require.Len(t, in.ID, 32)
		require.Equal(t, in.ID, result.ID)
		require.Equal(t, "tree", result.Name)
		require.True(t, result.Took >= time.Minute && result.Took < 2*time.Minute, "%v", result.Took)
		require.Equal(t, sent.Progress(), result.Progress)
		require.Equal(t, 3, result.Progress.FilesDone)
	})
}

// Claim: transfer.Snapshot.Number, transfer.Snapshot.ID, transfer.Snapshot.Name, transfer.Snapshot.Peer, transfer.Snapshot.Receiving
// Claim: transfer.Snapshot.Began, transfer.Snapshot.Progress, transfer.Snapshot.Sources, transfer.Snapshot.Failed, transfer.Snapshot.Err
// Claim: transfer.Source.Peer, transfer.Source.Lanes, transfer.Source.Bytes, transfer.Source.Rate, transfer.Source.Wanted
// Claim: transfer.Progress.Rate, transfer.Progress.ETA, transfer.Progress.Crossed, transfer.Progress.Lanes
// Claim: transfer.ShareOptions.OnBegun
func TestASnapshotShowsATransferAsItStands(t *testing.T) {
	const rate, size = 1 << 20, 32 << 20
	from := write(t, content{"large": size})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		var begun atomic.Pointer[transfer.Transfer]
		share, err := service(t, p, nil).Share(hashedTree(t, from), &transfer.ShareOptions{Name: "holiday",
			OnBegun: func(t *transfer.Transfer) { begun.Store(t) }})
		require.NoError(t, err)
		defer share.Close()
		var registry transfer.Registry
		began := time.Now()
		got := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), t.TempDir(), &transfer.ReceiveOptions{
			Options: transfer.Options{Rate: rate, Registry: &registry}})
		time.Sleep(12 * time.Second)
		synctest.Wait()
		all := registry.Snapshots()
		require.Len(t, all, 1)
		now := all[0]
		require.NotZero(t, now.Number)
		require.Equal(t, share.Ref().ID(), now.ID)
		require.Equal(t, "tree", now.Name, "the name of what it brings")
		require.Equal(t, "bob", now.Peer)
		require.True(t, now.Receiving)
		require.Equal(t, began, now.Began)
		require.Zero(t, now.Failed)
		require.NoError(t, now.Err)
		pr := now.Progress
		require.InDelta(t, 12*rate, pr.Verified, 2*rate)
		require.InDelta(t, rate, pr.Rate, rate/2)
		require.InDelta(t, (size-float64(pr.Verified))/pr.RateSlow, pr.ETA.Seconds(), 1)
		require.Greater(t, pr.Crossed, pr.Verified, "with their frames")
		require.Less(t, pr.Crossed, pr.Verified+4<<20)
		require.Equal(t, 1, pr.Lanes)
		require.Len(t, now.Sources, 1)
		s := now.Sources[0]
		require.Equal(t, "bob", s.Peer)
		require.Equal(t, 1, s.Lanes)
		require.Equal(t, pr.Verified, s.Bytes)
		require.InDelta(t, rate, s.Rate, rate/2)
		require.Positive(t, s.Wanted)
		sending := begun.Load().Snapshot()
		require.False(t, sending.Receiving)
		require.Equal(t, "alice", sending.Peer)
		require.Equal(t, "holiday", sending.Name)
		require.Empty(t, sending.Sources)
		require.NotEqual(t, now.Number, sending.Number)

		got.Cancel()
		_, err = got.Wait()
		require.Error(t, err)
		require.Equal(t, err, got.Snapshot().Err)
		require.Empty(t, registry.Snapshots())
	})
}

// Claim: transfer.Error.Op, transfer.Error.Peer, transfer.Error.Err, transfer.Event.Peer, transfer.Event.Err
func TestAFileThatFailsIsToldWithWhomAndWhy(t *testing.T) {
	from := write(t, content{"a": 10, "b": 300000})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		share, err := service(t, p, nil).Share(walk(t, from), nil)
		require.NoError(t, err)
		defer share.Close()
		require.NoError(t, os.Remove(filepath.Join(from, "b")))
		var k told
		got := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), t.TempDir(), &transfer.ReceiveOptions{
			Options: transfer.Options{OnEvent: k.event}})
		_, err = got.Wait()
		require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(err), "%v", err)
		require.Equal(t, 1, got.Snapshot().Failed)
		require.Len(t, k.events, 1)
		e := k.events[0]
		require.Equal(t, transfer.EventFileFailed, e.Kind)
		require.Equal(t, "bob", e.Peer)
		require.Equal(t, "tree/b", e.Path)
		require.Equal(t, err, e.Err)
	})
	gone := errors.New("gone")
	_, err := transfer.Push(t.Context(), func(context.Context) (*session.Session, error) { return nil, gone }, walk(t, write(t, few)), nil).Wait()
	var e *transfer.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "push", e.Op)
	require.Empty(t, e.Peer, "it was not reached")
	require.ErrorIs(t, e.Err, gone)
	p := newPair(t) // whose peer serves no transfers
	for op, run := range map[string]func() *transfer.Transfer{
		"push": func() *transfer.Transfer {
			return transfer.Push(t.Context(), always(p.Alice), walk(t, write(t, few)), &transfer.Options{ResumeWindow: -1})
		},
		"fetch": func() *transfer.Transfer {
			return transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, transfer.Ref{}, t.TempDir(),
				&transfer.ReceiveOptions{Options: transfer.Options{ResumeWindow: -1}})
		},
	} {
		_, err := run().Wait()
		require.ErrorAs(t, err, &e)
		require.Equal(t, op, e.Op)
		require.Equal(t, "bob", e.Peer)
		require.ErrorIs(t, e.Err, session.ErrNotFound)
	}
}

// Claim: transfer.ReceiveOptions.Overwrite
func TestOverwriteReplacesAFileAndNeverAFolder(t *testing.T) {
	from := write(t, content{"f": 10, "g": 20})
	for _, overwrite := range []bool{false, true} {
		for _, folder := range []bool{false, true} {
			to := t.TempDir()
			mine, inWay := filepath.Join(to, "tree", "f"), filepath.Join(to, "tree", "g")
			require.NoError(t, os.Mkdir(filepath.Dir(mine), 0o755))
			require.NoError(t, os.WriteFile(mine, []byte("mine"), 0o600))
			if folder {
				require.NoError(t, os.Mkdir(inWay, 0o755))
			}
			p := newPair(t)
			_, err := moved(t.Context(), t, "fetch", p, walk(t, from), to, transfer.ReceiveOptions{Overwrite: overwrite})
			if overwrite && !folder {
				require.NoError(t, err)
				same(t, from, filepath.Join(to, "tree"))
				continue
			}
			require.Equal(t, transfer.CodeExists, transfer.CodeOf(err), "%v", err)
			if folder {
				require.DirExists(t, inWay)
			}
			if !overwrite {
				b, err := os.ReadFile(mine)
				require.NoError(t, err)
				require.Equal(t, "mine", string(b))
			}
		}
	}
}

// patient counts what a disk is asked to make durable.
type patient struct {
	staging.FS
	syncs *atomic.Int32
}

func (d patient) SyncDir(name string) error {
	d.syncs.Add(1)
	return d.FS.SyncDir(name)
}

// Claim: transfer.ReceiveOptions.Sync
func TestSyncSaysWhetherTheDiskIsWaitedFor(t *testing.T) {
	from := write(t, few)
	for policy, waits := range map[staging.SyncPolicy]bool{staging.SyncBatch: true, staging.SyncEach: true, staging.SyncNone: false} {
		var syncs atomic.Int32
		transfer.SetDisk(t, func(disk staging.FS) staging.FS { return patient{disk, &syncs} })
		p, to := newPair(t), t.TempDir()
		_, err := moved(t.Context(), t, "fetch", p, walk(t, from), to, transfer.ReceiveOptions{Sync: policy})
		require.NoError(t, err)
		same(t, from, filepath.Join(to, "tree"))
		require.Equal(t, waits, syncs.Load() > 0, "%v: %d", policy, syncs.Load())
	}
}

// Claim: transfer.Options.Lanes
func TestLanesIsWhatASideSaysThatItTakes(t *testing.T) {
	for set, want := range map[int]int{0: 4, 1: 1, 16: 16} {
		p := newPair(t)
		service(t, p, &transfer.ServiceConfig{Options: transfer.Options{Lanes: set}})
		st, err := p.Alice.OpenStream(t.Context(), "transfer", nil)
		require.NoError(t, err)
		_, err = st.Write(wire.AppendFrame(nil, wire.KindHello, false, wire.Hello{Role: wire.Receiver, Lanes: 16, ID: wire.ID{1}}.Append))
		require.NoError(t, err)
		f, err := wire.NewReader(st).Read()
		require.NoError(t, err)
		h, err := wire.ConsumeHello(f.Body)
		require.NoError(t, err)
		require.Equal(t, want, h.Lanes)
		require.NoError(t, st.Close())
	}
	for _, lanes := range []int{-1, 17} {
		_, err := transfer.NewService(&transfer.ServiceConfig{Options: transfer.Options{Lanes: lanes}})
		require.Equal(t, transfer.CodeInvalid, transfer.CodeOf(err))
		require.ErrorContains(t, err, "Options.Lanes")
	}
}

// Claim: transfer.Options.Compress
func TestCompressSparesTheLinkWhenBothSidesSayIt(t *testing.T) {
	from := write(t, content{"x": 0})
	text := strings.Repeat("the same words again and again, which is what zstd likes; ", 40000) // 2.3 MB
	require.NoError(t, os.WriteFile(filepath.Join(from, "x"), []byte(text), 0o600))
	took := map[[2]bool]time.Duration{}
	for _, here := range []bool{false, true} {
		for _, there := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Rate: 100 << 10})
				cfg := into(t.TempDir(), transfer.ReceiveOptions{})
				cfg.Compress = there
				service(t, p, cfg)
				began := time.Now()
				_, err := transfer.Push(t.Context(), always(p.Alice), walk(t, from), &transfer.Options{Compress: here}).Wait()
				require.NoError(t, err)
				took[[2]bool{here, there}] = time.Since(began)
			})
		}
	}
	require.Less(t, took[[2]bool{true, true}], 5*time.Second)
	for _, v := range [][2]bool{{false, false}, {true, false}, {false, true}} {
		require.Greater(t, took[v], 20*time.Second, "%v", v)
	}
}

// scarce is a carrier that lets through a limited number of bytes.
type scarce struct{ net.Conn }

func (scarce) Limited() bool { return true }

// The opener decides, whichever way the data goes.
// Claim: transfer.Options.AllowLimited
func TestDataWaitsOnALimitedConnectionUnlessItIsAllowed(t *testing.T) {
	from := write(t, few)
	for _, test := range []struct{ push, allow bool }{{true, false}, {true, true}, {false, false}, {false, true}} {
		synctest.Test(t, func(t *testing.T) {
			var serving sync.WaitGroup
			defer serving.Wait()
			mux := session.NewMux()
			a, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Local: "bob", Mux: mux}})
			require.NoError(t, err)
			limited := true
			open := func(context.Context, session.Want) (net.Conn, error) {
				here, there := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
				serving.Go(func() { _ = a.Serve(there, "alice") })
				if limited {
					return scarce{here}, nil
				}
				return here, nil
			}
			first, _ := open(t.Context(), session.Want{})
			s, err := session.Dial(t.Context(), first, "bob", open, &session.Config{Local: "alice"})
			require.NoError(t, err)
			defer func() { _ = s.Close() }()
			patient := transfer.ReceiveOptions{Options: transfer.Options{AllowLimited: test.allow, StallAfter: time.Hour}}
			v, err := transfer.NewService(into(t.TempDir(), transfer.ReceiveOptions{Options: transfer.Options{StallAfter: time.Hour}}))
			require.NoError(t, err)
			v.Handle(mux)
			defer func() { require.NoError(t, v.Close()) }()
			var sent *transfer.Transfer
			if test.push {
				sent = transfer.Push(t.Context(), always(s), walk(t, from), &transfer.Options{AllowLimited: test.allow})
			} else {
				share, err := v.Share(walk(t, from), nil)
				require.NoError(t, err)
				sent = transfer.Fetch(t.Context(), []transfer.Dialer{always(s)}, share.Ref(), t.TempDir(), &patient)
			}
			time.Sleep(20 * time.Second)
			synctest.Wait()
			select {
			case <-sent.Done():
				require.True(t, test.allow, "it has not waited")
			default:
				require.False(t, test.allow, "it waits")
			}
			limited = false
			require.NoError(t, s.Reconnect(t.Context()))
			_, err = sent.Wait()
			require.NoError(t, err)
		})
	}
}
