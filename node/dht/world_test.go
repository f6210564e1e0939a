package dht

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/peerlanetest"
)

func TestMain(m *testing.M) {
	procs.Simulated()
	goleak.VerifyTestMain(m)
}

const (
	many   = 20 // servers
	few    = 6
	relays = 3 // servers that are relays
	prefix = "/test"
)

// A world is a private DHT on a simulated network, in virtual time. Its first server is the bootstrap peer, and the last ones are relays.
type world struct {
	t       *testing.T
	net     *peerlanetest.Network
	servers []member
	hosts   int
}

// A member is a host in the DHT.
type member struct {
	host.Host
	*Discovery
}

// inWorld runs f in a world with a number of servers.
func inWorld(t *testing.T, servers int, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})}
		for i := range servers {
			opts := []libp2p.Option{libp2p.ForceReachabilityPublic()}
			if i >= servers-relays {
				opts = append(opts, libp2p.EnableRelayService(relay.WithResources(relay.DefaultResources())))
			}
			w.servers = append(w.servers, w.join(&Options{Server: true, NoAnnounce: true}, opts...))
		}
		time.Sleep(time.Minute) // until they know each other
		f(t, w)
	})
}

// host adds a host.
func (w *world) host(opts ...libp2p.Option) host.Host {
	w.hosts++
	return w.net.Host(fmt.Sprintf("11.0.0.%d:4001", w.hosts), opts...)
}

// join adds a host that is in the DHT.
func (w *world) join(o *Options, opts ...libp2p.Option) member {
	w.t.Helper()
	o.Prefix, o.Bootstrap = prefix, w.bootstrap()
	m := member{w.host(opts...), New(o)}
	require.NoError(w.t, m.Start(m.Host))
	w.t.Cleanup(func() { require.NoError(w.t, m.Discovery.Close()) })
	return m
}

func (w *world) bootstrap() []peer.AddrInfo {
	if len(w.servers) == 0 {
		return nil
	}
	return []peer.AddrInfo{{ID: w.servers[0].ID(), Addrs: w.servers[0].Addrs()}}
}

// relays returns the servers that are relays.
func (w *world) relays() (all []peer.ID) {
	for _, m := range w.servers[len(w.servers)-relays:] {
		all = append(all, m.ID())
	}
	slices.Sort(all)
	return all
}
