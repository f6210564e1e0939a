package session

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// pings counts the PING and PONG frames of a session until its carrier ends.
func pings(conn net.Conn, answer bool) (count func() int) {
	n := make(chan int, 1)
	n <- 0
	go func() {
		r := frame.NewReader(conn, nil)
		for {
			h, _, err := r.Next()
			if err != nil {
				return
			}
			if h.Type == frame.TypePing {
				n <- <-n + 1
				if answer {
					_, _ = conn.Write(frame.AppendHeader(nil, frame.Header{Type: frame.TypePong, ID: h.ID}))
				}
			}
		}
	}()
	return func() int {
		v := <-n
		n <- v
		return v
	}
}

// Row: G11
// Claim: session.Config.Heartbeat
func TestAPeerIsProbedOnlyWhenItIsSilent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{Heartbeat: time.Second, HeartbeatTimeout: 3 * time.Second}, 0, generous)
		count := pings(w.conn, true)
		w.send(frame.TypePong, 0, 1, nil) // answers the first PING, which silent has read
		for i := range 100 {
			w.send(frame.TypePong, 0, uint64(i)+1000, nil)
			time.Sleep(300 * time.Millisecond)
		}
		require.Zero(t, count(), "no PING while anything is heard")
		time.Sleep(30 * time.Second)
		require.InDelta(t, 25, count(), 6)
		w.wantAlive()
	})
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{Heartbeat: time.Second, HeartbeatTimeout: 3 * time.Second}, 0, generous)
		count := pings(w.conn, false)
		began := time.Now()
		err := w.wantEnd()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorIs(t, err, ErrSessionLost)
		require.WithinDuration(t, began.Add(3*time.Second), time.Now(), time.Second)
		require.LessOrEqual(t, count(), 1, "one PING is enough to ask")
	})
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{Heartbeat: -1}, 0, generous)
		count := pings(w.conn, false)
		time.Sleep(24 * time.Hour)
		w.wantAlive()
		require.Zero(t, count())
	})
}

// Claim: session.Config.WriteTimeout
func TestACarrierThatTakesNothingIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{WriteTimeout: 4 * time.Second}, 0, generous)
		began := time.Now()
		go func() { // it is heard all the while
			for range 100 {
				w.push(frame.TypePong, 0, 9, nil)
				time.Sleep(500 * time.Millisecond)
			}
		}()
		_, err := w.s.Call(t.Context(), "", make([]byte, 1<<20))
		require.ErrorIs(t, err, ErrSessionLost)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.WithinDuration(t, began.Add(4*time.Second), time.Now(), 1100*time.Millisecond)
		time.Sleep(time.Minute)
	})
}

// Claim: session.Snapshot.RTT
func TestPingTellsTheRoundTrip(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		for _, s := range []*Session{p.dialer, p.accepted} {
			rtt, err := s.Ping(t.Context())
			require.NoError(t, err)
			require.Zero(t, rtt)
			require.Positive(t, s.RTT())
		}
		require.Equal(t, p.dialer.RTT(), p.dialer.Snapshot().RTT)
	})
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{Heartbeat: -1}, 0, generous)
		go func() { _, _ = io.Copy(io.Discard, w.conn) }()
		for range 10 {
			_, err := w.s.Ping(within(t, time.Second))
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.Empty(t, w.s.heartbeat.pingWaits)
		result := make(chan error, 1)
		go func() {
			_, err := w.s.Ping(t.Context())
			result <- err
		}()
		synctest.Wait()
		_ = w.conn.Close()
		require.ErrorIs(t, <-result, ErrSessionLost)
	})
}

// Claim: session.Config.ReadTimeout
func TestAStalledRequestIsRefusedAndOthersGoOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{ReadTimeout: 4 * time.Second}}, 0, generous)
		w.s.cfg.Mux.SetCall(echo)
		began := time.Now()
		w.send(frame.TypeRequest, 0, 1, start(frame.TypeRequest, 0, frame.Start{Total: 10}, []byte("12345")))
		w.send(frame.TypeRequest, 0, 3, start(frame.TypeRequest, 0, frame.Start{Total: 10}, nil))
		for i := range 5 {
			time.Sleep(2 * time.Second)
			w.send(frame.TypeContinue, 0, 1, []byte{byte('6' + i)})
			if i < 1 {
				w.send(frame.TypeContinue, 0, 3, nil) // no progress
			}
			if i == 2 {
				w.wantFailure(frame.TypeError, 3, codes.Timeout)
			}
		}
		w.want(frame.TypeResponse, 1)
		require.Equal(t, 10*time.Second, time.Since(began))
		wantZero(t, w.s)
	})
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{ReadTimeout: 4 * time.Second}}, 0, generous)
		w.s.cfg.Mux.SetLink("x", func(*Message) {})
		w.send(frame.TypeMessage, 0, 1, head(10))
		err := w.wantEnd()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorContains(t, err, "stalled at 0 of 10 bytes")
		wantZero(t, w.s)
	})
}

