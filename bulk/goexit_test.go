package bulk

import (
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/session"
)

// A handler that ends its goroutine has not finished its lane, on any kind: the peer must not take a half for the whole.
func TestALaneWhoseHandlerEndsItsGoroutineIsAborted(t *testing.T) {
	for name, opts := range kinds {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t, faultnet.LinkOptions{}, session.Config{})
				p.resets = true
				Handle(p.toBob, "lane", nil, func(l *Lane) {
					_, _ = io.ReadFull(l, make([]byte, 1)) // the other strands have come
					_, _ = l.Write([]byte("half"))
					runtime.Goexit()
				})
				l, err := Open(t.Context(), p.alice, "lane", opts)
				require.NoError(t, err)
				_, err = l.Write([]byte("x"))
				require.NoError(t, err)
				_, err = io.ReadAll(l)
				require.Error(t, err)
				_ = l.Abort(0)
				time.Sleep(time.Minute)
				v := p.bob.Snapshot()
				require.Zero(t, v.Streams)
			})
		})
	}
}

func TestAnAcceptThatEndsItsGoroutineRefusesTheLane(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t, faultnet.LinkOptions{}, session.Config{MaxStreams: 2})
		Handle(p.toBob, "lane", func(AcceptInfo) (*Options, error) {
			runtime.Goexit()
			return nil, nil
		}, nil)
		for range 10 {
			_, err := Open(t.Context(), p.alice, "lane", nil)
			require.ErrorIs(t, err, session.ErrInternal)
		}
	})
}
