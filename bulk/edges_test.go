package bulk

import (
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// exercise opens a lane with these Options and uses it, or finds that it cannot be opened. Whatever happens is an error, within some
// time, and never a panic.
func exercise(t *testing.T, open, accept *Options) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // a Write that waits for its Rate looks at the session after that
		p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
		Handle(p.ToBob, "lane", func(AcceptInfo) (*Options, error) { return accept, nil }, func(l *Lane) {
			_ = l.SetDeadline(time.Now().Add(time.Hour))
			_, _ = io.Copy(l, l)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l, err := Open(ctx, p.Alice, "lane", open)
		if err != nil {
			if o := open.withDefaults(); o.validate() != nil {
				require.ErrorIs(t, err, errInvalid)
			}
			return
		}
		_ = l.SetDeadline(time.Now().Add(time.Minute))
		_, _ = l.Write(make([]byte, 10000))
		_, _ = l.Write(nil)
		_, _ = io.ReadFull(l, make([]byte, 1000))
		_ = l.Snapshot()
		_ = l.CloseWrite()
		_, _ = io.Copy(io.Discard, l)
		_ = l.Close()
		_ = l.Abort(1 << 30)
	})
}

func TestNoOptionsAreAPanic(t *testing.T) {
	given := edges.Of((*Registry)(nil), new(Registry))
	edges.Each(given, func(o Options, what string) {
		t.Log(what)
		exercise(t, &o, nil)
		exercise(t, nil, &o)
	})
	for seed := range uint64(150) {
		t.Log("seed", seed)
		rng := rand.New(rand.NewPCG(seed, 4))
		open, accept := edges.Some[Options](given, rng), edges.Some[Options](given, rng)
		exercise(t, &open, &accept)
	}
}

func TestNoCallIsAPanic(t *testing.T) {
	for seed := range uint64(40) {
		for kind, opts := range kinds {
			t.Log(kind, "seed", seed)
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
				use := func(l *Lane, n uint64) {
					_ = l.SetDeadline(time.Now().Add(time.Minute))
					rng := rand.New(rand.NewPCG(seed, n))
					edges.Methods(nil, rng, 30, l, "Close", "Abort", "CloseWrite", "CloseRead", "SetDeadline", "SetReadDeadline", "SetWriteDeadline")
					edges.Methods(nil, rng, 10, l, "SetDeadline", "SetReadDeadline", "SetWriteDeadline")
					edges.Methods(nil, rng, 10, l)
				}
				Handle(p.ToBob, "lane", nil, func(l *Lane) { use(l, 1) })
				l, err := Open(t.Context(), p.Alice, "lane", opts)
				require.NoError(t, err)
				use(l, 2)
				_ = l.Close()
			})
		}
	}
}
