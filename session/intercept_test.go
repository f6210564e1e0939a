package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// noted returns an interceptor that records when it is called and left.
func noted(c *calls, name string) session.Interceptor {
	return func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
		c.add(fmt.Sprintf("%s: %s %s %q inbound=%t one way=%t", name, x.Peer, x.Tag+x.Link, x.Value, x.Inbound, x.OneWay))
		err := next(ctx)
		c.add(fmt.Sprintf("%s: %q %v", name, x.Reply, err != nil))
		return err
	}
}

// Claim: session.Exchange.Session, session.Exchange.Peer, session.Exchange.Tag, session.Exchange.Link, session.Exchange.Inbound
// Claim: session.Exchange.OneWay, session.Exchange.Value, session.Exchange.Reply
func TestInterceptorsStandBeforeCallsAndMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out, in calls
		cfg := session.Config{Tag: "/t "}
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg, Accept: &session.AcceptorConfig{Config: cfg}})
		p.ToBob.SetCall(func(m *session.Message) ([]byte, error) { return []byte("answer"), nil })
		p.ToBob.SetLink("link", func(m *session.Message) { _ = m.Reply([]byte("reply")) })
		p.ToBob.SetLink("refuses", func(m *session.Message) { _ = m.Refuse(errors.New("no")) })
		p.ToAlice.Intercept(noted(&out, "1"), nil)
		p.ToAlice.Intercept(noted(&out, "2"))
		p.ToBob.Intercept(noted(&in, "in"), func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
			require.Equal(t, p.Bob, x.Session)
			return next(ctx)
		})
		answer, err := p.Alice.Call(t.Context(), "", []byte("q"))
		require.NoError(t, err)
		require.Equal(t, "answer", string(answer))
		reply, err := p.Alice.SendWait(t.Context(), "link", []byte("w"))
		require.NoError(t, err)
		require.Equal(t, "reply", string(reply.Value))
		_, err = p.Alice.SendWait(t.Context(), "refuses", nil)
		require.ErrorContains(t, err, `"no"`)
		require.NoError(t, p.Alice.Send(t.Context(), "link", []byte("s")))
		require.NoError(t, p.Alice.SendObj(t.Context(), "link", "", 1))
		require.NoError(t, p.Alice.Flush(t.Context()))
		require.Equal(t, []string{
			`1: bob /t  "q" inbound=false one way=false`, `2: bob /t  "q" inbound=false one way=false`, `2: "answer" false`, `1: "answer" false`,
			`1: bob /t link "w" inbound=false one way=false`, `2: bob /t link "w" inbound=false one way=false`, `2: "reply" false`, `1: "reply" false`,
			`1: bob /t refuses "" inbound=false one way=false`, `2: bob /t refuses "" inbound=false one way=false`, `2: "" true`, `1: "" true`,
			`1: bob /t link "s" inbound=false one way=true`, `2: bob /t link "s" inbound=false one way=true`, `2: "" false`, `1: "" false`,
			`1: bob /t link "1" inbound=false one way=true`, `2: bob /t link "1" inbound=false one way=true`, `2: "" false`, `1: "" false`,
		}, out.get())
		require.Equal(t, []string{
			`in: alice /t  "q" inbound=true one way=false`, `in: "answer" false`,
			`in: alice /t link "w" inbound=true one way=false`, `in: "" false`,
			`in: alice /t refuses "" inbound=true one way=false`, `in: "" true`,
			`in: alice /t link "s" inbound=true one way=true`, `in: "" false`,
			`in: alice /t link "1" inbound=true one way=true`, `in: "" false`,
		}, in.get())
	})
}

// An interceptor decides about what it stands before: it refuses, or changes the body, the ctx and the reply.
func TestInterceptorsRefuseAndChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		p := peerlanetest.NewSessions(t, nil)
		handled := 0
		p.ToBob.SetCall(func(m *session.Message) ([]byte, error) {
			handled++
			return fmt.Appendf(nil, "%s %v", m.Value, m.Context().Value(key{})), nil
		})
		p.ToBob.SetLink("link", func(m *session.Message) {
			handled++
			require.Equal(t, "ours", m.Context().Value(key{}))
		})
		p.ToBob.Intercept(func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
			switch string(x.Value) {
			case "bad":
				return &session.Error{Code: codes.NotAllowed, Text: "bad"}
			case "wrong":
				return errors.New("wrong")
			}
			x.Value = append([]byte("<"), x.Value...)
			err := next(context.WithValue(ctx, key{}, "ours"))
			x.Reply = append(x.Reply, '>')
			return err
		})
		answer, err := p.Alice.Call(t.Context(), "", []byte("good"))
		require.NoError(t, err)
		require.Equal(t, "<good ours>", string(answer))
		_, err = p.Alice.Call(t.Context(), "", []byte("bad"))
		var e *session.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, []any{codes.NotAllowed, session.Rejected, "bad"}, []any{e.Code, e.Outcome, e.Text})
		_, err = p.Alice.Call(t.Context(), "", []byte("wrong"))
		require.ErrorAs(t, err, &e)
		require.Equal(t, []any{codes.Application, session.Delivered, "wrong"}, []any{e.Code, e.Outcome, e.Text})
		require.NoError(t, p.Alice.Send(t.Context(), "link", []byte("good")))
		require.NoError(t, p.Alice.Send(t.Context(), "link", []byte("bad")))
		require.ErrorIs(t, p.Alice.Flush(t.Context()), session.ErrNotAllowed)
		require.Equal(t, 2, handled)

		refused := errors.New("not today")
		p.ToAlice.Intercept(func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
			if string(x.Value) == "stop" {
				return refused
			}
			if err := next(ctx); err != nil {
				return err
			}
			return refused
		})
		_, err = p.Alice.Call(t.Context(), "", []byte("stop"))
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, refused)
		require.Equal(t, session.Rejected, e.Outcome)
		_, err = p.Alice.Call(t.Context(), "", []byte("good"))
		require.ErrorAs(t, err, &e)
		require.Equal(t, session.Delivered, e.Outcome)
		require.ErrorIs(t, p.Alice.Send(t.Context(), "link", []byte("stop")), refused)
		require.Equal(t, 3, handled)
	})
}

