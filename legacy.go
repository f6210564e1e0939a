package peerlane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/session"
)

// The wire of pointsub v0.0.2 (spec 2.2): one conn per call; the request and the response are each a 4-byte big-endian length and that many
// bytes; the server closes after the response; the client closes nothing before it has read the response.

// legacyErrorPrefix is how a pointsub server puts a handler's error into the response.
const legacyErrorPrefix = "处理请求失败: "

const (
	legacyHeader = 4
	legacyChunk  = 64 << 10
)

// A legacyDeadline extends a deadline of a conn while bytes move. It bounds the time without progress, and the total by until; a zero until
// sets no such bound.
type legacyDeadline struct {
	set   func(time.Time) error
	each  time.Duration
	until time.Time
}

func (d legacyDeadline) move() {
	t := time.Now().Add(d.each)
	if !d.until.IsZero() && d.until.Before(t) {
		t = d.until
	}
	_ = d.set(t) // a closed conn fails in the read or write
}

// legacyReader moves the deadline before every Read.
type legacyReader struct {
	io.Reader
	deadline legacyDeadline
}

func (r legacyReader) Read(p []byte) (int, error) {
	r.deadline.move()
	return r.Reader.Read(p)
}

// writeLegacy writes a length and value, a short value in one Write.
func writeLegacy(w io.Writer, value []byte, deadline legacyDeadline) error {
	first := min(len(value), legacyChunk)
	b := binary.BigEndian.AppendUint32(make([]byte, 0, legacyHeader+first), uint32(len(value)))
	deadline.move()
	if _, err := w.Write(append(b, value[:first]...)); err != nil {
		return err
	}
	for part := range slices.Chunk(value[first:], legacyChunk) {
		deadline.move()
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// readLegacySize reads a length, and rejects one over limit with an *Error of CodeTooLarge.
func readLegacySize(r io.Reader, limit int) (int, error) {
	var b [legacyHeader]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, truncated(err)
	}
	n := binary.BigEndian.Uint32(b[:])
	if uint64(n) > uint64(limit) {
		return 0, &Error{Op: "legacy call", Code: frame.CodeTooLarge, Outcome: session.Rejected,
			Text: fmt.Sprintf("%d bytes, at most %d", n, limit)}
	}
	return int(n), nil
}

// truncated returns the error for input that ended too early, if that is what err says.
func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readLegacyBody reads n bytes. Until all have arrived, it holds no more than the arrived bytes plus one chunk. It calls hold before each
// chunk.
func readLegacyBody(r io.Reader, n int, hold func(int) bool) ([]byte, error) {
	var parts [][]byte
	for left := n; left > 0; {
		part := make([]byte, min(left, legacyChunk))
		if !hold(len(part)) {
			return nil, &Error{Op: "legacy call", Code: frame.CodeUnavailable, Outcome: session.Rejected,
				Text: "no memory for more requests"}
		}
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, truncated(err)
		}
		parts, left = append(parts, part), left-len(part)
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	body := make([]byte, 0, n)
	for _, part := range parts {
		body = append(body, part...)
	}
	return body, nil
}

// callLegacy makes one call to an old peer on conn, and closes it.
func callLegacy(ctx context.Context, conn *Conn, request []byte, c *ClientConfig) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { conn.resetWith(frame.CodeCancelled) })
	defer stop()
	response, err := exchangeLegacy(conn, request, c)
	if err == nil {
		_ = conn.Close() // the answer is here
		return response, nil
	}
	conn.resetWith(frame.CodeCancelled)
	failed := &Error{Op: "send", Peer: conn.RemotePeer().String(), Link: string(conn.Tag()), Outcome: session.Unknown, Err: err}
	var e *Error
	switch {
	case ctx.Err() != nil:
		failed.Err = ctx.Err()
	case errors.As(err, &e) && e.Code == frame.CodeTooLarge && !e.Remote: // the handler has run
		failed.Code, failed.Outcome, failed.Text, failed.Err = frame.CodeReplyTooLarge, session.Delivered, e.Text, nil
	}
	return nil, failed
}

// exchangeLegacy sends a request and reads the response, within ReadTimeout in total.
func exchangeLegacy(conn *Conn, request []byte, c *ClientConfig) ([]byte, error) {
	until := time.Now().Add(c.ReadTimeout)
	if err := writeLegacy(conn, request, legacyDeadline{conn.SetWriteDeadline, c.WriteTimeout, until}); err != nil {
		return nil, err
	}
	_ = conn.SetReadDeadline(until) // a closed conn fails in the read
	n, err := readLegacySize(conn, c.MaxBlockSize)
	if err != nil {
		return nil, err
	}
	return readLegacyBody(conn, n, func(int) bool { return true })
}

