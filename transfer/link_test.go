package transfer

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// attempts runs persist with what each attempt does, the last one over and over. It returns how many there were, how long it took, and the
// events.
type attempts struct {
	window time.Duration
	do     []func(tr *Transfer) (lasted time.Duration, err error)
	alone  bool

	n      int
	took   time.Duration
	events []Event
	phases []Phase // before each attempt
}

func (a *attempts) run(t *testing.T, ctx context.Context) (err error) {
	t.Helper()
	tr, _ := newTransfer(receives, "bob", Options{ResumeWindow: a.window, OnEvent: func(e Event) { a.events = append(a.events, e) }}.withDefaults())
	began := time.Now()
	err = tr.persist(ctx, func() bool { return a.alone }, func(context.Context) (reached time.Time, err error) {
		do := a.do[min(a.n, len(a.do)-1)]
		a.n++
		a.phases = append(a.phases, tr.Progress().Phase)
		now := time.Now()
		lasted, err := do(tr)
		if lasted > 0 {
			time.Sleep(lasted)
			return now, err
		}
		return time.Time{}, err
	})
	a.took = time.Since(began)
	tr.end(err)
	return err
}

var errGone = errors.New("connection refused")

// unreachable fails at once, without reaching the peer.
func unreachable(*Transfer) (time.Duration, error) { return 0, errGone }

// lasted is a connection that was lost after a time.
func lasted(d time.Duration) func(*Transfer) (time.Duration, error) {
	return func(*Transfer) (time.Duration, error) { return d, &Error{Code: CodeLost} }
}

func done(*Transfer) (time.Duration, error) { return time.Second, nil }

func TestTheFirstAttemptMustReachThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := attempts{window: time.Hour, do: []func(*Transfer) (time.Duration, error){unreachable}}
		require.ErrorIs(t, a.run(t, t.Context()), errGone)
		require.Equal(t, 1, a.n)
		require.Empty(t, a.events)
	})
}

func TestALostPeerIsTriedAgainForTheResumeWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := attempts{window: time.Minute, alone: true, do: []func(*Transfer) (time.Duration, error){lasted(time.Hour), unreachable}}
		require.ErrorIs(t, a.run(t, t.Context()), errGone)
		require.Less(t, a.took, time.Hour+time.Minute+2*mostRetry)
		require.Greater(t, a.took, time.Hour+time.Minute, "the time of the connection does not count")
		require.Greater(t, a.n, 10, "more often at first")
		require.Less(t, a.n, 25)
		require.Len(t, a.events, a.n-1)
		require.Equal(t, EventLost, a.events[0].Kind)
		require.Equal(t, PhaseWaiting, a.phases[1])
	})
}

func TestAStalledConnectionCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := func(*Transfer) (time.Duration, error) { return 40 * time.Second, &Error{Code: CodeStalled} }
		a := attempts{window: time.Minute, do: []func(*Transfer) (time.Duration, error){stalled}}
		require.Equal(t, CodeStalled, CodeOf(a.run(t, t.Context())))
		require.Equal(t, 2, a.n)
		require.Equal(t, PhaseStart, a.phases[1], "it does not wait while others deliver")
	})
}

func TestBytesBeginTheResumeWindowAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := 10
		some := func(tr *Transfer) (time.Duration, error) {
			if left--; left < 0 {
				return 0, errGone
			}
			tr.meter.verified.Add(1)
			return time.Second, &Error{Code: CodeStalled}
		}
		a := attempts{window: 3 * time.Second, do: []func(*Transfer) (time.Duration, error){some}}
		require.ErrorIs(t, a.run(t, t.Context()), errGone)
		require.Greater(t, a.n, 10)
		require.Greater(t, a.took, 12*time.Second)
	})
}

func TestAnAttemptThatEndsWellEndsTheSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := attempts{window: time.Minute, do: []func(*Transfer) (time.Duration, error){lasted(time.Second), unreachable, done}}
		require.NoError(t, a.run(t, t.Context()))
		require.Equal(t, 3, a.n)
	})
}

func TestWhatAnotherAttemptCannotHelpIsNotTriedAgain(t *testing.T) {
	for _, err := range []error{
		&Error{Code: CodeNoSpace}, said(wire.Why{Code: "denied"}), &Error{Code: CodeBusy, Area: AreaDestination}, wire.Breachf("x"),
	} {
		synctest.Test(t, func(t *testing.T) {
			a := attempts{window: time.Hour, do: []func(*Transfer) (time.Duration, error){
				func(*Transfer) (time.Duration, error) { return time.Second, err },
			}}
			require.Equal(t, err, a.run(t, t.Context()))
			require.Equal(t, 1, a.n)
		})
	}
}

// A peer that is busy was reached: it may be busy with the last attempt.
func TestABusyPeerIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := func(*Transfer) (time.Duration, error) { return 0, said(wire.Why{Code: "busy"}) }
		a := attempts{window: time.Minute, do: []func(*Transfer) (time.Duration, error){busy, busy, done}}
		require.NoError(t, a.run(t, t.Context()))
		require.Equal(t, 3, a.n)
	})
}

func TestNoOtherAttemptIsMadeWithoutAResumeWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := attempts{window: -1, do: []func(*Transfer) (time.Duration, error){lasted(time.Second)}}
		require.Equal(t, CodeLost, CodeOf(a.run(t, t.Context())))
		require.Equal(t, 1, a.n)
	})
}

func TestTheSearchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(20*time.Second, func() { cancel(why) })
		a := attempts{window: time.Hour, do: []func(*Transfer) (time.Duration, error){lasted(time.Second), unreachable}}
		require.Equal(t, why, a.run(t, ctx))
		require.Equal(t, 20*time.Second, a.took, "at once")
	})
	require.Equal(t, errGone, errOr(nil, errGone))
	require.NoError(t, errOr(errGone, nil))
}
