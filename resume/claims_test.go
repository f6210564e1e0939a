package resume

import (
	"context"
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestADialFunctionThatIsNilOrReturnsNothingIsAnError(t *testing.T) {
	_, err := Dial(nil, nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "dial is nil")
	_, err = DialContext(t.Context(), func(context.Context) (net.Conn, error) {
		return nil, nil
	}, nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "neither a conn nor an error")
	l, err := NewListener(nil, nil)
	require.NoError(t, err)
	_, err = l.Serve(nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.NoError(t, l.Close())
}

// An end without a reason is an end all the same.
func TestAnEndWithoutAReasonIsNetErrClosed(t *testing.T) {
	for name, end := range map[string]func(*Conn){
		"Abort": func(c *Conn) { c.Abort(nil) }, "End": func(c *Conn) { c.ForSession().End(nil) }, "Flow.Close": func(c *Conn) { c.flow.Close(nil) },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, nil, nil)
			waiting := make(chan error, 1)
			go func() { _, err := p.client.Read(make([]byte, 1)); waiting <- err }()
			_, err := p.client.Write([]byte("x"))
			require.NoError(t, err)
			synctest.Wait()
			end(p.client)
			require.ErrorIs(t, <-waiting, net.ErrClosed, name)
			<-p.client.Done()
			require.ErrorIs(t, p.client.Err(), net.ErrClosed, name)
			_, err = p.client.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed, name)
		})
	}
}

func TestABackoffWhoseMaxIsLessThanItsMinIsRefused(t *testing.T) {
	for _, b := range []Backoff{{Min: 2, Max: 1}, {Min: 10 * time.Second, Max: 5 * time.Second}} {
		_, err := NewListener(nil, &Options{Backoff: b})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Options.Backoff.Max")
	}
	for _, b := range []Backoff{{Min: 10 * time.Second}, {Max: 1}, {Min: 1, Max: 1}} {
		l, err := NewListener(nil, &Options{Backoff: b})
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}

// Claim: resume.Options.Backlog
func TestABacklogBeyondItsBoundIsRefused(t *testing.T) {
	for _, n := range []int{-1, maxBacklog + 1, math.MaxInt, math.MinInt} {
		_, err := NewListener(nil, &Options{Backlog: n})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Options.Backlog")
	}
	l, err := NewListener(nil, &Options{Backlog: maxBacklog})
	require.NoError(t, err)
	require.NoError(t, l.Close())
}
