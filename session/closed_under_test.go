package session

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
)

// errUnder is what a carrier fails with whose owner has closed what it stood on.
var errUnder = fmt.Errorf("the host is closed: %w", ErrClosed)

// closableConn fails with errUnder once closed is set, whatever the link says.
type closableConn struct {
	net.Conn
	closed *atomic.Bool
}

func (c *closableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.explain(err)
}

func (c *closableConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.explain(err)
}

func (c *closableConn) explain(err error) error {
	if err != nil && c.closed.Load() {
		return errUnder
	}
	return err
}

// requireClosedUnder checks that s ends now, with errUnder and not as lost.
func requireClosedUnder(t *testing.T, s *Session) {
	t.Helper()
	synctest.Wait()
	err := s.Err()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, codes.Closed, e.Code)
	require.ErrorIs(t, err, errUnder)
	require.NotErrorIs(t, err, ErrSessionLost)
}

// A carrier whose error says that this side has closed it ends the session at once, on either side, with and without a
// window, and while it drains.
func TestACarrierThatIsClosedHereEndsTheSession(t *testing.T) {
	for name, window := range map[string]time.Duration{"resumable": time.Hour, "with its carrier": -1} {
		for _, draining := range []bool{false, true} {
			for _, accepting := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " draining ", draining, " accepting ", accepting), func(t *testing.T) {
					inBubble(t, func(t *testing.T) {
						var closed atomic.Bool
						r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
						r.wrap = func(_ int, here, there net.Conn) (net.Conn, net.Conn) {
							if accepting {
								return here, &closableConn{there, &closed}
							}
							return &closableConn{here, &closed}, there
						}
						r.mux.SetLink("stuck", func(m *Message) { <-m.Context().Done() })
						r.dial(Config{ResumeWindow: window}, AcceptorConfig{Config: Config{ResumeWindow: window}})
						s := r.dialer
						if accepting {
							s = r.accepted
						}
						call := make(chan error, 1)
						go func() {
							_, err := r.dialer.SendWait(t.Context(), "stuck", nil)
							call <- err
						}()
						synctest.Wait()
						if draining {
							s.Drain("test")
						}
						r.block(true)
						closed.Store(true)
						r.link(0).Cut()
						requireClosedUnder(t, s)
						if !accepting {
							require.ErrorIs(t, <-call, errUnder)
						}
					})
				})
			}
		}
	}
}

// An Opener that is closed ends a session that looks for a carrier.
func TestAClosedOpenerEndsTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{ResumeWindow: time.Hour}, AcceptorConfig{Config: Config{ResumeWindow: time.Hour}}, faultnet.LinkOptions{})
		var closed atomic.Bool
		r.dialer.carriers.open = func(context.Context, Want) (net.Conn, error) {
			if closed.Load() {
				return nil, errUnder
			}
			return nil, errNoRoute
		}
		r.link(0).Cut()
		r.await(r.dialer, StateDetached)
		closed.Store(true)
		r.dialer.Probe()
		requireClosedUnder(t, r.dialer)
	})
}

func TestAbortWithoutACauseIsErrClosed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.acceptor.Abort(nil)
		require.ErrorIs(t, p.accepted.Err(), ErrClosed)
		require.NoError(t, p.accepted.Close())
	})
}

// Abort ends sessions on a carrier and those without one, and takes no more.
func TestAbortEndsAllSessionsOfAnAcceptor(t *testing.T) {
	for _, detached := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			r := newRoad(t, Config{ResumeWindow: time.Hour}, AcceptorConfig{Config: Config{ResumeWindow: time.Hour}}, faultnet.LinkOptions{})
			if detached {
				r.block(true)
				r.link(0).Cut()
				r.await(r.accepted, StateDetached)
			}
			began := time.Now()
			r.acceptor.Abort(errUnder)
			requireClosedUnder(t, r.accepted)
			require.Empty(t, r.acceptor.Sessions())
			require.NoError(t, r.acceptor.Shutdown(t.Context()))
			require.Zero(t, time.Since(began))
			r.block(false)
			conn, err := r.open(t.Context(), Want{})
			require.NoError(t, err)
			_, err = Dial(t.Context(), conn, "bob", r.open, &Config{Mux: NewMux(), Local: "alice"})
			require.Error(t, err)
		})
	}
}
