package bulk

import (
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A handler that ends its goroutine has not finished its lane, on any kind: the peer must not take a half for the whole.
func TestALaneWhoseHandlerEndsItsGoroutineIsAborted(t *testing.T) {
	for name, opts := range kinds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
				p.resets.Store(true)
				Handle(p.ToBob, "lane", nil, func(l *Lane) {
					_, _ = io.ReadFull(l, make([]byte, 1)) // the other strands have come
					_, _ = l.Write([]byte("half"))
					runtime.Goexit()
				})
				l, err := Open(t.Context(), p.Alice, "lane", opts)
				require.NoError(t, err)
				_, err = l.Write([]byte("x"))
				require.NoError(t, err)
				_, err = io.ReadAll(l)
				require.Error(t, err)
				_ = l.Abort(0)
				time.Sleep(time.Minute)
				v := p.Bob.Snapshot()
				require.Zero(t, v.Streams)
			})
		})
	}
}

func TestAnAcceptThatEndsItsGoroutineRefusesTheLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{MaxStreams: 2})
		Handle(p.ToBob, "lane", func(AcceptInfo) (*Options, error) {
			runtime.Goexit()
			return nil, nil
		}, nil)
		for range 10 {
			_, err := Open(t.Context(), p.Alice, "lane", nil)
			require.ErrorIs(t, err, session.ErrInternal)
		}
	})
}
