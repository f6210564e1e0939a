package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// recorded returns hooks that record what is called, as "open", "connected", "message", "error lost", "close" and so on.
func recorded(c *calls) *session.Hooks {
	return &session.Hooks{
		OnOpen:    func(*session.Session) error { c.add("open"); return nil },
		OnMessage: func(_ *session.Session, m *session.Message) { c.add("message " + m.Link) },
		OnStateChange: func(_ *session.Session, change session.StateChange) {
			c.add(string(change.State))
		},
		OnLaneOpen:  func(_ *session.Session, l session.Lane) { c.add("lane " + l.Name) },
		OnLaneClose: func(_ *session.Session, l session.Lane) { c.add("end of " + l.Name) },
		OnError:     func(_ *session.Session, err error) { c.add("error " + nameOf(err)) },
		OnClose:     func(*session.Session) { c.add("close") },
	}
}

// nameOf returns a short name of a session's error.
func nameOf(err error) string {
	switch {
	case errors.Is(err, session.ErrNotAllowed):
		return "not allowed"
	case errors.Is(err, session.ErrSessionLost):
		return "lost"
	case errors.Is(err, session.ErrClosed):
		return "closed"
	}
	return fmt.Sprint(err)
}

// The order of a session's hooks, for each way in which it ends, as they are called at Alice. OnError comes only with an end that is none in
// order, and OnClose once and last. Row: G3, G4
// Claim: session.Hooks.OnOpen, session.Hooks.OnMessage, session.Hooks.OnStateChange, session.Hooks.OnError, session.Hooks.OnClose
// Claim: session.Config.Hooks
func TestTheOrderOfHooks(t *testing.T) {
	short := session.Config{Heartbeat: time.Second, ResumeWindow: 5 * time.Second, CloseTimeout: 2 * time.Second}
	mortal := short
	mortal.ResumeWindow = -1
	for _, c := range []struct {
		name string
		cfg  session.Config
		end  func(t *testing.T, p *peerlanetest.Sessions)
		want []string // after "open", "connected" and "message hello"
	}{
		{"the peer closes", short, func(_ *testing.T, p *peerlanetest.Sessions) { _ = p.Bob.Close() }, []string{"ended", "close"}},
		{"the peer drains", short, func(t *testing.T, p *peerlanetest.Sessions) { _ = p.Bob.Shutdown(t.Context()) }, []string{"ended", "close"}},
		{"the peer aborts", short, func(_ *testing.T, p *peerlanetest.Sessions) { p.Bob.Abort() }, []string{"ended", "error lost", "close"}},
		{"closed here", short, func(_ *testing.T, p *peerlanetest.Sessions) { _ = p.Alice.Close() }, []string{"ended", "close"}},
		{"drained here", short, func(t *testing.T, p *peerlanetest.Sessions) { _ = p.Alice.Shutdown(t.Context()) }, []string{"ended", "close"}},
		{"aborted here", short, func(_ *testing.T, p *peerlanetest.Sessions) { p.Alice.Abort() }, []string{"ended", "close"}},
		{"closed twice", short, func(_ *testing.T, p *peerlanetest.Sessions) {
			var both sync.WaitGroup
			both.Go(func() { _ = p.Alice.Close() })
			both.Go(func() { _ = p.Bob.Close() })
			both.Wait()
		}, []string{"ended", "close"}},
		{"the carrier is reset, and comes back", short, func(t *testing.T, p *peerlanetest.Sessions) {
			p.Cut()
			synctest.Wait()
			require.NoError(t, p.Alice.AwaitCarrier(t.Context()))
			_ = p.Alice.Close()
		}, []string{"detached", "resumed", "ended", "close"}},
		{"moved", short, func(t *testing.T, p *peerlanetest.Sessions) {
			require.NoError(t, p.Alice.Reconnect(t.Context()))
			synctest.Wait()
			_ = p.Alice.Close()
		}, []string{"migrated", "ended", "close"}},
		{"the carrier is reset, and no other comes", short, func(_ *testing.T, p *peerlanetest.Sessions) {
			p.Refuse(true)
			p.Cut()
		}, []string{"detached", "ended", "error lost", "close"}},
		{"reset, not resumable", mortal, func(_ *testing.T, p *peerlanetest.Sessions) { p.Cut() }, []string{"ended", "error lost", "close"}},
		{"end of file without a word, not resumable", mortal, func(_ *testing.T, p *peerlanetest.Sessions) {
			_ = p.Bob.Conn().Close()
		}, []string{"ended", "error lost", "close"}},
		{"silent", short, func(_ *testing.T, p *peerlanetest.Sessions) {
			p.Freeze()
		}, []string{"detached", "ended", "error lost", "close"}},
		{"silent, not resumable", mortal, func(_ *testing.T, p *peerlanetest.Sessions) { p.Freeze() }, []string{"ended", "error lost", "close"}},
		{"the peer vanishes", short, func(_ *testing.T, p *peerlanetest.Sessions) {
			p.Refuse(true)
			p.Vanish()
		}, []string{"detached", "ended", "error lost", "close"}},
		{"Close gives up", short, func(t *testing.T, p *peerlanetest.Sessions) {
			p.ToBob.SetLink("hangs", func(*session.Message) { <-t.Context().Done() })
			go func() { _, _ = p.Alice.SendWait(t.Context(), "hangs", nil) }()
			time.Sleep(time.Millisecond)
			_ = p.Alice.Close()
		}, []string{"ended", "error closed", "close"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got calls
				accept := &session.AcceptorConfig{Config: c.cfg}
				c.cfg.Hooks = recorded(&got)
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: c.cfg, Accept: accept})
				p.ToAlice.SetLink("hello", func(*session.Message) {})
				require.NoError(t, p.Bob.Send(t.Context(), "hello", nil))
				require.NoError(t, p.Bob.Flush(t.Context()))
				c.end(t, p)
				time.Sleep(time.Minute)
				_, _ = p.Alice.Close(), p.Alice.Close() // nothing more is called
				time.Sleep(time.Minute)
				calls := got.get()
				if c.name == "the peer aborts" { // whether its last frame or the end of its carrier is seen first
					calls = slices.DeleteFunc(calls, func(name string) bool { return name == "detached" })
				}
				require.Equal(t, append([]string{"open", "connected", "message hello"}, c.want...), calls)
			})
		})
	}
}

