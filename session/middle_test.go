package session

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/test/mangle"
)

// What passes on carriers: hellos, then frames, or segments where the session outlives its carriers.
var (
	helloShape = &mangle.Shape{
		Head: 2, Max: frame.MaxHello, Fields: [][2]int{{0, 2}},
		Length: func(h []byte) int { return int(h[0])<<8 | int(h[1]) },
		Set:    func(h []byte, n int) { h[0], h[1] = byte(n>>8), byte(n) },
	}
	frameShape = &mangle.Shape{
		Head: frame.HeaderSize, Max: 1<<24 - 1, Fields: [][2]int{{3, 1}, {4, 1}, {5, 8}, {0, 3}, {12, 1}},
		Length: func(h []byte) int { return int(h[0])<<16 | int(h[1])<<8 | int(h[2]) },
		Set:    func(h []byte, n int) { h[0], h[1], h[2] = byte(n>>16), byte(n>>8), byte(n) },
	}
	segmentShape = &mangle.Shape{
		Head: 12, Max: 1<<24 - 1, Fields: [][2]int{{0, 1}, {4, 8}, {1, 3}, {11, 1}},
		Length: func(h []byte) int { return int(h[1])<<16 | int(h[2])<<8 | int(h[3]) },
		Set:    func(h []byte, n int) { h[1], h[2], h[3] = byte(n>>16), byte(n>>8), byte(n) },
	}
)

// A middle is between two sides. It makes one of them hostile to the other: what that sends is changed by a script, except its first hello.
type middle struct {
	*pair
	toDialer bool // the honest side is the one that has dialed
	script   *mangle.Script
	shape    *mangle.Shape
	serving  sync.WaitGroup
	honest   atomic.Pointer[Session] // nil until the session is open
	look     func(*Session)          // is called with the honest side after each unit that it was sent

	mu    sync.Mutex
	links []*faultnet.Link
	opens int
}

// newMiddle opens a session through a middle.
func newMiddle(t *testing.T, cfg Config, toDialer bool, script []byte, look func(*Session)) *middle {
	t.Helper()
	m := &middle{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, toDialer: toDialer, shape: segmentShape, look: look}
	if cfg.ResumeWindow < 0 {
		m.shape = frameShape
	}
	m.script = mangle.New(script, m.shape)
	dial, accept := cfg, AcceptorConfig{Config: cfg}
	dial.Mux, accept.Mux = m.ours, m.mux
	dial.Quota, accept.Quota = new(Quota), new(Quota)
	dial.Local, accept.Local = "alice", "bob"
	opened := make(chan *Session, 1)
	accept.OnSession = func(s *Session) { opened <- s }
	var err error
	m.acceptor, err = NewAcceptor(&accept)
	require.NoError(t, err)
	first, _ := m.open(t.Context(), Want{})
	m.dialer, err = Dial(t.Context(), first, "bob", m.open, &dial)
	require.NoError(t, err)
	m.accepted = <-opened
	m.honest.Store(m.accepted)
	if toDialer {
		m.honest.Store(m.dialer)
	}
	return m
}

// maxOpens is how many carriers a middle makes: then there is no way to the peer any more, and what waits for one ends.
const maxOpens = 40

// open is the Opener of the dialing side.
func (m *middle) open(context.Context, Want) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opens++; m.opens > maxOpens {
		return nil, io.ErrClosedPipe
	}
	near, far := faultnet.NewLink(faultnet.LinkOptions{}), faultnet.NewLink(faultnet.LinkOptions{})
	m.links = append(m.links, near, far)
	dialing, here := near.Ends()
	there, accepting := far.Ends()
	honest, hostile := there, here
	if m.toDialer {
		honest, hostile = here, there
	}
	first := m.opens == 1
	m.serving.Go(func() { _ = m.acceptor.Serve(accepting, "alice") })
	m.serving.Go(func() {
		_, _ = io.Copy(hostile, honest)
		_ = hostile.CloseWrite()
	})
	m.serving.Go(func() {
		if m.change(honest, hostile, first) {
			near.Cut()
			far.Cut()
		}
		_ = honest.CloseWrite()
	})
	return dialing, nil
}

// change copies a carrier to the honest side as the script says. It returns whether the carrier is to break.
func (m *middle) change(honest, hostile net.Conn, first bool) (broken bool) {
	hello, err := helloShape.Read(hostile)
	if err != nil {
		return false
	}
	isSession := first
	if h, _, err := frame.ConsumeHello(hello[2:]); err == nil && !first {
		isSession = h.Resume != nil
	}
	pieces := [][]byte{hello}
	if !first {
		pieces, broken = m.pass(hello)
	}
	for {
		for _, p := range pieces {
			if _, err := honest.Write(p); err != nil {
				return true
			}
		}
		if s := m.honest.Load(); s != nil {
			m.look(s)
		}
		if broken {
			return true
		}
		var unit []byte
		if isSession {
			unit, err = m.shape.Read(hostile)
		} else { // the bytes of a stream: some of them for a unit, that those are changed too
			unit = make([]byte, 64)
			var n int
			n, err = io.ReadAtLeast(hostile, unit, m.shape.Head)
			unit = unit[:n]
		}
		if len(unit) < m.shape.Head {
			return err != io.EOF && err != io.ErrUnexpectedEOF
		}
		pieces, broken = m.pass(unit)
	}
}

// pass returns what becomes of a unit, after the pause that the script makes.
func (m *middle) pass(unit []byte) (pieces [][]byte, broken bool) {
	if len(unit) < m.shape.Head {
		return [][]byte{unit}, false
	}
	r := m.script.Next(unit)
	time.Sleep(time.Duration(r.Pause) * 10 * time.Millisecond)
	return r.Units, r.Cut
}

// end breaks all carriers, and waits for what the middle has started.
func (m *middle) end() {
	m.mu.Lock()
	m.opens = maxOpens
	for _, l := range m.links {
		l.Cut()
	}
	m.mu.Unlock()
	m.serving.Wait()
}
