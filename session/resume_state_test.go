package session

import (
	"context"
	"crypto/rand"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// Row: N18.
// Claim: session.Config.OnState, session.StateChange.At, session.StateChange.Conn, session.StateChange.Err
// Claim: session.StateChange.State
func TestStatesAreToldInOrderAndEndedOnceAndLast(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		began := time.Now()
		time.Sleep(time.Second)
		r.lose()
		r.block(false)
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		time.Sleep(time.Second)
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		synctest.Wait()
		require.NoError(t, r.dialer.Close())
		synctest.Wait()
		want := []State{StateConnected, StateDetached, StateResumed, StateMigrated, StateEnded}
		for _, s := range []*Session{r.dialer, r.accepted} {
			require.Equal(t, want, r.states(s))
			steps := r.steps[s]
			for i, after := range []time.Duration{0, 1, 1, 2, 2} {
				require.Equal(t, began.Add(after*time.Second), steps[i].At, "step %d", i)
			}
			require.Equal(t, steps[0].Conn, steps[1].Conn, "a detached session shows the carrier it was on last")
			require.ErrorIs(t, steps[1].Err, ErrSessionLost)
			require.Equal(t, s.Err(), steps[4].Err)
			for _, i := range []int{0, 2, 3} {
				require.NoError(t, steps[i].Err)
			}
		}
		require.Same(t, end(r, 1, 0), r.steps[r.dialer][2].Conn)
		require.Same(t, end(r, 2, 0), r.steps[r.dialer][3].Conn)
		require.Same(t, end(r, 2, 1), r.steps[r.accepted][3].Conn)
	})
}

// end returns the dialing (0) or accepting (1) end of link i.
func end(r *road, i, side int) *faultnet.Conn {
	a, b := r.link(i).Ends()
	return []*faultnet.Conn{a, b}[side]
}

// Row: N18.
// Claim: session.Snapshot.Migrations, session.Snapshot.Resent, session.Snapshot.Resumable, session.Snapshot.Resumes
// Claim: session.Snapshot.Started, session.Snapshot.State, session.Snapshot.StateSince, session.Snapshot.Unacked
func TestASnapshotTellsOfTheCarrierAndOfWhatIsKeptForTheNext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.mux.SetLink("tell", func(*Message) {})
		v := r.dialer.Snapshot()
		require.Equal(t, StateConnected, v.State)
		require.True(t, v.Resumable)
		require.Equal(t, v.Started, v.StateSince)
		require.Zero(t, v.Resumes+v.Migrations+v.Resent)

		time.Sleep(time.Second)
		r.lose()
		lostAt := time.Now()
		before := r.dialer.Snapshot()
		require.Equal(t, StateDetached, before.State)
		require.Equal(t, lostAt, before.StateSince)
		time.Sleep(time.Second)
		body := make([]byte, 10_000)
		_, _ = rand.Read(body)
		require.NoError(t, r.dialer.Send(t.Context(), "tell", body))
		synctest.Wait()
		kept := r.dialer.Snapshot()
		require.InDelta(t, before.Unacked+len(body), kept.Unacked, 100, "a detached session keeps what it has to send")
		require.Equal(t, end(r, 0, 0), r.dialer.Conn())

		r.block(false)
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		require.NoError(t, r.dialer.Flush(t.Context()))
		v = r.dialer.Snapshot()
		require.Equal(t, StateResumed, v.State)
		require.EqualValues(t, 1, v.Resumes)
		require.Zero(t, v.Migrations)
		require.Zero(t, v.Resent, "nothing of the first carrier was lost")
		require.Equal(t, end(r, 1, 0), r.dialer.Conn())

		require.NoError(t, r.dialer.Reconnect(t.Context()))
		synctest.Wait()
		for _, s := range []*Session{r.dialer, r.accepted} {
			v = s.Snapshot()
			require.Equal(t, StateMigrated, v.State)
			require.EqualValues(t, 1, v.Resumes)
			require.EqualValues(t, 1, v.Migrations)
		}

		r.link(-1).Freeze()
		require.NoError(t, r.dialer.Send(t.Context(), "tell", body))
		synctest.Wait()
		r.link(-1).Cut()
		require.NoError(t, r.dialer.Flush(t.Context()))
		require.Greater(t, r.dialer.Snapshot().Resent, uint64(len(body)), "what was on its way is sent again")

		require.NoError(t, r.dialer.Close())
		synctest.Wait()
		for _, s := range []*Session{r.dialer, r.accepted} {
			v = s.Snapshot()
			require.Equal(t, StateEnded, v.State)
			require.Zero(t, v.Unacked)
		}
	})
}

