package mdns

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/node"
)

// newSocketHost returns a host on all interfaces, and its discovery.
func newSocketHost(t *testing.T) (host.Host, *Discovery) {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"), libp2p.DisableMetrics())
	require.NoError(t, err)
	d := New(nil)
	require.NoError(t, d.Start(h))
	t.Cleanup(func() {
		require.NoError(t, d.Close())
		require.NoError(t, h.Close())
	})
	return h, d
}

// Two hosts on one machine find each other over its network interfaces. Without an interface, the error reports that.
func TestHostsOfOneMachineFindEachOther(t *testing.T) {
	_, a := newSocketHost(t)
	h, _ := newSocketHost(t)
	info, err := a.FindPeer(t.Context(), h.ID())
	if len(multicastInterfaces()) == 0 {
		t.Log("this machine has no network interface with multicast")
		require.ErrorIs(t, err, errNoInterface)
		return
	}
	for began := time.Now(); err != nil && time.Since(began) < 30*time.Second; { // the machine may be slow
		info, err = a.FindPeer(t.Context(), h.ID())
	}
	require.NoError(t, err)
	for _, addr := range info.Addrs {
		require.Contains(t, h.Addrs(), addr)
	}
	require.NotEmpty(t, info.Addrs)
}

// Unicast packets may come from outside the network, and are ignored.
func TestUnicastPacketsAreIgnored(t *testing.T) {
	s := &sockets{}
	got := make(chan string, 1000)
	s.open(func(packet []byte, _ netip.Addr) { got <- string(packet) })
	defer func() { require.NoError(t, s.close()) }()
	require.NotNil(t, s.four)
	c, err := net.Dial("udp4", "127.0.0.1:5353")
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	for range 10 {
		_, err = c.Write([]byte("unicast"))
		require.NoError(t, err)
	}
	for _, i := range s.interfaces() {
		s.send(i, []byte("multicast"))
	}
	if len(s.interfaces()) > 0 {
		for only := <-got; only != "multicast"; only = <-got { // other hosts in this network may send packets too
			require.NotEqual(t, "unicast", only)
		}
	}
	require.False(t, s.look(), "nothing has changed")
}

// One Discovery cannot serve two nodes, at the same time or one after the other. The first node keeps it.
func TestADiscoveryIsForOneNode(t *testing.T) {
	d := New(nil)
	o := &node.Options{Loopback: true, Discovery: []node.Discovery{d}}
	a, err := node.New(t.Context(), o)
	require.NoError(t, err)
	_, err = node.New(t.Context(), o)
	require.ErrorIs(t, err, node.ErrInvalid)
	require.ErrorContains(t, err, "it is for one host, and is in use or was closed: make another one with mdns.New")
	require.NoError(t, d.ctx.Err(), "it still works for the first node")
	require.NoError(t, a.Close())
	_, err = node.New(t.Context(), o)
	require.ErrorIs(t, err, node.ErrInvalid)
	require.NoError(t, d.Close())
	_, err = node.New(t.Context(), &node.Options{Loopback: true, Discovery: []node.Discovery{New(nil), d}})
	require.ErrorIs(t, err, node.ErrInvalid)
}
