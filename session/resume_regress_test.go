package session

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// A hello that was reset, and not refused, says nothing of the session: the next one may be answered.
func TestAResetHelloDoesNotEndASessionThatResumes(t *testing.T) {
	cfg, err := (*Config)(nil).withDefaults()
	require.NoError(t, err)
	for code, final := range map[codes.Code]bool{codes.Protocol: false, codes.Unavailable: false, codes.NotFound: false,
		codes.GoingAway: true} {
		here, _ := faultnet.Pipe(faultnet.LinkOptions{})
		reset := &fakeConn{Conn: here, read: func([]byte) (int, error) {
			return 0, &net.OpError{Op: "read", Err: &Error{Op: "read", Remote: true, Code: code}}
		}}
		_, err := greet(t.Context(), reset, "bob", &frame.Hello{Role: frame.RoleResume, SessionID: newSessionID(),
			Resume: &frame.Resume{Attempt: 1}}, &cfg)
		require.Error(t, err)
		require.Equal(t, final, isFinal(err), "%v", err)
	}
}

// The places for hellos are bounded, also while an Acceptor that is shut down waits for its sessions.
func TestHellosAreBoundedDuringAShutdown(t *testing.T) {
	a, err := NewAcceptor(&AcceptorConfig{MaxHandshakes: 2})
	require.NoError(t, err)
	a.sessions[ID{1}] = &Session{} // one that drains
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	for range 100 {
		c, _ := net.Pipe()
		_ = a.beginHello(c, "p") // refused, but for two
	}
	require.Equal(t, 2, a.hellos["p"].answered)
}

// A peer cannot hold the places of others with sessions that it has left behind: it may leave so many, and the oldest go.
func TestSessionsThatAPeerLeavesBehindAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := &Quota{MaxSessions: 10}
		cfg := Config{Quota: quota, ResumeWindow: time.Hour}
		a, err := NewAcceptor(&AcceptorConfig{Config: cfg, MaxDetached: 3})
		require.NoError(t, err)
		leave := func(peer string) {
			here, there := net.Pipe()
			go func() { _ = a.Serve(there, peer) }()
			ack := sayHello(t, here, &frame.Hello{Role: frame.RoleSession, Limits: &generous, Caps: frame.CapResume})
			require.Equal(t, frame.KindAck, ack.Kind)
			require.NoError(t, here.Close())
			synctest.Wait()
			time.Sleep(time.Second)
		}
		leave("bystander")
		kept := a.Sessions()[0]
		for range 100 {
			leave("mallory")
		}
		require.Len(t, a.Sessions(), 4)
		require.Equal(t, 4, quota.Snapshot().Sessions)
		require.Len(t, a.byPeer["mallory"], 3)
		require.NoError(t, kept.Err(), "another peer's session is left alone")
		require.NoError(t, a.Shutdown(within(t, 2*time.Second)), "a stop does not wait for who has left")
	})
}
