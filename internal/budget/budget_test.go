package budget

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// inBubble runs fn in virtual time with a budget, and a count of how often its circuit was to be left.
func inBubble(t *testing.T, data int64, lasts time.Duration, fn func(b *Budget, spent chan struct{})) {
	synctest.Test(t, func(t *testing.T) {
		spent := make(chan struct{}, 9)
		var expires time.Time
		if lasts > 0 {
			expires = time.Now().Add(lasts)
		}
		b := New(data, lasts, expires, func() { spent <- struct{}{} })
		defer b.Stop()
		fn(b, spent)
	})
}

func TestThreeQuartersOfTheBytesAreSpent(t *testing.T) {
	inBubble(t, 1000, 0, func(b *Budget, spent chan struct{}) {
		require.Equal(t, 700, b.Take(700, nil))
		synctest.Wait()
		require.Empty(t, spent)
		require.Nil(t, b.Leaving())
		require.Equal(t, 50, b.Take(700, nil), "the rest of the 750")
		synctest.Wait()
		require.Len(t, spent, 1)
		require.NotNil(t, b.Leaving())
	})
	inBubble(t, 1000, 0, func(b *Budget, spent chan struct{}) {
		b.Read(749)
		synctest.Wait()
		require.Empty(t, spent)
		b.Read(1)
		b.Read(100)
		synctest.Wait()
		require.Len(t, spent, 1, "once")
	})
}

func TestACircuitIsLeftBeforeItsTimeIsOver(t *testing.T) {
	for lasts, at := range map[time.Duration]time.Duration{2 * time.Minute: 2*time.Minute - leaveBefore, 4 * time.Second: 3 * time.Second} {
		inBubble(t, 0, lasts, func(b *Budget, spent chan struct{}) {
			began := time.Now()
			<-spent
			require.Equal(t, at, time.Since(began))
		})
	}
}

func TestWhatIsToGoOutWaitsForTheEndOfACircuit(t *testing.T) {
	for name, end := range map[string]func(b *Budget, gone chan struct{}){
		"released": func(b *Budget, _ chan struct{}) { b.Release(); b.Release() },
		"stopped":  func(b *Budget, _ chan struct{}) { b.Stop() },
		"gone":     func(_ *Budget, gone chan struct{}) { close(gone) },
	} {
		inBubble(t, 100, 0, func(b *Budget, _ chan struct{}) {
			require.Equal(t, 75, b.Take(75, nil))
			gone, took := make(chan struct{}), make(chan int, 1)
			go func() { took <- b.Take(40, gone) }()
			synctest.Wait()
			require.Empty(t, took, name)
			end(b, gone)
			require.Equal(t, 40, <-took, name)
		})
	}
}

func TestABudgetWithoutLimitsIsNeverSpent(t *testing.T) {
	inBubble(t, 0, 0, func(b *Budget, spent chan struct{}) {
		require.Equal(t, math.MaxInt, b.Take(math.MaxInt, nil))
		b.Read(math.MaxInt)
		synctest.Wait()
		require.Empty(t, spent)
	})
	require.Nil(t, (*Budget)(nil).Leaving())
}
