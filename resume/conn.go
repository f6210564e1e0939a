package resume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/hook"
)

// A Conn is a net.Conn that outlives its carriers. [Dial] and [Listener.Accept] return one. All methods may be called at any time from any
// goroutine. Only Read and Write wait, and neither waits beyond its deadline.
//
// It has two goroutines, which end with it: pump receives data, and keep resumes, probes and reports.
type Conn struct {
	flow   *flow.Flow
	opts   *Options
	dialer *dialer   // nil on the accepting side
	server *Listener // nil on the dialing side

	id           connID
	resumeWindow time.Duration // what both sides have agreed on
	addrs        atomic.Pointer[addrs]
	poke         chan struct{} // tells keep to look at events; 1 slot
	kick         chan struct{} // Reconnect; 1 slot
	done         chan struct{} // closed when everything has ended
	ctx          context.Context
	cancel       context.CancelFunc // ends ctx when the flow is closed
	pumping      sync.WaitGroup

	turn  sync.Mutex // one hello that resumes at a time; the flow may be locked inside
	tries uint32     // number of the last attempt to resume, as sent by the dialing side or received by the accepting side

	// The flow's lock guards the fields below.
	readable sync.Cond // signals changes of these fields, or of the result of Read
	in       flow.Queue
	due      deadline.Deadline // of Read
	deaf     bool              // CloseRead
	shut     bool              // Close
	begun    bool              // there has been a carrier
	events   []StateChange
	reason   error // why the last carrier failed, or the last attempt to resume
	final    error // the error of calls once the flow is closed; nil while it is not
	aborted  error // the argument of Abort
	lingers  *time.Timer
}

// addrs are the addresses of the newest carrier.
type addrs struct{ local, remote net.Addr }

var _ net.Conn = (*Conn)(nil)

