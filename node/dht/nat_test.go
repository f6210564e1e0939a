package dht_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/peerlanetest"
)

// homes is two hosts behind NATs, and the network between, in virtual time. The server serves a DHT,
// in which the two find each other, and relays.
type homes struct {
	t   *testing.T
	net *peerlanetest.Network

	server *node.Node
}

func newHomes(t *testing.T) *homes {
	h := &homes{t: t, net: peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})}
	h.net.AddNAT(peerlanetest.EasyNAT, "11.0.0.10", "192.168.1.2")
	h.net.AddNAT(peerlanetest.EasyNAT, "11.0.0.20", "192.168.2.2")
	h.server = h.open("11.0.0.1", node.Options{RelayService: &node.RelayService{}}, &dht.Options{Server: true, Bootstrap: []peer.AddrInfo{}})
	return h
}

// open starts a node, in the DHT if o is not nil.
func (h *homes) open(ip string, opts node.Options, o *dht.Options) *node.Node {
	h.t.Helper()
	opts.ListenAddrs = []string{peerlanetest.QUICAddr(ip + ":4001").String()}
	opts.Libp2p = h.net.Options(ip)
	if o != nil {
		if o.Prefix = "/homes"; o.Bootstrap == nil {
			o.Bootstrap = []peer.AddrInfo{h.server.Info()}
		}
		opts.Discovery = []node.Discovery{dht.New(o)}
	}
	n, err := node.New(h.t.Context(), &opts)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, n.Close()) })
	return n
}

// connect connects one node to another by its Peer ID. It has the time that the command has with --dht.
func connect(from, to *node.Node) error {
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(context.Background(), "test"), 20*time.Second)
	defer cancel()
	return from.Host().Connect(ctx, peer.AddrInfo{ID: to.ID()})
}

// The first attempt succeeds. What was found has an address in the other home, which does not answer, beside the one through the relay.
func TestAPeerBehindANATIsReachedAtTheFirstAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHomes(t)
		a := h.open("192.168.1.2", node.Options{HolePunch: true}, &dht.Options{})
		b := h.open("192.168.2.2", node.Options{HolePunch: true, Relays: h.server.Addrs()}, &dht.Options{})
		time.Sleep(time.Minute)
		began := time.Now()
		require.NoError(t, connect(a, b))
		require.Less(t, time.Since(began), 2*time.Second)
	})
}

// A peer whose relay is not there yet announces only its address at home. The one that looks it up meanwhile asks again, and finds the
// address through the relay.
func TestAPeerThatHasNoRelayYetIsReachedOnceItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHomes(t)
		key := filepath.Join(t.TempDir(), "relay.key")
		private, _, err := node.LoadKey(key)
		require.NoError(t, err)
		id, err := peer.IDFromPrivateKey(private)
		require.NoError(t, err)
		const ip = "11.0.0.2"
		at := peerlanetest.QUICAddr(ip+":4001").String() + "/p2p/" + id.String()
		a := h.open("192.168.1.2", node.Options{HolePunch: true}, &dht.Options{})
		b := h.open("192.168.2.2", node.Options{HolePunch: true, Relays: []string{at}}, &dht.Options{})
		time.Sleep(4 * time.Second)
		began, done := time.Now(), make(chan error)
		go func() { done <- connect(a, b) }()
		time.Sleep(4 * time.Second)
		h.open(ip, node.Options{RelayService: &node.RelayService{}, KeyFile: key}, nil)
		require.NoError(t, <-done)
		t.Logf("after %v", time.Since(began))
	})
}
