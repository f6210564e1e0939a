package transfer_test

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/source"
)

// given are what edges cannot make.
func given() edges.Given {
	g := edges.Of((*transfer.Registry)(nil), new(transfer.Registry), (*manifest.Rules)(nil), &manifest.Rules{}, &manifest.Rules{Entries: -1},
		&manifest.Rules{Bytes: -1}, &manifest.Rules{ManifestBytes: -1}, &manifest.Rules{Entries: 1}, &manifest.Rules{Bytes: 1},
		&manifest.Rules{ManifestBytes: 1}, &manifest.Rules{Entries: math.MaxInt, Bytes: math.MaxInt64, ManifestBytes: math.MaxInt, Portable: true})
	return g
}

// exercise pushes and fetches with these options. Whatever happens is an error, in the end, and never a panic.
func exercise(t *testing.T, from string, o transfer.Options, r transfer.ReceiveOptions, s transfer.ServiceConfig, share transfer.ShareOptions, ref *transfer.Ref) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		p, tree := newPair(t), walk(t, from)
		dir := t.TempDir()
		typed := func(err error) {
			if err != nil {
				require.NotEmpty(t, transfer.CodeOf(err), "%v", err)
			}
		}
		if s.Receive == nil {
			s.Receive = func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
				return &transfer.Destination{Dir: dir, ReceiveOptions: r}, nil
			}
		}
		v, err := transfer.NewService(&s)
		if err != nil {
			typed(err)
			v, err = transfer.NewService(nil)
			require.NoError(t, err)
		}
		v.Handle(p.ToBob)
		_, err = transfer.Push(ctx, always(p.Alice), tree, &o).Wait()
		typed(err)
		shared, err := v.Share(tree, &share)
		if err != nil {
			typed(err)
			shared, err = v.Share(tree, nil)
			require.NoError(t, err)
		}
		if ref == nil {
			all := shared.Ref()
			ref = &all
		}
		got := transfer.Fetch(ctx, []transfer.Dialer{always(p.Alice)}, *ref, t.TempDir(), &r)
		_, err = got.Wait()
		typed(err)
		_, _ = got.Progress(), got.Snapshot()
		shared.Close()
		require.NoError(t, v.Close())
	})
}

func TestNoOptionsAreAPanic(t *testing.T) {
	t.Parallel() // beside one that waits for processes
	from, g := write(t, content{"a": 10, "b": 70000}), given()
	edges.Each(g, func(r transfer.ReceiveOptions, what string) {
		t.Log(what)
		exercise(t, from, r.Options, r, transfer.ServiceConfig{Options: r.Options}, transfer.ShareOptions{}, nil)
	})
	edges.Each(g, func(s transfer.ServiceConfig, what string) {
		if strings.Contains(what, ".Options.") {
			return // they were ReceiveOptions'
		}
		t.Log(what)
		exercise(t, from, transfer.Options{}, transfer.ReceiveOptions{}, s, transfer.ShareOptions{}, nil)
	})
	edges.Each(g, func(s transfer.ShareOptions, what string) {
		t.Log(what)
		exercise(t, from, transfer.Options{}, transfer.ReceiveOptions{}, transfer.ServiceConfig{}, s, nil)
	})
	edges.Each(g, func(ref transfer.Ref, what string) {
		t.Log(what)
		exercise(t, from, transfer.Options{}, transfer.ReceiveOptions{}, transfer.ServiceConfig{}, transfer.ShareOptions{}, &ref)
	})
	for seed := range uint64(30) {
		t.Log("seed", seed)
		rng := rand.New(rand.NewPCG(seed, 5))
		exercise(t, from, edges.Some[transfer.Options](g, rng), edges.Some[transfer.ReceiveOptions](g, rng),
			edges.Some[transfer.ServiceConfig](g, rng), edges.Some[transfer.ShareOptions](g, rng), nil)
	}
}

func TestNoArgumentOfWalkIsAPanic(t *testing.T) {
	from := write(t, content{"a": 10, "b": 70000, "c": 300000})
	g := edges.Of((*source.Cache)(nil), new(source.Cache))
	edges.Each(g, func(o source.Options, what string) {
		t.Log(what)
		tree, err := source.Walk(t.Context(), []string{from}, &o)
		if err != nil {
			return
		}
		for _, workers := range []int{-1, 0, 1, math.MaxInt} {
			_ = tree.Hash(t.Context(), &source.HashOptions{Workers: workers})
		}
		for _, id := range []uint32{0, 1, 2, 3, 4, 1 << 31, 1<<32 - 1} {
			_, _ = tree.Reader().ReadFile(id, nil)
			_, _, _ = tree.Reader().Layer(t.Context(), id)
			if f, err := tree.Reader().Open(id); err == nil {
				for _, off := range []int64{0, -1, 1, 10, 11, 1<<63 - 1, -1 << 63} {
					_, _ = f.ReadAt(make([]byte, 5), off)
					_, _ = f.Hole(off)
				}
				_, _ = f.Check(), f.Close()
			}
		}
		_, _ = tree.Close(), tree.Close()
	})
	for _, paths := range [][]string{nil, {}, {""}, {"\x00"}, {from, from}, {from, ""}, {"."}, {"/nothing/of/that/name"}} {
		if tree, err := source.Walk(t.Context(), paths, nil); err == nil {
			_ = tree.Close()
		}
	}
	for _, most := range []int64{-1, 0, 1, 1<<63 - 1} {
		if c, err := source.OpenCache(t.TempDir(), most); err == nil {
			tree, err := source.Walk(t.Context(), []string{from}, &source.Options{Cache: c})
			require.NoError(t, err)
			require.NoError(t, tree.Hash(t.Context(), nil))
			_, _ = tree.Close(), c.Close()
			_ = c.Close()
		}
	}
	_, err := source.OpenCache("", 0)
	require.Error(t, err)
}
