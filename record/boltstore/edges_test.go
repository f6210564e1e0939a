package boltstore

import (
	"iter"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane/internal/test/edges"
	"github.com/peerlane/peerlane/record"
)

func TestNoCallIsAPanic(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"), bbolt.Options{NoSync: true})
	edges.Func(edges.Of(db, (*bbolt.DB)(nil)), rand.New(rand.NewPCG(0, 16)), 30, "New", New)
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 17))
		s := storeIn(t, db)
		g := edges.Of(record.LogID{}, record.LogID{1}, record.NewLogID(), func() {}, (*bbolt.Tx)(nil), uint64(0), uint64(1), uint64(2), uint64(1<<64-1))
		g[reflect.TypeFor[iter.Seq[[]byte]]()] = []any{slices.Values([][]byte(nil)), slices.Values([][]byte{nil, {1}})}
		edges.Methods(g, rng, 30, s, "Begin", "Tail")
		_, _ = s.Begin(func() {})
		for seq := range uint64(3) {
			for range s.Tail(seq - 1) {
			}
		}
		edges.Methods(g, rng, 30, s, "Begin", "Tail")
		_ = s.End(0)
	}
}
