package session

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/hook"
)

// Lines under random use: calls that return, panic or end their goroutine, turns of other goroutines, and the end at any time. In order, calls
// of a line do not overlap and keep their order, no more workers run than may, and the last call comes once and last.
func TestLinesUnderRandomUse(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			most := 1 + random.IntN(3)
			workers := new(hookWorkers)
			var busy atomic.Int32
			var all sync.WaitGroup
			for range 1 + random.IntN(5) {
				l := &hookLine{workers: workers, most: most, atOnce: 1, held: random.IntN(3) == 0}
				var running, lastCalled atomic.Int32
				var mu sync.Mutex
				var order []int
				enter := func() {
					if running.Add(1) > 1 {
						t.Errorf("seed %d: two calls at a time", seed)
					}
				}
				steps := make([]int, 60)
				for i := range steps {
					steps[i] = random.IntN(8)
				}
				all.Go(func() {
					for i, step := range steps {
						switch step {
						case 0:
							if l.enter() {
								enter()
								time.Sleep(time.Millisecond)
								running.Add(-1)
								l.leave()
							}
						case 1:
							time.Sleep(time.Millisecond)
						default:
							l.add(hookCall{fn: func() {
								enter()
								defer running.Add(-1)
								if n := busy.Add(1); n > int32(most) {
									t.Errorf("seed %d: %d workers, want at most %d", seed, n, most)
								}
								defer busy.Add(-1)
								mu.Lock()
								order = append(order, i)
								mu.Unlock()
								time.Sleep(time.Duration(step) * time.Millisecond)
								switch step {
								case 2:
									runtime.Goexit()
								case 3:
									panic("boom")
								}
							}, done: func(why *hook.Failure) {
								if (why != nil) != (step == 2 || step == 3) {
									t.Errorf("seed %d: step %d: %v", seed, step, why)
								}
							}})
						}
					}
					if !l.end([]hookCall{{fn: runtime.Goexit}, {fn: func() { lastCalled.Add(1) }}}) {
						t.Errorf("seed %d: the end is not taken", seed)
					}
					if l.enter() {
						t.Errorf("seed %d: a turn after the end", seed)
					}
				})
				time.AfterFunc(20*time.Millisecond, l.release)
				t.Cleanup(func() {
					l.mu.Lock()
					defer l.mu.Unlock()
					mu.Lock()
					defer mu.Unlock()
					require.EqualValues(t, 1, lastCalled.Load(), "seed %d", seed)
					require.IsIncreasing(t, append([]int{-1}, order...), "seed %d", seed)
					require.Zero(t, l.active)
				})
			}
			time.Sleep(time.Hour) // a turn in a held line waits for release
			all.Wait()
			synctest.Wait()
			require.Zero(t, workers.running, "seed %d", seed)
			require.Zero(t, workers.pending.Load(), "seed %d", seed)
		})
	}
}

// A held line that is shut calls nothing, and knows whether it has ended.
func TestALineThatIsShutCallsNothing(t *testing.T) {
	l := &hookLine{workers: new(hookWorkers), most: 1, atOnce: 1, held: true}
	never := hookCall{fn: func() { t.Error("called") }}
	l.add(never)
	require.False(t, l.shut())
	l.add(never)
	l.release()
	require.False(t, l.enter())
	require.False(t, l.end([]hookCall{never}))

	l = &hookLine{workers: new(hookWorkers), most: 1, atOnce: 1, held: true}
	require.True(t, l.end([]hookCall{never}))
	require.True(t, l.shut())
	l.release()
}

// The calls that wait are bounded in each line, and in all lines together. Lines that are full leave others room for a few calls.
func TestTheCallsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lines = 100
		workers, blocked := new(hookWorkers), make(chan struct{})
		var called atomic.Int32
		taken := func(l *hookLine) (n int) {
			for l.add(hookCall{fn: func() { <-blocked; called.Add(1) }}) {
				n++
			}
			require.EqualValues(t, 1, l.missed())
			return n
		}
		all := 0
		for i := range lines {
			n := taken(&hookLine{workers: workers, most: 2, atOnce: 1})
			if i < maxPendingInAll/maxPendingHooks {
				require.Equal(t, 1+maxPendingHooks, n, "one is begun")
			}
			if all += n; i == lines-1 {
				require.Equal(t, 1+fewPendingHooks, n)
			}
		}
		require.LessOrEqual(t, all, maxPendingInAll+lines*(1+fewPendingHooks))
		held := &hookLine{workers: workers, most: 2, atOnce: 1, held: true}
		require.Equal(t, fewPendingHooks, taken(held))
		require.False(t, held.shut())
		close(blocked)
		synctest.Wait()
		require.EqualValues(t, all, called.Load())
		require.Zero(t, workers.pending.Load())
	})
}
