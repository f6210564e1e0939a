package session_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// What has come before the end is handled after it, with OnOpen as without.
func TestMessagesThatWaitAtTheEndAreHandledWithOnOpenToo(t *testing.T) {
	for _, hooks := range []*session.Hooks{nil, {OnOpen: func(*session.Session) error { return nil }}} {
		synctest.Test(t, func(t *testing.T) {
			var handled calls
			accept := &session.AcceptorConfig{}
			accept.Hooks = hooks
			p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Accept: accept})
			p.ToBob.SetLink("l", func(m *session.Message) {
				handled.add(string(m.Value))
				if string(m.Value) == "0" {
					time.Sleep(time.Second)
					require.NoError(t, m.Session().Close())
				}
			})
			for i := range 20 {
				require.NoError(t, p.Alice.Send(t.Context(), "l", []byte{byte('0' + i)}))
			}
			<-p.Bob.Done()
			time.Sleep(time.Minute)
			require.Len(t, handled.get(), 20)
		})
	}
}

// OnCron is called again after a call that found too many others waiting.
func TestOnCronGoesOnAfterItWasDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var crons atomic.Int32
		free := make(chan struct{})
		first := true
		accept := &session.AcceptorConfig{}
		accept.Hooks = &session.Hooks{CronPeriod: time.Minute,
			OnRefuse: func(session.Refusal) {
				if first {
					first = false
					<-free
				}
			},
			OnCron: func(*session.Session) { crons.Add(1) }}
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Accept: accept})
		for range 1100 {
			_, err := p.Alice.Call(t.Context(), "none", nil)
			require.Error(t, err)
		}
		require.NotZero(t, p.Bob.Snapshot().HooksDropped)
		time.Sleep(2 * time.Minute)
		close(free)
		time.Sleep(5 * time.Minute)
		require.InDelta(t, 5, crons.Load(), 1)
	})
}

// A peer that comes and goes does not make hooks and close callbacks wait or run in any number: each session has its place until they have
// returned. Then the place is free.
func TestHooksThatRunHoldThePlaceOfTheirSession(t *testing.T) {
	const places = 4
	for name, set := range map[string]func(h *session.Hooks, fn func()){
		"OnOpen":        func(h *session.Hooks, fn func()) { h.OnOpen = func(*session.Session) error { fn(); return nil } },
		"OnOpen panics": func(h *session.Hooks, fn func()) { h.OnOpen = func(*session.Session) error { fn(); panic("no") } },
		"OnClose":       func(h *session.Hooks, fn func()) { h.OnClose = func(*session.Session) { fn() } },
		"callback": func(h *session.Hooks, fn func()) {
			h.OnOpen = func(s *session.Session) error { require.True(t, s.AddCloseCallback("", "", fn)); return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var running, most atomic.Int32
				free := make(chan struct{})
				cfg := &session.AcceptorConfig{Config: session.Config{ResumeWindow: -1, Hooks: new(session.Hooks), Quota: &session.Quota{MaxSessions: places}}}
				set(cfg.Hooks, func() {
					most.Store(max(most.Load(), running.Add(1)))
					<-free
					running.Add(-1)
				})
				a, err := session.NewAcceptor(cfg)
				require.NoError(t, err)
				comeAndGo := func() (refused int) {
					for range 5 * places {
						here, there := faultnet.Pipe(faultnet.LinkOptions{})
						go func() { _ = a.Serve(there, "alice") }()
						s, err := session.Dial(t.Context(), here, "bob", nil, &session.Config{ResumeWindow: -1})
						if err != nil {
							require.ErrorIs(t, err, session.ErrUnavailable)
							refused++
							continue
						}
						time.Sleep(time.Second)
						s.Abort()
						time.Sleep(time.Second)
					}
					return refused
				}
				require.Equal(t, 4*places, comeAndGo())
				require.EqualValues(t, places, most.Load())
				require.Empty(t, a.Sessions())
				close(free)
				time.Sleep(time.Minute)
				require.Zero(t, cfg.Quota.Snapshot().Sessions)
				require.Zero(t, comeAndGo())
				time.Sleep(time.Minute)
				require.Zero(t, cfg.Quota.Snapshot().Sessions)
			})
		})
	}
}
