package main

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/advice"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
)

// Hosts of a test behind NATs.
const (
	caller = "192.168.1.2"
	callee = "192.168.2.2"
)

// hosts is hosts on a network, in virtual time.
type hosts struct {
	t   *testing.T
	net *peerlanetest.Network
}

// open starts a host with an address.
func (h *hosts) open(ip string, opts node.Options) *node.Node {
	h.t.Helper()
	opts.ListenAddrs = []string{peerlanetest.QUICAddr(ip + ":4001").String()}
	opts.Libp2p, opts.NoWide = h.net.Options(ip), true
	n, err := node.New(h.t.Context(), &opts)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, n.Close()) })
	return n
}

// dial returns the error of opening a session, for which there is time until all dials have failed.
func (h *hosts) dial(n *node.Node, to peer.ID, addrs ...ma.Multiaddr) error {
	h.t.Helper()
	n.Remember(peer.AddrInfo{ID: to, Addrs: addrs})
	cfg := clientConfig(time.Minute, 0)
	cfg.ConnectTimeout = dhtConnectTimeout
	c, err := newClient(n, nil, cfg)
	require.NoError(h.t, err)
	defer func() { require.NoError(h.t, c.Close()) }()
	_, err = c.Connect(h.t.Context(), to, defaultTag)
	require.Error(h.t, err)
	return err
}

// refused returns the error of a session to a peer whose dials have failed.
func refused(all ...swarm.TransportError) error {
	return &peerlane.Error{Outcome: session.NotSent,
		Err: fmt.Errorf("%w: %w", peerlane.ErrUnreachable, &swarm.DialError{Cause: swarm.ErrAllDialsFailed, DialErrors: all})}
}

// noConnects is the list of a relay that takes reservations and lets nobody use them.
type noConnects struct{}

func (noConnects) AllowReserve(peer.ID, ma.Multiaddr) bool          { return true }
func (noConnects) AllowConnect(peer.ID, ma.Multiaddr, peer.ID) bool { return false }

// hintOf returns the hint of an error.
func hintOf(err error) string {
	_, hint := explain(err)
	return hint
}

