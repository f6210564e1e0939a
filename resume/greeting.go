package resume

import (
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/peerlane/peerlane/internal/flow"
)

// A door says how a new Conn is handed out.
type door bool

const (
	forAccept door = false
	forServe  door = true
)

// hear does the accepting side's part of the hello (spec 3). It returns the new Conn, if the hello opened one, or the reason for refusing
// it. It owns the carrier until a Conn does, and ends after HandshakeTimeout or when the carrier is closed. admit must be called first. If
// again is not nil, NEW opens again instead of a new Conn.
func (l *Listener) hear(carrier net.Conn, w door, again *Conn) (*Conn, error) {
	defer l.running.Done()
	defer func() { <-l.slots }()
	end := time.AfterFunc(l.opts.HandshakeTimeout, func() { _ = carrier.Close() })
	g := greeting{l: l, carrier: carrier, end: end, door: w, again: again}
	h, err := readHello(carrier)
	if err == nil {
		err = g.answer(h)
	} else {
		g.refuse(err)
	}
	if g.heard() {
		_ = carrier.Close()
	}
	return g.opened, err
}

// greeting is a hello in progress.
type greeting struct {
	l       *Listener
	carrier net.Conn
	end     *time.Timer // closes the carrier
	done    bool        // heard has been called
	door    door
	again   *Conn // the Conn that NEW opens again; nil: it opens a new one
	opened  *Conn // for Serve
}

// heard stops the timer of the hello. It reports whether this is the first call and the carrier is still open.
func (g *greeting) heard() bool {
	if g.done {
		return false
	}
	g.done = true
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	at := slices.Index(g.l.greeting, g.carrier)
	if at < 0 {
		g.end.Stop()
		return false // given up
	}
	g.l.greeting = slices.Delete(g.l.greeting, at, at+1)
	return g.end.Stop()
}

// answer handles the request h, and returns an error if it is refused.
func (g *greeting) answer(h hello) error {
	var err error
	switch {
	case h.kind == messageNew && g.again != nil:
		err = g.openAgain()
	case h.kind == messageNew:
		err = g.open(h)
	case h.kind == messageResume:
		err = g.resume(h)
	default:
		err = flow.ProtocolErrorf("%v from the dialing side", h.kind)
	}
	if err != nil && !g.done { // after ACCEPT the carrier belongs to a Conn, or is closed
		g.refuse(err)
	}
	return err
}

// refuse sends the reason, if the other side can understand it, and waits until the other side has read it and left: a carrier that is
// closed with unread bytes may lose written ones.
func (g *greeting) refuse(err error) {
	code := refuseProtocol
	switch {
	case errors.Is(err, ErrVersion):
		code = refuseVersion
	case errors.Is(err, ErrUnknown):
		code = refuseUnknown
	case errors.Is(err, errStale):
		code = refuseStale
	case errors.Is(err, ErrBusy):
		code = refuseBusy
	case errors.Is(err, ErrStranger), !errors.Is(err, ErrProtocol):
		return
	}
	if writeHello(g.carrier, hello{kind: messageRefuse, code: code}) == nil {
		_, _ = io.CopyN(io.Discard, g.carrier, helloSize)
	}
}

// open makes a new Conn.
func (g *greeting) open(h hello) error {
	l := g.l
	c, err := l.register(h, g.door)
	if err != nil {
		return err
	}
	if err := g.say(c.accepted()); err != nil {
		c.flow.Close(ErrLost)
		l.account(c, StateLost)
		if g.door == forAccept {
			l.release()
		}
		return err
	}
	c.start()
	_ = c.adopt(g.carrier, hello{}, false) // if it has been resumed already, that counts
	if g.door == forServe {
		g.opened = c
	} else {
		l.deliver(c)
	}
	return nil
}

// accepted returns the ACCEPT for a NEW.
func (c *Conn) accepted() hello {
	return hello{kind: messageAccept, id: c.id, resumeWindow: c.opts.resumeWindow(), buffer: uint32(c.opts.Window)}
}

// openAgain gives a Conn another first carrier (spec 3.9).
func (g *greeting) openAgain() error {
	c := g.again
	if err := c.restart(); err != nil {
		return err
	}
	if err := g.say(c.accepted()); err != nil {
		return err
	}
	return c.adopt(g.carrier, hello{}, false) // errStale if it has been resumed meanwhile
}

// restart makes a Conn ready for another first carrier.
func (c *Conn) restart() error {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.tries > 0 || c.flow.Heard() > 0 {
		return flow.ProtocolErrorf("NEW of a connection that the dialing side knows")
	}
	if c.flow.Pause() != nil {
		return ErrUnknown
	}
	return nil
}

// say sends the answer that ends the hello. After an error the carrier is closed, or about to be.
func (g *greeting) say(answer hello) error {
	if err := writeHello(g.carrier, answer); err != nil {
		return err
	}
	if !g.heard() {
		return errGivenUp
	}
	return nil
}

// resume gives a Conn a new carrier.
func (g *greeting) resume(h hello) error {
	c := g.l.lookup(h.id)
	if c == nil {
		return ErrUnknown
	}
	answer, err := c.reopen(h)
	if err != nil {
		return err
	}
	if err := g.say(answer); err != nil {
		return err
	}
	return c.adopt(g.carrier, h, answer.live) // errStale if a later attempt was faster: that one counts
}

// reopen answers a RESUME (spec 3.5). The offset in its answer holds until a later attempt.
func (c *Conn) reopen(h hello) (hello, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if h.attempt <= c.tries {
		return hello{}, errStale
	}
	if h.received > c.flow.Reached() {
		return hello{}, flow.ProtocolErrorf("%d bytes received of fewer", h.received)
	}
	c.tries = h.attempt
	received, live := c.flow.Received()
	live = live && h.live
	if !live {
		if err := c.flow.Pause(); err != nil {
			return hello{}, ErrUnknown
		}
		received, _ = c.flow.Received()
	}
	if c.flow.Err() != nil {
		return hello{}, ErrUnknown
	}
	return hello{kind: messageAccept, id: c.id, attempt: h.attempt, live: live, received: received}, nil
}

// adopt gives c the carrier that h arrived on, unless a later attempt came first.
func (c *Conn) adopt(carrier net.Conn, h hello, live bool) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.tries != h.attempt {
		_ = carrier.Close()
		return errStale
	}
	return c.attach(carrier, h.received, live)
}
