package peerlane

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// A Conn is a net.Conn over one libp2p stream. It is byte-transparent: nothing is added to the stream, so the other
// side may be gostream or any other libp2p program. All methods may be called concurrently; concurrent Writes are
// serialized, each as a whole.
//
//	open --CloseWrite--> read only ---CloseRead--+
//	  |                                          +--> closed
//	  +----CloseRead---> write only --CloseWrite-+
//	  +----Close, reset by this side ------------+
//
// Errors are the same on every transport. The end of the peer's data is exactly io.EOF. Everything else is a
// *net.OpError around
//
//   - net.ErrClosed, after Close or after CloseRead or CloseWrite of that side;
//   - os.ErrDeadlineExceeded, a net.Error with Timeout, after a deadline;
//   - an *Error that matches syscall.ECONNRESET if the stream was reset or its connection lost; Remote says which side did it and Code
//     why. If the connection was lost, the error matches io.ErrUnexpectedEOF too.
type Conn struct {
	stream       network.MuxedStream
	under        network.Conn // the stream's connection; nil on a loopback conn
	remotePeer   peer.ID
	tag          protocol.ID
	local        net.Addr
	remote       net.Addr
	stopsSending bool // CloseRead of the stream makes the peer stop sending
	// linger is how long a closed conn waits for the peer to end its side before it gives up the stream. It applies where the transport
	// cannot make the peer stop sending, and where the conn holds a slot. Zero if the conn does not wait.
	linger time.Duration
	slot   *slot // nil if the conn was not dialed, or not by an application

	traffic *traffic // on under; nil on a loopback conn
	carries bool     // carries a session, which acknowledges received bytes to the peer

	readMu sync.Mutex // held across stream.Read: one token wakes one reader of a yamux stream
	early  []byte     // read by the dialer before the application's first Read

	writeMu sync.Mutex // held across stream.Write: two writers overrun a yamux window and kill the connection
	slicer  slicer     // of written data

	mu            sync.Mutex // never held across I/O
	readDeadline  time.Time
	writeDeadline time.Time
	closed        bool // by Close or a reset of this side
	readClosed    bool
	writeClosed   bool
	finSent       bool  // the stream is ended towards the peer
	finished      bool  // a caller of over releases the stream
	ended         bool  // Read has seen io.EOF
	broken        error // why Read fails since the stream was reset or its connection lost
}

// lingerTime is how long a Close waits in the background for the peer's end, where it does.
const lingerTime = 5 * time.Second

// connOptions set how a conn names its ends.
type connOptions struct {
	style AddrStyle
	port  uint16 // of the remote address
}

// newConn returns the conn for a stream whose protocol is negotiated.
func newConn(s network.Stream, tag protocol.ID, opts connOptions) *Conn {
	under := s.Conn()
	c := &Conn{
		stream:       s,
		under:        under,
		remotePeer:   under.RemotePeer(),
		tag:          tag,
		local:        styledAddr(opts.style, under.LocalPeer(), 0, under.LocalMultiaddr()),
		remote:       styledAddr(opts.style, under.RemotePeer(), opts.port, under.RemoteMultiaddr()),
		stopsSending: stopsSending(under),
	}
	c.traffic = trafficOn(under)
	if !c.stopsSending {
		c.linger = lingerTime
	}
	return c
}

// stopsSending reports whether the transport can make the peer stop sending. QUIC, WebTransport and WebRTC carry streams themselves, name
// no muxer, and can. Yamux cannot.
func stopsSending(under network.Conn) bool {
	if under.ConnState().StreamMultiplexer != "" {
		return false
	}
	_, relayed := relayOf(under)
	return !relayed // a circuit names no muxer, but is muxed by yamux
}

// RemotePeer returns the Peer ID of the other side, as proved by the secure channel.
func (c *Conn) RemotePeer() peer.ID { return c.remotePeer }

// Tag returns the protocol ID that was negotiated for this conn.
func (c *Conn) Tag() protocol.ID { return c.tag }

// LocalAddr returns the address of this side, in the style set by the Dialer or ListenConfig.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the peer, in the style set by the Dialer or ListenConfig.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read reads up to len(p) bytes. It returns io.EOF once the peer has closed its write side and all data was read, and fails as described at
// Conn. A Read of no bytes never blocks.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.checkRead(); err != nil {
		return 0, c.opError("read", err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	n, err := c.stream.Read(p)
	if n > 0 {
		c.noteRead(n)
		c.slot.prove()
		return n, nil // an error that came with data comes again; callers that look at it first would lose the data
	}
	return 0, c.readError(err)
}

// Write writes all of p. If it fails, as described at Conn, it returns how many bytes were handed to the transport. A nil error means that
// the transport has taken the bytes, not that the peer has read them.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.checkWrite(); err != nil {
		return 0, c.opError("write", err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.writeSlices(p)
	return n, c.writeError(err)
}

