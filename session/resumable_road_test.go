package session

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// outlasting is the options of the streams under test.
var outlasting = &StreamOptions{Dedicated: true, Resumable: true}

// streamRoad is a road whose carriers know resets with a code, as those of libp2p do, and what they are for.
type streamRoad struct {
	*road
	mu    sync.Mutex
	coded []*codedLink
}

// codedLink is what the two ends of a link know of each other.
type codedLink struct {
	link *faultnet.Link
	mu   sync.Mutex
	role frame.Role // of the HELLO; 0 before it is said
	code [2]*codes.Code
}

// codedEnd is an end of a codedLink.
type codedEnd struct {
	net.Conn
	of   *codedLink
	side int
}

// Reset tells the other end the code, and breaks the link.
func (c *codedEnd) Reset(code codes.Code) error {
	c.of.mu.Lock()
	if c.of.code[c.side] == nil {
		c.of.code[c.side] = &code
	}
	c.of.mu.Unlock()
	c.of.link.Cut() // first: a Close alone would be an end in order
	_ = c.Close()
	return nil
}

// CloseWrite ends one direction.
func (c *codedEnd) CloseWrite() error { return c.Conn.(*faultnet.Conn).CloseWrite() }

// Read returns the code of a reset as the root's carriers do.
func (c *codedEnd) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.because(err)
}

// Write notes what the link is for.
func (c *codedEnd) Write(p []byte) (int, error) {
	c.of.mu.Lock()
	if c.of.role == 0 && c.side == 0 && len(p) > 2 {
		if h, _, err := frame.ConsumeHello(p[2:]); err == nil {
			c.of.role = h.Role
		}
	}
	c.of.mu.Unlock()
	n, err := c.Conn.Write(p)
	return n, c.because(err)
}

func (c *codedEnd) because(err error) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if code := c.of.code[1-c.side]; code != nil && errors.Is(err, syscall.ECONNRESET) {
		return &Error{Op: "read", Remote: true, Code: *code, Err: err}
	}
	return err
}

// newStreamRoad opens a session on such a road.
func newStreamRoad(t *testing.T, dial Config, accept AcceptorConfig, opts faultnet.LinkOptions) *streamRoad {
	t.Helper()
	r := &streamRoad{road: &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: opts}}
	r.wrap = func(i int, here, there net.Conn) (net.Conn, net.Conn) {
		c := &codedLink{link: here.(*faultnet.Conn).Link()}
		r.mu.Lock()
		r.coded = append(r.coded, c)
		r.mu.Unlock()
		return &codedEnd{here, c, 0}, &codedEnd{there, c, 1}
	}
	r.mux.SetStream("echo", func(st *Stream) {
		_, _ = io.Copy(st, st)
		_ = st.CloseWrite()
	})
	r.dial(dial, accept)
	return r
}

// carriers returns the links for a role, the oldest first.
func (r *streamRoad) carriers(role frame.Role) []*codedLink {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*codedLink
	for _, c := range r.coded {
		c.mu.Lock()
		if c.role == role {
			all = append(all, c)
		}
		c.mu.Unlock()
	}
	return all
}

// cutStream cuts the newest carrier of a stream.
func (r *streamRoad) cutStream() {
	all := r.carriers(frame.RoleStream)
	all[len(all)-1].link.Cut()
}

// open opens a resumable stream.
func (r *streamRoad) openStream(name string) *Stream {
	r.t.Helper()
	st, err := r.dialer.OpenStream(r.t.Context(), name, outlasting)
	require.NoError(r.t, err)
	return st
}

// echoes fails unless what is written to st comes back.
func echoes(t *testing.T, st *Stream, text string) {
	t.Helper()
	_, err := st.Write([]byte(text))
	require.NoError(t, err)
	got := make([]byte, len(text))
	_, err = io.ReadFull(st, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

// dedicatedOf returns how many dedicated streams a session has in its books.
func dedicatedOf(s *Session) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dedicated.open)
}
