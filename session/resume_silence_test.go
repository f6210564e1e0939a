package session

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// Row: U13. Row: U14.
func TestALinkThatVanishesIsFoundInTimeAndTheSessionGoesOn(t *testing.T) {
	const heartbeat, timeout = 2 * time.Second, 5 * time.Second
	cfg := Config{Heartbeat: heartbeat, HeartbeatTimeout: timeout}
	for _, busy := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: faultnet.LinkOptions{Delay: 5 * time.Millisecond}}
			runs := 0
			r.mux.SetCall(func(m *Message) ([]byte, error) {
				runs++
				time.Sleep(time.Second)
				return echo(m)
			})
			r.dial(cfg, AcceptorConfig{Config: cfg})
			time.Sleep(time.Minute)
			got := make(chan error, 1)
			if busy {
				go func() {
					_, err := r.dialer.Call(t.Context(), "", []byte("x"))
					got <- err
				}()
				time.Sleep(500 * time.Millisecond)
			}
			r.link(0).Vanish()
			began := time.Now()
			r.await(r.dialer, StateDetached)
			require.LessOrEqual(t, time.Since(began), timeout+time.Second)
			r.await(r.dialer, StateResumed)
			require.LessOrEqual(t, time.Since(began), timeout+time.Second)
			if busy {
				require.NoError(t, <-got)
				require.Equal(t, 1, runs)
			}
			_, err := r.dialer.Call(t.Context(), "", []byte("x"))
			require.NoError(t, err)
			want := []State{StateConnected, StateDetached, StateResumed}
			require.Equal(t, want, r.states(r.dialer))
			require.Equal(t, want, r.states(r.accepted))
		})
	}
}

// Claim: session.Config.OtherPath
func TestASilentCarrierIsLeftSoonerWhereThereIsAnotherPath(t *testing.T) {
	for _, test := range []struct {
		other, idle bool
		delay       time.Duration // one way
		least, most time.Duration // until the session is detached
	}{
		{other: true, delay: 5 * time.Millisecond, least: suspectAfter + suspectTime - 100*time.Millisecond, most: 2 * time.Second},
		{other: true, delay: 500 * time.Millisecond, least: 4 * time.Second, most: 7 * time.Second},       // three round trips, and what Probe waits
		{other: true, idle: true, delay: 5 * time.Millisecond, least: time.Second, most: 8 * time.Second}, // the heartbeat's ping comes first
		{other: false, delay: 5 * time.Millisecond, least: 5 * time.Second, most: 11 * time.Second},       // from when it was last heard
	} {
		inBubble(t, func(t *testing.T) {
			var asked atomic.Int32
			cfg := Config{OtherPath: func(s *Session) bool {
				asked.Add(1)
				require.NotNil(t, s.Conn(), "no lock is held")
				return test.other
			}}
			r := newRoad(t, cfg, AcceptorConfig{}, faultnet.LinkOptions{Delay: test.delay})
			r.mux.SetCall(echo)
			time.Sleep(time.Minute)
			require.Zero(t, asked.Load(), "nothing waits for an answer")
			_, err := r.dialer.Call(t.Context(), "", []byte("x"))
			require.NoError(t, err)
			time.Sleep(time.Minute)
			r.link(0).Vanish()
			began, called := time.Now(), make(chan error, 1)
			go func() {
				if !test.idle {
					_, err = r.dialer.Call(t.Context(), "", []byte("x"))
				}
				called <- err
			}()
			r.await(r.dialer, StateDetached)
			took := time.Since(began)
			require.GreaterOrEqual(t, took, test.least, "%+v", test)
			require.LessOrEqual(t, took, test.most, "%+v", test)
			r.await(r.dialer, StateResumed)
			require.NoError(t, <-called)
		})
	}
}

// A session that has sent little data knows its rate badly. It does not wait for that data longer.
func TestLittleDataDoesNotDelayTheEndOfASilentCarrier(t *testing.T) {
	for idle := time.Duration(0); idle < 12*time.Second; idle += 370 * time.Millisecond {
		inBubble(t, func(t *testing.T) {
			cfg := Config{OtherPath: func(*Session) bool { return true }}
			r := newRoad(t, cfg, AcceptorConfig{}, faultnet.LinkOptions{Delay: 20 * time.Millisecond})
			r.mux.SetCall(echo)
			for range 20 {
				_, err := r.dialer.Call(t.Context(), "", []byte("x"))
				require.NoError(t, err)
				time.Sleep(50 * time.Millisecond)
			}
			time.Sleep(idle)
			r.link(0).Vanish()
			began, called := time.Now(), make(chan error, 1)
			go func() {
				_, err := r.dialer.Call(t.Context(), "", []byte("x"))
				called <- err
			}()
			r.await(r.dialer, StateDetached)
			require.LessOrEqual(t, time.Since(began), suspectAfter+suspectTime+suspectAfter/2+50*time.Millisecond, "idle for %v", idle)
			r.await(r.dialer, StateResumed)
			require.NoError(t, <-called)
		})
	}
}

// A probe that leaves much time does not keep a silent carrier from being left soon.
func TestAProbeDoesNotDelayAnother(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		cfg := Config{OtherPath: func(*Session) bool { return true }}
		r := newRoad(t, cfg, AcceptorConfig{}, faultnet.LinkOptions{Delay: 5 * time.Millisecond})
		r.mux.SetCall(echo)
		_, err := r.dialer.Call(t.Context(), "", []byte("x"))
		require.NoError(t, err)
		r.link(0).Vanish()
		began, called := time.Now(), make(chan error, 1)
		go func() {
			_, err := r.dialer.Call(t.Context(), "", []byte("x"))
			called <- err
		}()
		time.Sleep(suspectAfter / 2)
		r.dialer.Probe()
		r.await(r.dialer, StateDetached)
		require.Less(t, time.Since(began), suspectAfter/2+probeTime)
		r.await(r.dialer, StateResumed)
		require.NoError(t, <-called)
	})
}

// A handler that takes its time, over a path that answers, is no reason to leave it.
func TestASlowAnswerIsNoSilence(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		cfg := Config{OtherPath: func(*Session) bool { return true }, RequestTimeout: -1}
		r := newRoad(t, cfg, AcceptorConfig{Config: Config{RequestTimeout: -1}}, faultnet.LinkOptions{Delay: 5 * time.Millisecond})
		r.mux.SetCall(func(m *Message) ([]byte, error) { time.Sleep(time.Minute); return echo(m) })
		_, err := r.dialer.Call(t.Context(), "", []byte("x"))
		require.NoError(t, err)
		require.Equal(t, []State{StateConnected}, r.states(r.dialer))
	})
}
