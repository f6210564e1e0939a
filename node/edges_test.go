package node

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
)

func TestOptionsNeverPanic(t *testing.T) {
	t.Chdir(t.TempDir()) // for new key files
	key := t.TempDir() + "/key"
	given := edges.Of([]Discovery(nil), []Discovery{nil},
		[]libp2p.Option(nil), []libp2p.Option{}, []libp2p.Option{nil}, (*Limits)(nil), &Limits{}, &Limits{Peers: 1},
		[]string(nil), []string{}, []string{""}, []string{"x"}, []string{"/ip4/127.0.0.1/tcp/0"}, []string{"/ip4/256.0.0.1"},
		"", key, t.TempDir(), "\n", strings.Repeat("n", 1<<16))
	try := func(o Options) {
		o.PortMap = false // it would ask the router
		if o.ListenAddrs == nil && o.Port == 0 {
			o.NoListen, o.Loopback = true, false
		}
		if o.Port != 0 {
			o.Loopback = true
		}
		n, err := New(t.Context(), &o)
		if err != nil {
			return
		}
		_, _ = n.Addrs(), n.Info()
		require.NoError(t, n.Close())
		require.NoError(t, n.Close())
	}
	edges.Each(given, func(o Options, what string) {
		if strings.Contains(what, "Options.Port = ") && !strings.HasSuffix(what, " 1") && !strings.HasSuffix(what, " 0") {
			return // an equivalent result
		}
		t.Log(what)
		try(o)
	})
	edges.Each(nil, func(l Limits, what string) {
		err := l.validate()
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid, what)
			require.ErrorContains(t, err, "Limits.", what)
		}
		l.Peers = 10
		if l.validate() == nil {
			try(Options{NoListen: true, Limits: &l})
		}
	})
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 14))
		l := edges.Some[Limits](nil, rng)
		if l.validate() == nil {
			try(Options{NoListen: true, Limits: &l})
		}
		edges.Func(edges.Of(), rng, 20, "ParsePeer", ParsePeer)
		edges.Func(given, rng, 5, "LoadKey", LoadKey)
	}
}
