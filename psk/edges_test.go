package psk

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
)

func TestNoParamsAndNoCallAreAPanic(t *testing.T) {
	try := func(p Params, what string) {
		if p.Time > 2 || p.MemoryKiB > 1<<12 { // no more work than it need be; what is too much is refused all the same
			if params := p.withDefaults(); params.validate() == nil {
				return
			}
		}
		if p.MemoryKiB == 0 {
			p.MemoryKiB = max(64, 8*uint32(p.Threads))
		}
		_, err := Derive([]byte("secret of a test"), &p)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid, what)
		}
	}
	edges.Each(nil, try)
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 10))
		try(edges.Some[Params](nil, rng), "")
	}
	for n := range 10 {
		_, err := Derive(make([]byte, n), &Params{Time: 1, MemoryKiB: 64, Threads: 1})
		require.Equal(t, n < minSecret, errors.Is(err, ErrInvalid), "%d bytes", n)
	}
	key, other := testKey(t, "secret of a test"), testKey(t, "another of a test")
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 11))
		given := edges.Of((*Key)(nil), new(Key), key, other, key.ID(), other.ID(), KeyID{})
		ring := testRing(t, key)
		edges.Methods(given, rng, 40, ring)
		edges.Func(given, rng, 10, "NewKeyring", NewKeyring)
		i, err := ring.Initiate(nil)
		require.NoError(t, err)
		edges.Methods(given, rng, 10, i)
		i, err = ring.Initiate(nil)
		require.NoError(t, err)
		if r, err := ring.Respond(nil, i.KeyID(), i.Message()); err == nil {
			edges.Methods(given, rng, 10, r)
		}
	}
}
