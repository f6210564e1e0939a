package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// Handlers that are slow are progress: each message that is handled brings the end of a Close nearer.
func TestCloseWaitsForSlowHandlersOfMessages(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		handled := 0
		p.mux.SetDefaultLink(func(*Message) { time.Sleep(2 * time.Second); handled++ })
		for range 20 {
			require.NoError(t, p.dialer.Send(t.Context(), "slow", nil))
		}
		require.NoError(t, p.dialer.Close())
		require.Equal(t, 20, handled)
	})
}

// A message that the peer refuses is told by OnUndelivered or Flush, and by Close where neither has.
func TestCloseNamesMessagesThatWereRejected(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		require.NoError(t, p.dialer.Send(t.Context(), "nobody", nil))
		synctest.Wait()
		require.ErrorIs(t, p.dialer.Flush(t.Context()), ErrNotFound)
		require.NoError(t, p.dialer.Send(t.Context(), "nobody either", nil))
		err := p.dialer.Close()
		require.ErrorIs(t, err, ErrNotFound)
		require.Len(t, lostThings(t, err), 1)
		require.Equal(t, "nobody either", asError(t, lostThings(t, err)[0], Rejected).Link)
	})
	inBubble(t, func(t *testing.T) {
		told := make(chan *Error, 1)
		p := newPair(t, Config{OnUndelivered: func(e *Error) { told <- e }}, AcceptorConfig{})
		require.NoError(t, p.dialer.Send(t.Context(), "nobody", nil))
		require.NoError(t, p.dialer.Close())
		require.Equal(t, codes.NotFound, (<-told).Code)
	})
}
