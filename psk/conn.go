package psk

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A sealedConn is a net.Conn whose bytes travel as authenticated records over another conn (spec 4). It is safe for concurrent
// use; concurrent Writes do not mix.
//
//	open --CloseWrite--> half closed --Close--> closed
//	any  --a record does not verify--> dead: Read and Write give ErrTampered
//	any  --a write fails part way--> broken: Write gives errBroken, Read goes on
type sealedConn struct {
	conn   net.Conn
	closer *single // Close

	// reading is held while the conn below reads. Whoever waits for it waits no longer than that Read, which the same
	// deadline and the same Close end.
	reading    turn
	in         *direction
	buf        *buffer // nil while nothing is held
	start, end int     // buf.b[start:end] is received and not opened
	plain      []byte  // opened and not yet handed out; aliases buf
	readErr    error   // io.EOF, io.ErrUnexpectedEOF or ErrTampered: for good

	// writing is held while the conn below writes; what is said of reading holds for it too.
	writing  turn
	out      *direction
	tailBuf  *buffer // owns tail; nil when there is none
	tail     []byte  // sealed, and held back by a deadline: leaves before anything else
	ended    bool    // the end record is sealed
	halfDone bool    // and the conn below is half closed
	writeErr error   // errBroken with its cause: for good
	chunk    int     // plaintext of the next records; 0 before the first
	written  uint64  // bytes that have left

	mu            sync.Mutex
	readDeadline  time.Time
	writeDeadline time.Time
	readClosed    bool
	closed        bool // Close has begun

	tampered atomic.Bool
}

// Seal returns conn with its bytes sealed under s. It takes the secrets: sealing a second conn with them, or with nil,
// returns a conn on which every Read and Write fails. The result owns conn from then on. It is safe for concurrent use, and
// also has the methods CloseRead() error, CloseWrite() error and NetConn() net.Conn.
//
// Read returns io.EOF at the authenticated end, and io.ErrUnexpectedEOF when the bytes stop without one. A record that does
// not verify ends both directions with ErrTampered. A Write that fails for another reason than its deadline ends the
// writing direction: the peer may hold half a record.
func Seal(conn net.Conn, s *Secrets) net.Conn { return seal(conn, s) }

func seal(conn net.Conn, s *Secrets) *sealedConn {
	keys, err := s.take()
	if err != nil {
		c := newConn(conn, new(directionKeys), rekeyInterval)
		c.readErr, c.writeErr = err, err
		return c
	}
	return newConn(conn, keys, rekeyInterval)
}

func newConn(conn net.Conn, keys *directionKeys, interval uint64) *sealedConn {
	return &sealedConn{
		conn:    conn,
		closer:  newSingle(),
		reading: newTurn(),
		in:      newDirection(keys.receive, interval),
		writing: newTurn(),
		out:     newDirection(keys.send, interval),
	}
}

// NetConn returns the conn below. Reading or writing it breaks the seal; it is for settings, and for resetting it.
func (c *sealedConn) NetConn() net.Conn { return c.conn }

// LocalAddr returns the local address of the conn below.
func (c *sealedConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the remote address of the conn below.
func (c *sealedConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline sets both deadlines; see SetReadDeadline and SetWriteDeadline.
func (c *sealedConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline of the conn below. A Read that it ends in the middle of a record keeps what arrived.
func (c *sealedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.readDeadline = t
	if c.readClosed {
		return nil // the conn below keeps the past deadline that CloseRead set
	}
	return c.conn.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of the conn below. See Write for what one that passes in the middle means.
func (c *sealedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.writeDeadline = t
	return c.conn.SetWriteDeadline(t)
}

// isClosed reports whether Close has begun.
func (c *sealedConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// expired reports whether a deadline has passed; the zero time never does.
func expired(deadline time.Time) bool {
	return !deadline.IsZero() && !time.Now().Before(deadline)
}
