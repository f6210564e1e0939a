package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// recorded returns hooks that record their calls, as "open", "connected", "message", "error lost", "close" and so on.
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
		{"a handler panics", short, func(t *testing.T, p *peerlanetest.Sessions) {
			p.ToAlice.SetLink("panic", func(*session.Message) { panic("boom") })
			_, err := p.Bob.SendWait(t.Context(), "panic", nil)
			require.ErrorIs(t, err, session.ErrInternal)
			_ = p.Alice.Close()
		}, []string{"message panic", "ended", "close"}},
		{"a handler ends its goroutine", short, func(t *testing.T, p *peerlanetest.Sessions) {
			p.ToAlice.SetLink("exit", func(*session.Message) { runtime.Goexit() })
			_, err := p.Bob.SendWait(t.Context(), "exit", nil)
			require.ErrorIs(t, err, session.ErrNoReply)
			_ = p.Alice.Close()
		}, []string{"message exit", "ended", "close"}},
		{"a stream is open", short, func(t *testing.T, p *peerlanetest.Sessions) {
			p.ToBob.SetStream("lane", func(st *session.Stream) { _, _ = io.Copy(io.Discard, st) })
			_, err := p.Alice.OpenStream(t.Context(), "lane", &session.StreamOptions{Dedicated: true})
			require.NoError(t, err)
			p.Bob.Abort()
		}, []string{"lane lane", "ended", "end of lane", "error lost", "close"}},
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
				if c.name == "the peer aborts" || c.name == "a stream is open" { // whether its last frame or the end of its carrier is seen first
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