// legacyCall is one call of an old peer that is being served.
type legacyCall struct {
	conn    *Conn
	started time.Time
	in, out atomic.Uint64 // received bytes of the request, and sent bytes of the response

	tag  *servedTag
	left func() // the end of the tag does not wait for it any longer
}

// Exempt makes the end of the tag not wait for the call's handler, which calls for that end.
func (c *legacyCall) Exempt(handler.Kind) { c.left() }

// Is reports whether x is the tag of the call.
func (c *legacyCall) Is(x any) bool { return x == any(c.tag) }

// serveLegacy serves one call of an old peer, and logs events that an operator should know about.
func (s *Server) serveLegacy(t *servedTag, conn *Conn, left func()) error {
	call := &legacyCall{conn: conn, started: time.Now(), tag: t, left: left}
	if !t.addLegacy(call) {
		conn.resetWith(frame.CodeUnavailable)
		return ErrUnavailable
	}
	defer t.removeLegacy(call)
	held := 0
	defer func() { s.quota.Release(held) }()
	request, err := s.readLegacyRequest(call, &held)
	if err != nil {
		conn.resetWith(codeOf(err))
		return err
	}
	if !s.quota.StartCall() {
		conn.resetWith(frame.CodeUnavailable)
		return ErrUnavailable
	}
	defer s.quota.EndCall()
	var response []byte
	var served error
	hook.Run(func() {
		handler.Run(call, handler.Call, func() { response, err = s.runLegacy(t, conn, request) })
	}, func(why *hook.Failure) {
		if why != nil {
			s.log.Error("handler panicked or ended its goroutine", "tag", t.tag, "peer", conn.RemotePeer(), "err", why)
			err = fmt.Errorf("handler %w", why)
		}
		served = s.answerLegacy(call, response, err)
	})
	return served
}

// answerLegacy sends a handler's result.
func (s *Server) answerLegacy(call *legacyCall, response []byte, err error) error {
	conn := call.conn
	if err != nil {
		response = []byte(legacyErrorPrefix + err.Error())
	}
	if len(response) > s.cfg.MaxBlockSize {
		conn.resetWith(frame.CodeReplyTooLarge)
		return &Error{Op: "legacy call", Code: frame.CodeReplyTooLarge, Outcome: session.Delivered}
	}
	call.out.Store(uint64(legacyHeader + len(response)))
	if err := writeLegacy(conn, response, legacyDeadline{set: conn.SetWriteDeadline, each: s.cfg.WriteTimeout}); err != nil {
		conn.resetWith(frame.CodeTimeout)
		return err
	}
	conn.linger = 0 // the client sends nothing more and never closes: waiting for that would use up its streams
	return conn.Close()
}

// readLegacyRequest reads a request: the header within ConnectTimeout, the rest with at most ReadTimeout between two of its parts.
func (s *Server) readLegacyRequest(call *legacyCall, held *int) ([]byte, error) {
	_ = call.conn.SetReadDeadline(time.Now().Add(s.cfg.ConnectTimeout)) // a closed conn fails in the read
	n, err := readLegacySize(call.conn, s.cfg.MaxBlockSize)
	if err != nil {
		return nil, err
	}
	call.in.Store(legacyHeader)
	body := legacyReader{call.conn, legacyDeadline{set: call.conn.SetReadDeadline, each: s.cfg.ReadTimeout}}
	return readLegacyBody(countingReader{body, &call.in}, n, func(part int) bool {
		if !s.quota.Take(part) {
			return false
		}
		*held += part
		return true
	})
}

// countingReader adds the number of bytes read to n.
type countingReader struct {
	io.Reader
	n *atomic.Uint64
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(uint64(n))
	return n, err
}

// watchCaller calls gone when the caller breaks its stream, until stop is called. A caller that ends its direction in order, or sends more
// than its request, does not break it. The goroutine ends with stop, which waits for it.
func watchCaller(conn *Conn, gone func()) (stop func()) {
	_ = conn.SetReadDeadline(time.Time{}) // a closed conn fails in the read
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [1]byte
		_, err := conn.Read(b[:])
		if err != nil && err != io.EOF && !isTimeout(err) {
			gone()
		}
	}()
	return func() {
		_ = conn.SetReadDeadline(past) // likewise
		<-done
	}
}

// runLegacy runs the tag's handler. The handler's ctx ends with the caller's stream or the server.
func (s *Server) runLegacy(t *servedTag, conn *Conn, request []byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer watchCaller(conn, cancel)()
	return t.handler(ctx, &Request{Peer: conn.RemotePeer(), Tag: t.tag, Value: request})
}

// codeOf returns the code for resetting a legacy conn.
func codeOf(err error) frame.Code {
	var e *Error
	if errors.As(err, &e) && e.Code != frame.CodeOK {
		return e.Code
	}
	if isTimeout(err) {
		return frame.CodeTimeout
	}
	return frame.CodeProtocol
}
