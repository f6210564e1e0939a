package transfer_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// seed decides where the faults hit.
var seed = flag.Uint64("seed", 1, "of the random faults")

// few is what the faults are tried on: 4 MB, of every kind.
var few = content{"large": 3<<20 + 17, "two": 262145, "small/a": 4096, "small/b": 9, "small/c": 65536, "alone": 200000, "empty": 0}

// hour is longer than any transfer takes, in virtual time.
const hour = time.Hour

// again is a Dialer that makes another session when the last one is over.
func again(t testing.TB, p *peerlanetest.Sessions) transfer.Dialer {
	var mu sync.Mutex
	s := p.Alice
	return func(context.Context) (*session.Session, error) {
		mu.Lock()
		defer mu.Unlock()
		if s.Context().Err() != nil {
			s, _ = p.Dial(t)
		}
		return s, nil
	}
}

// run moves a tree in one of the three ways, by a Dialer.
func run(ctx context.Context, t testing.TB, way string, p *peerlanetest.Sessions, dial transfer.Dialer, tree *source.Tree, to string) (transfer.Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, hour) // a transfer that hangs fails
	defer cancel()
	o := transfer.ReceiveOptions{Verify: transfer.VerifyAll}
	if way == "push" {
		v := service(t, p, into(to, o))
		defer func() { require.NoError(t, v.Close()) }()
		return transfer.Push(ctx, dial, tree, nil).Wait()
	}
	if way == "fetch hashed" {
		require.NoError(t, tree.Hash(t.Context(), nil))
	}
	v := service(t, p, nil)
	defer func() { require.NoError(t, v.Close()) }()
	share, err := v.Share(tree, nil)
	require.NoError(t, err)
	defer share.Close()
	return transfer.Fetch(ctx, []transfer.Dialer{dial}, share.Ref(), to, &o).Wait()
}

func TestATransferSurvivesCuts(t *testing.T) {
	from := write(t, few)
	for way := range ways {
		for _, cuts := range []int64{1, 10, 30} {
			t.Run(fmt.Sprintf("%s, %d cuts", way, cuts), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					random := rand.New(rand.NewPCG(*seed, uint64(cuts)))
					left := atomic.Int64{}
					left.Store(cuts)
					p := newPair(t)
					p.OnLink(func(l *peerlanetest.Link) { // guarded by the pair
						if left.Add(-1) >= 0 {
							l.CutAfter(random.Int64N(3 << 20 / cuts))
						}
					})
					p.Links()[0].CutAfter(random.Int64N(2000)) // control
					to := t.TempDir()
					result, err := run(t.Context(), t, way, p, again(t, p), walk(t, from), to)
					require.NoError(t, err)
					same(t, from, filepath.Join(to, "tree"))
					require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
					require.Equal(t, result.Progress.Files, result.Progress.FilesDone)
					require.Negative(t, left.Load())
				})
			})
		}
	}
}

func TestATransferSurvivesTheLossOfItsSession(t *testing.T) {
	from := write(t, few)
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(*seed, 3))
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{ResumeWindow: -1}})
				lost := 0
				p.OnLink(func(l *peerlanetest.Link) {
					if lost++; lost <= 10 {
						l.CutAfter(random.Int64N(1 << 20))
					}
				})
				p.Links()[0].CutAfter(100000)
				to := t.TempDir()
				result, err := run(t.Context(), t, way, p, again(t, p), walk(t, from), to)
				require.NoError(t, err)
				same(t, from, filepath.Join(to, "tree"))
				require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
				require.Positive(t, lost)
			})
		})
	}
}

func TestACancelledTransferLeavesNothingRunningAndIsGoneOnWith(t *testing.T) {
	from := write(t, few)
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			to := t.TempDir()
			random := rand.New(rand.NewPCG(*seed, 5))
			for range 15 {
				synctest.Test(t, func(t *testing.T) {
					p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Millisecond})
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.Int64N(int64(40*time.Millisecond))))
					defer cancel()
					_, err := run(ctx, t, way, p, always(p.Alice), walk(t, from), to)
					if err != nil {
						require.ErrorIs(t, err, context.DeadlineExceeded)
					}
				})
			}
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				_, err := run(t.Context(), t, way, p, always(p.Alice), walk(t, from), to)
				require.NoError(t, err)
			})
			same(t, from, filepath.Join(to, "tree"))
		})
	}
}