// newConn returns a conn without a carrier. h is the other side's first hello.
func newConn(ctx context.Context, o *Options, h hello) *Conn {
	c := &Conn{
		opts:         o,
		id:           h.id,
		resumeWindow: agreed(o, h.resumeWindow),
		poke:         make(chan struct{}, 1),
		kick:         make(chan struct{}, 1),
		done:         make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.addrs.Store(new(addrs))
	cfg := flow.Config{Window: o.Window, ResumeWindow: c.resumeWindow, Unasked: o.unasked(), Budget: o.memory.kept, Lazy: &flow.Lazy{
		Credit:       int(min(h.buffer, 1<<30)),
		FirstCarrier: o.HandshakeTimeout,
		Space:        c.space, Received: c.received, LastWord: c.isLastWord, Note: c.note,
	}}
	if o.Drop != nil {
		cfg.Drop = c.drop
	}
	c.flow = flow.New(&cfg)
	c.readable.L = c.flow
	c.in.Budget = o.memory.received
	return c
}

// start makes the conn run.
func (c *Conn) start() {
	c.pumping.Go(c.pump)
	go c.keep()
}

// attach gives the conn a carrier; see Flow.Attach.
func (c *Conn) attach(carrier net.Conn, received uint64, live bool) error {
	c.addrs.Store(&addrs{carrier.LocalAddr(), carrier.RemoteAddr()})
	return c.flow.Attach(carrier, received, live)
}

// note records an event of the flow, for keep. The flow is locked.
func (c *Conn) note(e flow.Event, err error) {
	change := StateChange{Conn: c, Err: err}
	switch e {
	case flow.Attached:
		change.State = StateResumed
		if !c.begun {
			change.State, c.begun = StateConnected, true
		}
	case flow.Detached:
		change.State = StateDetached
		c.reason = err
	case flow.Closed:
		change.State, change.Err = c.ended(err)
	}
	c.events = append(c.events, change)
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// ended handles the reason why the flow is closed, and returns the resulting state and error. The flow is locked.
func (c *Conn) ended(err error) (State, error) {
	c.cancel()
	c.due.Stop()
	if c.lingers != nil {
		c.lingers.Stop()
	}
	c.readable.Broadcast()
	c.final = err
	switch {
	case errors.Is(err, flow.ErrOver), errors.Is(err, net.ErrClosed):
		return StateClosed, nil
	case errors.Is(err, errUndelivered), c.shut:
		return StateClosed, err
	case err == ErrLost && c.reason != nil:
		c.final = fmt.Errorf("%w: %s", ErrLost, c.reason.Error()) // only the text: the conn did not end in the same way as its carrier
	}
	return StateLost, c.final
}

// pump receives data even if it is not being read, because the other side's acknowledgements arrive with it. It owns the space of the
// queue, and ends when the flow is closed.
func (c *Conn) pump() {
	for c.flow.Receive() {
	}
}

// received adds the first n bytes of the queue's space, and wakes Read if there is news. The flow is locked.
func (c *Conn) received(n int, news bool) {
	c.in.Commit(n)
	if c.deaf || c.aborted != nil {
		c.flow.ConsumeLocked(c.in.Drop())
	}
	if news {
		c.readable.Broadcast()
	}
}

// isLastWord reports whether err has ended the conn: as Options.Final says, or because there was no room for what came.
func (c *Conn) isLastWord(err error) bool {
	if err == errNoRoom {
		c.flow.Close(c.opts.memory.refused)
		return true
	}
	if c.opts.Final == nil {
		return false
	}
	var end error
	_ = hook.Do(func() { end = c.opts.Final(err) }) // the calling goroutine may be the Conn's
	if end != nil {
		c.flow.Close(end)
	}
	return end != nil
}

// space returns a buffer for some of the next want bytes. The other side must not send more bytes than there is room for (spec 5.5).
func (c *Conn) space(want int) ([]byte, error) {
	c.flow.Lock()
	defer c.flow.Unlock()
	room := c.opts.Window - c.in.Len()
	if c.flow.EndsLocked().In {
		return nil, flow.ProtocolErrorf("more after FIN")
	}
	if room <= 0 {
		return nil, flow.ProtocolErrorf("more than the %d bytes there is room for", c.opts.Window)
	}
	p := c.in.Space(min(want, room), room)
	if p == nil {
		return nil, errNoRoom
	}
	return p, nil
}

var errNoRoom = errors.New("resume: no room for received bytes")

// LocalAddr returns the local address of the newest carrier.
func (c *Conn) LocalAddr() net.Addr { return c.addrs.Load().local }

// RemoteAddr returns the remote address of the newest carrier.
func (c *Conn) RemoteAddr() net.Addr { return c.addrs.Load().remote }

// Done returns a channel that is closed once the Conn has ended and everything but its unread data is freed. After Close, that is when the
// rest has been delivered or CloseTimeout is over.
func (c *Conn) Done() <-chan struct{} { return c.done }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline makes pending and future Reads fail with os.ErrDeadlineExceeded from t on. The zero time means never. It does not affect
// the carrier.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.flow.Lock()
	defer c.flow.Unlock()
	if c.shut || c.aborted != nil {
		return c.opError("set", net.ErrClosed)
	}
	c.due.Set(c.flow, t, c.readable.Broadcast)
	return nil
}

// SetWriteDeadline makes pending and future Writes fail with os.ErrDeadlineExceeded from t on. The zero time means never.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.flow.Lock()
	shut := c.shut || c.aborted != nil
	c.flow.Unlock()
	if shut {
		return c.opError("set", net.ErrClosed)
	}
	_ = c.flow.SetWriteDeadline(t) // Write reports why a conn is lost
	return nil
}

// opError wraps err with the call and the conn that it happened on.
func (c *Conn) opError(op string, err error) error {
	a := c.addrs.Load()
	return &net.OpError{Op: op, Net: "resume", Source: a.local, Addr: a.remote, Err: err}
}