// The same on the accepting side, which does not dial again.
func TestTheOrderOfHooksOnTheAcceptingSide(t *testing.T) {
	cfg := session.Config{Heartbeat: time.Second, ResumeWindow: 5 * time.Second}
	for name, c := range map[string]struct {
		end  func(p *peerlanetest.Sessions)
		want []string
	}{
		"the peer closes": {func(p *peerlanetest.Sessions) { _ = p.Alice.Close() }, []string{"ended", "close"}},
		"the peer aborts": {func(p *peerlanetest.Sessions) { p.Alice.Abort() }, []string{"ended", "error lost", "close"}},
		"closed here":     {func(p *peerlanetest.Sessions) { _ = p.Bob.Close() }, []string{"ended", "close"}},
		"the peer vanishes": {func(p *peerlanetest.Sessions) {
			p.Refuse(true)
			p.Vanish()
		}, []string{"detached", "ended", "error lost", "close"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got calls
				accept := &session.AcceptorConfig{Config: cfg}
				accept.Hooks = recorded(&got)
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg, Accept: accept})
				p.ToBob.SetStream("lane", func(st *session.Stream) { _, _ = io.Copy(io.Discard, st) })
				st, err := p.Alice.OpenStream(t.Context(), "lane", nil)
				require.NoError(t, err)
				require.NoError(t, st.Close())
				time.Sleep(time.Second)
				c.end(p)
				time.Sleep(time.Minute)
				calls := got.get()
				if name == "the peer aborts" {
					calls = slices.DeleteFunc(calls, func(name string) bool { return name == "detached" })
				}
				require.Equal(t, append([]string{"open", "connected", "lane lane", "end of lane"}, c.want...), calls)
			})
		})
	}
}

