package record_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
)

// exercise opens a stream with these Options and uses it, or finds that it cannot be opened. Whatever happens is an error, within some
// time, and never a panic.
func exercise(t *testing.T, open, accept *record.Options, apply *record.ApplyOptions) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Millisecond})
		record.Handle(p.ToBob, "log", func(record.AcceptInfo) (*record.Options, error) { return accept, nil }, func(s *record.Stream) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_ = record.Apply(ctx, s, func(_ context.Context, r record.Record) error {
				if len(r.Payload) == 3 {
					return errors.New("three")
				}
				return nil
			}, apply)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		s, err := record.Open(ctx, p.Alice, "log", open)
		if err != nil {
			var e *record.Error
			require.ErrorAs(t, err, &e)
			return
		}
		for _, n := range []int{0, 1, 2, 1000, 70000} {
			_, _ = s.WriteRecord(ctx, make([]byte, n))
		}
		_, _ = s.WriteBatch(ctx, [][]byte{nil, {}, {1}, make([]byte, 300)})
		_ = s.Barrier(ctx)
		p.Cut()
		_, _ = s.WriteRecord(ctx, make([]byte, 10))
		_ = s.Barrier(ctx)
		_, _ = s.WriteRecord(ctx, make([]byte, 3))
		_ = s.Barrier(ctx)
		_ = s.Snapshot()
		_ = s.Close()
		_ = s.CloseWithError(record.CodeApplication, "over")
	})
}

func TestNoOptionsAreAPanic(t *testing.T) {
	given := edges.As[record.Store](edges.Of((*record.Registry)(nil), new(record.Registry)))
	edges.Each(given, func(o record.Options, what string) {
		t.Log(what)
		exercise(t, &o, nil, nil)
		exercise(t, nil, &o, nil)
	})
	edges.Each(given, func(o record.ApplyOptions, what string) {
		t.Log(what)
		exercise(t, nil, nil, &o)
	})
	for seed := range uint64(150) {
		t.Log("seed", seed)
		rng := rand.New(rand.NewPCG(seed, 3))
		open, accept := edges.Some[record.Options](given, rng), edges.Some[record.Options](given, rng)
		exercise(t, &open, &accept, nil)
	}
}

func TestNoCallIsAPanic(t *testing.T) {
	for seed := range uint64(60) {
		t.Log("seed", seed)
		synctest.Test(t, func(t *testing.T) {
			p := peerlanetest.NewSessions(t, nil)
			over, cancel := context.WithCancel(t.Context())
			cancel()
			live, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			use := func(s *record.Stream, n uint64) {
				g := edges.Of([]record.Record(nil), []record.Record{}, make([]record.Record, 3), [][]byte(nil), [][]byte{nil},
					[][]byte{{1}, nil, make([]byte, 70000)})
				g[reflect.TypeFor[context.Context]()] = []any{over, live}
				rng := rand.New(rand.NewPCG(seed, n))
				edges.Methods(g, rng, 40, s, "Close", "CloseWithError", "CloseWrite", "Records")
				for r, err := range s.Records(over) {
					_, _ = r, err
				}
				edges.Methods(g, rng, 10, s, "Records")
				edges.Methods(g, rng, 10, s, "Records")
			}
			record.Handle(p.ToBob, "log", nil, func(s *record.Stream) { use(s, 1) })
			s, err := record.Open(live, p.Alice, "log", nil)
			require.NoError(t, err)
			use(s, 2)
			_ = s.Close()
		})
	}
}