func TestASleptMachineIsToldByItsClocks(t *testing.T) {
	for _, c := range []struct {
		monotonic, wall time.Duration
		slept           bool
	}{
		{time.Second, time.Second, false},
		{time.Second, 3 * time.Second, false}, // a step of the wall clock
		{time.Second, 4 * time.Second, true},
		{time.Minute, time.Hour, true},
		{time.Hour, time.Minute, false}, // the wall clock was set back
	} {
		require.Equal(t, c.slept, slept(c.monotonic, c.wall), "%v by the monotonic clock, %v by the wall clock", c.monotonic, c.wall)
	}
}

// starver is a raw peer that reads all, answers nothing and acknowledges nothing, and is never silent.
func starver(t *testing.T, cfg Config) (p *rawResumer, again func(frame.Resume)) {
	t.Helper()
	p = newRawResumer(t, AcceptorConfig{Config: cfg})
	p.say(segment(segStart, 0, 0, ""))
	stop := make(chan struct{})
	turn := make(chan struct{}, 1) // not a Mutex, which keeps synctest.Wait from returning
	go func() {
		for id := uint64(1); ; id++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
				turn <- struct{}{}
				_, _ = p.conn.Write(ping(segData, 0, id))
				<-turn
			}
		}
	}()
	t.Cleanup(func() { close(stop) })
	return p, func(r frame.Resume) {
		turn <- struct{}{}
		defer func() { <-turn }()
		answer := p.resume("raw", p.id, r)
		require.Equal(t, frame.KindAck, answer.Kind)
		p.say(segment(segStart, 0, answer.Resume.Received, ""))
	}
}

// Row: S4. A peer that acknowledges nothing costs its carrier after WriteTimeout, each time it comes back, and the session when it
// does not; a call has its own time all along.
func TestACarrierOnWhichNothingIsAcknowledgedIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p, again := starver(t, Config{WriteTimeout: 10 * time.Second, ReplayWindow: 16 << 10, RequestTimeout: -1})
		began := time.Now()
		call := make(chan error, 1)
		go func() {
			_, err := p.s.Call(within(t, 25*time.Second), "", make([]byte, 1<<20))
			call <- err
		}()
		for attempt := uint32(1); attempt <= 5; attempt++ {
			for p.s.State() != StateDetached {
				time.Sleep(100 * time.Millisecond)
			}
			lasted := time.Since(began)
			require.GreaterOrEqual(t, lasted, 10*time.Second)
			require.Less(t, lasted, 14*time.Second, "a heartbeat later at most")
			if attempt == 3 {
				require.ErrorIs(t, <-call, context.DeadlineExceeded)
			}
			again(frame.Resume{Attempt: attempt})
			require.Equal(t, StateResumed, p.s.State())
			began = time.Now()
		}
		require.EqualValues(t, 5, p.s.Snapshot().Resumes)
		wantLost(t, p.s)
		require.Less(t, time.Since(began), 80*time.Second, "a WriteTimeout and a window after it has stayed away")
	})
}

// A peer that says in its hello what it has received, and never otherwise, is only slow.
func TestWhatTheHelloAcknowledgesIsProgress(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p, again := starver(t, Config{WriteTimeout: 10 * time.Second, ReplayWindow: 16 << 10, RequestTimeout: -1})
		call := make(chan error, 1)
		go func() {
			_, err := p.s.Call(within(t, time.Hour), "", make([]byte, 40<<10))
			call <- err
		}()
		attempt := uint32(0)
		for {
			time.Sleep(11 * time.Second)
			synctest.Wait()
			if p.s.State() != StateDetached {
				break
			}
			attempt++
			again(frame.Resume{Attempt: attempt, Received: p.received.Load()})
		}
		require.LessOrEqual(t, attempt, uint32(4))
		require.Greater(t, p.received.Load(), uint64(40<<10))
		require.NoError(t, p.s.Close())
		require.ErrorIs(t, <-call, ErrClosed)
	})
}
