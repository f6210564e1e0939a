package resume

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/peerlane/peerlane/internal/backoff"
	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/hook"
)

// dialFunc opens a carrier: any net.Conn whose Close ends waiting Reads and Writes.
type dialFunc = func(context.Context) (net.Conn, error)

// Dial is DialContext with a context that never ends.
func Dial(dial func(context.Context) (net.Conn, error), opts *Options) (*Conn, error) {
	return DialContext(context.Background(), dial, opts)
}

// DialContext opens a carrier with dial, any net.Conn whose Close ends waiting Reads and Writes, and on it a connection to a [Listener]. It
// calls dial again, with the values of ctx but not its end, whenever the carrier has failed, until the Conn is closed or has been without a
// carrier for Options.ResumeWindow.
//
// The error is ErrInvalid for invalid Options or a nil dial, the error of dial, the other side's refusal (ErrBusy, ErrVersion), ErrStranger
// for a side that does not speak the protocol, or, when Options.HandshakeTimeout or ctx ends, a net.Error with Timeout or ctx's error.
// DialContext does not wait for a dial that takes longer, and closes the conn that it returns.
func DialContext(ctx context.Context, dial func(context.Context) (net.Conn, error), opts *Options) (*Conn, error) {
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if dial == nil {
		return nil, fmt.Errorf("%w: dial is nil", ErrInvalid)
	}
	d := &dialer{opts: &o, dial: dial}
	carrier, answer, err := d.open(ctx, hello{kind: messageNew, resumeWindow: o.resumeWindow(), buffer: uint32(o.Window)})
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "resume", Err: err}
	}
	c := newConn(context.WithoutCancel(ctx), &o, answer)
	c.dialer = d
	c.start()
	_ = c.attach(carrier, 0, false) // if the flow is already lost, Read and Write report it
	return c, nil
}

// dialer opens carriers.
type dialer struct {
	opts *Options
	dial dialFunc
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
		_ = carrier.Close() // only the first error counts
		return nil, hello{}, err
	}
	return carrier, answer, nil
}

// call calls dial. It does not wait beyond the end of ctx.
func (d *dialer) call(ctx context.Context) (net.Conn, error) {
	type result struct {
		carrier net.Conn
		err     error
	}
	results := make(chan result)
	go func() { // ends with dial; passes the carrier on, or closes it if the caller has left
		var carrier net.Conn
		var err error
		if exited := hook.Do(func() { carrier, err = d.dial(ctx); err = hook.Err(err) }); exited != nil {
			err = fmt.Errorf("the dial function %w", exited)
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

// errNoCarrier is the error of a dial function that returns neither a conn nor an error.
var errNoCarrier = fmt.Errorf("%w: the dial function returned neither a conn nor an error", ErrInvalid)

// waitError is the error of a wait that a context ended. It has a Timeout method, for the *net.OpError around it.
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
		return hello{}, flow.ProtocolErrorf("%v does not answer %v", answer.kind, h.kind)
	}
	return answer, nil
}

// Reconnect replaces the carrier by a new one at once. If the old carrier is alive, nothing is lost; if there is none, Reconnect ends the
// wait of Options.Backoff. It returns before the replacement is complete; Options.OnState reports that. If no carrier is available for now,
// the old one stays. The error is net.ErrClosed if the Conn has ended, and ErrInvalid on the accepting side, which cannot dial.
func (c *Conn) Reconnect() error {
	if c.dialer == nil {
		return c.opError("reconnect", fmt.Errorf("%w: the accepting side does not dial", ErrInvalid))
	}
	c.flow.Lock()
	over := c.shut || c.final != nil
	c.flow.Unlock()
	if over {
		return c.opError("reconnect", net.ErrClosed)
	}
	select {
	case c.kick <- struct{}{}:
	default: // a Reconnect is already pending
	}
	return nil
}

// redial resumes the conn, or replaces its carrier if forced. It returns when there is a carrier or the conn has ended.
func (c *Conn) redial(forced bool) {
	attempt := func(ctx context.Context) error {
		select {
		case <-c.kick: // this attempt serves the request
			forced = true
		default:
		}
		if !forced && c.flow.Attached() {
			return nil
		}
		err := c.resume(ctx)
		if err != nil {
			c.flow.Lock()
			c.reason = err
			c.flow.Unlock()
		}
		return err
	}
	final := func(error) bool { return c.flow.Err() != nil || c.flow.Attached() }
	_ = backoff.Backoff(c.opts.Backoff).Retry(c.ctx, c.kick, attempt, final) // the reason is stored
}

// resume makes one attempt to give the conn a new carrier. It closes the flow after an error that no later attempt can repair.
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
