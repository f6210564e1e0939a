package transfer

import (
	"context"
	"fmt"

	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/session"
)

// What the application's functions do to their goroutine must not end one of the transfer's: each runs in one of its own, and one that ends
// it has said no, or nothing.

// call calls the Dialer.
func (d Dialer) call(ctx context.Context) (s *session.Session, err error) {
	if exited := hook.Do(func() { s, err = d(ctx); err = hook.Err(err) }); exited != nil {
		return nil, fmt.Errorf("the Dialer %w", exited)
	}
	if err == nil && s == nil {
		return nil, invalidf("the Dialer returned neither a session nor an error")
	}
	return s, err
}

// tell calls Options.OnEvent.
func (o *Options) tell(e Event) { _ = hook.Do(func() { o.OnEvent(e) }) }

// begun calls a OnBegun, which may be nil.
func begun(fn func(*Transfer), t *Transfer) {
	if fn != nil {
		_ = hook.Do(func() { fn(t) })
	}
}

// admit calls Admit.
func (c *ServiceConfig) admit(peer string) (err error) {
	if exited := hook.Do(func() { err = hook.Err(c.Admit(peer)) }); exited != nil {
		return fmt.Errorf("the Admit hook %w", exited)
	}
	return err
}

// place calls Place.
func (o *ReceiveOptions) place(ctx context.Context, in Incoming) (place *Place, err error) {
	if exited := hook.Do(func() { place, err = o.Place(ctx, in); err = hook.Err(err) }); exited != nil {
		return nil, fmt.Errorf("the Place hook %w", exited)
	}
	return place, err
}

// receive calls Receive.
func (c *ServiceConfig) receive(ctx context.Context, in Incoming) (dest *Destination, err error) {
	if exited := hook.Do(func() { dest, err = c.Receive(ctx, in); err = hook.Err(err) }); exited != nil {
		return nil, fmt.Errorf("the Receive hook %w", exited)
	}
	return dest, err
}
