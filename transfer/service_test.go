package transfer_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// counted counts the handlers that run.
type counted struct {
	*session.Mux
	running atomic.Int32
}

func (c *counted) SetStream(name string, serve func(*session.Stream)) {
	c.Mux.SetStream(name, func(st *session.Stream) {
		c.running.Add(1)
		defer c.running.Add(-1)
		serve(st)
	})
}

func TestCloseWaitsForWhatIsBeingRefused(t *testing.T) {
	for name, closeAt := range map[string]time.Duration{"before": 0, "meanwhile": 100 * time.Millisecond, "after": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				v, err := transfer.NewService(&transfer.ServiceConfig{Pending: 1})
				require.NoError(t, err)
				at := &counted{Mux: p.ToBob}
				v.Handle(at)
				g := &rogue{t: t, s: p.Alice}
				g.hello(wire.Receiver)
				_, err = bulk.Open(t.Context(), p.Alice, "transfer-data", nil) // which says nothing
				require.NoError(t, err)
				time.AfterFunc(100*time.Millisecond, func() {
					_, _ = p.Alice.OpenStream(t.Context(), "transfer", nil) // one too many, which does not read its refusal
				})
				time.Sleep(closeAt)
				synctest.Wait()
				began := time.Now()
				require.NoError(t, v.Close())
				require.Less(t, time.Since(began), 2*time.Second)
				synctest.Wait()
				require.Zero(t, at.running.Load(), "after Close")
				time.Sleep(time.Hour)
			})
		})
	}
}