// writeSlices writes p in slices. Each slice that had to wait for room is a sign of life of the connection. writeMu is held.
func (c *Conn) writeSlices(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		slice := p[n : n+c.slicer.next(len(p)-n)]
		began := time.Now()
		var m int
		m, err = c.stream.Write(slice)
		now := time.Now()
		took := now.Sub(began)
		if m > 0 && c.traffic != nil {
			c.traffic.out.Add(int64(m))
			if took >= roomWait {
				c.traffic.move(now)
			}
		}
		c.slicer.took(m, took)
		n += m
		if m < len(slice) && err == nil {
			err = io.ErrShortWrite
		}
	}
	return n, err
}

// noteRead records that n bytes have arrived.
func (c *Conn) noteRead(n int) {
	if c.traffic == nil {
		return
	}
	c.traffic.move(time.Now())
	c.traffic.in.Add(int64(n))
	if !c.carries {
		c.traffic.unanswered.Add(uint64(n))
	}
}

// checkRead returns why a Read may not start, or nil if it may.
func (c *Conn) checkRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return checkSide(c.closed || c.readClosed, c.readDeadline)
}

// checkWrite returns why a Write may not start, or nil if it may.
func (c *Conn) checkWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return checkSide(c.closed || c.writeClosed, c.writeDeadline)
}

func checkSide(closed bool, deadline time.Time) error {
	if closed {
		return net.ErrClosed
	}
	if !deadline.IsZero() && !time.Now().Before(deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// readError maps an error of stream.Read. If a side was closed meanwhile, that error takes precedence, so that the same state gives the
// same error regardless of timing.
func (c *Conn) readError(err error) error {
	if err == nil {
		return nil
	}
	mapped := err
	if err != io.EOF {
		mapped = c.mapError("read", err)
	}
	c.mu.Lock()
	closed := c.closed || c.readClosed
	switch {
	case err == io.EOF:
		c.ended = true
	case !closed && !c.ended && c.broken == nil && mapped != os.ErrDeadlineExceeded:
		c.broken = mapped
	}
	ended, broken, over := c.ended, c.broken, c.over()
	c.mu.Unlock()
	if over {
		c.finish()
	}
	switch {
	case closed:
		return c.opError("read", net.ErrClosed)
	case ended:
		return io.EOF
	case broken != nil:
		c.leaveSlot(broken)
		return c.opError("read", broken)
	}
	return c.opError("read", mapped)
}

// writeError is readError for stream.Write.
func (c *Conn) writeError(err error) error {
	if err == nil {
		return nil
	}
	c.mu.Lock()
	closed := c.closed || c.writeClosed
	c.mu.Unlock()
	if closed {
		return c.opError("write", net.ErrClosed)
	}
	mapped := c.mapError("write", err)
	if isFull(mapped) {
		c.slot.refuse()
	}
	return c.opError("write", mapped)
}

// leaveSlot releases the slot of a broken conn: the peer's side has ended.
func (c *Conn) leaveSlot(why error) {
	if isFull(why) {
		c.slot.refuse()
	}
	c.slot.release()
}

// mapError turns a transport's error into one of those described at Conn. No other function does.
func (c *Conn) mapError(op string, err error) error {
	if errors.Is(err, io.ErrShortWrite) {
		return err
	}
	if isTimeout(err) && !(c.under != nil && c.under.IsClosed()) {
		return os.ErrDeadlineExceeded
	}
	broken := streamBroken(op, err)
	broken.Peer, broken.Link = c.remotePeer.String(), string(c.tag)
	if p := c.Path(); p.Limited && errors.Is(broken, io.ErrUnexpectedEOF) {
		broken.Err = fmt.Errorf("%w; it ran over %s, which cuts it then", broken.Err, describeRelay(p))
	}
	return broken
}

// opError wraps err the way package net does.
func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: Network, Source: c.local, Addr: c.remote, Err: err}
}

// SetDeadline sets both deadlines; see SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, true, true)
}

// SetReadDeadline makes Reads after t, running ones included, fail with os.ErrDeadlineExceeded; a zero t means never.
// It fails with net.ErrClosed after Close.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadlines(t, true, false)
}

// SetWriteDeadline is SetReadDeadline for Writes. A Write that fails this way may have written part of its data.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadlines(t, false, true)
}

func (c *Conn) setDeadlines(t time.Time, read, write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	var errs [2]error
	if read && !c.readClosed {
		c.readDeadline = t
		errs[0] = c.stream.SetReadDeadline(t)
	}
	if write && !c.writeClosed {
		c.writeDeadline = t
		errs[1] = c.stream.SetWriteDeadline(t)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return c.opError("set", err)
	}
	return nil
}

// resetCode is the libp2p stream error code for a code of ours.
func resetCode(code codes.Code) network.StreamErrorCode {
	return network.StreamErrorCode(frame.CodeBase + uint32(code))
}
