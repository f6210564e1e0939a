package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// die ends the session of a pair for good.
func die(p *peerlanetest.Sessions) { _, _ = p.Alice.Close(), p.Bob.Close() }

// A source that disappears for good takes nothing with it: the others deliver what it was asked for, and hardly anything crosses twice.
func TestWhatADeadSourceWasAskedForComesFromTheOthers(t *testing.T) {
	from, to := write(t, content{"large": 24 << 20, "small": 9000, "b/two": 300000}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		var k told
		var pairs []*peerlanetest.Sessions
		var dials []transfer.Dialer
		var ref transfer.Ref
		for range 3 {
			p := newPair(t)
			var dial transfer.Dialer
			dial, ref = shared(t, p, tree, transfer.Options{Rate: 2 << 20})
			pairs, dials = append(pairs, p), append(dials, dial)
		}
		time.AfterFunc(1*time.Second, func() { die(pairs[0]) })
		time.AfterFunc(2*time.Second, func() { die(pairs[2]) })
		o := transfer.ReceiveOptions{Options: transfer.Options{OnEvent: k.event, ResumeWindow: 5 * time.Second}}
		got := transfer.Fetch(t.Context(), dials, ref, to, &o)
		time.Sleep(500 * time.Millisecond)
		require.Len(t, got.Snapshot().Sources, 3)
		time.Sleep(3 * time.Second)
		require.Len(t, got.Snapshot().Sources, 1)
		result, err := got.Wait()
		require.NoError(t, err)
		require.Contains(t, k.kinds(), transfer.EventLost)
		require.NotContains(t, k.kinds(), transfer.EventFileFailed)
		require.Less(t, result.Progress.Crossed, 2*result.Progress.Bytes)
		require.Empty(t, got.Snapshot().Sources, "it is over")
	})
	same(t, from, filepath.Join(to, "tree"))
}

func TestAFetchWhoseSourcesAllDieSaysSoAndKeepsTheData(t *testing.T) {
	from, to := write(t, content{"large": 24 << 20}), t.TempDir()
	var id string
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		first, second := newPair(t), newPair(t)
		one, ref := shared(t, first, tree, transfer.Options{Rate: 1 << 20})
		two, _ := shared(t, second, tree, transfer.Options{Rate: 1 << 20})
		time.AfterFunc(6*time.Second, func() { die(first); die(second) })
		o := transfer.ReceiveOptions{Options: transfer.Options{ResumeWindow: 10 * time.Second}}
		began := time.Now()
		result, err := transfer.Fetch(t.Context(), []transfer.Dialer{one, two}, ref, to, &o).Wait()
		require.Equal(t, transfer.CodeLost, transfer.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "no source is left")
		require.Less(t, time.Since(began), 30*time.Second)
		require.Positive(t, result.Progress.Durable)
		require.Equal(t, transfer.PhaseFailed, result.Progress.Phase)
		id = result.ID
	})
	all, err := transfer.FindUnfinished(to)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, id, all[0].ID)
	require.Equal(t, "tree", all[0].Name)
	require.Positive(t, all[0].Bytes)

	synctest.Test(t, func(t *testing.T) {
		dial, ref := shared(t, newPair(t), hashedTree(t, from), transfer.Options{})
		result, err := transfer.Fetch(t.Context(), []transfer.Dialer{dial}, ref, to, nil).Wait()
		require.NoError(t, err)
		require.GreaterOrEqual(t, result.Progress.Resumed, all[0].Bytes, "the next run fetches the rest alone")
	})
	same(t, from, filepath.Join(to, "tree"))
	all, err = transfer.FindUnfinished(to)
	require.NoError(t, err)
	require.Empty(t, all)
}

// A source that is found late takes part all the same.
func TestASourceThatComesLateTakesPart(t *testing.T) {
	from, to := write(t, content{"large": 30 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		slow, late := newPair(t), newPair(t)
		first, ref := shared(t, slow, tree, transfer.Options{Rate: 256 << 10})
		shared(t, late, tree, transfer.Options{})
		began := time.Now()
		got := transfer.Fetch(t.Context(), []transfer.Dialer{first, at(late.Alice, began.Add(10*time.Second))}, ref, to, nil)
		_, err := got.Wait()
		require.NoError(t, err)
		require.Less(t, time.Since(began), 30*time.Second, "the slow one alone takes two minutes")
	})
	same(t, from, filepath.Join(to, "tree"))
}

// A source that freezes is not waited for: another one takes over what it was asked for.
func TestAFrozenSourceHoldsNothingUp(t *testing.T) {
	from, to := write(t, content{"large": 12 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		frozen, good := newPair(t), newPair(t)
		first, ref := shared(t, frozen, tree, transfer.Options{Rate: 2 << 20})
		second, _ := shared(t, good, tree, transfer.Options{Rate: 2 << 20})
		time.AfterFunc(time.Second, func() {
			for _, l := range frozen.Links() {
				l.Freeze()
			}
		})
		began := time.Now()
		_, err := transfer.Fetch(t.Context(), []transfer.Dialer{first, second}, ref, to, nil).Wait()
		require.NoError(t, err)
		require.Less(t, time.Since(began), 30*time.Second)
	})
	same(t, from, filepath.Join(to, "tree"))
}

