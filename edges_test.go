package peerlane

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// exercise serves and calls with these configs on one host, or finds that they cannot be. Whatever happens is an error, soon, and never
// a panic.
func exercise(t *testing.T, h host.Host, client ClientConfig, server ServerConfig, keeper KeeperConfig) {
	brief := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	server.AdmitAll, client.AdmitAll = true, true
	s, err := NewServer(h, &server)
	if err != nil {
		require.ErrorIs(t, err, ErrInvalid)
		s, err = NewServer(h, &ServerConfig{AdmitAll: true})
		require.NoError(t, err)
	}
	defer func() { _ = s.Shutdown(over) }()
	require.NoError(t, s.Start(callTag, echoHandler))
	s.SetLink("link", func(m *session.Message) { _ = m.Reply(m.Value) })
	c, err := NewClient(h, &client)
	if err != nil {
		require.ErrorIs(t, err, ErrInvalid)
		c, err = NewClient(h, &ClientConfig{AdmitAll: true})
		require.NoError(t, err)
	}
	defer func() { _ = c.Close() }() // which may have had no time to wait
	_, _ = c.Send(brief(), h.ID(), callTag, []byte("x"))
	if own, err := c.Connect(brief(), h.ID(), callTag); err == nil {
		_, _ = own.SendWait(brief(), "link", []byte("x"))
		_ = own.Send(brief(), "link", []byte("x"))
	}
	if k, err := c.Keep(h.ID(), callTag, &keeper); err == nil {
		_, _ = k.Get(brief())
		_ = k.Close()
	}
	_, _ = c.GetConnectionsInfo(), s.GetConnectionsInfo()
}

func TestNoConfigIsAPanic(t *testing.T) {
	procs.Alone(t)
	synctest.Test(t, noConfigIsAPanic)
}

func noConfigIsAPanic(t *testing.T) {
	h := peerlanetest.NewNetwork(t, nil).Host("10.0.0.1:4001")
	given := edges.Of((*slog.Logger)(nil), slog.New(slog.DiscardHandler), peer.ID(""), peer.ID("x"), h.ID())
	edges.Each(given, func(cfg ClientConfig, what string) {
		t.Log(what)
		exercise(t, h, cfg, ServerConfig{}, KeeperConfig{})
	})
	edges.Each(given, func(cfg ServerConfig, what string) {
		t.Log(what)
		exercise(t, h, ClientConfig{}, cfg, KeeperConfig{})
	})
	edges.Each(given, func(cfg KeeperConfig, what string) {
		t.Log(what)
		exercise(t, h, ClientConfig{}, ServerConfig{}, cfg)
	})
	for seed := range uint64(50) {
		t.Log("seed", seed)
		rng := rand.New(rand.NewPCG(seed, 12))
		exercise(t, h, edges.Some[ClientConfig](given, rng), edges.Some[ServerConfig](given, rng), edges.Some[KeeperConfig](given, rng))
	}
}

func TestNoDialerAndNoListenerIsAPanic(t *testing.T) {
	h := testHost(t)
	given := edges.As[host.Host](edges.Of(callTag, protocol.ID(""), protocol.ID("\n"), protocol.ID("na"), h.ID(), peer.ID(""), peer.ID("x")), h)
	l := mustListen(t, h, callTag, ListenConfig{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	ctx := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	try := func(d Dialer) {
		if c, err := d.Dial(ctx(), h.ID()); err == nil {
			_ = c.LocalAddr().String() + c.RemoteAddr().String()
			_ = c.Close()
		}
		for _, address := range []string{"", ":", "x", h.ID().String(), h.ID().String() + ":65536", h.ID().String() + ":-1"} {
			for _, netw := range []string{"", "tcp", "udp", Network} {
				if c, err := d.DialContext(ctx(), netw, address); err == nil {
					_ = c.Close()
				}
			}
		}
	}
	edges.Each(given, func(d Dialer, what string) {
		t.Log(what)
		try(d)
		d.Host, d.Tag = h, callTag
		try(d)
	})
	edges.Each(given, func(cfg ListenConfig, what string) {
		t.Log(what)
		for _, tag := range []protocol.ID{"", "/edge", callTag} {
			if l, err := cfg.Listen(h, tag); err == nil {
				_ = l.Addr().String()
				require.NoError(t, l.Close())
			}
		}
	})
	here, there := net.Pipe()
	for _, n := range []int{math.MinInt, -1, 0, 1, math.MaxInt} {
		c := NewLimitedConn(here, n)
		_ = c.SetDeadline(time.Now())
		_, _ = c.Read(make([]byte, 2))
		_, _ = c.Write(make([]byte, 2))
	}
	_, _ = here.Close(), there.Close()
}

func TestNoCallIsAPanic(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s, c := newServer(t, b, &ServerConfig{AdmitAll: true}), newClient(t, a, &ClientConfig{AdmitAll: true, ReadTimeout: 200 * time.Millisecond, ConnectTimeout: 200 * time.Millisecond})
	require.NoError(t, s.Start(callTag, echoHandler))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	live, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	// nil options derive a key at full cost, so they are drawn seldom
	cheap := slices.Repeat([]any{cheapPSK}, 8)
	given := edges.Of(callTag, protocol.ID(""), protocol.ID("\n"), protocol.ID("/x"), b.ID(), a.ID(), peer.ID(""), peer.ID("x"), "", "link",
		(*KeeperConfig)(nil), &KeeperConfig{MaxAttempts: 1}, &KeeperConfig{Sessions: -1}, (*PSKOptions)(nil),
		&PSKOptions{Params: cheapPSK.Params, Previous: []byte("x")})
	given = edges.As[session.Codec](given)
	given[reflect.TypeFor[*PSKOptions]()] = append(given[reflect.TypeFor[*PSKOptions]()], cheap...)
	// a nil ctx is a mistake everywhere, as in the standard library
	given[reflect.TypeFor[context.Context]()] = []any{over, live}
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 13))
		edges.Methods(given, rng, 30, c, "Close")
		edges.Methods(given, rng, 30, s, "Stop", "Shutdown")
		for name, fn := range map[string]any{"UseModernPSKClient": UseModernPSKClient, "UseModernPSKServer": UseModernPSKServer} {
			edges.Func(edges.Of(append(cheap, (*Client)(nil), (*Server)(nil), c, s, (*PSKOptions)(nil))...), rng, 2, name, fn)
		}
	}
}
