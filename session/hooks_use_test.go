package session_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A hook may call and close its session as a program does, without waiting for itself.
func TestHooksUseTheirSession(t *testing.T) {
	for name, set := range map[string]func(h *session.Hooks, use func(*session.Session)){
		"OnOpen": func(h *session.Hooks, use func(*session.Session)) {
			h.OnOpen = func(s *session.Session) error { use(s); return nil }
		},
		"OnMessage": func(h *session.Hooks, use func(*session.Session)) {
			h.OnMessage = func(s *session.Session, _ *session.Message) { use(s) }
		},
		"OnStateChange": func(h *session.Hooks, use func(*session.Session)) {
			h.OnStateChange = func(s *session.Session, _ session.StateChange) { use(s) }
		},
		"without OnOpen, OnCron": func(h *session.Hooks, use func(*session.Session)) { h.OnCron = use },
		"OnLaneOpen": func(h *session.Hooks, use func(*session.Session)) {
			h.OnLaneOpen = func(s *session.Session, _ session.Lane) { use(s) }
		},
		"OnLaneClose": func(h *session.Hooks, use func(*session.Session)) {
			h.OnLaneClose = func(s *session.Session, _ session.Lane) { use(s) }
		},
		"OnCron":  func(h *session.Hooks, use func(*session.Session)) { h.OnCron = use },
		"OnClose": func(h *session.Hooks, use func(*session.Session)) { h.OnClose = use },
	} {
		for doing, do := range map[string]func(t *testing.T, s *session.Session){
			"calls": func(t *testing.T, s *session.Session) {
				if s.Err() != nil {
					return
				}
				_, err := s.Call(t.Context(), "echo", []byte("hello"))
				require.NoError(t, err)
				require.NoError(t, s.Send(t.Context(), "one way", nil))
				require.NoError(t, s.Flush(t.Context()))
			},
			"closes": func(_ *testing.T, s *session.Session) { _ = s.Close() },
			"aborts": func(_ *testing.T, s *session.Session) { s.Abort() },
			"shuts down": func(t *testing.T, s *session.Session) {
				_ = s.Shutdown(t.Context())
			},
		} {
			t.Run(name+" "+doing, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var got calls
					hooks := recorded(&got)
					if strings.HasPrefix(name, "without") {
						hooks.OnOpen = nil
					}
					hooks.CronPeriod = time.Second
					var used atomic.Int32
					set(hooks, func(s *session.Session) {
						if used.Add(1) > 1 {
							return
						}
						time.Sleep(10 * time.Millisecond) // the handlers are set
						began := time.Now()
						do(t, s)
						require.WithinDuration(t, began, time.Now(), 2*time.Second, "it waited for itself: CloseTimeout is 5 s")
					})
					accept := &session.AcceptorConfig{}
					accept.Hooks = hooks
					p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Accept: accept})
					for _, to := range []*session.Mux{p.ToAlice, p.ToBob} {
						to.SetLink("echo", func(m *session.Message) { _ = m.Reply(m.Value) })
						to.SetLink("one way", func(*session.Message) {})
						to.SetStream("lane", func(*session.Stream) {})
					}
					for range 3 {
						go func() { _, _ = p.Alice.Call(t.Context(), "echo", nil) }()
						_ = p.Alice.Send(t.Context(), "one way", nil)
						go func() { _, _ = p.Alice.OpenStream(t.Context(), "lane", nil) }()
					}
					time.Sleep(time.Minute)
					_ = p.Alice.Close()
					time.Sleep(time.Minute)
					require.Positive(t, used.Load())
					if name != "OnClose" {
						require.Equal(t, len(got.get())-1, slices.Index(got.get(), "close"), "%q", got.get())
						require.NotContains(t, got.get(), "error closed")
					}
				})
			})
		}
	}
}

// A hook that panics or ends its goroutine ends nothing else: the others are called, and the session lives. Row: G-c
func TestHooksThatDoNotReturnEndNothingElse(t *testing.T) {
	for name, exit := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		for _, unordered := range []bool{false, true} {
			t.Run(fmt.Sprint(name, unordered), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var got calls
					all := recorded(&got)
					hooks := &session.Hooks{Workers: 1, Unordered: unordered, CronPeriod: time.Second,
						OnStateChange: func(s *session.Session, c session.StateChange) { all.OnStateChange(s, c); exit() },
						OnLaneOpen:    func(s *session.Session, l session.Lane) { all.OnLaneOpen(s, l); exit() },
						OnLaneClose:   func(s *session.Session, l session.Lane) { all.OnLaneClose(s, l); exit() },
						OnCron:        func(*session.Session) { got.add("cron"); exit() },
						OnError:       func(s *session.Session, err error) { all.OnError(s, err); exit() },
						OnClose:       func(s *session.Session) { all.OnClose(s); exit() },
					}
					cfg := session.Config{ResumeWindow: -1, Hooks: hooks}
					p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg, Accept: &session.AcceptorConfig{}})
					p.ToAlice.SetStream("lane", func(*session.Stream) {})
					p.ToAlice.SetCall(func(*session.Message) ([]byte, error) { return nil, nil })
					st, err := p.Bob.OpenStream(t.Context(), "lane", nil)
					require.NoError(t, err)
					_ = st.Close()
					time.Sleep(1500 * time.Millisecond)
					_, err = p.Bob.Call(t.Context(), "", nil)
					require.NoError(t, err)
					p.Alice.SetAttribute(1, 1)
					p.Cut()
					time.Sleep(time.Minute)
					require.Equal(t, []string{"connected", "lane lane", "end of lane", "cron", "ended", "error lost", "close"}, got.get())
					require.Nil(t, p.Alice.Attribute(1))
				})
			})
		}
	}
}

// A message whose OnMessage panics is handled; one whose OnMessage ends the goroutine is not, and its sender learns that.
func TestOnMessageThatDoesNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accept := &session.AcceptorConfig{}
		accept.Hooks = &session.Hooks{OnMessage: func(_ *session.Session, m *session.Message) {
			switch string(m.Value) {
			case "panic":
				panic("boom")
			case "exit":
				runtime.Goexit()
			}
		}}
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Accept: accept})
		p.ToBob.SetLink("echo", func(m *session.Message) { _ = m.Reply(m.Value) })
		for range 3 {
			reply, err := p.Alice.SendWait(t.Context(), "echo", []byte("panic"))
			require.NoError(t, err)
			require.Equal(t, "panic", string(reply.Value))
			_, err = p.Alice.SendWait(t.Context(), "echo", []byte("exit"))
			require.ErrorIs(t, err, session.ErrNoReply)
			require.NoError(t, p.Alice.Send(t.Context(), "echo", []byte("exit")))
			require.ErrorIs(t, p.Alice.Flush(t.Context()), session.ErrInternal)
		}
	})
}
