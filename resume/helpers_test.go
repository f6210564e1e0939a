package resume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/procs"
)

func TestMain(m *testing.M) {
	procs.One()
	goleak.VerifyTestMain(m)
}

func tcpDial(addr string) dialFunc {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

// hub is a net.Listener of links in memory, and how they are dialed.
type hub struct {
	opts   faultnet.LinkOptions
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	link    *faultnet.Link // the newest
	dials   int
	refusal error                // of dial, if not nil
	made    func(*faultnet.Link) // if not nil, is called for every link
}

func newHub() *hub { return &hub{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (h *hub) dial(ctx context.Context) (net.Conn, error) {
	link := faultnet.NewLink(h.opts)
	h.mu.Lock()
	h.link = link
	h.dials++
	err, made := h.refusal, h.made
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if made != nil {
		made(link)
	}
	a, b := link.Ends()
	select {
	case h.conns <- b:
		return a, nil
	case <-h.closed:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// newest returns the link of the last dial, and how many there have been.
func (h *hub) newest() (*faultnet.Link, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.link, h.dials
}

// refuse makes dial fail with err, until it is nil.
func (h *hub) refuse(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusal = err
}

// onLink makes dial call made.
func (h *hub) onLink(made func(*faultnet.Link)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.made = made
}

func (h *hub) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *hub) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *hub) Addr() net.Addr { return hubAddr{} }

type hubAddr struct{}

func (hubAddr) Network() string { return "hub" }
func (hubAddr) String() string  { return "hub" }

var errRefused = errors.New("connection refused")

// pair is a Conn of two sides over a hub.
type pair struct {
	*hub
	l           *Listener
	client      *Conn
	server      *Conn
	told, heard *diary // what OnState has told on either side
}

// diary is a list of states.
type diary struct {
	mu      sync.Mutex
	changes []StateChange
}

func (d *diary) note(s StateChange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes = append(d.changes, s)
}

// text returns the states in their order.
func (d *diary) text() string {
	synctest.Wait() // OnState is told in a goroutine of its own
	d.mu.Lock()
	defer d.mu.Unlock()
	var text strings.Builder
	for _, c := range d.changes {
		text.WriteString(string(c.State) + " ")
	}
	return text.String()
}

// last returns the error of the last state.
func (d *diary) last() error {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes[len(d.changes)-1].Err
}

// newPair makes a pair, of which nothing is left after the test. Nil options are zero.
func newPair(t testing.TB, dialing, serving *Options) *pair {
	t.Helper()
	return newPairOver(t, newHub(), dialing, serving)
}

func newPairOver(t testing.TB, h *hub, dialing, serving *Options) *pair {
	t.Helper()
	p := &pair{hub: h, told: new(diary), heard: new(diary)}
	var d, s Options
	if dialing != nil {
		d = *dialing
	}
	if serving != nil {
		s = *serving
	}
	d.OnState, s.OnState = p.told.note, p.heard.note
	var err error
	p.l, err = NewListener(h, &s)
	require.NoError(t, err)
	p.client, err = Dial(h.dial, &d)
	require.NoError(t, err)
	server, err := p.l.Accept()
	require.NoError(t, err)
	p.server = server.(*Conn)
	t.Cleanup(func() { p.end(t) })
	return p
}

// end closes everything and waits for it.
func (p *pair) end(t testing.TB) {
	_, _, _ = p.client.Close(), p.server.Close(), p.l.Close()
	p.client.flow.Close(net.ErrClosed)
	p.server.flow.Close(net.ErrClosed)
	for _, c := range []*Conn{p.client, p.server} {
		select {
		case <-c.Done():
		case <-time.After(time.Minute):
			t.Error("a conn does not end")
		}
	}
}

// say writes text on one side and reads it on the other.
func say(t testing.TB, from, to net.Conn, text string) {
	t.Helper()
	n, err := from.Write([]byte(text))
	require.NoError(t, err)
	require.Equal(t, len(text), n)
	got := make([]byte, len(text))
	_, err = io.ReadFull(to, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

// cutNewest cuts the newest link once both sides have taken in what is under way.
func (p *pair) cutNewest() {
	link, _ := p.newest()
	link.Cut()
}

// newHash returns the hash of all that r brings until io.EOF, or of what it fails with.
func newHash(r io.Reader) string {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return err.Error()
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sliceReader(b []byte) io.Reader { return bytes.NewReader(b) }
