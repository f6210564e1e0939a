package peerlane

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/session"
)

// openLoopback opens a conn to a listener of the dialer's own host, which libp2p refuses to dial.
func (d *Dialer) openLoopback(ctx context.Context, port uint16, tags []protocol.ID) (*Conn, protocol.ID, error) {
	pid := d.Host.ID()
	if ctx.Err() != nil {
		return nil, "", d.dialError(pid, dialFailed(ctx, "connect", ctx.Err()))
	}
	l := listenerOf(d.Host, tags)
	if l == nil {
		return nil, "", d.dialError(pid, dialFailed(ctx, "negotiate", notServed(tags)))
	}
	near, far := newPipe()
	if code := l.offer(newLoopbackConn(far, l, l.opts)); code != frame.CodeOK {
		err := &Error{Op: "negotiate", Link: string(l.tag), Remote: true, Code: code, Outcome: session.Rejected}
		return nil, "", d.dialError(pid, err)
	}
	return newLoopbackConn(near, l, connOptions{style: d.AddrStyle, port: port}), l.tag, nil
}

func newLoopbackConn(s *pipeEnd, l *Listener, opts connOptions) *Conn {
	pid := l.host.ID()
	return &Conn{
		stream:       s,
		localPeer:    pid,
		remotePeer:   pid,
		tag:          l.tag,
		local:        styledAddr(opts.style, pid, 0, nil),
		remote:       styledAddr(opts.style, pid, opts.port, nil),
		stopsSending: true,
	}
}

// pipeWindow is how many bytes a loopback conn takes without a reader.
const pipeWindow = 64 << 10

// A pipe is a pair of streams within the process. It behaves like a QUIC stream: bounded buffers, half-close, reset with
// a code, and a writer learns that nobody reads.
type pipe struct {
	mu    sync.Mutex
	moved sync.Cond // any field changed, or a deadline passed
	lanes [2]lane   // lanes[i] is what end i reads
}

// A lane is one direction of a pipe. Its fields are guarded by pipe.mu.
type lane struct {
	buf     bytes.Buffer // written and not yet read; at most pipeWindow
	ended   bool         // the writer is done
	stopped bool         // the reader is done
	reset   error        // what the reader gets; unset for a lane that had ended before
	aborted error        // what the writer gets
}

// A pipeEnd is one end of a pipe, as a libp2p stream below the Conn.
type pipeEnd struct {
	p       *pipe
	in, out *lane
	read    pipeDeadline
	write   pipeDeadline
}

var _ network.MuxedStream = (*pipeEnd)(nil)

func newPipe() (*pipeEnd, *pipeEnd) {
	p := &pipe{}
	p.moved.L = &p.mu
	return &pipeEnd{p: p, in: &p.lanes[0], out: &p.lanes[1]}, &pipeEnd{p: p, in: &p.lanes[1], out: &p.lanes[0]}
}

func (e *pipeEnd) Read(b []byte) (int, error) {
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

func (e *pipeEnd) Write(b []byte) (int, error) {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	n := 0
	for n < len(b) {
		switch room := pipeWindow - e.out.buf.Len(); {
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

func (e *pipeEnd) CloseWrite() error {
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	e.out.ended = true
	e.p.moved.Broadcast()
	return nil
}

func (e *pipeEnd) CloseRead() error {
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

func (e *pipeEnd) Close() error {
	_ = e.CloseRead()
	_ = e.CloseWrite()
	e.stopTimers()
	return nil
}

func (e *pipeEnd) Reset() error { return e.ResetWithError(0) }

func (e *pipeEnd) ResetWithError(code network.StreamErrorCode) error {
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

func (e *pipeEnd) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *pipeEnd) SetReadDeadline(t time.Time) error  { return e.p.setDeadline(&e.read, t) }
func (e *pipeEnd) SetWriteDeadline(t time.Time) error { return e.p.setDeadline(&e.write, t) }

func (e *pipeEnd) stopTimers() { _ = e.SetDeadline(time.Time{}) }

// A pipeDeadline wakes the waiters of its pipe when it passes. Its fields are guarded by pipe.mu.
type pipeDeadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *pipeDeadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (p *pipe) setDeadline(d *pipeDeadline, t time.Time) error {
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
