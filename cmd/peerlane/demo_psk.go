package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// A tap keeps what a host's streams carry, above libp2p's own encryption: what a seal must hide.
type tap struct {
	host.Host

	mu   sync.Mutex
	seen bytes.Buffer
}

// tapNetwork and tapStream hand to the tap what passes.
type (
	tapNetwork struct {
		network.Network
		tap *tap
	}
	tapStream struct {
		network.Stream
		tap *tap
	}
)

// Network returns the host's network, tapped.
func (t *tap) Network() network.Network { return tapNetwork{t.Host.Network(), t} }

// NewStream opens a stream, tapped.
func (n tapNetwork) NewStream(ctx context.Context, pid peer.ID) (network.Stream, error) {
	s, err := n.Network.NewStream(ctx, pid)
	if err != nil {
		return nil, err
	}
	return tapStream{s, n.tap}, nil
}

// Read reads, and keeps what came.
func (s tapStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.tap.keep(p[:n])
	return n, err
}

// Write keeps p, and writes it.
func (s tapStream) Write(p []byte) (int, error) {
	s.tap.keep(p)
	return s.Stream.Write(p)
}

func (t *tap) keep(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.Write(p)
}

// count returns how often mark passed, and how many bytes did in all.
func (t *tap) count(mark []byte) (times, size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Count(t.seen.Bytes(), mark), t.seen.Len()
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

const (
	markSize   = 64 // random, so that it is on the wire by accident never
	secretSize = 32
)

// pskSealed: under a key a call, a message and a stream work, both ends say that they are sealed, and what passes libp2p's
// streams shows none of it. The same without a key shows all of it, so the tap works.
func pskSealed(ctx context.Context, l *lab) (string, error) {
	clear, _, err := tapped(ctx, l, demoTag+"clear", nil)
	if err != nil {
		return "", err
	}
	if clear == 0 {
		return "", errors.New("the tap sees nothing even without a key")
	}
	sealed, size, err := tapped(ctx, l, demoTag+"sealed", random(secretSize))
	if err != nil {
		return "", err
	}
	if sealed != 0 {
		return "", fmt.Errorf("plain text passed %d times under the key", sealed)
	}
	return fmt.Sprintf("4 lanes, plain text %d times (without key %d), %d bytes", sealed, clear, size), nil
}

// tapped sends a mark over each lane, and returns how often it was seen and in how many bytes.
func tapped(ctx context.Context, l *lab, tag string, secret []byte) (times, size int, err error) {
	t := &tap{Host: l.dialer}
	seen := *l
	seen.dialer = t
	x, err := newExchange(&seen, protocol.ID(tag), reverseHandler, keys{secret, secret})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	mark := random(markSize)
	if err := x.everyLane(ctx, mark, secret != nil); err != nil {
		return 0, 0, err
	}
	times, size = t.count(mark)
	return times, size, nil
}

// everyLane sends mark as a call, as a message, and on a stream of either kind, and checks that both ends know whether
// they are sealed.
func (x *exchange) everyLane(ctx context.Context, mark []byte, sealed bool) error {
	x.server.SetLink("mark", func(m *session.Message) { _ = m.Reply(m.Value) }) // the sender sees what fails
	x.server.SetStream("mark", func(st *session.Stream) {
		b := make([]byte, len(mark))
		if _, err := st.Read(b); err == nil {
			_, _ = st.Write(b) // the other side misses it
		}
	})
	if err := x.call(ctx, mark); err != nil {
		return err
	}
	s, err := x.connect(ctx)
	if err != nil {
		return err
	}
	if _, err := s.SendWait(ctx, "mark", mark); err != nil {
		return err
	}
	for _, opts := range []*session.StreamOptions{nil, {Dedicated: true}} {
		if err := echoMark(ctx, s, opts, mark); err != nil {
			return err
		}
	}
	for _, c := range append(x.server.GetConnectionsInfo(), x.client.GetConnectionsInfo()...) {
		if c.Sealed != sealed {
			return fmt.Errorf("a session says sealed: %v, want %v", c.Sealed, sealed)
		}
	}
	return nil
}

// echoMark sends mark on a stream and reads it back.
func echoMark(ctx context.Context, s *session.Session, opts *session.StreamOptions, mark []byte) error {
	st, err := s.OpenStream(ctx, "mark", opts)
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline() // every step has one
	if err := st.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := st.Write(mark); err != nil {
		return err
	}
	got := make([]byte, len(mark))
	if _, err := st.Read(got); err != nil {
		return err
	}
	if !bytes.Equal(got, mark) {
		return errors.New("stream: other bytes came back")
	}
	return st.Close()
}

// pskWrongKey: whoever has another key is refused, and told why.
func pskWrongKey(ctx context.Context, l *lab) (string, error) {
	return refusedKey(ctx, l, demoTag+"wrong", keys{random(secretSize), random(secretSize)}, peerlane.ErrPSKMismatch)
}

// pskMissingKey: whoever has no key is refused by a server with one, and nobody falls back to a server without.
func pskMissingKey(ctx context.Context, l *lab) (string, error) {
	client, err := refusedKey(ctx, l, demoTag+"none", keys{server: random(secretSize)}, peerlane.ErrPSKRequired)
	if err != nil {
		return "", err
	}
	server, err := refusedKey(ctx, l, demoTag+"fallback", keys{client: random(secretSize)}, peerlane.ErrPSKRequired)
	if err != nil {
		return "", err
	}
	return "client: " + client + "; server: " + server, nil
}

// refusedKey checks that the two sides' keys do not go together, and that no handler runs.
func refusedKey(ctx context.Context, l *lab, tag string, k keys, want error) (figure string, err error) {
	var ran atomic.Bool
	x, err := newExchange(l, protocol.ID(tag), func([]byte) ([]byte, error) { ran.Store(true); return nil, nil }, k)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	_, callErr := x.client.Send(ctx, l.b.ID(), x.tag, []byte("secret"))
	var e *peerlane.Error
	switch {
	case callErr == nil:
		return "", errors.New("the call went through")
	case !errors.Is(callErr, want) || !errors.As(callErr, &e):
		return "", fmt.Errorf("got another error than %q: %w", want.Error(), callErr)
	case ran.Load() || e.Outcome != session.NotSent:
		return "", fmt.Errorf("the handler ran: %v, outcome %s, want %s", ran.Load(), e.Outcome, session.NotSent)
	}
	return e.Code.String(), nil
}
