package peerlane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/internal/pointsub"
	"github.com/peerlane/peerlane/session"
)

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
		conn.resetWith(codes.Unavailable)
		return ErrUnavailable
	}
	defer t.removeLegacy(call)
	held := 0
	defer func() { s.quota.Release(0, held) }()
	request, err := s.readLegacyRequest(call, &held)
	if err != nil {
		conn.resetWith(codeOf(err))
		return err
	}
	if !s.quota.Take(1, 0) {
		conn.resetWith(codes.Unavailable)
		return ErrUnavailable
	}
	defer s.quota.Release(1, 0)
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
		response = []byte(pointsub.ErrorPrefix + err.Error())
	}
	if len(response) > s.cfg.MaxBlockSize {
		conn.resetWith(codes.ReplyTooLarge)
		return &Error{Op: "legacy call", Code: codes.ReplyTooLarge, Outcome: session.Delivered}
	}
	call.out.Store(uint64(pointsub.Header + len(response)))
	if err := pointsub.Write(conn, response, pointsub.Deadline{Set: conn.SetWriteDeadline, Each: s.cfg.WriteTimeout}); err != nil {
		conn.resetWith(codes.Timeout)
		return err
	}
	conn.linger = 0 // the client sends nothing more and never closes: waiting for that would use up its streams
	return conn.Close()
}

// readLegacyRequest reads a request: the header within ConnectTimeout, the rest with at most ReadTimeout between two of its parts.
func (s *Server) readLegacyRequest(call *legacyCall, held *int) ([]byte, error) {
	_ = call.conn.SetReadDeadline(time.Now().Add(s.cfg.ConnectTimeout)) // a closed conn fails in the read
	n, err := pointsub.ReadSize(call.conn, s.cfg.MaxBlockSize)
	if err != nil {
		return nil, err
	}
	call.in.Store(pointsub.Header)
	body := pointsub.Reader{Reader: call.conn, Deadline: pointsub.Deadline{Set: call.conn.SetReadDeadline, Each: s.cfg.ReadTimeout}}
	return pointsub.ReadBody(countingReader{body, &call.in}, n, func(part int) bool {
		if !s.quota.Take(0, part) {
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
		_ = conn.SetReadDeadline(deadline.Past) // likewise
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
func codeOf(err error) codes.Code {
	if e, ok := errors.AsType[*Error](err); ok && e.Code != codes.OK {
		return e.Code
	}
	if isTimeout(err) {
		return codes.Timeout
	}
	return codes.Protocol
}
