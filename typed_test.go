package peerlane_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/codec/json"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

type order struct {
	Item  string
	Count int
}

type receipt struct {
	Total int
	Notes []string
}

// typed is a client and a server that takes orders. The server counts those that reach its function.
type typed struct {
	*peerlanetest.Hosts
	client *peerlane.Client
	server *peerlane.Server
	orders atomic.Int64
}

const orders = "/orders/1.0.0"

func newTyped(t *testing.T) *typed {
	t.Helper()
	p := &typed{Hosts: peerlanetest.NewHosts(t, nil)}
	var err error
	p.server, err = peerlane.NewServer(p.Bob, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.server.Stop() })
	p.client, err = peerlane.NewClient(p.Alice, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.client.Close() })
	require.NoError(t, peerlane.HandleTyped(p.server, orders, json.Codec{}, func(_ context.Context, r *peerlane.Request, o order) (*receipt, error) {
		p.orders.Add(1)
		switch {
		case r.Peer != p.Alice.ID() || len(r.Value) == 0:
			return nil, errors.New("not the request")
		case o.Count < 0:
			return nil, fmt.Errorf("%d of %s", o.Count, o.Item)
		case o.Count == 0:
			return nil, nil
		}
		return &receipt{Total: 3 * o.Count}, nil
	}))
	return p
}

func TestTypedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTyped(t)
		got, err := peerlane.Call[receipt](t.Context(), p.client, p.Bob.ID(), orders, json.Codec{}, order{"pear", 2})
		require.NoError(t, err)
		require.Equal(t, receipt{Total: 6}, got)
		pointer, err := peerlane.Call[*receipt](t.Context(), p.client, p.Bob.ID(), orders, session.JSON, &order{"pear", 2})
		require.NoError(t, err, "any codec that makes the same bytes")
		require.Equal(t, &receipt{Total: 6}, pointer)
		pointer, err = peerlane.Call[*receipt](t.Context(), p.client, p.Bob.ID(), orders, json.Codec{}, (*order)(nil))
		require.NoError(t, err)
		require.Nil(t, pointer, "a nil request is the zero value, and so is a nil answer")
		got, err = peerlane.Call[receipt](t.Context(), p.client, p.Bob.ID(), orders, json.Codec{}, order{})
		require.NoError(t, err)
		require.Zero(t, got)
		raw, err := p.client.Send(t.Context(), p.Bob.ID(), orders, []byte(`{"count": 1, "unknown": true}`))
		require.NoError(t, err, "the bytes are those of the codec, and nothing more")
		require.JSONEq(t, `{"Total": 3, "Notes": null}`, string(raw))

		_, err = peerlane.Call[receipt](t.Context(), p.client, p.Bob.ID(), orders, json.Codec{}, order{"pear", -1})
		var e *peerlane.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, []any{true, codes.Application, session.Delivered, "-1 of pear"}, []any{e.Remote, e.Code, e.Outcome, e.Text})
		_, err = peerlane.Call[receipt](t.Context(), p.client, p.Bob.ID(), "/nobody/serves/this", json.Codec{}, order{})
		require.ErrorIs(t, err, peerlane.ErrNotServed)
	})
}

// A request that does not fit is the caller's fault: the handler does not run, and nothing is retried.
func TestARequestThatThePeerCannotDecode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTyped(t)
		for name, call := range map[string]func(context.Context) error{
			"another type": func(ctx context.Context) error {
				_, err := peerlane.Call[receipt](ctx, p.client, p.Bob.ID(), orders, json.Codec{}, "two pears")
				return err
			},
			"no value": func(ctx context.Context) error {
				_, err := p.client.Send(ctx, p.Bob.ID(), orders, nil)
				return err
			},
			"a long error": func(ctx context.Context) error {
				_, err := peerlane.Call[receipt](ctx, p.client, p.Bob.ID(), orders, json.Codec{}, map[string]any{"Count": strings.Repeat("x", 100_000)})
				return err
			},
			"deep": func(ctx context.Context) error {
				_, err := p.client.Send(ctx, p.Bob.ID(), orders, []byte(strings.Repeat("[", 100_000)))
				return err
			},
		} {
			began := time.Now()
			err := call(peerlane.WithIdempotent(t.Context()))
			require.ErrorIs(t, err, peerlane.ErrUndecodable, name)
			var e *peerlane.Error
			require.ErrorAs(t, err, &e, name)
			require.Equal(t, []any{true, codes.Undecodable, session.Rejected}, []any{e.Remote, e.Code, e.Outcome}, name)
			require.Regexp(t, "(?i)json", e.Text, name)
			require.Less(t, time.Since(began), time.Second, name)
		}
		require.Zero(t, p.orders.Load())
	})
}

