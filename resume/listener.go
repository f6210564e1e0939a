package resume

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// A Listener accepts [Conn]s on the carriers that another listener accepts, and gives later carriers to those of them that
// they resume.
//
// It has one goroutine that accepts carriers, and one for each hello, of which there are at most 256: when there is one more,
// the oldest is given up. So who connects and says nothing is in nobody's way. Carriers that come in another way are for
// Serve.
type Listener struct {
	opts  Options
	under net.Listener // nil: there is only Serve
	ready chan *Conn   // of Backlog slots, each of which is reserved before it is filled
	over  chan struct{}
	slots chan struct{} // one for each hello in progress

	running sync.WaitGroup // serve, and the hellos

	mu       sync.Mutex
	err      error            // why Accept fails; nil while it does not
	reserved int              // slots of ready that are filled, or are going to be
	greeting []net.Conn       // the carriers of the hellos in progress, the oldest first
	conns    map[connID]*Conn // all that may be resumed
	detached []*Conn          // those of them without a carrier, the longest without first
}

const maxHellos = 256

// NewListener returns a Listener on under, which it owns from then on. The error is ErrInvalid, and under is not touched
// then. under may be nil: then all carriers come by Serve.
func NewListener(opts *Options, under net.Listener) (*Listener, error) {
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

// Addr returns the address of the listener below, or nil when there is none.
func (l *Listener) Addr() net.Addr {
	if l.under == nil {
		return nil
	}
	return l.under.Addr()
}

// Accept returns the next new Conn, which is a *Conn. The error matches net.ErrClosed after Close, and is that of the
// listener below when that has failed.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		l.mu.Lock()
		l.reserved--
		l.mu.Unlock()
		return c, nil
	case <-l.over:
		return nil, &net.OpError{Op: "accept", Net: "resume", Addr: l.Addr(), Err: l.err} // does not change any more
	}
}

// Close closes the listener below, gives up the hellos in progress and the Conns that wait for Accept, and returns when they
// have ended. Accepted Conns live on, but nothing can resume them any more: one that is without a carrier, or comes to be, is
// lost at once. To let them come to their end, keep the Listener until they have. A second Close does nothing.
func (l *Listener) Close() error {
	err := l.fail(net.ErrClosed)
	l.running.Wait()
	return err
}

// fail makes Accept return cause, unless it fails already, and ends what Close says.
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
		_ = carrier.Close() // its hello ends
	}
	if l.under == nil {
		return nil
	}
	return l.under.Close()
}

// serve accepts carriers. It owns them until their hello begins, ends when the listener below has failed for good, and tells
// Accept why.
func (l *Listener) serve() {
	for failures := 0; ; {
		carrier, err := l.under.Accept()
		switch temporary, ok := err.(interface{ Temporary() bool }); {
		case err == nil:
			failures = 0
			if l.admit(carrier) {
				go func() { _, _ = l.hear(carrier, forAccept, nil) }() // whoever dialed learns of it
			}
		case ok && temporary.Temporary(): // such as too many open files
			failures++
			if !l.pause(Backoff{Min: 5 * time.Millisecond, Max: time.Second}.Wait(failures)) {
				return
			}
		default:
			_ = l.fail(err) // the cause is what counts
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

// Serve does the accepting side's hello on a carrier that does not come from the listener below. It returns a Conn if the
// other side has opened one, which Accept then does not return, and nil if the carrier has resumed one. It owns the carrier
// from then on, and returns within HandshakeTimeout. The error is why there is neither: net.ErrClosed after Close, ErrBusy,
// ErrUnknown, ErrStale, ErrProtocol, ErrStranger, that of the carrier, or ErrInvalid for a nil one.
func (l *Listener) Serve(carrier net.Conn) (*Conn, error) {
	if carrier == nil {
		return nil, fmt.Errorf("%w: carrier is nil", ErrInvalid)
	}
	if !l.admit(carrier) {
		return nil, net.ErrClosed
	}
	return l.hear(carrier, forServe, nil)
}

// ServeAgain is Serve for a carrier on which the dialing side opens c again, which Serve has returned: it has not heard that c was opened,
// and the layer above knows that it means c (spec 3.9). c goes on over this carrier. A RESUME is answered as Serve does. The errors
// are those of Serve; ErrProtocol is also that of a c on which the dialing side has been heard, and ErrInvalid of one that is not l's.
func (l *Listener) ServeAgain(c *Conn, carrier net.Conn) error {
	if carrier == nil {
		return fmt.Errorf("%w: carrier is nil", ErrInvalid)
	}
	if c == nil || c.server != l {
		_ = carrier.Close()
		return fmt.Errorf("%w: the Conn is not of this Listener", ErrInvalid)
	}
	if !l.admit(carrier) {
		return net.ErrClosed
	}
	_, err := l.hear(carrier, forServe, c)
	return err
}

// admit begins the hello on a carrier, and gives up the oldest one in progress if there are too many. It reports whether hear
// is to go on with it.
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
