package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// Hooks, handlers and close callbacks that do anything with their session, close it too, keep no end waiting, and leave nothing behind.
func TestHooksMayDoAnything(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			r := rand.New(rand.NewPCG(seed, 1))
			n := func(k int) int {
				mu.Lock()
				defer mu.Unlock()
				return r.IntN(k)
			}
			act := func(s *session.Session, rare int) { // the greater rare is, the less often
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				switch n(84 * rare) {
				case 0:
					_ = s.Close()
				case 1:
					_ = s.Shutdown(ctx)
				case 2:
					s.Abort()
				case 3:
					_ = s.Send(ctx, "l", []byte("x"))
				case 4:
					_, _ = s.Call(ctx, "", []byte("x"))
				case 5:
					_ = s.Flush(ctx)
				case 6:
					_, _ = s.Ping(ctx)
				case 7:
					s.AddCloseCallback("a", n(4), func() {
						s.RemoveCloseCallback("a", 1)
						s.AddCloseCallback("a", 2, func() {})
						s.Attribute(1)
						_ = s.Close()
					})
				case 8:
					s.RemoveCloseCallback("a", n(4))
				case 9:
					s.SetAttribute(n(4), s)
				case 10:
					s.Drain("x")
				case 11:
					st, err := s.OpenStream(ctx, "s", nil)
					if err == nil {
						_, _ = st.Write([]byte("hello"))
						_ = st.Close()
					}
				case 12:
					panic("x")
				case 13:
					s.ForDiagnostics().Counts()
				}
			}
			hooks := func() *session.Hooks {
				h := &session.Hooks{Workers: 1 + n(3), Unordered: n(2) == 0, CronPeriod: time.Second}
				if n(2) == 0 {
					h.OnOpen = func(s *session.Session) error {
						act(s, 2)
						time.Sleep(time.Duration(n(3)) * time.Second)
						if n(5) == 0 {
							return &session.Error{Code: codes.Code(n(30)), Text: "no"}
						}
						return nil
					}
				}
				h.OnMessage = func(s *session.Session, _ *session.Message) { act(s, 3) }
				h.OnStateChange = func(s *session.Session, _ session.StateChange) { act(s, 2) }
				h.OnLaneOpen = func(s *session.Session, _ session.Lane) { act(s, 3) }
				h.OnLaneClose = func(s *session.Session, _ session.Lane) { act(s, 3) }
				h.OnCron = func(s *session.Session) { act(s, 2) }
				h.OnError = func(s *session.Session, _ error) { act(s, 1) }
				h.OnClose = func(s *session.Session) { act(s, 1) }
				return h
			}
			cfg := session.Config{Hooks: hooks(), CloseTimeout: 3 * time.Second, ResumeWindow: time.Duration(n(2)*20-1) * time.Second}
			accept := &session.AcceptorConfig{Config: session.Config{Hooks: hooks(), CloseTimeout: 3 * time.Second, Quota: &session.Quota{MaxSessions: 5}}}
			cfg.Hooks.OnOpen = nil // it may end the session before the test has it
			p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg, Accept: accept})
			for _, m := range []*session.Mux{p.ToBob, p.ToAlice} {
				m.SetCall(func(m *session.Message) ([]byte, error) { act(m.Session(), 4); return m.Value, nil })
				m.SetLink("l", func(m *session.Message) { act(m.Session(), 4) })
				m.SetStream("s", func(st *session.Stream) { act(st.Session(), 4); _, _ = st.Read(make([]byte, 10)) })
			}
			var all sync.WaitGroup
			for range 6 {
				all.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					for range 5 {
						_ = p.Alice.Send(ctx, "l", []byte("x"))
						_, _ = p.Alice.Call(ctx, "", []byte("x"))
						if st, err := p.Alice.OpenStream(ctx, "s", nil); err == nil {
							_, _ = st.Write([]byte("x"))
							_ = st.Close()
						}
						time.Sleep(time.Duration(n(1000)) * time.Millisecond)
					}
				})
			}
			all.Wait()
			began := time.Now()
			_ = p.Alice.Close()
			if d := time.Since(began); d > 3*time.Minute {
				t.Errorf("seed %d: Close took %v", seed, d)
			}
			select {
			case <-p.Bob.Done():
			case <-time.After(5 * time.Minute):
				t.Errorf("seed %d: bob lives: %+v", seed, p.Bob.Snapshot())
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if q := accept.Quota.Snapshot(); q.Sessions != 0 || q.Calls != 0 || q.Bytes != 0 {
				t.Errorf("seed %d: %s", seed, fmt.Sprint(q))
			}
		})
	}
}