// moved moves a tree in one of the three ways, and returns the receiver's end of it.
func moved(
	ctx context.Context, t testing.TB, way string, p *peerlanetest.Sessions, tree *source.Tree, to string, o transfer.ReceiveOptions,
) (transfer.Result, error) {
	t.Helper()
	if way != "push" {
		if way == "fetch hashed" {
			require.NoError(t, tree.Hash(t.Context(), nil))
		}
		share, err := service(t, p, nil).Share(tree, nil)
		require.NoError(t, err)
		defer share.Close()
		return transfer.Fetch(ctx, []transfer.Dialer{always(p.Alice)}, share.Ref(), to, &o).Wait()
	}
	var got atomic.Pointer[transfer.Transfer] // the last one
	cfg := into(to, o)
	cfg.OnBegun = func(t *transfer.Transfer) { got.Store(t) }
	service(t, p, cfg)
	if _, err := transfer.Push(ctx, always(p.Alice), tree, nil).Wait(); err != nil {
		if t := got.Load(); t != nil {
			<-t.Done() // the state is free then
		}
		return transfer.Result{}, err
	}
	return got.Load().Wait()
}

func TestAFetchWaitsForItsPeerAndGoesOn(t *testing.T) {
	from, to := write(t, content{"large": 8 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		share, err := service(t, p, nil).Share(walk(t, from), nil)
		require.NoError(t, err)
		defer share.Close()
		time.AfterFunc(2*time.Second, func() { _, _ = p.Alice.Close(), p.Bob.Close() })
		dial := again(t, p)
		late := func(ctx context.Context) (*session.Session, error) {
			if p.Alice.Context().Err() != nil {
				time.Sleep(3 * time.Second) // in virtual time: the peer is not found at once
			}
			return dial(ctx)
		}
		o := transfer.ReceiveOptions{Options: transfer.Options{Rate: 1 << 20}}
		got := transfer.Fetch(t.Context(), []transfer.Dialer{late}, share.Ref(), to, &o)
		var phases []transfer.Phase
		for now := range got.Watch(t.Context(), 100*time.Millisecond) {
			if now.Phase != transfer.PhaseFinish && (len(phases) == 0 || phases[len(phases)-1] != now.Phase) { // that one may be too short to be seen
				phases = append(phases, now.Phase)
			}
		}
		require.Equal(t, []transfer.Phase{
			transfer.PhaseStart, transfer.PhaseData, transfer.PhaseWaiting, transfer.PhaseData, transfer.PhaseDone,
		}, phases)
	})
	same(t, from, filepath.Join(to, "tree"))
}

// Of a session that looks for another connection, nobody has to wait for the end to see that it does.
func TestAPeerThatIsAwayIsWaitedForAtOnce(t *testing.T) {
	from, to := write(t, content{"large": 8 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		share, err := service(t, p, nil).Share(walk(t, from), nil)
		require.NoError(t, err)
		defer share.Close()
		var back atomic.Bool
		p.OnLink(func(l *peerlanetest.Link) {
			if !back.Load() {
				l.Cut()
			}
		})
		time.AfterFunc(2*time.Second, p.Cut)
		time.AfterFunc(10*time.Second, func() { back.Store(true) })
		o := transfer.ReceiveOptions{Options: transfer.Options{Rate: 1 << 20}}
		back.Store(true) // until the lanes are open
		time.AfterFunc(time.Second, func() { back.Store(false) })
		began := time.Now()
		got := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, &o)
		var waited time.Duration
		for now := range got.Watch(t.Context(), 100*time.Millisecond) {
			if now.Phase == transfer.PhaseWaiting && waited == 0 {
				waited = time.Since(began)
			}
		}
		_, err = got.Wait()
		require.NoError(t, err)
		require.InDelta(t, 2.5, waited.Seconds(), 0.6)
	})
	same(t, from, filepath.Join(to, "tree"))
}
