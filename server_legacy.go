package peerlane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/fair"
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
	part := s.quota.Hold(conn.RemotePeer().String(), subnetOf(conn.under))
	defer part.Leave()
	held := 0
	defer func() { part.Release(0, held) }()
	request, err := s.readLegacyRequest(call, part, &held)
	if err != nil {
		conn.resetWith(codeOf(err))
		return err
	}
	if err := part.Take(1, 0); err != nil {
		conn.resetWith(codes.Unavailable)
		return err
	}
	defer part.Release(1, 0)
	part.Served()
	var response []byte
	var served error
	hook.Run(func() {
		handler.Run(call, handler.Call, func() { response, err = s.runLegacy(t, conn, request) })
	}, func(why *hook.Failure) {
		if why != nil {
			s.log.Error("handler panicked or ended its goroutine", "tag", t.tag, "peer", conn.RemotePeer(), "err", why)
			err = fmt.Errorf("handler %w", why)
		}
		served = s.answerLegacy(call, part, response, err)
	})
	return served
}

// answerLegacy sends a handler's result, which counts with its peer until it is sent.
func (s *Server) answerLegacy(call *legacyCall, part *session.QuotaPart, response []byte, err error) error {
	conn := call.conn
	if err != nil {
		response = []byte(pointsub.ErrorPrefix + err.Error())
	}
	if len(response) > s.cfg.MaxBlockSize {
		conn.resetWith(codes.ReplyTooLarge)
		return &Error{Op: "legacy call", Code: codes.ReplyTooLarge, Outcome: session.Delivered}
	}
	if err := part.Take(0, len(response)); err != nil {
		conn.resetWith(codes.ReplyTooLarge)
		return err
	}
	defer part.Release(0, len(response))
	call.out.Store(uint64(pointsub.Header + len(response)))
	if err := pointsub.Write(conn, response, pointsub.Deadline{Set: conn.SetWriteDeadline, Each: s.cfg.WriteTimeout}); err != nil {
		conn.resetWith(codes.Timeout)
		return err
	}
	conn.linger = 0 // the client sends nothing more and never closes: waiting for that would use up its streams
	return conn.Close()
}

// readLegacyRequest reads a request: the header within ConnectTimeout, the rest with at most ReadTimeout between two of its parts, and
// no slower than a fair.Pace.
func (s *Server) readLegacyRequest(call *legacyCall, part *session.QuotaPart, held *int) ([]byte, error) {
	_ = call.conn.SetReadDeadline(time.Now().Add(s.cfg.ConnectTimeout)) // a closed conn fails in the read
	n, err := pointsub.ReadSize(call.conn, s.cfg.MaxBlockSize)
	if err != nil {
		return nil, err
	}
	call.in.Store(pointsub.Header)
	body := pointsub.Reader{Reader: call.conn, Deadline: pointsub.Deadline{Set: call.conn.SetReadDeadline, Each: s.cfg.ReadTimeout}}
	paced := &pacedReader{Reader: body, n: &call.in, window: s.cfg.ReadTimeout, began: time.Now()}
	return pointsub.ReadBody(paced, n, func(more int) bool {
		if part.Take(0, more) != nil {
			return false
		}
		*held += more
		return true
	})
}

// A pacedReader adds the number of bytes read to n, and fails when they come too slowly for what has arrived already. A request holds no more
// than that and a pointsub.Chunk.
type pacedReader struct {
	io.Reader
	n      *atomic.Uint64
	got    int
	window time.Duration
	began  time.Time
	pace   fair.Pace
}

func (r *pacedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(uint64(n))
	r.got += n
	r.pace.Add(n)
	if most, over := r.pace.Most(time.Since(r.began), r.window); over && r.got > most {
		return n, os.ErrDeadlineExceeded
	}
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
	return legacyThrough(ctx, t.mux, conn.RemotePeer(), t.tag, true, request, func(ctx context.Context, value []byte) ([]byte, error) {
		return t.handler(ctx, &Request{Peer: conn.RemotePeer(), Tag: t.tag, Value: value})
	})
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
