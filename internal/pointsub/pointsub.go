// Package pointsub is the wire of pointsub v0.0.2 (spec 2.2): one conn for each call; the request and the response are each a 4-byte
// big-endian length and that many bytes; the server closes after the response, and the client closes nothing before it has read that.
package pointsub

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// ErrorPrefix is how a pointsub server puts a handler's error into the response.
const ErrorPrefix = "处理请求失败: "

// Header is the number of bytes of a length.
const Header = 4

// Chunk is how much is written, or made room for, at a time.
const Chunk = 64 << 10

// A Deadline extends a deadline of a conn while bytes move.
type Deadline struct {
	Set   func(time.Time) error
	Each  time.Duration // bounds the time without progress
	Until time.Time     // bounds the total; zero: no bound
}

func (d Deadline) move() {
	t := time.Now().Add(d.Each)
	if !d.Until.IsZero() && d.Until.Before(t) {
		t = d.Until
	}
	_ = d.Set(t) // a closed conn fails in the read or write
}

// A Reader moves the deadline before every Read.
type Reader struct {
	io.Reader
	Deadline Deadline
}

// Read implements io.Reader.
func (r Reader) Read(p []byte) (int, error) {
	r.Deadline.move()
	return r.Reader.Read(p)
}

// Write writes the length of value and value, a short value in one Write.
func Write(w io.Writer, value []byte, deadline Deadline) error {
	first := min(len(value), Chunk)
	b := binary.BigEndian.AppendUint32(make([]byte, 0, Header+first), uint32(len(value)))
	deadline.move()
	if _, err := w.Write(append(b, value[:first]...)); err != nil {
		return err
	}
	for part := range slices.Chunk(value[first:], Chunk) {
		deadline.move()
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// ReadSize reads a length. One over limit is a *session.Error with codes.TooLarge, and an end is io.ErrUnexpectedEOF.
func ReadSize(r io.Reader, limit int) (int, error) {
	var b [Header]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, truncated(err)
	}
	n := binary.BigEndian.Uint32(b[:])
	if uint64(n) > uint64(limit) {
		return 0, &session.Error{Op: "legacy call", Code: codes.TooLarge, Outcome: session.Rejected,
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

// ReadBody reads n bytes. Until all have arrived, it holds no more than the arrived bytes plus 64 KiB. It calls hold before it makes room for
// more; when hold returns false, the error is a *session.Error with codes.Unavailable. An end before n bytes is io.ErrUnexpectedEOF.
func ReadBody(r io.Reader, n int, hold func(int) bool) ([]byte, error) {
	var parts [][]byte
	for left := n; left > 0; {
		part := make([]byte, min(left, Chunk))
		if !hold(len(part)) {
			return nil, &session.Error{Op: "legacy call", Code: codes.Unavailable, Outcome: session.Rejected,
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
