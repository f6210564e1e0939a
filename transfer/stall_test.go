package transfer_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// told keeps the events of a transfer.
type told struct {
	mu     sync.Mutex
	events []transfer.Event
}

func (k *told) event(e transfer.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, e)
}

func (k *told) kinds() (all []transfer.EventKind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.events {
		all = append(all, e.Kind)
	}
	return all
}

// Claim: transfer.Options.Rate
func TestASlowTransferIsNoStall(t *testing.T) {
	for way := range ways {
		for _, slow := range []string{"sender", "receiver"} {
			t.Run(way+", the "+slow, func(t *testing.T) {
				from, to := write(t, content{"large": 1 << 20}), t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					const rate = 4 << 10
					var k told
					sends, takes := transfer.Options{Rate: rate}, transfer.Options{OnEvent: k.event}
					if slow == "receiver" {
						sends.Rate, takes.Rate = 0, rate
					}
					p, tree := newPair(t), walk(t, from)
					began := time.Now()
					if way == "push" {
						service(t, p, into(to, transfer.ReceiveOptions{Options: takes}))
						_, err := transfer.Push(t.Context(), always(p.Alice), tree, &sends).Wait()
						require.NoError(t, err)
					} else {
						if way == "fetch hashed" {
							require.NoError(t, tree.Hash(t.Context(), &source.HashOptions{Workers: 1}))
						}
						share, err := service(t, p, &transfer.ServiceConfig{Options: sends}).Share(tree, nil)
						require.NoError(t, err)
						o := transfer.ReceiveOptions{Options: takes}
						_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, &o).Wait()
						require.NoError(t, err)
						share.Close()
					}
					require.Empty(t, k.kinds())
					want := time.Duration(1<<20-256<<10) * time.Second / rate // a burst is free
					require.InDelta(t, want.Seconds(), time.Since(began).Seconds(), want.Seconds()/10)
				})
				same(t, from, filepath.Join(to, "tree"))
			})
		}
	}
}

func TestAStalledTransferGetsOtherLanesAndIsThenGivenUp(t *testing.T) {
	for _, way := range []string{"push", "fetch hashed"} {
		t.Run(way, func(t *testing.T) {
			from, to := write(t, content{"large": 4 << 20}), t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var k told
				p := newPair(t)
				p.OnLink(func(l *peerlanetest.Link) { l.Freeze() }) // no lane says anything
				tree := walk(t, from)
				o := transfer.ReceiveOptions{Options: transfer.Options{OnEvent: k.event, ResumeWindow: -1}}
				began := time.Now()
				_, err := moved(t.Context(), t, way, p, tree, to, o)
				require.Equal(t, transfer.CodeStalled, transfer.CodeOf(err), "%v", err)
				require.Less(t, time.Since(began), 4*time.Minute)
				if way != "push" {
					require.Equal(t, []transfer.EventKind{transfer.EventStalled}, k.kinds(), "once for one stall")
				}
			})
		})
	}
}

func TestALaneThatStallsIsReplaced(t *testing.T) {
	from, to := write(t, content{"large": 4 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var k told
		p := peerlanetest.NewSessions(t, nil)
		time.AfterFunc(2*time.Second, func() {
			for _, l := range p.Links()[1:] { // but that of control
				l.Freeze()
			}
		})
		o := transfer.ReceiveOptions{Options: transfer.Options{OnEvent: k.event, Rate: 1 << 20}}
		began := time.Now()
		result, err := moved(t.Context(), t, "fetch", p, walk(t, from), to, o)
		require.NoError(t, err)
		require.Less(t, time.Since(began), 40*time.Second)
		require.Equal(t, []transfer.EventKind{transfer.EventStalled}, k.kinds())
		require.Equal(t, 1, result.Progress.Stalls)
	})
	same(t, from, filepath.Join(to, "tree"))
}

