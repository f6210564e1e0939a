package session

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/resume"
)

// carrier is a connection whose hello is complete.
type carrier struct {
	raw    net.Conn
	sealed net.Conn // raw itself if there is no key
	tap    *tap     // between the two; nil if there is no key
	id     ID
	theirs *frame.Hello
}

// seal encrypts the carrier with a key.
func (c *carrier) seal(secrets *psk.Secrets) {
	c.tap = &tap{Conn: c.raw, made: time.Now()}
	c.sealed = psk.Seal(c.tap, secrets)
}

// forFlow returns the carrier in the form that a flow uses.
func (c *carrier) forFlow() *flowConn { return &flowConn{Conn: c.sealed, raw: c.raw, tap: c.tap} }

// flowConn is a carrier in the form that the flow uses.
type flowConn struct {
	net.Conn          // sealed when there is a key
	raw      net.Conn // what Session.Conn returns
	tap      *tap     // between the two; nil when there is no key
}

// A tap observes the Reads of a carrier below its seal: a Read of part of a record is a sign of life too.
type tap struct {
	net.Conn
	made    time.Time
	at      atomic.Int64                  // when a Read last returned bytes, in nanoseconds after made
	unacked atomic.Pointer[atomic.Uint64] // the session's counter, for a stream whose bytes nothing acknowledges; nil for others
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.at.Store(int64(time.Since(t.made)))
		if u := t.unacked.Load(); u != nil {
			u.Add(uint64(n))
		}
	}
	return n, err
}

// CloseWrite closes the writing side of the carrier if the carrier supports half close.
func (t *tap) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// CloseRead closes the reading side of the carrier if the carrier supports half close.
func (t *tap) CloseRead() error {
	if c, ok := t.Conn.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return nil
}

// Moved returns when the connection under the carrier last gave a sign of life: below the seal, or as reported by the Moved method of a
// raw carrier that has one.
func (c *flowConn) Moved() (at time.Time) {
	if m, ok := c.raw.(interface{ Moved() time.Time }); ok {
		at = m.Moved()
	}
	if c.tap != nil {
		if t := c.tap.made.Add(time.Duration(c.tap.at.Load())); t.After(at) {
			return t
		}
	}
	return at
}

// isScarce reports whether a carrier says that it is limited in what it lets through.
func isScarce(conn net.Conn) bool {
	c, ok := conn.(interface{ Limited() bool })
	return ok && c.Limited()
}

// sameConnection reports whether two carriers are on the same connection, as their Connection methods say. Carriers that do not say it count
// as being on the same.
func sameConnection(a, b net.Conn) bool {
	on, ok := a.(interface{ Connection() any })
	other, too := b.(interface{ Connection() any })
	return !ok || !too || on.Connection() == other.Connection()
}

// drop ends a carrier at once: by a reset with the code if the carrier supports resets, otherwise by closing it.
func drop(conn net.Conn, code codes.Code) {
	if r, ok := conn.(interface{ Reset(codes.Code) error }); ok && code != codes.OK && code != codes.Closed {
		_ = r.Reset(code) // the carrier is given up: no peer to notify
		return
	}
	_ = conn.Close() // same
}

// carriers are what carries a session: one carrier after another under a flow, or a single one.
type carriers struct {
	conn    io.ReadWriter            // the flow, or without one the carrier, sealed when a key is in force
	flow    *flow.Flow               // outlives the carriers; nil: the session ends with its carrier
	keptFor time.Duration            // how long both sides keep a session without a carrier
	first   *flowConn                // the flow's first carrier, until the flow is on it
	open    Opener                   // nil: this side opens no dedicated streams and no further carriers
	raw     atomic.Pointer[net.Conn] // the carrier, or the last one

	state     State
	since     time.Time      // when state began
	away      time.Duration  // without a carrier, until it was last attached
	changed   chan struct{}  // closed at the next step; nil: no waiter
	history   history        // history.go
	inOrder   bool           // the previous carrier was alive when the newest was attached
	redialing bool           // redial runs
	kick      chan struct{}  // ends the wait of a redial
	turn      chan struct{}  // holds a value while a carrier is being found or taken
	attempt   uint32         // of the last hello of a further carrier; guarded by turn
	work      sync.WaitGroup // goroutines that use carriers, of dedicated streams too
}

// isFinal reports whether err means that no further attempt to resume can succeed: the peer has refused the session permanently, or the
// Opener is closed.
func isFinal(err error) bool {
	if errors.Is(err, resume.ErrProtocol) || errors.Is(err, ErrClosed) {
		return true
	}
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case codes.PSKTampered, codes.Version:
		return true
	case codes.NotFound, codes.Unsupported, codes.Protocol, codes.NotAllowed, codes.GoingAway,
		codes.PSKRequired, codes.PSKMismatch, codes.PSKReplayed, codes.PSKUnexpected:
		return e.refused || e.Remote && e.Op == "hello" && e.Code == codes.GoingAway
	}
	return false
}

// maxReattach bounds one attempt to open a carrier, without its hello. libp2p takes up to 15 s for eight addresses that do not answer, and
// as long again for the next eight.
const maxReattach = 30 * time.Second
