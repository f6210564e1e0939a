package flow

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// A Watch keeps a carrier whose other side answers, and gives up one that is silent for twice as long as it should be.
func TestAWatchGivesUpASilentCarrier(t *testing.T) {
	const every = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		lost := make(chan error, 1)
		a, b := newFlow(t, Config{OnLost: func(err error) { lost <- err }}), newFlow(t, Config{})
		for _, f := range []*Flow{a, b} {
			go func() { _, _ = io.Copy(io.Discard, flowConn{f}) }()
		}
		watch := NewWatch(a, every)
		defer watch.Stop()
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-watch.Ticks:
					watch.Look()
				case <-stop:
					return
				}
			}
		}()
		time.Sleep(time.Second) // without a carrier, there is nothing to give up
		x, y := faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, a.Attach(x, 0, false))
		require.NoError(t, b.Attach(y, 0, false))
		time.Sleep(10 * every)
		require.Empty(t, lost, "it answers")
		require.NoError(t, b.Pause())
		synctest.Wait()
		require.Error(t, <-lost, "it has ended")
		x, y = faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, a.Attach(x, 0, false))
		go func() { _, _ = io.Copy(io.Discard, y) }()
		began := time.Now()
		require.ErrorIs(t, <-lost, errSilent)
		require.GreaterOrEqual(t, time.Since(began), 2*every)
		require.LessOrEqual(t, time.Since(began), 3*every)
	})
}

func TestAWatchThatIgnoresSilenceHasNoTicks(t *testing.T) {
	for _, every := range []time.Duration{0, -1} {
		w := NewWatch(newFlow(t, Config{}), every)
		require.Nil(t, w.Ticks)
		w.Stop()
	}
}