// Claim: transfer.CodeCanceled, transfer.ServiceConfig.OnBegun
func TestAStopIsToldByItsName(t *testing.T) {
	from := write(t, content{"large": 16 << 20})
	for name, stop := range map[string]func(ctx context.Context, t *transfer.Transfer) context.Context{
		"Cancel": func(ctx context.Context, got *transfer.Transfer) context.Context {
			time.AfterFunc(time.Second, got.Cancel)
			return ctx
		},
		"the end of ctx": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				var sent *transfer.Transfer
				begun := make(chan struct{})
				v := service(t, p, &transfer.ServiceConfig{OnBegun: func(t *transfer.Transfer) {
					sent = t
					close(begun)
				}, Options: transfer.Options{Rate: 1 << 20}})
				share, err := v.Share(walk(t, from), nil)
				require.NoError(t, err)
				defer share.Close()
				ctx := t.Context()
				if stop == nil {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Second)
					defer cancel()
				}
				got := transfer.Fetch(ctx, []transfer.Dialer{always(p.Alice)}, share.Ref(), t.TempDir(), nil)
				if stop != nil {
					stop(ctx, got)
				}
				_, err = got.Wait()
				require.Equal(t, transfer.CodeCanceled, transfer.CodeOf(err), "%v", err)
				if stop == nil {
					require.ErrorIs(t, err, context.DeadlineExceeded)
				} else {
					require.ErrorIs(t, err, context.Canceled)
				}
				<-begun
				_, err = sent.Wait()
				var e *transfer.Error
				require.ErrorAs(t, err, &e)
				require.True(t, e.Remote)
				require.Equal(t, transfer.CodeCanceled, e.Code)
			})
		})
	}
}

// Claim: transfer.Options.Registry, transfer.Progress.Phase, transfer.Progress.Verified, transfer.Progress.Durable
// Claim: transfer.Progress.FilesDone, transfer.Progress.Bytes, transfer.Progress.RateSlow
func TestWatchShowsATransferThatOnlyRises(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from := write(t, content{"large": 4 << 20, "a": 1, "b": 70000, "c": 300000})
			synctest.Test(t, func(t *testing.T) {
				var registry transfer.Registry
				p, tree, to := newPair(t), walk(t, from), t.TempDir()
				limited := transfer.Options{Rate: 1 << 20, Registry: &registry}
				var watched *transfer.Transfer
				if way == "push" {
					service(t, p, into(to, transfer.ReceiveOptions{}))
					watched = transfer.Push(t.Context(), always(p.Alice), tree, &limited)
				} else {
					if way == "fetch hashed" {
						require.NoError(t, tree.Hash(t.Context(), &source.HashOptions{Workers: 1}))
					}
					share, err := service(t, p, nil).Share(tree, nil)
					require.NoError(t, err)
					defer share.Close()
					o := transfer.ReceiveOptions{Options: limited}
					watched = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, &o)
				}
				var last transfer.Progress
				n := 0
				for now := range watched.Watch(t.Context(), 50*time.Millisecond) {
					require.GreaterOrEqual(t, now.Verified, last.Verified)
					require.GreaterOrEqual(t, now.Durable, last.Durable)
					require.GreaterOrEqual(t, now.FilesDone, last.FilesDone)
					require.LessOrEqual(t, now.Durable, now.Bytes)
					if n > 40 && now.Phase == transfer.PhaseData {
						require.InDelta(t, 1<<20, now.RateSlow, 400<<10)
						require.Len(t, registry.Snapshots(), 1)
					}
					last = now
					n++
				}
				require.Greater(t, n, 60)
				result, err := watched.Wait()
				require.NoError(t, err)
				require.Equal(t, transfer.PhaseDone, last.Phase)
				require.Equal(t, result.Progress, last)
				require.Equal(t, last.Bytes, last.Verified)
				require.Equal(t, last.Bytes, last.Durable)
				require.Equal(t, 4, last.FilesDone)
				require.Empty(t, registry.Snapshots())
				require.Equal(t, last.Verified, watched.Snapshot().Progress.Verified)
			})
		})
	}
}
