package resume

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/peerlane/peerlane/internal/hook"
)

// DialFunc opens a carrier: any net.Conn whose Close ends a Read and a Write that wait.
type DialFunc = func(context.Context) (net.Conn, error)

// Dial is DialContext with a context that never ends.
func Dial(opts *Options, dial DialFunc) (*Conn, error) {
	return DialContext(context.Background(), opts, dial)
}

// DialContext opens a carrier with dial, and on it a connection to a [Listener]. dial is called again, with the values of
// ctx but not its end, whenever the carrier has failed, until the Conn is closed or has been without for Options.Patience.
//
// The error is ErrInvalid for the Options and for a nil dial, that of dial, what the other side refuses with (ErrBusy, ErrVersion), ErrStranger
// for a side that does not speak the protocol, and that of ctx or a net.Error with Timeout when Options.HandshakeTimeout is
// over. A dial that goes on for longer is not waited for, and what it returns is closed.
func DialContext(ctx context.Context, opts *Options, dial DialFunc) (*Conn, error) {
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if dial == nil {
		return nil, fmt.Errorf("%w: dial is nil", ErrInvalid)
	}
	d := &dialer{opts: &o, dial: dial}
	carrier, answer, err := d.open(ctx, hello{kind: messageNew, patience: o.patience(), buffer: uint32(o.Window)})
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "resume", Err: err}
	}
	c := newConn(context.WithoutCancel(ctx), &o, answer)
	c.dialer = d
	c.start()
	_ = c.attach(carrier, 0, false) // a flow that is lost already says so in Read and Write
	return c, nil
}

// dialer opens carriers.
type dialer struct {
	opts *Options
	dial DialFunc
}

// open opens a carrier and does the hello on it, in no more than HandshakeTimeout. After an error the carrier is closed.
func (d *dialer) open(ctx context.Context, h hello) (net.Conn, hello, error) {
	ctx, cancel := context.WithTimeout(ctx, d.opts.HandshakeTimeout)
	defer cancel()
	carrier, err := d.call(ctx)
	if err != nil {
		return nil, hello{}, err
	}
	interrupt := context.AfterFunc(ctx, func() { _ = carrier.Close() })
	answer, err := greet(carrier, h)
	if !interrupt() {
		err = &waitError{"no answer to the hello", ctx.Err()}
	}
	if err != nil {
		_ = carrier.Close() // the first error is what counts
		return nil, hello{}, err
	}
	return carrier, answer, nil
}

// call calls dial, and does not wait for it beyond the end of ctx.
func (d *dialer) call(ctx context.Context) (net.Conn, error) {
	type result struct {
		carrier net.Conn
		err     error
	}
	results := make(chan result)
	go func() { // ends with dial; hands the carrier over, or closes it when nobody waits
		var carrier net.Conn
		var err error
		if exited := hook.Do(func() { carrier, err = d.dial(ctx) }); exited != nil {
			err = fmt.Errorf("the DialFunc %w", exited)
		} else if err == nil && carrier == nil {
			err = errNoCarrier
		}
		select {
		case results <- result{carrier, err}:
		case <-ctx.Done():
			if err == nil {
				_ = carrier.Close()
			}
		}
	}()
	select {
	case r := <-results:
		return r.carrier, r.err
	case <-ctx.Done():
		return nil, &waitError{"no carrier", ctx.Err()}
	}
}

// errNoCarrier is what a DialFunc that returns nothing at all has failed with.
var errNoCarrier = fmt.Errorf("%w: the DialFunc returned neither a conn nor an error", ErrInvalid)

// waitError is the end of a context while something was waited for. It has a Timeout, as the *net.OpError around it asks.
type waitError struct {
	what string
	err  error
}

func (w *waitError) Error() string { return w.what + ": " + w.err.Error() }
func (w *waitError) Unwrap() error { return w.err }
func (w *waitError) Timeout() bool { return errors.Is(w.err, context.DeadlineExceeded) }

// greet does the dialing side's part of the hello (spec 3).
func greet(carrier net.Conn, h hello) (hello, error) {
	if err := writeHello(carrier, h); err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	answer, err := readHello(carrier)
	switch {
	case err != nil:
		return hello{}, err
	case answer.kind == messageRefuse:
		return hello{}, answer.code.err()
	case answer.kind != messageAccept, answer.attempt != h.attempt, h.attempt > 0 && answer.id != h.id, answer.live && !h.live:
		return hello{}, protocolErrorf("%v does not answer %v", answer.kind, h.kind)
	}
	return answer, nil
}

// Reconnect replaces the carrier by a new one at once, without a loss if the old one is alive, and without the waiting of
// Options.Backoff if there is none. It returns before that is done; Options.OnState tells of it. If no carrier can be had
// for now, the old one stays. The error is net.ErrClosed when the Conn has ended, and ErrInvalid on the accepting side,
// which cannot dial.
func (c *Conn) Reconnect() error {
	if c.dialer == nil {
		return c.opError("reconnect", fmt.Errorf("%w: the accepting side does not dial", ErrInvalid))
	}
	c.flow.mu.Lock()
	over := c.shut || c.final != nil
	c.flow.mu.Unlock()
	if over {
		return c.opError("reconnect", net.ErrClosed)
	}
	select {
	case c.kick <- struct{}{}:
	default: // one is on its way
	}
	return nil
}

// redial resumes the conn, or replaces its carrier if forced. It returns when there is a carrier or the conn has ended.
func (c *Conn) redial(forced bool) {
	attempt := func(ctx context.Context) error {
		select {
		case <-c.kick: // this attempt is what it asks for
			forced = true
		default:
		}
		if !forced && c.flow.Attached() {
			return nil
		}
		err := c.resume(ctx)
		if err != nil {
			c.flow.mu.Lock()
			c.reason = err
			c.flow.mu.Unlock()
		}
		return err
	}
	final := func(error) bool { return c.flow.Err() != nil || c.flow.Attached() }
	_ = c.opts.Backoff.Retry(c.ctx, c.kick, attempt, final) // the reason is kept
}

// resume makes one attempt to give the conn a new carrier. What no later attempt can mend closes the flow.
func (c *Conn) resume(ctx context.Context) error {
	received, live := c.flow.Received()
	c.tries++
	h := hello{kind: messageResume, id: c.id, attempt: c.tries, received: received, live: live}
	carrier, answer, err := c.dialer.open(ctx, h)
	if err == nil {
		err = c.attach(carrier, answer.received, answer.live)
	}
	if err != nil && c.isLastWord(err) {
		return err
	}
	if errors.Is(err, ErrUnknown) || errors.Is(err, ErrVersion) || errors.Is(err, ErrProtocol) && !errors.Is(err, ErrStranger) {
		c.flow.Close(fmt.Errorf("%w: %w", ErrLost, err))
	}
	return err
}