// failAll is a sender that lists a tree, and says of each file that it has gone.
func failAll(g *rogue, entries []manifest.Entry) {
	g.expect(wire.KindGet)
	g.list(entries)
	g.expect(wire.KindAccept)
	for i := range entries {
		if entries[i].Kind == manifest.KindFile {
			why := wire.Why{Code: string(transfer.CodeSourceChanged), Text: fmt.Sprintf("%d is gone", i)}
			g.send(wire.KindFailed, false, func(b []byte) []byte { return wire.AppendFailed(b, uint32(i), why) })
		}
	}
}

func TestFilesThatNobodyHasAnyMoreFailWithTheirReasons(t *testing.T) {
	from, to := write(t, content{"a": 10, "b": 700000, "c/d": 300000}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		var dials []transfer.Dialer
		for range 2 {
			p := newPair(t)
			serveRogue(t, p, func(g *rogue) { failAll(g, tree.Entries()) })
			dials = append(dials, always(p.Alice))
		}
		ref := transfer.Ref{Root: listed(t, tree.Entries()).Root}
		var k told
		o := transfer.ReceiveOptions{Options: transfer.Options{OnEvent: k.event, ResumeWindow: time.Second}}
		result, err := transfer.Fetch(t.Context(), dials, ref, to, &o).Wait()
		require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(err), "%v", err)
		require.Len(t, result.Failed, 3)
		for _, e := range result.Failed {
			require.True(t, e.Remote)
			require.Equal(t, "receive", e.Op)
			require.Contains(t, e.Text, "is gone")
			require.NotEmpty(t, e.Path)
		}
		require.Zero(t, result.Progress.FilesDone)
		require.Equal(t, 3, result.Progress.FilesBad)
		require.Len(t, k.events, 3)
	})
	require.NoFileExists(t, filepath.Join(to, "tree/a"))
	require.DirExists(t, filepath.Join(to, "tree/c"), "folders arrive")
}

// When a share is closed, its transfers end on both sides, by name, and the data stays.
func TestACloseOfAShareEndsItsTransfers(t *testing.T) {
	from, to := write(t, content{"large": 24 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		var served *transfer.Transfer
		v := service(t, p, &transfer.ServiceConfig{
			Options: transfer.Options{Rate: 1 << 20}, OnBegun: func(tr *transfer.Transfer) { served = tr },
		})
		share, err := v.Share(hashedTree(t, from), nil)
		require.NoError(t, err)
		other, err := v.Share(hashedTree(t, from), nil)
		require.NoError(t, err)
		time.AfterFunc(5*time.Second, share.Close)
		began := time.Now()
		result, err := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil).Wait()
		require.Equal(t, transfer.CodeCanceled, transfer.CodeOf(err), "%v", err)
		var e *transfer.Error
		require.ErrorAs(t, err, &e)
		require.True(t, e.Remote)
		require.Less(t, time.Since(began), 7*time.Second)
		require.Positive(t, result.Progress.Verified)
		_, err = served.Wait()
		require.Equal(t, transfer.CodeCanceled, transfer.CodeOf(err))
		require.False(t, served.Snapshot().Receiving)

		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil).Wait()
		require.Equal(t, transfer.CodeNotFound, transfer.CodeOf(err))
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, other.Ref(), to, nil).Wait()
		require.NoError(t, err, "another share of the same tree goes on with it")
	})
	same(t, from, filepath.Join(to, "tree"))
}

// A Service that stops tells the peers, whichever direction their transfers have.
func TestACloseOfAServiceEndsItsTransfersByName(t *testing.T) {
	from := write(t, content{"large": 24 << 20})
	for way := range map[string]bool{"push": true, "fetch": true} {
		t.Run(way, func(t *testing.T) {
			to := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				p, tree := newPair(t), hashedTree(t, from)
				cfg := into(to, transfer.ReceiveOptions{Options: transfer.Options{Rate: 1 << 20}})
				cfg.Options.Rate = 1 << 20
				v := service(t, p, cfg)
				share, err := v.Share(tree, nil)
				require.NoError(t, err)
				var tr *transfer.Transfer
				if way == "push" {
					tr = transfer.Push(t.Context(), always(p.Alice), tree, nil)
				} else {
					tr = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil)
				}
				time.Sleep(5 * time.Second)
				require.NoError(t, v.Close())
				_, err = tr.Wait()
				require.Equal(t, transfer.CodeCanceled, transfer.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, "the peer is stopping")
				_, err = transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
				require.Equal(t, transfer.CodeCanceled, transfer.CodeOf(err), "and takes no other: %v", err)
			})
			all, err := transfer.FindUnfinished(to)
			require.NoError(t, err)
			require.Len(t, all, 1)
			require.Positive(t, all[0].Bytes)
		})
	}
}

