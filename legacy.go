package peerlane

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/session"
)

// The wire of pointsub v0.0.2 (spec 2.2): one conn per call; the request and the response are each a 4-byte big-endian
// length and so many bytes; the server closes after the response; the client closes nothing before it has read it.

// legacyErrorPrefix is how a pointsub server puts a handler's error into the response.
const legacyErrorPrefix = "处理请求失败: "

const (
	legacyHeader = 4
	legacyChunk  = 64 << 10
)

// writeLegacy writes a length and value in one Write.
func writeLegacy(w io.Writer, value []byte) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, legacyHeader+len(value)), uint32(len(value)))
	_, err := w.Write(append(b, value...))
	return err
}

// readLegacySize reads a length, and refuses one over limit with an *Error of CodeTooLarge.
func readLegacySize(r io.Reader, limit int) (int, error) {
	var b [legacyHeader]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(b[:])
	if uint64(n) > uint64(limit) {
		return 0, &Error{Op: "legacy call", Code: frame.CodeTooLarge, Outcome: session.Rejected,
			Text: fmt.Sprintf("%d bytes, at most %d", n, limit)}
	}
	return int(n), nil
}

// readLegacyBody reads n bytes. It holds no more than has arrived plus one chunk until all are there; hold is asked
// before each chunk.
func readLegacyBody(r io.Reader, n int, hold func(int) bool) ([]byte, error) {
	var parts [][]byte
	for left := n; left > 0; {
		part := make([]byte, min(left, legacyChunk))
		if !hold(len(part)) {
			return nil, &Error{Op: "legacy call", Code: frame.CodeUnavailable, Outcome: session.Rejected,
				Text: "no memory for more requests"}
		}
		if _, err := io.ReadFull(r, part); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
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
	fail := func(outcome session.Outcome, err error) error {
		conn.resetWith(frame.CodeCancelled)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return &Error{Op: "send", Peer: conn.RemotePeer().String(), Link: string(conn.Tag()), Outcome: outcome, Err: err}
	}
	stop := context.AfterFunc(ctx, func() { conn.resetWith(frame.CodeCancelled) })
	defer stop()
	_ = conn.SetWriteDeadline(time.Now().Add(c.WriteTimeout)) // a closed conn fails in the write
	if err := writeLegacy(conn, request); err != nil {
		return nil, fail(session.Unknown, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(c.ReadTimeout)) // likewise
	n, err := readLegacySize(conn, c.MaxBlockSize)
	if err != nil {
		return nil, fail(session.Unknown, err)
	}
	response, err := readLegacyBody(conn, n, func(int) bool { return true })
	if err != nil {
		return nil, fail(session.Unknown, err)
	}
	_ = conn.Close() // the answer is here
	return response, nil
}

// legacyCall is one call of an old peer that is being served.
type legacyCall struct {
	conn    *Conn
	started time.Time
	in, out int
}

// serveLegacy serves one call of an old peer, and reports what an operator should know.
func (s *Server) serveLegacy(t *servedTag, conn *Conn) error {
	call := &legacyCall{conn: conn, started: time.Now()}
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
	response, err := s.runLegacy(t, conn, request)
	if err != nil {
		response = []byte(legacyErrorPrefix + err.Error())
	}
	if len(response) > s.cfg.MaxBlockSize {
		conn.resetWith(frame.CodeReplyTooLarge)
		return &Error{Op: "legacy call", Code: frame.CodeReplyTooLarge, Outcome: session.Delivered}
	}
	call.out = len(response)
	_ = conn.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)) // a closed conn fails in the write
	if err := writeLegacy(conn, response); err != nil {
		conn.resetWith(frame.CodeTimeout)
		return err
	}
	return conn.Close()
}

// readLegacyRequest reads a request: the header within ConnectTimeout, the rest within ReadTimeout.
func (s *Server) readLegacyRequest(call *legacyCall, held *int) ([]byte, error) {
	_ = call.conn.SetReadDeadline(time.Now().Add(s.cfg.ConnectTimeout)) // a closed conn fails in the read
	n, err := readLegacySize(call.conn, s.cfg.MaxBlockSize)
	if err != nil {
		return nil, err
	}
	_ = call.conn.SetReadDeadline(time.Now().Add(s.cfg.ReadTimeout)) // likewise
	call.in = n
	return readLegacyBody(call.conn, n, func(part int) bool {
		if !s.quota.Take(part) {
			return false
		}
		*held += part
		return true
	})
}

// runLegacy runs the tag's handler; a panic is an error. The handler's ctx ends with the conn or the server.
func (s *Server) runLegacy(t *servedTag, conn *Conn, request []byte) (response []byte, err error) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("handler panicked", "tag", t.tag, "peer", conn.RemotePeer(), "panic", v)
			err = fmt.Errorf("handler panicked: %v", v)
		}
	}()
	return t.handler(ctx, &Request{Peer: conn.RemotePeer(), Tag: t.tag, Value: request})
}

// codeOf returns the code to reset a legacy conn with.
func codeOf(err error) frame.Code {
	if e, ok := err.(*Error); ok {
		return e.Code
	}
	if isTimeout(err) || err == os.ErrDeadlineExceeded {
		return frame.CodeTimeout
	}
	return frame.CodeProtocol
}
