package resume

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/internal/backoff"
)

// A Listener accepts [Conn]s on the carriers of another listener, and assigns later carriers to the Conns that they resume.
//
// It has one goroutine that accepts carriers, and one for each hello. At most 256 hellos run at a time: one more ends the oldest. So a
// client that connects and sends nothing does not block others. Carriers from other sources go to Serve.
type Listener struct {
	opts  Options
	under net.Listener // nil if there is only Serve
	ready chan *Conn   // Backlog slots, each reserved before it is filled
	over  chan struct{}
	slots chan struct{} // one for each hello in progress

	running sync.WaitGroup // serve, and the hellos

	mu       sync.Mutex
	err      error            // why Accept fails; nil while it does not
	reserved int              // slots of ready that are filled or about to be
	greeting []net.Conn       // the carriers of the hellos in progress, the oldest first
	conns    map[connID]*Conn // every Conn that may be resumed
	detached []*Conn          // those of conns without a carrier, the longest detached first
}

const maxHellos = 256

// NewListener returns a Listener on under, which it owns from then on. If it fails, the error is ErrInvalid and under is not touched. under
// may be nil: then all carriers come through Serve.
func NewListener(under net.Listener, opts *Options) (*Listener, error) {
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	l := &Listener{
		opts:  o,
		under: under,
		ready: make(chan *Conn, o.Backlog),
		over:  make(chan struct{}),
		slots: make(chan struct{}, maxHellos),
		conns: make(map[connID]*Conn),
	}
	if under != nil {
		l.running.Go(l.serve)
	}
	return l, nil
}

// Addr returns the address of the listener below, or nil if there is none.
func (l *Listener) Addr() net.Addr {
	if l.under == nil {
		return nil
	}
	return l.under.Addr()
}

// Accept returns the next new Conn, as a *Conn. The error matches net.ErrClosed after Close. If the listener below has failed, it is that
// listener's error.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		l.mu.Lock()
		l.reserved--
		l.mu.Unlock()
		return c, nil
	case <-l.over:
		return nil, &net.OpError{Op: "accept", Net: "resume", Addr: l.Addr(), Err: l.err} // l.err does not change any more
	}
}

// Close closes the listener below, ends the hellos in progress and the Conns that wait for Accept, and returns once they have ended.
// Accepted Conns live on, but can no longer be resumed: one without a carrier, now or later, is lost at once. To let them finish, keep the
// Listener until they have ended. A second Close does nothing.
func (l *Listener) Close() error {
	err := l.fail(net.ErrClosed)
	l.running.Wait()
	return err
}

// fail makes Accept return cause, unless it fails already, and ends everything that Close ends.
func (l *Listener) fail(cause error) error {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return nil
	}
	l.err = cause
	close(l.over)
	greeting := slices.Clone(l.greeting)
	for _, c := range l.detached {
		c.flow.Close(errNoListener)
	}
	for len(l.ready) > 0 {
		(<-l.ready).flow.Close(net.ErrClosed)
	}
	l.mu.Unlock()
	for _, carrier := range greeting {
		_ = carrier.Close() // ends its hello
	}
	if l.under == nil {
		return nil
	}
	return l.under.Close()
}

// serve accepts carriers, and owns them until their hello begins. It ends when the listener below has failed for good, and makes Accept
// return that error.
func (l *Listener) serve() {
	for failures := 0; ; {
		carrier, err := l.under.Accept()
		switch temporary, ok := err.(interface{ Temporary() bool }); {
		case err == nil:
			failures = 0
			if l.admit(carrier) {
				go func() { _, _ = l.hear(carrier, forAccept, nil) }() // the dialing side receives the error
			}
		case ok && temporary.Temporary(): // such as too many open files
			failures++
			if !l.pause(backoff.Backoff{Min: 5 * time.Millisecond, Max: time.Second}.Wait(failures)) {
				return
			}
		default:
			_ = l.fail(err) // only the cause counts
			return
		}
	}
}

// pause waits for d, and reports whether the listener is still open.
func (l *Listener) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.over:
		return false
	}
}

// Serve does the accepting side's hello on a carrier that does not come from the listener below. If the other side has opened a Conn, Serve
// returns it, and Accept does not. If the carrier has resumed a Conn, Serve returns nil. Serve owns the carrier from then on, and returns
// within HandshakeTimeout. The error says why there is neither: net.ErrClosed after Close, ErrBusy, ErrUnknown, ErrProtocol, ErrStranger, the
// carrier's error, ErrInvalid for a nil carrier, or one without a sentinel if a later attempt to resume came first.
func (l *Listener) Serve(carrier net.Conn) (*Conn, error) {
	if carrier == nil {
		return nil, fmt.Errorf("%w: carrier is nil", ErrInvalid)
	}
	if !l.admit(carrier) {
		return nil, net.ErrClosed
	}
	return l.hear(carrier, forServe, nil)
}

// admit begins the hello on a carrier, and ends the oldest one in progress if there are too many. It reports whether the caller must call
// hear.
func (l *Listener) admit(carrier net.Conn) bool {
	l.mu.Lock()
	var oldest net.Conn
	closed := l.err != nil
	switch {
	case closed:
		oldest = carrier
	case len(l.greeting) >= maxHellos:
		oldest = l.greeting[0]
		l.greeting = l.greeting[1:]
	}
	if !closed {
		l.greeting = append(l.greeting, carrier)
		l.running.Add(1) // hear's
	}
	l.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
	if !closed {
		l.slots <- struct{}{}
	}
	return !closed
}