func TestARateHoldsOnEitherSide(t *testing.T) {
	const size, rate = 8 << 20, 1 << 20
	from := write(t, content{"large": size})
	for name, o := range map[string][2]transfer.Options{"the sender's": {{Rate: rate}, {}}, "the receiver's": {{}, {Rate: rate}}} {
		t.Run(name, func(t *testing.T) {
			to := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				dial, ref := shared(t, newPair(t), hashedTree(t, from), o[0])
				began := time.Now()
				r := transfer.ReceiveOptions{Options: o[1]}
				got := transfer.Fetch(t.Context(), []transfer.Dialer{dial}, ref, to, &r)
				time.Sleep(4 * time.Second)
				require.InDelta(t, rate, got.Progress().Rate, rate/2)
				_, err := got.Wait()
				require.NoError(t, err)
				require.InDelta(t, size/rate, time.Since(began).Seconds(), 1.5)
			})
		})
	}
}

// What an application is called with, it may ask of: no lock is held meanwhile.
func TestCallbacksMayCallEverything(t *testing.T) {
	from, to := write(t, content{"large": 3 << 20, "b": 10}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p, tree := newPair(t), walk(t, from)
		var reg transfer.Registry
		var v *transfer.Service
		var mu sync.Mutex
		calls := make(map[string]int)
		ask := func(what string) { // all that a Service, a Registry and their transfers say
			mu.Lock()
			calls[what]++
			mu.Unlock()
			share, err := v.Share(tree, nil)
			require.NoError(t, err)
			_ = share.Ref()
			for _, s := range reg.Snapshots() {
				_ = s.Progress
			}
			share.Close()
		}
		askOf := func(what string, tr *transfer.Transfer) {
			ask(what)
			_, _ = tr.Progress(), tr.Snapshot()
		}
		o := transfer.Options{Registry: &reg, OnEvent: func(e transfer.Event) { ask("OnEvent") }}
		cfg := &transfer.ServiceConfig{
			Options: o,
			Admit:   func(string) error { ask("Admit"); return nil },
			OnBegun: func(tr *transfer.Transfer) { askOf("OnBegun", tr) },
			Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
				ask("Receive")
				return &transfer.Destination{Dir: to, ReceiveOptions: transfer.ReceiveOptions{Options: o}}, nil
			},
		}
		v = service(t, p, cfg)
		dial := func(context.Context) (*session.Session, error) {
			ask("Dialer")
			return p.Alice, nil
		}
		require.NoError(t, os.Remove(filepath.Join(from, "b"))) // an event for both sides
		pushed := transfer.Push(t.Context(), dial, tree, &o)
		_, err := pushed.Wait()
		require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(err))
		share, err := v.Share(tree, &transfer.ShareOptions{OnBegun: func(tr *transfer.Transfer) { askOf("share's OnBegun", tr) }})
		require.NoError(t, err)
		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{dial}, share.Ref(), t.TempDir(), nil).Wait()
		require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(err))
		for _, what := range []string{"Admit", "Receive", "OnBegun", "share's OnBegun", "Dialer", "OnEvent"} {
			require.Positive(t, calls[what], what)
		}
	})
	require.FileExists(t, filepath.Join(to, "tree/large"))
}

// A dialer that finds nobody at first is asked again, but for the first time.
func TestADialerIsAskedAgainOnceThePeerWasReached(t *testing.T) {
	from, to := write(t, content{"large": 6 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		first, next := newPair(t), newPair(t)
		tree := hashedTree(t, from)
		_, ref := shared(t, first, tree, transfer.Options{Rate: 1 << 20})
		shared(t, next, tree, transfer.Options{Rate: 1 << 20})
		time.AfterFunc(2*time.Second, func() { die(first) })
		nobody := errors.New("nobody is there")
		asked := 0
		dial := func(context.Context) (*session.Session, error) {
			switch asked++; {
			case asked == 1:
				return first.Alice, nil
			case asked < 6:
				return nil, nobody
			}
			return next.Alice, nil
		}
		var k told
		o := transfer.ReceiveOptions{Options: transfer.Options{OnEvent: k.event}}
		result, err := transfer.Fetch(t.Context(), []transfer.Dialer{dial}, ref, to, &o).Wait()
		require.NoError(t, err)
		require.Equal(t, 6, asked)
		require.Equal(t, 5, result.Progress.Losses)
		require.ErrorIs(t, k.events[1].Err, nobody)

		_, err = transfer.Fetch(t.Context(), []transfer.Dialer{func(context.Context) (*session.Session, error) { return nil, nobody }}, ref, t.TempDir(), nil).Wait()
		require.ErrorIs(t, err, nobody)
		require.Equal(t, transfer.CodeLost, transfer.CodeOf(err))
	})
	same(t, from, filepath.Join(to, "tree"))
}