// Those of a parent come first. A panic in one is as one of the handler.
func TestInterceptorsOfParentsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in calls
		parent := session.NewMux()
		child := parent.Child().Child()
		named := func(name string) session.Interceptor {
			return func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
				in.add(name)
				return next(ctx)
			}
		}
		child.Intercept(named("child"))
		parent.Intercept(named("parent"))
		require.NoError(t, child.Through(t.Context(), &session.Exchange{}, func(context.Context) error { in.add("last"); return nil }))
		require.Equal(t, []string{"parent", "child", "last"}, in.get())

		require.ErrorIs(t, child.Through(t.Context(), nil, nil), session.ErrInvalid)

		p := peerlanetest.NewSessions(t, nil)
		p.ToBob.SetCall(func(*session.Message) ([]byte, error) { return nil, nil })
		p.ToBob.Intercept(func(context.Context, *session.Exchange, func(context.Context) error) error { panic("boom") })
		_, err := p.Alice.Call(t.Context(), "", nil)
		require.ErrorIs(t, err, session.ErrInternal)
		time.Sleep(time.Second)
		require.NoError(t, p.Alice.Err())
	})
}

// What is not set costs nothing.
func TestCallsWithoutHooksAllocateNoMore(t *testing.T) {
	n := allocsOfCall(t, session.NewMux(), nil)
	through := session.NewMux()
	through.Intercept(func(ctx context.Context, _ *session.Exchange, next func(context.Context) error) error {
		return next(ctx)
	})
	t.Logf("%v allocations per call, %v with empty Hooks, %v with an interceptor", n, allocsOfCall(t, session.NewMux(), new(session.Hooks)),
		allocsOfCall(t, through, nil))
	require.LessOrEqual(t, n, 6.0, "3 without the race detector")
}

// allocsOfCall returns how many allocations a call and its handling cost.
func allocsOfCall(t testing.TB, mux *session.Mux, hooks *session.Hooks) float64 {
	mux.SetCall(func(*session.Message) ([]byte, error) { return nil, nil })
	s := connectWith(&session.Config{Hooks: hooks}, mux, hooks)
	defer func() { _ = s.Close() }()
	value := make([]byte, 100)
	return testing.AllocsPerRun(2000, func() {
		if _, err := s.Call(context.Background(), "", value); err != nil {
			t.Fatal(err)
		}
	})
}

// The costs of hooks and interceptors: none of them set, empty, and each of those that calls pass.
func BenchmarkHooks(b *testing.B) {
	pass := func(ctx context.Context, _ *session.Exchange, next func(context.Context) error) error {
		return next(ctx)
	}
	for _, c := range []struct {
		name  string
		hooks *session.Hooks
		chain []session.Interceptor
	}{
		{"unset", nil, nil},
		{"empty", new(session.Hooks), nil},
		{"OnMessage", &session.Hooks{OnMessage: func(*session.Session, *session.Message) {}}, nil},
		{"interceptor", nil, []session.Interceptor{pass}},
	} {
		b.Run(c.name, func(b *testing.B) {
			mux := session.NewMux()
			mux.SetCall(func(*session.Message) ([]byte, error) { return nil, nil })
			if c.chain != nil {
				mux.Intercept(c.chain...)
			}
			s := connectWith(&session.Config{}, mux, c.hooks)
			defer func() { _ = s.Close() }()
			value := make([]byte, 100)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Call(context.Background(), "", value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// An error of an interceptor has the outcome of the call that it stands before.
func TestErrorsOfInterceptorsHaveTheOutcomeOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		ours, denied := errors.New("ours"), &session.Error{Code: codes.NotAllowed, Text: "not this"}
		p.ToAlice.Intercept(func(ctx context.Context, x *session.Exchange, next func(context.Context) error) error {
			if x.Link == "refused" {
				return denied // of all callers
			}
			_ = next(ctx)
			return ours
		})
		var e *session.Error
		_, err := p.Alice.Call(t.Context(), "refused", nil)
		require.ErrorAs(t, err, &e)
		require.Equal(t, session.Rejected, e.Outcome, "%v", err)
		require.EqualError(t, err, `call "refused" at bob: not allowed: "not this" (rejected)`)
		require.ErrorIs(t, err, denied)
		require.Equal(t, session.Error{Code: codes.NotAllowed, Text: "not this"}, *denied, "it is nobody's to change")
		_, err = p.Alice.Call(t.Context(), "none", nil)
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, ours)
		require.Equal(t, session.Rejected, e.Outcome, "%v", err)
		err = p.Alice.Send(t.Context(), "none", nil)
		require.ErrorAs(t, err, &e)
		require.Equal(t, session.Unknown, e.Outcome, "%v", err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = p.Alice.Call(ctx, "none", nil)
		require.ErrorAs(t, err, &e)
		require.Equal(t, session.NotSent, e.Outcome, "%v", err)
	})
}