// A session that OnOpen refuses ends on both sides with the code and the text, nothing that the peer has sent is handled, and no other hook is
// called. Row: G1, G3
func TestOnOpenRefusesASession(t *testing.T) {
	for name, refuse := range map[string]struct {
		open func() error
		code codes.Code
		text string
	}{
		"an error":    {func() error { return errors.New("not on Sundays") }, codes.NotAllowed, "not on Sundays"},
		"an *Error":   {func() error { return &session.Error{Code: codes.Unavailable, RetryAfter: time.Hour, Text: "full"} }, codes.Unavailable, "full"},
		"a nil error": {func() error { return (*session.Error)(nil) }, codes.NotAllowed, "a nil *session.Error as an error"},
		"a panic":     {func() error { panic("boom") }, codes.Internal, "OnOpen panicked: boom"},
		"Goexit":      {func() error { runtime.Goexit(); return nil }, codes.Internal, "OnOpen ended its goroutine"},
	} {
		for _, window := range []time.Duration{0, -1} {
			t.Run(fmt.Sprint(name, window), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var got, handled calls
					hooks := recorded(&got)
					hooks.OnOpen = func(*session.Session) error {
						time.Sleep(time.Second) // everything has been sent meanwhile
						return refuse.open()
					}
					hooks.OnRefuse = func(r session.Refusal) { got.add("refuse " + r.Kind) }
					cfg := session.Config{ResumeWindow: window}
					accept := &session.AcceptorConfig{Config: cfg}
					accept.Hooks = hooks
					p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg, Accept: accept})
					p.ToBob.SetCall(func(*session.Message) ([]byte, error) { handled.add("call"); return nil, nil })
					p.ToBob.SetLink("one way", func(*session.Message) { handled.add("one way") })
					p.ToBob.SetStream("stream", func(*session.Stream) { handled.add("stream") })
					var all sync.WaitGroup
					all.Go(func() {
						_, err := p.Alice.Call(t.Context(), "", nil)
						var e *session.Error
						require.ErrorAs(t, err, &e)
						require.True(t, e.Remote)
						require.Equal(t, []any{refuse.code, refuse.text, session.Rejected}, []any{e.Code, e.Text, e.Outcome})
					})
					require.NoError(t, p.Alice.Send(t.Context(), "one way", nil))
					all.Go(func() { _, _ = p.Alice.OpenStream(t.Context(), "stream", nil) })
					all.Go(func() { _, _ = p.Alice.OpenStream(t.Context(), "stream", &session.StreamOptions{Dedicated: true}) })
					<-p.Alice.Done()
					<-p.Bob.Done()
					all.Wait()
					var e *session.Error
					require.ErrorAs(t, p.Alice.Err(), &e)
					require.True(t, e.Remote)
					require.Equal(t, []any{refuse.code, refuse.text}, []any{e.Code, e.Text})
					require.ErrorAs(t, p.Bob.Err(), &e)
					require.False(t, e.Remote)
					require.Equal(t, []any{refuse.code, refuse.text}, []any{e.Code, e.Text})
					require.WithinDuration(t, p.Alice.Snapshot().Started.Add(time.Second), time.Now(), 500*time.Millisecond, "nobody waits for a timeout")
					time.Sleep(time.Minute)
					require.Empty(t, handled.get())
					require.Equal(t, []string{"refuse session"}, got.get())
				})
			})
		}
	}
}

// The side that dials can refuse too: Dial returns the error, and the peer's session ends with it.
func TestOnOpenRefusesASessionThatWasDialed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		hooks := recorded(&got)
		hooks.OnOpen = func(*session.Session) error { return errors.New("too far away") }
		opened := make(chan *session.Session, 1)
		a, err := session.NewAcceptor(&session.AcceptorConfig{OnSession: func(s *session.Session) { opened <- s }})
		require.NoError(t, err)
		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		go func() { _ = a.Serve(there, "alice") }()
		s, err := session.Dial(t.Context(), here, "bob", nil, &session.Config{Hooks: hooks})
		require.Nil(t, s)
		require.ErrorIs(t, err, session.ErrNotAllowed)
		require.ErrorContains(t, err, "too far away")
		peer := <-opened
		<-peer.Done()
		require.ErrorIs(t, peer.Err(), session.ErrNotAllowed)
		require.ErrorContains(t, peer.Err(), "too far away")
		time.Sleep(time.Minute)
		require.Empty(t, got.get())
	})
}

// A Dial whose ctx ends while OnOpen runs returns. OnClose follows, because OnOpen has accepted the session.
func TestDialDoesNotWaitForOnOpenLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		hooks := recorded(&got)
		hooks.OnOpen = func(*session.Session) error { time.Sleep(time.Hour); got.add("open"); return nil }
		a, err := session.NewAcceptor(nil)
		require.NoError(t, err)
		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		go func() { _ = a.Serve(there, "alice") }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = session.Dial(ctx, here, "bob", nil, &session.Config{Hooks: hooks})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		require.Empty(t, got.get())
		time.Sleep(time.Hour)
		require.Equal(t, []string{"open", "connected", "ended", "close"}, got.get())
	})
}

// A hook may do with its session what a program may: nothing waits for itself.
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

