package peerlanetest_test

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// echoes makes both sides answer calls.
func echoes(p *peerlanetest.Sessions) {
	for _, mux := range []*session.Mux{p.ToAlice, p.ToBob} {
		mux.SetCall(func(m *session.Message) ([]byte, error) { return m.Value, nil })
	}
}

// noise returns bytes that cannot be compressed.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

// timed returns how long a call from s takes.
func timed(t *testing.T, s *session.Session, size int) time.Duration {
	t.Helper()
	began := time.Now()
	got, err := s.Call(t.Context(), "", noise(size))
	require.NoError(t, err)
	require.Len(t, got, size)
	return time.Since(began)
}

// Claim: peerlanetest.Sessions.Alice, peerlanetest.Sessions.Bob, peerlanetest.Sessions.ToAlice, peerlanetest.Sessions.ToBob
// Claim: peerlanetest.SessionsOptions.Delay
func TestBothSidesOfASessionCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: 30 * time.Millisecond})
		echoes(p)
		require.Equal(t, 60*time.Millisecond, timed(t, p.Alice, 1))
		require.Equal(t, 60*time.Millisecond, timed(t, p.Bob, 1))
		p.SetDelay(100 * time.Millisecond)
		require.Equal(t, 200*time.Millisecond, timed(t, p.Alice, 1))
		alice, bob := p.Dial(t)
		require.NotEqual(t, p.Alice.Snapshot().ID, alice.Snapshot().ID)
		require.Equal(t, 200*time.Millisecond, timed(t, bob, 1))
		require.Len(t, p.Links(), 2)
	})
}

// Claim: peerlanetest.SessionsOptions.Rate, peerlanetest.SessionsOptions.Queue, peerlanetest.SessionsOptions.Buffer
func TestAllLinksOfSessionsShareTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const second = 100 << 10
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Rate: second, Queue: 16 << 10, Buffer: 16 << 10})
		echoes(p)
		other, _ := p.Dial(t)
		done := make(chan time.Duration, 1)
		go func() { done <- timed(t, other, 2*second) }()
		require.Greater(t, timed(t, p.Alice, 2*second), 4*time.Second)
		require.Greater(t, <-done, 4*time.Second)
	})
}

// Claim: peerlanetest.SessionsOptions.Config, peerlanetest.SessionsOptions.Accept
func TestSessionsHaveTheirConfigs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := make(chan session.State, 10)
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
			Config: session.Config{ResumeWindow: time.Minute, OnState: func(_ *session.Session, c session.StateChange) { states <- c.State }},
			Accept: &session.AcceptorConfig{Config: session.Config{ResumeWindow: 10 * time.Second}},
		})
		p.Refuse(true)
		p.Cut()
		began := time.Now()
		<-p.Alice.Done()
		require.Equal(t, 10*time.Second, time.Since(began), "the shorter of both windows")
		require.ErrorIs(t, p.Alice.Err(), session.ErrSessionLost)
		for _, want := range []session.State{session.StateConnected, session.StateDetached, session.StateEnded} {
			require.Equal(t, want, <-states)
		}
	})
}

// limited is a carrier that says that it lets through so much only, and counts what was read from it.
type limited struct {
	net.Conn
	read *atomic.Int64
}

func (limited) Limited() bool { return true }

func (l limited) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.read.Add(int64(n))
	return n, err
}

// Claim: peerlanetest.SessionsOptions.Wrap, peerlanetest.SessionsOptions.CutDelivers
func TestSessionsHaveTheCarriersOfATest(t *testing.T) {
	for _, delivers := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var alice, bob atomic.Int64 // what each has read
			p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
				Delay: time.Second, CutDelivers: delivers, Config: session.Config{ResumeWindow: -1, Heartbeat: -1},
				Wrap: func(here, there net.Conn) (net.Conn, net.Conn) { return limited{here, &alice}, limited{there, &bob} },
			})
			p.ToBob.SetStream("idle", func(*session.Stream) {})
			st, err := p.Alice.OpenStream(t.Context(), "idle", nil)
			require.NoError(t, err)
			require.True(t, st.Limited())
			time.Sleep(5 * time.Second) // nothing is under way
			before := bob.Load()
			require.NoError(t, p.Alice.Send(t.Context(), "last", noise(1000)))
			synctest.Wait()
			p.CutAfter(0)
			<-p.Bob.Done()
			require.Equal(t, delivers, bob.Load() > before+1000)
		})
	}
}

func TestSessionsSurviveWhatTheNetworkDoes(t *testing.T) {
	for name, fault := range map[string]func(p *peerlanetest.Sessions){
		"cut":       (*peerlanetest.Sessions).Cut,
		"cut after": func(p *peerlanetest.Sessions) { p.CutAfter(100) },
		"vanish":    (*peerlanetest.Sessions).Vanish,
		"freeze": func(p *peerlanetest.Sessions) {
			p.Freeze()
			time.AfterFunc(40*time.Second, p.Thaw)
		},
		"refuse": func(p *peerlanetest.Sessions) {
			p.Refuse(true)
			p.Cut()
			time.AfterFunc(40*time.Second, func() { p.Refuse(false) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Millisecond, Config: session.Config{RequestTimeout: -1}})
				echoes(p)
				fault(p)
				timed(t, p.Alice, 1000)
				timed(t, p.Bob, 1000)
				require.Positive(t, p.Alice.Snapshot().Resumes)
			})
		})
	}
}

func TestOnLinkIsCalledWithEachLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		p.ToBob.SetStream("sink", func(st *session.Stream) { _, _ = st.Read(make([]byte, 1)) })
		p.OnLink(func(l *peerlanetest.Link) { l.CutAfter(20) })
		_, err := p.Alice.OpenStream(t.Context(), "sink", &session.StreamOptions{Dedicated: true})
		require.Error(t, err)
		var e *session.Error
		require.True(t, errors.As(err, &e))
		require.Len(t, p.Links(), 2)
	})
}
