package session

import (
	"context"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/internal/zstd"
)

func TestMain(m *testing.M) {
	procs.One()
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}

// pair is two sides of one session on a pipe.
type pair struct {
	t        *testing.T
	dialer   *Session
	acceptor *Acceptor
	accepted *Session
	mux      *Mux // the accepting side's
	ours     *Mux // the dialing side's
}

// mortal is for sessions that end with their carrier.
var mortal = Config{ResumeWindow: -1}

// newPair opens a session from "alice" to "bob". Both are closed when the test ends.
func newPair(t *testing.T, dial Config, accept AcceptorConfig) *pair {
	t.Helper()
	p := &pair{t: t, mux: NewMux(), ours: NewMux()}
	if dial.Mux == nil {
		dial.Mux = p.ours
	}
	if accept.Mux == nil {
		accept.Mux = p.mux
	}
	p.mux, p.ours = accept.Mux, dial.Mux
	dial.Local, accept.Local = "alice", "bob"
	dial.pacer, accept.pacer = zstd.NewPacer(), zstd.NewPacer() // what bodies of earlier bubbles cost is in the future of this one
	opened := make(chan *Session, 1)
	accept.OnSession = func(s *Session) {
		select {
		case opened <- s:
		default:
		}
	}
	var err error
	p.acceptor, err = NewAcceptor(&accept)
	require.NoError(t, err)
	p.dialer, err = Dial(t.Context(), p.connect(), "bob", func(context.Context, Want) (net.Conn, error) { return p.connect(), nil }, &dial)
	require.NoError(t, err)
	p.accepted = <-opened
	t.Cleanup(func() {
		_ = p.dialer.Close()
		_ = p.accepted.Close()
		<-p.dialer.readerDone
		<-p.accepted.readerDone
	})
	return p
}

// connect returns one end of a pipe whose other end the acceptor serves.
func (p *pair) connect() net.Conn {
	here, there := net.Pipe()
	go func() { _ = p.acceptor.Serve(there, "alice") }()
	return here
}

// inBubble runs fn in virtual time.
func inBubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

// within returns a ctx that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
