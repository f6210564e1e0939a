package session

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/internal/faultnet"
)

// A hello that was reset, and not refused, says nothing of the session: the next one may be answered.
func TestAResetHelloDoesNotEndASessionThatResumes(t *testing.T) {
	cfg, err := Config{}.withDefaults()
	require.NoError(t, err)
	for code, final := range map[frame.Code]bool{frame.CodeProtocol: false, frame.CodeUnavailable: false, frame.CodeNotFound: false,
		frame.CodeGoingAway: true} {
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
	a, err := NewAcceptor(AcceptorConfig{MaxHandshakes: 2})
	require.NoError(t, err)
	a.sessions[frame.SessionID{1}] = &Session{} // one that drains
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	for range 100 {
		c, _ := net.Pipe()
		_ = a.beginHello(c, "p") // refused, but for two
	}
	require.Equal(t, 2, a.greeting["p"])
}
