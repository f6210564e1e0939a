package deadline

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestADeadlineWakesOnceWhenItPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var d Deadline
		woken := 0
		state := func() (bool, int) {
			mu.Lock()
			defer mu.Unlock()
			return d.Expired(), woken
		}
		set := func(left time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			d.Set(&mu, time.Now().Add(left), func() { woken++ })
		}
		want := func(expired bool, times int) {
			t.Helper()
			got, n := state()
			require.Equal(t, expired, got)
			require.Equal(t, times, n)
		}
		want(false, 0)
		set(time.Second)
		time.Sleep(time.Second - 1)
		want(false, 0)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		want(true, 1)

		set(time.Minute) // moved: it has not passed any more
		want(false, 1)
		set(time.Hour)
		time.Sleep(2 * time.Minute)
		want(false, 1)

		set(-time.Second)
		want(true, 2)

		set(time.Second)
		mu.Lock()
		d.Stop()
		mu.Unlock()
		time.Sleep(time.Hour)
		want(false, 2)

		mu.Lock()
		d.Set(&mu, time.Time{}, func() { woken++ })
		mu.Unlock()
		time.Sleep(time.Hour)
		want(false, 2)
	})
}
