package testnet

import (
	"context"
	"crypto/rand"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// A RelayServer is a circuit relay with limits of choice that can go away and come back. Its methods are for one
// goroutine.
type RelayServer struct {
	t         testing.TB
	key       crypto.PrivKey
	resources relay.Resources
	opts      []libp2p.Option
	watched   []host.Host // Stop waits until they notice

	at      ma.Multiaddr // where it listens, once it has
	host    host.Host    // nil while stopped
	service *relay.Relay
}

// NewRelayWith returns a running relay with these resources, best made from relay.DefaultResources: a zero number allows
// none, and a nil Limit is no limit. opts are for its host.
func NewRelayWith(t testing.TB, resources relay.Resources, opts ...libp2p.Option) *RelayServer {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatalf("testnet: relay: %v", err)
	}
	r := &RelayServer{t: t, key: key, resources: resources, opts: opts}
	t.Cleanup(r.close)
	r.Start()
	return r
}

// Host returns the relay's host, for Reserve. It changes with Start.
func (r *RelayServer) Host() host.Host { return r.host }

// Start starts a stopped relay at the address and with the identity that it had. It has forgotten all reservations: who
// was reachable must Reserve again. A host whose dial failed meanwhile does not try again for 5 s, libp2p's backoff.
func (r *RelayServer) Start() {
	r.t.Helper()
	if r.host != nil {
		return
	}
	opts := append([]libp2p.Option{libp2p.Identity(r.key)}, r.opts...)
	if r.at != nil {
		opts = append(opts, libp2p.NoListenAddrs, libp2p.ListenAddrs(r.at))
	}
	r.host = Host(r.t, TCPTLS, opts...)
	r.at = r.host.Network().ListenAddresses()[0]
	service, err := relay.New(r.host, relay.WithResources(r.resources))
	if err != nil {
		r.t.Fatalf("testnet: relay: %v", err)
	}
	r.service = service
}

// Stop ends the relay and all its connections. The hosts of a RelayedPair have noticed when it returns; others do a
// moment later.
func (r *RelayServer) Stop() {
	r.t.Helper()
	if r.host == nil {
		return
	}
	id := r.host.ID()
	r.close()
	for _, h := range r.watched {
		await(r.t, h, "the relay is gone", func() bool { return len(h.Network().ConnsToPeer(id)) == 0 })
	}
}

func (r *RelayServer) close() {
	if r.host == nil {
		return
	}
	_, _ = r.service.Close(), r.host.Close()
	r.host = nil
}

// RelayedPair returns two hosts that know each other through a relay only, and are not connected. limit applies to each
// relayed connection; nil is none. opts apply to both hosts.
//
// Both listen on TCP, but announce that to nobody, so that a direct connection comes from OpenDirect and from nothing
// else.
func RelayedPair(t testing.TB, limit *relay.RelayLimit, opts ...libp2p.Option) (a, b host.Host, r *RelayServer) {
	t.Helper()
	resources := relay.DefaultResources()
	resources.Limit = limit
	r = NewRelayWith(t, resources)
	opts = append([]libp2p.Option{
		libp2p.EnableRelay(), libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return nil }),
	}, opts...)
	a, b = Host(t, TCPTLS, opts...), Host(t, TCPTLS, opts...)
	Teach(a, b.ID(), Reserve(t, b, r.Host())...)
	Teach(b, a.ID(), Reserve(t, a, r.Host())...)
	r.watched = []host.Host{a, b}
	return a, b, r
}

// OpenDirect makes a direct connection from a to b appear: a learns b's address and dials it. When it returns both sides
// have it.
func OpenDirect(t testing.TB, a, b host.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(context.Background(), "testnet"), setupTime)
	defer cancel()
	if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: b.Network().ListenAddresses()}); err != nil {
		t.Fatalf("testnet: direct connection: %v", err)
	}
	await(t, b, "a direct connection", func() bool { return len(directConns(b, a.ID())) > 0 })
}

// CloseDirect closes the direct connections between a and b, which forget each other's direct addresses; relayed ones
// stay. When it returns neither side has a direct connection.
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
		if !isCircuit(a) {
			direct = append(direct, a)
		}
	}
	h.Peerstore().SetAddrs(pid, direct, 0)
}

// directConns returns h's connections to a peer that are not relayed.
func directConns(h host.Host, pid peer.ID) []network.Conn {
	var out []network.Conn
	for _, c := range h.Network().ConnsToPeer(pid) {
		if !isCircuit(c.RemoteMultiaddr()) {
			out = append(out, c)
		}
	}
	return out
}

func isCircuit(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}
