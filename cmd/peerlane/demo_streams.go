package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// streamSize is what goes each way on a stream or conn.
const streamSize = 4 << 20

// duplex is a conn that can end its own direction.
type duplex interface {
	net.Conn
	peerlane.HalfCloser
}

// swap sends size random bytes over c while it reads to the end, and returns the SHA-256 of both directions.
func swap(ctx context.Context, c duplex, size int) (sent, got [sha256.Size]byte, err error) {
	deadline, _ := ctx.Deadline() // every step has one
	if err := c.SetDeadline(deadline); err != nil {
		return sent, got, err
	}
	body := make([]byte, size)
	_, _ = rand.Read(body) // never fails
	written := make(chan error, 1)
	go func() { // ends with the write, which the deadline bounds
		_, err := c.Write(body)
		written <- errors.Join(err, c.CloseWrite())
	}()
	h := sha256.New()
	n, err := io.Copy(h, c)
	err = errors.Join(err, <-written)
	if err == nil && n != int64(size) {
		err = fmt.Errorf("%d bytes came, want %d", n, size)
	}
	return sha256.Sum256(body), [sha256.Size]byte(h.Sum(nil)), err
}

// hashes are what one side of a swap saw.
type hashes struct {
	sent, got [sha256.Size]byte
	err       error
}

// compare runs swap on this side, and compares with what the other side saw.
func compare(ctx context.Context, c duplex, other <-chan hashes) (string, error) {
	began := time.Now()
	sent, got, err := swap(ctx, c, streamSize)
	if err != nil {
		return "", err
	}
	select {
	case o := <-other:
		if o.err != nil {
			return "", fmt.Errorf("other side: %w", o.err)
		}
		if sent != o.got || got != o.sent {
			return "", errors.New("the bytes that came are not those that were sent")
		}
	case <-ctx.Done():
		return "", ctx.Err()
	}
	mib := float64(2*streamSize) / (1 << 20)
	return fmt.Sprintf("%d MiB each way at once, SHA-256 equal, %.0f MiB/s",
		streamSize>>20, mib/time.Since(began).Seconds()), c.Close()
}

// rawConn: a net.Conn by Peer ID, with half close.
func rawConn(ctx context.Context, l *lab) (figure string, err error) {
	listener, err := peerlane.Listen(l.b.Host(), demoTag+"conn")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, listener.Close()) }()
	other := make(chan hashes, 1)
	go func() { // ends with the conn, or when listener is closed
		c, err := listener.Accept()
		if err != nil {
			other <- hashes{err: err}
			return
		}
		var h hashes
		h.sent, h.got, h.err = swap(ctx, c.(duplex), streamSize)
		h.err = errors.Join(h.err, c.Close())
		other <- h
	}()
	c, err := peerlane.Dial(ctx, l.a.Host(), l.b.ID(), demoTag+"conn")
	if err != nil {
		return "", err
	}
	if p := c.(*peerlane.Conn).Path(); p.Transport != l.path || p.Relayed {
		return "", fmt.Errorf("the conn runs over %s, want %s", p, l.path)
	}
	return compare(ctx, c.(duplex), other)
}

func sharedStream(ctx context.Context, l *lab) (string, error) {
	return sessionStream(ctx, l, demoTag+"shared", nil)
}

func dedicatedStream(ctx context.Context, l *lab) (string, error) {
	return sessionStream(ctx, l, demoTag+"dedicated", &session.StreamOptions{Dedicated: true})
}

// sessionStream: a stream of a session, while a message goes beside it.
func sessionStream(ctx context.Context, l *lab, tag string, opts *session.StreamOptions) (figure string, err error) {
	x, err := newExchange(l, protocol.ID(tag), reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	return x.stream(ctx, opts)
}

// stream opens a stream and compares what goes over it.
func (x *exchange) stream(ctx context.Context, opts *session.StreamOptions) (string, error) {
	other := make(chan hashes, 1)
	x.server.SetStream("bulk", func(st *session.Stream) {
		var h hashes
		h.sent, h.got, h.err = swap(ctx, st, streamSize)
		other <- h
	})
	s, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	st, err := s.OpenStream(ctx, "bulk", opts)
	if err != nil {
		return "", err
	}
	if want := opts != nil && opts.Dedicated; st.Dedicated() != want {
		return "", fmt.Errorf("stream is dedicated: %v, want %v", st.Dedicated(), want)
	}
	return compare(ctx, st, other)
}
