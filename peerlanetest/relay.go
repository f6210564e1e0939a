package peerlanetest

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// A Relay is a circuit relay that can go away and come back. Its methods are for one goroutine.
type Relay struct {
	t         testing.TB
	newHost   func(...libp2p.Option) host.Host
	resources relay.Resources
	key       crypto.PrivKey
	reserved  []host.Host // Stop waits until they notice

	at      ma.Multiaddr // where it listens, once it has
	host    host.Host    // nil while stopped
	service *relay.Relay
}

// NewRelay returns a running relay. newHost is called for its host, in memory or not, each time that it starts. resources are best made
// from relay.DefaultResources(): a zero number allows none, and a nil Limit is no limit. The relay is stopped in t.Cleanup,
// which newHost should leave to it: a Cleanup of a host that Start makes runs before those that a test has registered meanwhile.
func NewRelay(t testing.TB, resources relay.Resources, newHost func(...libp2p.Option) host.Host) *Relay {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatalf("peerlanetest: relay: %v", err)
	}
	r := &Relay{t: t, newHost: newHost, resources: resources, key: key}
	t.Cleanup(r.close)
	r.Start()
	return r
}

// Host returns the relay's host, or nil while it is stopped. It changes with Start.
func (r *Relay) Host() host.Host { return r.host }

// Start starts a stopped relay at the address and with the identity that it had. It has forgotten all reservations: a host that is to
// be reachable again must Reserve. A host whose dial failed meanwhile does not try again for 5 s, libp2p's backoff.
func (r *Relay) Start() {
	r.t.Helper()
	if r.host != nil {
		return
	}
	opts := []libp2p.Option{libp2p.Identity(r.key)}
	if r.at != nil {
		opts = append(opts, libp2p.NoListenAddrs, libp2p.ListenAddrs(r.at))
	}
	r.host = r.newHost(opts...)
	listens := r.host.Network().ListenAddresses()
	r.at = listens[slices.IndexFunc(listens, isDirect)] // and through other relays, if it may
	service, err := relay.New(r.host, relay.WithResources(r.resources))
	if err != nil {
		r.t.Fatalf("peerlanetest: relay: %v", err)
	}
	r.service = service
}

// Stop ends the relay and all its connections. The hosts that have reserved on it have noticed when it returns; others do a moment
// later.
func (r *Relay) Stop() {
	r.t.Helper()
	if r.host == nil {
		return
	}
	id := r.host.ID()
	r.close()
	for _, h := range r.reserved {
		await(r.t, h, "the relay is gone", func() bool { return len(h.Network().ConnsToPeer(id)) == 0 })
	}
}

// Restart is Stop, Start, and Reserve for all hosts that have reserved: they can be reached through the relay when it returns.
func (r *Relay) Restart() {
	r.t.Helper()
	r.Stop()
	r.Start()
	for _, h := range slices.Clone(r.reserved) {
		if s, ok := h.Network().(*swarm.Swarm); ok {
			s.Backoff().Clear(r.host.ID())
		}
		r.Reserve(h)
	}
}

func (r *Relay) close() {
	if r.host == nil {
		return
	}
	_, _ = r.service.Close(), r.host.Close() // of what ends anyway
	r.host = nil
}

// Reserve makes h reachable through the relay, and returns the addresses that h then has there.
func (r *Relay) Reserve(h host.Host) []ma.Multiaddr {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTime)
	defer cancel()
	info := peer.AddrInfo{ID: r.host.ID(), Addrs: r.host.Addrs()}
	if err := h.Connect(ctx, info); err != nil {
		r.t.Fatalf("peerlanetest: connect to the relay: %v", err)
	}
	if _, err := client.Reserve(ctx, h, info); err != nil {
		r.t.Fatalf("peerlanetest: reserve: %v", err)
	}
	if !slices.Contains(r.reserved, h) {
		r.reserved = append(r.reserved, h)
	}
	circuit := ma.StringCast("/p2p/" + info.ID.String() + "/p2p-circuit")
	var out []ma.Multiaddr
	for _, a := range info.Addrs {
		out = append(out, ma.Join(a, circuit))
	}
	return out
}

// Teach adds addresses of a peer to the peerstore of h, for good.
func Teach(h host.Host, pid peer.ID, addrs ...ma.Multiaddr) {
	h.Peerstore().AddAddrs(pid, addrs, peerstore.PermanentAddrTTL)
}

// OpenDirect makes a direct connection from a to b appear: a dials where b listens. Both sides have it when it returns.
func OpenDirect(t testing.TB, a, b host.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(context.Background(), "peerlanetest"), setupTime)
	defer cancel()
	if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Network().ListenAddresses()}); err != nil {
		t.Fatalf("peerlanetest: direct connection: %v", err)
	}
	await(t, b, "a direct connection", func() bool { return len(directConns(b, a.ID())) > 0 })
}

// CloseDirect closes the direct connections between a and b, which forget each other's direct addresses; relayed ones stay. Neither
// side has a direct connection when it returns.
func CloseDirect(t testing.TB, a, b host.Host) {
	t.Helper()
	forgetDirect(a, b.ID())
	forgetDirect(b, a.ID())
	for _, c := range append(directConns(a, b.ID()), directConns(b, a.ID())...) {
		_ = c.Close()
	}
	await(t, a, "no direct connection", func() bool { return len(directConns(a, b.ID())) == 0 })
	await(t, b, "no direct connection", func() bool { return len(directConns(b, a.ID())) == 0 })
}

// forgetDirect removes from h's peerstore all addresses of a peer but those through a relay.
func forgetDirect(h host.Host, pid peer.ID) {
	var direct []ma.Multiaddr
	for _, a := range h.Peerstore().Addrs(pid) {
		if isDirect(a) {
			direct = append(direct, a)
		}
	}
	h.Peerstore().SetAddrs(pid, direct, 0)
}

// directConns returns h's connections to a peer that are not relayed.
func directConns(h host.Host, pid peer.ID) []network.Conn {
	var out []network.Conn
	for _, c := range h.Network().ConnsToPeer(pid) {
		if isDirect(c.RemoteMultiaddr()) {
			out = append(out, c)
		}
	}
	return out
}

func isDirect(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err != nil
}