// A slow hook delays the hooks of its session alone, and Workers of them at a time are all that run. Row: G16
// Claim: session.Hooks.Workers
func TestASlowHookDelaysItsSessionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		var running, most atomic.Int32
		var slow atomic.Pointer[session.Session]
		hooks := &session.Hooks{Workers: 2, OnMessage: func(*session.Session, *session.Message) {},
			OnStateChange: func(s *session.Session, c session.StateChange) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				if s == slow.Load() && c.State == session.StateMigrated {
					time.Sleep(time.Hour)
				}
				got.add(string(c.State))
			}}
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{Hooks: hooks}, Accept: &session.AcceptorConfig{}})
		slow.Store(p.Alice)
		others := []*session.Session{}
		for range 5 {
			s, _ := p.Dial(t)
			others = append(others, s)
		}
		time.Sleep(time.Second)
		require.NoError(t, p.Alice.Reconnect(t.Context()))
		for _, s := range others {
			require.NoError(t, s.Reconnect(t.Context()))
		}
		time.Sleep(time.Second)
		require.Len(t, got.get(), 6+5, "only the slow one's is missing")
		p.ToAlice.SetLink("echo", func(m *session.Message) { _ = m.Reply(nil) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Bob.SendWait(ctx, "echo", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded, "its own messages wait for their turn")
		time.Sleep(time.Hour)
		require.Len(t, got.get(), 12)
		require.LessOrEqual(t, most.Load(), int32(2))
	})
}

// Without an order, one slow hook does not delay the next of its session, but OnClose still comes when all have returned. Row: G16
// Claim: session.Hooks.Unordered
func TestUnorderedHooksRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		hooks := recorded(&got)
		hooks.Unordered, hooks.Workers = true, 8
		hooks.OnMessage = func(_ *session.Session, m *session.Message) {
			if m.Link == "slow" {
				time.Sleep(time.Minute)
			}
			got.add(m.Link)
		}
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{Hooks: hooks}, Accept: &session.AcceptorConfig{}})
		p.ToAlice.SetDefaultLink(func(m *session.Message) { _ = m.Reply(nil) })
		time.Sleep(time.Second)
		go func() { _, _ = p.Bob.SendWait(t.Context(), "slow", nil) }()
		time.Sleep(time.Second)
		_, err := p.Bob.SendWait(t.Context(), "fast", nil)
		require.NoError(t, err)
		p.Alice.Abort()
		time.Sleep(time.Hour)
		require.Equal(t, []string{"open", "connected", "fast", "ended", "slow", "close"}, got.get())
	})
}

// The calls that wait for a hook that hangs are bounded. Those of the end are never dropped.
// Claim: session.Snapshot.HooksDropped
func TestWaitingHooksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		hang := make(chan struct{})
		hooks := recorded(&got)
		hooks.OnLaneClose = func(*session.Session, session.Lane) { <-hang }
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{Hooks: hooks}, Accept: &session.AcceptorConfig{}})
		p.ToBob.SetStream("lane", func(*session.Stream) {})
		for range 1000 {
			st, err := p.Alice.OpenStream(t.Context(), "lane", nil)
			require.NoError(t, err)
			_ = st.Close()
		}
		time.Sleep(time.Minute)
		require.InDelta(t, 2000-1024, p.Alice.Snapshot().HooksDropped, 4)
		require.Zero(t, p.Bob.Snapshot().HooksDropped)
		p.Alice.Abort()
		close(hang)
		time.Sleep(time.Minute)
		require.Equal(t, "close", got.get()[len(got.get())-1])
	})
}

// Claim: session.Hooks.OnCron, session.Hooks.CronPeriod
// Row: G12
func TestOnCronIsCalledEachPeriod(t *testing.T) {
	for name, c := range map[string]struct {
		heartbeat, period, took time.Duration
		want                    int
	}{
		"the heartbeat":       {2 * time.Second, 0, 0, 30},
		"its own":             {2 * time.Second, 10 * time.Second, 0, 6},
		"without a heartbeat": {-1, 0, 0, 12},
		"longer than it":      {-1, time.Second, 9500 * time.Millisecond, 6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				hooks := &session.Hooks{CronPeriod: c.period, OnCron: func(*session.Session) { n.Add(1); time.Sleep(c.took) }}
				cfg := session.Config{Heartbeat: c.heartbeat, Hooks: hooks}
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg, Accept: &session.AcceptorConfig{}})
				time.Sleep(time.Minute + time.Millisecond)
				require.EqualValues(t, c.want, n.Load())
				_ = p.Alice.Close()
				time.Sleep(time.Minute)
				require.EqualValues(t, c.want, n.Load())
			})
		})
	}
}

func TestHooksOutOfRange(t *testing.T) {
	for field, h := range map[string]*session.Hooks{"CronPeriod": {CronPeriod: -1}, "Workers": {Workers: -1}} {
		require.ErrorContains(t, h.Validate(), "Hooks."+field)
		_, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Hooks: h}})
		require.ErrorIs(t, err, session.ErrInvalid)
		require.ErrorContains(t, err, field)
	}
	require.ErrorContains(t, (&session.Hooks{Workers: 1<<16 + 1}).Validate(), "Workers")
	require.NoError(t, (*session.Hooks)(nil).Validate())
	require.NoError(t, new(session.Hooks).Validate())
}
