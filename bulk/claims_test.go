package bulk

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

func TestArgumentsThatAreNilAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := Open(t.Context(), nil, "x", nil)
		require.ErrorIs(t, err, errInvalid)
		require.ErrorContains(t, err, "session is nil")
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		Handle(p.ToBob, "x", nil, func(*Lane) {})
		l, err := Open(t.Context(), p.Alice, "x", nil)
		require.NoError(t, err)
		require.NoError(t, l.Close())
		Handle(p.ToBob, "x", nil, nil)
		_, err = Open(t.Context(), p.Alice, "x", nil)
		require.ErrorIs(t, err, ErrNotTaken, "nothing serves it")
	})
}

// Claim: bulk.Options.HandshakeTimeout
func TestHandshakeTimeoutBoundsTheWaitForTheHello(t *testing.T) {
	for set, want := range map[time.Duration]time.Duration{0: 5 * time.Second, 2 * time.Second: 2 * time.Second, time.Minute: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
			p.ToBob.SetStream("mute", func(st *session.Stream) { _, _ = io.Copy(io.Discard, st) })
			began := time.Now()
			_, err := Open(t.Context(), p.Alice, "mute", &Options{HandshakeTimeout: set})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, want, time.Since(began))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began = time.Now()
			_, err = Open(ctx, p.Alice, "mute", &Options{HandshakeTimeout: set})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, time.Second, time.Since(began), "as its ctx does")
		})
	}
}
