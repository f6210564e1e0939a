package session_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codec/json"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

type sum struct{ A, B int }

// another is a codec of another name.
type another struct {
	json.Codec
	name string
}

func (a another) Name() string { return a.name }

// adding makes Bob add, and returns how often he has.
func adding(t *testing.T, p *peerlanetest.Sessions) *int {
	t.Helper()
	ran := new(int)
	require.NoError(t, session.HandleTyped(p.ToBob, "add", json.Codec{}, func(m *session.Message, s sum) (int, error) {
		*ran++
		if s.A < 0 {
			return 0, &session.Error{Code: codes.NotAllowed, Text: "only what is positive"}
		}
		return s.A + s.B, nil
	}))
	return ran
}

func TestTypedLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		ran := adding(t, p)
		got, err := session.CallTyped[int](t.Context(), p.Alice, "add", json.Codec{}, sum{1, 2})
		require.NoError(t, err)
		require.Equal(t, 3, got)
		var reply int
		require.NoError(t, p.Alice.SendWaitObj(t.Context(), "add", "", sum{3, 4}, &reply), "by its name")
		require.Equal(t, 7, reply)
		raw, err := p.Alice.SendWait(t.Context(), "add", []byte(`{"A": 5}`))
		require.NoError(t, err, "a value without a codec is taken for one of the link's")
		require.Equal(t, "5", string(raw.Value))
		require.Equal(t, 3, *ran)

		for name, c := range map[string]struct {
			err     error
			code    codes.Code
			outcome session.Outcome
			is      error
			remote  bool
		}{
			"its own error": {second(session.CallTyped[int](t.Context(), p.Alice, "add", json.Codec{}, sum{A: -1})),
				codes.NotAllowed, session.Rejected, session.ErrNotAllowed, true},
			"another type": {second(session.CallTyped[int](t.Context(), p.Alice, "add", json.Codec{}, "x")),
				codes.Undecodable, session.Rejected, session.ErrUndecodable, true},
			"another codec": {second(session.CallTyped[int](t.Context(), p.Alice, "add", another{name: "xml"}, sum{})),
				codes.Unsupported, session.Rejected, session.ErrUnsupported, true},
			"no such link": {second(session.CallTyped[int](t.Context(), p.Alice, "sub", json.Codec{}, sum{})),
				codes.NotFound, session.Rejected, session.ErrNotFound, true},
			"another answer": {second(session.CallTyped[[]string](t.Context(), p.Alice, "add", json.Codec{}, sum{})),
				codes.OK, session.Delivered, session.ErrUndecodable, false},
			"no value": {second(session.CallTyped[int](t.Context(), p.Alice, "add", json.Codec{}, make(chan int))),
				codes.OK, session.NotSent, session.ErrInvalid, false},
			"a long name": {second(session.CallTyped[int](t.Context(), p.Alice, "add", another{name: strings.Repeat("x", 256)}, sum{})),
				codes.OK, session.NotSent, session.ErrInvalid, false},
		} {
			require.ErrorIs(t, c.err, c.is, name)
			var e *session.Error
			require.ErrorAs(t, c.err, &e, name)
			require.Equal(t, []any{c.code, c.outcome, c.remote}, []any{e.Code, e.Outcome, e.Remote}, name)
		}
		require.Equal(t, 5, *ran, "for its own error, and for another answer")

		require.NoError(t, session.HandleTyped(p.ToBob, "bad", json.Codec{}, func(*session.Message, int) (chan int, error) { return nil, nil }))
		_, err = session.CallTyped[int](t.Context(), p.Alice, "bad", json.Codec{}, 1)
		require.ErrorIs(t, err, session.ErrInternal)
	})
}

// The sender of a one-way message learns that it could not be decoded, or that its function failed.
func TestTypedOneWayMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		ran := adding(t, p)
		require.NoError(t, p.Alice.SendObj(t.Context(), "add", "", sum{1, 2}))
		require.NoError(t, p.Alice.Flush(t.Context()))
		require.NoError(t, p.Alice.SendObj(t.Context(), "add", "", "x"))
		require.ErrorIs(t, p.Alice.Flush(t.Context()), session.ErrUndecodable)
		require.NoError(t, p.Alice.SendObj(t.Context(), "add", "", sum{-1, 2}))
		require.ErrorIs(t, p.Alice.Flush(t.Context()), session.ErrNotAllowed)
		require.Equal(t, 2, *ran)
	})
}

func TestTypedLinksNeedTheirArguments(t *testing.T) {
	fn := func(*session.Message, int) (int, error) { return 0, errors.New("never") }
	for _, err := range []error{
		session.HandleTyped(nil, "x", json.Codec{}, fn), session.HandleTyped(session.NewMux(), "x", nil, fn),
		session.HandleTyped[int, int](session.NewMux(), "x", json.Codec{}, nil),
		second(session.CallTyped[int](t.Context(), nil, "x", json.Codec{}, 1)), second(session.CallTyped[int](t.Context(), new(session.Session), "x", nil, 1)),
	} {
		require.ErrorIs(t, err, session.ErrInvalid)
	}
}

func second[T any](_ T, err error) error { return err }