// Each reason why a peer is not reached has a hint with the flag that helps. The errors are those of hosts and relays, behind NATs where it
// says so.
func TestEachReasonWhyAPeerIsNotReachedHasItsHint(t *testing.T) {
	id, err := peer.Decode(somePeer)
	require.NoError(t, err)
	const silent, nothing = "11.0.0.9", "192.168.3.3"
	quic := func(ip string) ma.Multiaddr { return ma.StringCast("/ip4/" + ip + "/udp/4001/quic-v1") }
	via := func(ip string, relay peer.ID) ma.Multiaddr {
		return quic(ip).Encapsulate(ma.StringCast("/p2p/" + relay.String() + "/p2p-circuit"))
	}
	for name, tt := range map[string]struct {
		reach func(h *hosts) error
		hint  string
		flag  string // in the hint
	}{
		"no address, and the DHT does not know it": {func(h *hosts) error {
			server := h.open("11.0.0.2", node.Options{Discovery: []node.Discovery{dht.New(&dht.Options{Prefix: "/hint", Server: true})}})
			in := &dht.Options{Prefix: "/hint", Bootstrap: []peer.AddrInfo{server.Info()}}
			return h.dial(h.open(caller, node.Options{Discovery: []node.Discovery{dht.New(in)}}), id)
		}, hintOf(dht.ErrUnknownPeer), "--dht"},
		"no address, and no server of the DHT": {func(h *hosts) error {
			other := h.open("11.0.0.2", node.Options{})
			in := &dht.Options{Prefix: "/hint", Bootstrap: []peer.AddrInfo{other.Info()}}
			return h.dial(h.open(caller, node.Options{Discovery: []node.Discovery{dht.New(in)}}), id)
		}, hintNoServer, "--dht=none"},
		"the relay is down": {func(h *hosts) error {
			return h.dial(h.open(caller, node.Options{}), id, via(silent, id), quic(nothing))
		}, say(advice.RelayGone), "--relay"},
		"it is no relay": {func(h *hosts) error {
			other := h.open("11.0.0.2", node.Options{})
			return h.dial(h.open(caller, node.Options{}), id, via("11.0.0.2", other.ID()))
		}, say(advice.RelayGone), "--dht"},
		"the peer has left the relay": {func(h *hosts) error {
			relay := h.open("11.0.0.2", node.Options{RelayService: &node.RelayService{}})
			return h.dial(h.open(caller, node.Options{}), id, via("11.0.0.2", relay.ID()), quic(silent), quic(nothing))
		}, say(advice.NotAtRelay), "--relay"},
		"the relay is full": {func(h *hosts) error {
			relay := h.open("11.0.0.2", node.Options{RelayService: &node.RelayService{Circuits: 1}})
			b := h.open(callee, node.Options{Relays: relay.Addrs()})
			_, err := b.AwaitReservation(h.t.Context())
			require.NoError(h.t, err)
			at := peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{via("11.0.0.2", relay.ID())}}
			first := h.open("11.0.0.3", node.Options{})
			require.NoError(h.t, first.Host().Connect(network.WithAllowLimitedConn(h.t.Context(), "test"), at))
			return h.dial(h.open(caller, node.Options{}), b.ID(), at.Addrs...)
		}, say(advice.RelayFull), "--circuits"},
		"the relay does not let this peer through": {func(h *hosts) error {
			relay := h.open("11.0.0.2", node.Options{})
			service, err := circuit.New(relay.Host(), circuit.WithACL(noConnects{}))
			require.NoError(h.t, err)
			h.t.Cleanup(func() { require.NoError(h.t, service.Close()) })
			b := h.open(callee, node.Options{Relays: relay.Addrs()})
			_, err = b.AwaitReservation(h.t.Context())
			require.NoError(h.t, err)
			return h.dial(h.open(caller, node.Options{}), b.ID(), via("11.0.0.2", relay.ID()))
		}, say(advice.RelayDenies), "--relay"},
		"two hard NATs": {func(h *hosts) error {
			relay := h.open("11.0.0.2", node.Options{RelayService: &node.RelayService{}})
			b := h.open(callee, node.Options{Relays: relay.Addrs(), HolePunch: true})
			_, err := b.AwaitReservation(h.t.Context())
			require.NoError(h.t, err)
			return h.dial(h.open(caller, node.Options{HolePunch: true}), b.ID(), via("11.0.0.2", relay.ID()))
		}, hintOf(peerlane.ErrRelayOnly), "--allow-relay"},
		"UDP is blocked": {func(h *hosts) error {
			return h.dial(h.open(caller, node.Options{}), id, quic(silent), quic(nothing))
		}, say(advice.NoAnswerUDP), "doctor"},
		"it is at home, behind a NAT": {func(h *hosts) error {
			return h.dial(h.open(caller, node.Options{}), id, quic(nothing))
		}, say(advice.OtherNetwork), "--relay"},
		"another peer is at the address": {func(h *hosts) error {
			h.open("11.0.0.2", node.Options{})
			return h.dial(h.open(caller, node.Options{}), id, quic("11.0.0.2"))
		}, say(advice.OtherPeer), "--key"},
		"nothing listens on the port": {func(*hosts) error {
			return refused(swarm.TransportError{Address: ma.StringCast("/ip4/11.0.0.2/tcp/4001"), Cause: syscall.ECONNREFUSED})
		}, say(advice.NotListening), ""},
		"nothing is at the socket": {func(*hosts) error {
			return refused(swarm.TransportError{Address: ma.StringCast("/unix/run/app.sock"), Cause: syscall.ENOENT})
		}, say(advice.NoSocket), ""},
		"no answer within ConnectTimeout": {func(*hosts) error {
			return &peerlane.Error{Outcome: session.NotSent, Err: fmt.Errorf("%w: %w", peerlane.ErrUnreachable, context.DeadlineExceeded)}
		}, say(advice.NoAnswer), "--relay"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hosts{t, peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})}
				h.net.AddNAT(peerlanetest.HardNAT, "11.0.0.10", caller)
				h.net.AddNAT(peerlanetest.HardNAT, "11.0.0.20", callee)
				err := tt.reach(h)
				for _, err := range []error{err, &transfer.Error{Op: "fetch", Code: transfer.CodeLost, Err: err}} {
					code, hint := explain(err)
					require.Equal(t, exitUnreachable, code, "%v", err)
					require.Equal(t, tt.hint, hint, "%v", err)
					require.Contains(t, hint, tt.flag)
				}
			})
		})
	}
}

// What a relay answers to a host that wants to be reached through it.
func TestARelayThatRefusesAReservationHasItsHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{t, peerlanetest.NewNetwork(t, nil)}
		id, err := peer.Decode(somePeer)
		require.NoError(t, err)
		full := h.open("11.0.0.2", node.Options{RelayService: &node.RelayService{Reservations: 1}})
		_, err = h.open("11.0.0.3", node.Options{Relays: full.Addrs()}).AwaitReservation(t.Context())
		require.NoError(t, err)
		choosy := h.open("11.0.0.4", node.Options{RelayService: &node.RelayService{Allow: []peer.ID{id}}})
		other := h.open("11.0.0.5", node.Options{})
		for i, tt := range []struct {
			relay *node.Node
			hint  string
		}{{full, hintNoPlace}, {choosy, hintNoPlace}, {other, hintNoRelay}} {
			n := h.open(fmt.Sprintf("11.0.0.%d", 11+i), node.Options{Relays: tt.relay.Addrs()})
			_, err := reserve(t.Context(), n, false, func(string) {})
			code, hint := explain(err)
			require.Equal(t, exitUnreachable, code)
			require.Equal(t, tt.hint, hint, "%v", err)
		}
	})
}
