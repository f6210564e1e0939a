package registry

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// seen is an Observer that keeps its durations.
type seen struct {
	mu  sync.Mutex
	all []time.Duration
}

func (s *seen) Observe(_ Measure, _ string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, took)
}

func TestObserversGetWhatIsMeasuredUntilTheyStop(t *testing.T) {
	var o Observers
	w := &Watch{Tag: "/a", Observers: &o}
	require.False(t, w.On())
	w.Observe(CallAnswered, 1)
	var a, b seen
	stopA, stopB := o.Add(&a), o.Add(&b)
	require.True(t, w.On())
	w.Observe(CallAnswered, 2)
	stopA()
	stopA()
	w.Observe(CallAnswered, 3)
	stopB()
	require.False(t, w.On())
	w.Observe(CallAnswered, 4)
	require.Equal(t, []time.Duration{2}, a.all)
	require.Equal(t, []time.Duration{2, 3}, b.all)
}

func TestNobodyWatchesWithoutObservers(t *testing.T) {
	for _, w := range []*Watch{nil, {}} {
		require.False(t, w.On())
		w.Observe(CallAnswered, 1)
	}
	w := &Watch{Observers: new(Observers)}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if w.On() {
			t.Error("somebody does")
		}
	}))
}

func TestObserversComeAndGoWhileDurationsAreMeasured(t *testing.T) {
	var o Observers
	w := &Watch{Observers: &o}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 100 {
				var s seen
				stop := o.Add(&s)
				w.Observe(BarrierWait, 1)
				stop()
				s.mu.Lock() // another goroutine may still be calling it
				require.NotEmpty(t, s.all)
				s.mu.Unlock()
			}
		})
	}
	all.Wait()
	require.False(t, w.On())
}

func TestCountsAddUp(t *testing.T) {
	var sum, one Counts
	for i := range one {
		one[i] = uint64(i)
	}
	sum.Add(&one)
	sum.Add(&one)
	for i, n := range sum {
		require.Equal(t, uint64(2*i), n)
	}
}