// Whatever a hook does, and in whose goroutine it runs, the session ends.
func TestAHookThatCallsTheSessionDoesNotDeadlock(t *testing.T) {
	for _, on := range []State{StateConnected, StateDetached, StateResumed, StateMigrated, StateEnded} {
		for _, side := range []string{"dialing", "accepting"} {
			t.Run(side+" "+string(on), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
					called := make(chan struct{})
					hook := Config{OnState: func(s *Session, c StateChange) {
						_, _ = s.Snapshot(), s.Conn()
						_ = s.Err()
						if c.State == on {
							_ = s.Close()
							close(called)
						}
					}}
					if side == "dialing" {
						r.dial(hook, AcceptorConfig{})
					} else {
						r.dial(Config{}, AcceptorConfig{Config: hook})
					}
					switch on {
					case StateConnected:
					case StateDetached:
						r.link(-1).Cut()
					case StateResumed:
						r.link(-1).Cut()
						_ = r.dialer.AwaitCarrier(t.Context())
					case StateMigrated:
						_ = r.dialer.Reconnect(t.Context())
					case StateEnded:
						_ = r.dialer.Close()
					}
					select {
					case <-called:
					case <-time.After(time.Minute):
						require.Fail(t, "Close in the hook does not return")
					}
				})
			})
		}
	}
}

// What a session does in order to outlive its carrier costs no allocation per call.
func TestACallOfASessionThatSurvivesAllocatesNoMore(t *testing.T) {
	if raceEnabled {
		t.Log("allocations are not counted under the race detector")
		return
	}
	mux := NewMux()
	mux.SetCall(echo)
	a, err := NewAcceptor(&AcceptorConfig{Config: Config{Mux: mux}})
	require.NoError(t, err)
	here, there := memoryPipe()
	served := make(chan error, 1)
	go func() { served <- a.Serve(there, "alice") }()
	open := func(context.Context, Want) (net.Conn, error) { return nil, errNoRoute }
	s, err := Dial(t.Context(), here, "bob", open, nil)
	require.NoError(t, err)
	require.True(t, s.Snapshot().Resumable)
	body := make([]byte, 128)
	ctx := t.Context()
	call := func() {
		if _, err := s.Call(ctx, "", body); err != nil {
			t.Error(err)
		}
	}
	for range 200 {
		call()
	}
	n := testing.AllocsPerRun(5000, call)
	t.Logf("%.1f allocations for a call", n)
	require.LessOrEqual(t, n, 4.0)
	require.NoError(t, s.Close())
	<-s.readerDone
	for _, other := range a.Sessions() {
		require.NoError(t, other.Close())
	}
	require.NoError(t, <-served)
}

// Changed reports each step, also one that leads to the same state again.
func TestChangedReportsEachStep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		for range 3 {
			changed := r.dialer.Changed()
			require.Equal(t, changed, r.dialer.Changed(), "until then it is the same one")
			select {
			case <-changed:
				require.Fail(t, "nothing has happened")
			default:
			}
			require.NoError(t, r.dialer.Reconnect(t.Context()))
			<-changed
			require.Equal(t, StateMigrated, r.dialer.State())
		}
		changed := r.dialer.Changed()
		require.NoError(t, r.dialer.Close())
		<-changed
	})
}
