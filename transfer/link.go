package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// A Dialer returns an open session with a peer: an existing one if there is one, otherwise a new one. The session remains the Dialer's.
type Dialer func(ctx context.Context) (*session.Session, error)

// helloTimeout bounds the wait for the other side's HELLO, and for the frames that follow from it.
const helloTimeout = 15 * time.Second

// Waits between attempts to reach a peer again.
const (
	firstRetry = 200 * time.Millisecond
	mostRetry  = 5 * time.Second
)

// link is an opener's control stream, with its data lanes.
type link struct {
	s     *session.Session
	ctl   *control
	id    wire.ID
	lanes int       // that both take
	caps  wire.Caps // of the other side
}

// openLink opens a control stream to the other side of a session, in a role.
func openLink(ctx context.Context, s *session.Session, role wire.Role, o Options) (*link, error) {
	st, err := s.OpenStream(ctx, controlName, nil)
	if err != nil {
		return nil, err
	}
	l := &link{s: s, ctl: newControl(st)}
	_, _ = rand.Read(l.id[:]) // never fails
	stop := context.AfterFunc(ctx, func() { l.ctl.interrupt(context.Cause(ctx)) })
	defer stop()
	theirs, err := l.greet(role, o)
	if err != nil {
		err = l.ctl.cause(err)
		l.ctl.abort(whyOf(err))
		return nil, err
	}
	l.lanes, l.caps = min(o.Lanes, theirs.Lanes), theirs.Caps
	return l, nil
}

// greet sends HELLO and handles the answer (spec 3.1).
func (l *link) greet(role wire.Role, o Options) (wire.Hello, error) {
	if err := l.ctl.send(wire.KindHello, false, wire.Hello{Role: role, Lanes: o.Lanes, Caps: wire.OurCaps, ID: l.id}.Append); err != nil {
		return wire.Hello{}, err
	}
	theirs, err := readHello(l.ctl)
	if err == nil && (theirs.ID != l.id || theirs.Role == role) {
		err = wire.Breachf("HELLO does not answer ours")
	}
	return theirs, err
}

func readHello(c *control) (wire.Hello, error) {
	f, err := c.readWithin(helloTimeout)
	if err != nil {
		return wire.Hello{}, err
	}
	if f.Kind != wire.KindHello {
		return wire.Hello{}, wire.Breachf("%v where HELLO is due", f.Kind)
	}
	return wire.ConsumeHello(f.Body)
}

// run runs talk on the control stream, and keeps the data lanes open, served by lane, once talk has called begin: before that, the other
// side does not know which transfer they belong to. It returns when talk does, and reports an error of talk to the peer.
func (l *link) run(
	ctx context.Context, o Options, lane laneFunc, talk func(ctx context.Context, begin func()) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var lanes sync.WaitGroup
	var once sync.Once
	err := talk(ctx, func() {
		once.Do(func() {
			lanes.Go(func() { keepLanes(ctx, l.s, l.id, lanesFor(l.s, l.lanes), o, lane) })
		})
	})
	l.ctl.close(err)
	cancel()
	lanes.Wait()
	return err
}

// again reports whether it makes sense to try to reach the peer again after err.
func again(err error) bool {
	switch CodeOf(err) {
	case "", CodeLost, CodeStalled:
		return true
	case CodeBusy:
		return isSaid(err) // it may refer to our own last attempt
	}
	return false
}

// isSaid reports whether err was reported by the peer.
func isSaid(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Remote
}

// persist calls attempt until it returns nil, or an error that another attempt cannot help, or until nothing has arrived for o.ResumeWindow.
// The duration of a connection counts only if the connection has stalled, because a user may have taken that long to decide. attempt
// returns when the peer was reached, or zero. A peer that has refused was reached too; the first attempt must reach it. isAlone reports
// whether no other source delivers data.
func (t *Transfer) persist(ctx context.Context, isAlone func() bool, attempt func(context.Context) (reached time.Time, err error)) error {
	wait, last, most := firstRetry, time.Now(), t.meter.verified.Load()
	reachedOnce := false
	for {
		reached, err := attempt(ctx)
		if err == nil || ctx.Err() != nil {
			return errOr(context.Cause(ctx), err)
		}
		reachedOnce = reachedOnce || !reached.IsZero() || isSaid(err)
		if !reached.IsZero() && CodeOf(err) != CodeStalled {
			last = last.Add(time.Since(reached))
		}
		if now := t.meter.verified.Load(); now > most {
			most, last, wait = now, time.Now(), firstRetry
		}
		if !again(err) || !reachedOnce || t.o.ResumeWindow < 0 || time.Since(last) > t.o.ResumeWindow {
			return err
		}
		t.meter.losses.Add(1)
		if isAlone() {
			t.meter.setPhase(PhaseWaiting)
		}
		t.tell(Event{EventLost, t.other(), "", err})
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, mostRetry)
	}
}

// errOr returns cause if err is not nil and there is one, otherwise err.
func errOr(cause, err error) error {
	if err != nil && cause != nil {
		return cause
	}
	return err
}

// met records the peer of a transfer.
func (t *Transfer) met(s *session.Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peer == "" {
		t.peer = s.Peer()
	}
}