// An answer that does not fit is found here, and the handler has run.
func TestAnAnswerThatCannotBeDecoded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTyped(t)
		type other struct{ Total []int }
		got, err := peerlane.Call[other](peerlane.WithIdempotent(t.Context()), p.client, p.Bob.ID(), orders, json.Codec{}, order{"pear", 2})
		require.Zero(t, got)
		require.ErrorIs(t, err, peerlane.ErrUndecodable)
		var e *peerlane.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, []any{"decode", false, codes.OK, session.Delivered}, []any{e.Op, e.Remote, e.Code, e.Outcome})
		require.Contains(t, err.Error(), "answer undecodable: json: cannot unmarshal number")
		require.EqualValues(t, 1, p.orders.Load(), "it is not retried")

		// A handler that passes such an error on does not blame its own caller's request.
		require.NoError(t, peerlane.HandleTyped(p.server, "/front/1.0.0", json.Codec{}, func(ctx context.Context, _ *peerlane.Request, o order) (other, error) {
			return peerlane.Call[other](ctx, p.client, p.Bob.ID(), orders, json.Codec{}, o)
		}))
		_, err = peerlane.Call[other](t.Context(), p.client, p.Bob.ID(), "/front/1.0.0", json.Codec{}, order{"pear", 2})
		require.ErrorAs(t, err, &e)
		require.Equal(t, []any{true, codes.Application, session.Delivered}, []any{e.Remote, e.Code, e.Outcome})
	})
}

func TestValuesThatCannotBeEncoded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTyped(t)
		_, err := peerlane.Call[receipt](t.Context(), p.client, p.Bob.ID(), orders, json.Codec{}, make(chan int))
		var e *peerlane.Error
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, peerlane.ErrInvalid)
		require.Equal(t, []any{"encode", false, session.NotSent}, []any{e.Op, e.Remote, e.Outcome})
		require.Empty(t, p.client.Sessions(), "it has not even connected")

		require.NoError(t, peerlane.HandleTyped(p.server, "/bad/1.0.0", json.Codec{}, func(context.Context, *peerlane.Request, order) (func(), error) {
			return func() {}, nil
		}))
		_, err = peerlane.Call[receipt](t.Context(), p.client, p.Bob.ID(), "/bad/1.0.0", json.Codec{}, order{})
		require.ErrorAs(t, err, &e)
		require.Equal(t, []any{true, codes.Internal, session.Delivered}, []any{e.Remote, e.Code, e.Outcome})
		require.Contains(t, e.Text, "the answer cannot be encoded: json: unsupported type")
	})
}

// Claim: peerlane.ErrUndecodable, session.ErrUndecodable
func TestTypedCallsNeedTheirArguments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTyped(t)
		fn := func(context.Context, *peerlane.Request, order) (receipt, error) { return receipt{}, nil }
		for want, err := range map[string]error{
			"client: nil": second(peerlane.Call[receipt](t.Context(), nil, p.Bob.ID(), orders, json.Codec{}, order{})),
			"codec: nil":  second(peerlane.Call[receipt](t.Context(), p.client, p.Bob.ID(), orders, nil, order{})),
			"server: nil": peerlane.HandleTyped(nil, "/other", json.Codec{}, fn),
			"fn: nil":     peerlane.HandleTyped[order, receipt](p.server, "/other", json.Codec{}, nil),
		} {
			require.ErrorIs(t, err, peerlane.ErrInvalid, want)
			require.ErrorContains(t, err, want)
		}
		require.ErrorIs(t, peerlane.HandleTyped(p.server, "/other", nil, fn), peerlane.ErrInvalid)
		require.ErrorIs(t, peerlane.HandleTyped(p.server, orders, json.Codec{}, fn), peerlane.ErrInUse)
		require.ErrorIs(t, peerlane.ErrUndecodable, session.ErrUndecodable)
	})
}

// A server takes values, and a client sends them.
func ExampleHandleTyped() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()
	server, err := peerlane.NewServer(b, nil)
	if err != nil {
		panic(err)
	}
	defer server.Stop()
	err = peerlane.HandleTyped(server, orders, json.Codec{}, func(_ context.Context, _ *peerlane.Request, o order) (receipt, error) {
		return receipt{Total: 3 * o.Count}, nil
	})
	if err != nil {
		panic(err)
	}
	client, err := peerlane.NewClient(a, nil)
	if err != nil {
		panic(err)
	}
	defer client.Close()

	got, err := peerlane.Call[receipt](context.Background(), client, b.ID(), orders, json.Codec{}, order{"pear", 2})
	fmt.Println(got.Total, err)
	_, err = peerlane.Call[receipt](context.Background(), client, b.ID(), orders, json.Codec{}, "two pears")
	var e *peerlane.Error
	fmt.Println(errors.As(err, &e), e.Remote, e.Code, e.Outcome)
	// Output:
	// 6 <nil>
	// true true undecodable rejected
}
