// Package pipe is a pair of libp2p streams within the process.
package pipe

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// Window is how many bytes an end takes without a reader.
const Window = 64 << 10

// A pipe is a pair of ends. It behaves like a QUIC stream: bounded buffers, half-close, reset with
// a code, and a writer learns that nobody reads.
type pipe struct {
	mu    sync.Mutex
	moved sync.Cond // any field changed, or a deadline passed
	lanes [2]lane   // lanes[i] is what end i reads
}

// A lane is one direction of a pipe. Its fields are guarded by pipe.mu.
type lane struct {
	buf     bytes.Buffer // written and not yet read; at most Window
	ended   bool         // the writer is done
	stopped bool         // the reader is done
	reset   error        // what the reader gets; unset for a lane that had ended before
	aborted error        // what the writer gets
}

// An End is one end of a pipe. Its methods are those of network.MuxedStream.
type End struct {
	p       *pipe
	in, out *lane
	read    deadline
	write   deadline
}

var _ network.MuxedStream = (*End)(nil)

// New returns the two ends of a pipe.
func New() (*End, *End) {
	p := &pipe{}
	p.moved.L = &p.mu
	return &End{p: p, in: &p.lanes[0], out: &p.lanes[1]}, &End{p: p, in: &p.lanes[1], out: &p.lanes[0]}
}

// Read implements io.Reader. The error is io.EOF, os.ErrDeadlineExceeded, network.ErrReset after CloseRead, or a *network.StreamError after a reset.
func (e *End) Read(b []byte) (int, error) {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	for {
		switch {
		case e.in.reset != nil:
			return 0, e.in.reset
		case e.in.stopped:
			return 0, network.ErrReset
		case e.read.passed():
			return 0, os.ErrDeadlineExceeded
		case e.in.buf.Len() > 0:
			e.p.moved.Broadcast()
			return e.in.buf.Read(b)
		case e.in.ended:
			return 0, io.EOF
		}
		e.p.moved.Wait()
	}
}

// Write implements io.Writer. It waits while the other end has Window bytes to read.
func (e *End) Write(b []byte) (int, error) {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	n := 0
	for n < len(b) {
		switch room := Window - e.out.buf.Len(); {
		case e.out.aborted != nil:
			return n, e.out.aborted
		case e.out.ended:
			return n, network.ErrReset
		case e.write.passed():
			return n, os.ErrDeadlineExceeded
		case room > 0:
			m := min(room, len(b)-n)
			e.out.buf.Write(b[n : n+m])
			n += m
			e.p.moved.Broadcast()
		default:
			e.p.moved.Wait()
		}
	}
	return n, nil
}

// CloseWrite ends this end's direction: the other end reads io.EOF after what was written.
func (e *End) CloseWrite() error {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	e.out.ended = true
	e.p.moved.Broadcast()
	return nil
}

// CloseRead drops what was not read, and fails the other end's writes.
func (e *End) CloseRead() error {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	e.in.stopped = true
	e.in.buf = bytes.Buffer{}
	if e.in.aborted == nil {
		e.in.aborted = &network.StreamError{Remote: true}
	}
	e.p.moved.Broadcast()
	return nil
}

// Close ends both directions.
func (e *End) Close() error {
	_ = e.CloseRead()
	_ = e.CloseWrite()
	e.stopTimers()
	return nil
}

// Reset is ResetWithError of code 0.
func (e *End) Reset() error { return e.ResetWithError(0) }

// ResetWithError ends both directions at once: what was not read is dropped, other than of a direction that had ended.
func (e *End) ResetWithError(code network.StreamErrorCode) error {
	e.p.mu.Lock()
	far, near := &network.StreamError{ErrorCode: code, Remote: true}, &network.StreamError{ErrorCode: code}
	if !e.out.ended && e.out.reset == nil {
		e.out.reset, e.out.buf = far, bytes.Buffer{}
	}
	if e.out.aborted == nil {
		e.out.aborted = near
	}
	if e.in.aborted == nil {
		e.in.aborted = far
	}
	if e.in.reset == nil {
		e.in.reset, e.in.buf = near, bytes.Buffer{}
	}
	e.p.moved.Broadcast()
	e.p.mu.Unlock()
	e.stopTimers()
	return nil
}

// SetDeadline sets both deadlines.
func (e *End) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline of Read.
func (e *End) SetReadDeadline(t time.Time) error { return e.p.setDeadline(&e.read, t) }

// SetWriteDeadline sets the deadline of Write.
func (e *End) SetWriteDeadline(t time.Time) error { return e.p.setDeadline(&e.write, t) }

func (e *End) stopTimers() { _ = e.SetDeadline(time.Time{}) }

// A deadline wakes the waiters of its pipe when it passes. Its fields are guarded by pipe.mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (p *pipe) setDeadline(d *deadline, t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.at = t
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if !t.IsZero() && !d.passed() {
		d.timer = time.AfterFunc(time.Until(t), p.wake)
	}
	p.moved.Broadcast()
	return nil
}

// wake makes every waiter look again.
func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved.Broadcast()
}
