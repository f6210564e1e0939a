package peerlanetest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"

	"github.com/peerlane/peerlane/internal/nat"
)

// NetworkOptions are the properties of a Network.
type NetworkOptions struct {
	// Delay is the time that a packet takes from one host to another. If zero, none.
	Delay time.Duration
	// Rate is how many bytes per second each host can send. Up to 64 KiB wait for that, and what exceeds them is lost. If zero,
	// there is no limit.
	Rate int
}

// A Network is a network in memory between libp2p hosts, which speak QUIC on it. It uses no real clock, so that a test in a
// testing/synctest bubble has hosts whose timeouts take no time. Packets for an address without a host are lost.
//
// Its faults apply to all of its hosts. They may be called at any time and from any goroutine.
type Network struct {
	t     testing.TB
	rate  int
	relay peer.ID // of Hosts

	mu       sync.Mutex
	hosts    []host.Host
	ends     []func() // of the hosts and what is below them, in the order in which they were made
	sockets  map[netip.AddrPort]*socket
	behind   map[netip.Addr]*nat.NAT // by the inside address
	outside  map[netip.Addr]*nat.NAT // by the outside address
	opened   []*socket               // all there have been
	port     uint16                  // the last one that was given to a socket without one
	apart    map[[2]netip.Addr]bool  // addresses between which packets are lost, the lower one first
	delay    time.Duration
	frozen   bool
	vanished bool
	left     int64 // bytes until the cut of CutAfter
	counting bool  // CutAfter was called
	cutting  sync.WaitGroup

	packets, bytes int64 // that hosts have sent
}

// NewNetwork returns a network without hosts. nil options are the zero ones. It ends in t.Cleanup, after its hosts.
func NewNetwork(t testing.TB, o *NetworkOptions) *Network {
	t.Helper()
	if o == nil {
		o = &NetworkOptions{}
	}
	n := &Network{t: t, rate: o.Rate, delay: o.Delay, port: 1 << 15, sockets: make(map[netip.AddrPort]*socket),
		behind: make(map[netip.Addr]*nat.NAT), outside: make(map[netip.Addr]*nat.NAT), apart: make(map[[2]netip.Addr]bool)}
	t.Cleanup(n.close)
	return n
}

// Host returns a new host at an IPv4 address and UDP port, as in "10.0.0.1:4001". A host that was closed may be followed by another at
// its address. opts come after those that the network needs; the host has no limits on resources unless they say so. It is closed
// with the network.
func (n *Network) Host(address string, opts ...libp2p.Option) host.Host {
	n.t.Helper()
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		n.t.Fatalf("peerlanetest: host at %q: %v", address, err)
	}
	all := append([]libp2p.Option{libp2p.ListenAddrs(QUICAddr(address))}, n.options(at.Addr())...)
	h, err := libp2p.New(append(all, opts...)...)
	if err != nil {
		n.t.Fatalf("peerlanetest: host at %s: %v", address, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, h)
	n.ends = append(n.ends, func() { _ = h.Close() })
	return h
}

// Options returns the options of libp2p.New that put a host on n at an IPv4 address, as in "10.0.0.1": for hosts that something else
// builds, as node.New does with node.Options.Libp2p. The host must be closed before the test ends; it should listen on a QUICAddr of that
// address.
func (n *Network) Options(ip string) []libp2p.Option {
	n.t.Helper()
	at, err := netip.ParseAddr(ip)
	if err != nil {
		n.t.Fatalf("peerlanetest: host at %q: %v", ip, err)
	}
	return n.options(at)
}

func (n *Network) options(ip netip.Addr) []libp2p.Option {
	return []libp2p.Option{libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ResourceManager(&network.NullResourceManager{}), n.quic(ip)}
}

// Sent returns how many packets, and bytes in them, all hosts have sent.
func (n *Network) Sent() (packets, bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.packets, n.bytes
}

// quic makes a host with that address speak QUIC on n.
func (n *Network) quic(ip netip.Addr) libp2p.Option {
	connManager := func(reset quic.StatelessResetKey, token quic.TokenGeneratorKey, opts ...quicreuse.Option) (*quicreuse.ConnManager, error) {
		m, err := quicreuse.NewConnManager(reset, token, opts...)
		if err == nil {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.ends = append(n.ends, func() { _ = m.Close() }) // after the host, as libp2p closes only one that it has made
		}
		return m, err
	}
	listen := func(_ string, local *net.UDPAddr) (net.PacketConn, error) { return n.listen(ip, local.Port), nil }
	source := func() (quicreuse.SourceIPSelector, error) { return sourceIP(ip.AsSlice()), nil }
	return libp2p.QUICReuse(connManager, quicreuse.OverrideListenUDP(listen), quicreuse.OverrideSourceIPSelector(source))
}

// ListenUDP opens a UDP socket at the address of a host, at a port that nobody has. It is closed with the network.
func (n *Network) ListenUDP(ip string) net.PacketConn {
	n.t.Helper()
	at, err := netip.ParseAddr(ip)
	if err != nil {
		n.t.Fatalf("peerlanetest: socket at %q: %v", ip, err)
	}
	return n.listen(at, 0)
}

// A sourceIP is the address of a host that has one.
type sourceIP net.IP

func (ip sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return net.IP(ip), nil
}

// QUICAddr returns the multiaddr of an IP address and UDP port, as in "10.0.0.1:4001". It panics if there is none.
func QUICAddr(address string) ma.Multiaddr {
	at, err := manet.FromNetAddr(net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		panic(fmt.Sprintf("peerlanetest: address %q: %v", address, err))
	}
	return at.Encapsulate(ma.StringCast("/quic-v1"))
}

// Cut closes every connection between hosts, on both sides at once, but for those to the relay of Hosts, which Relay.Stop ends. What was
// on its way is lost. Hosts can connect again.
func (n *Network) Cut() {
	n.mu.Lock()
	hosts := slices.Clone(n.hosts)
	n.mu.Unlock()
	for _, h := range hosts {
		for _, c := range h.Network().Conns() {
			if c.LocalPeer() != n.relay && c.RemotePeer() != n.relay {
				_ = c.Close() // both sides: it matters to neither how the other learns of it
			}
		}
	}
}

// CutAfter calls Cut as soon as bytes more have been sent, by all hosts together. It counts all bytes of packets: those of QUIC,
// handshakes and acknowledgements too. A later call replaces an earlier one.
func (n *Network) CutAfter(bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counting, n.left = true, bytes
	n.countLocked(0)
}

// countLocked notes that bytes were sent, and cuts if they were the last.
func (n *Network) countLocked(bytes int) {
	if !n.counting {
		return
	}
	if n.left -= int64(bytes); n.left <= 0 {
		n.counting = false
		n.cutting.Go(n.Cut)
	}
}

// Freeze holds all packets, those on their way too, until Thaw.
func (n *Network) Freeze() { n.change(func() { n.frozen = true }) }

// Thaw ends Freeze. The packets that were held arrive in their order.
func (n *Network) Thaw() { n.change(func() { n.frozen = false }) }

// Vanish loses all packets silently, those on their way too, until it is called with false.
func (n *Network) Vanish(on bool) {
	n.change(func() {
		n.vanished = on
		for _, s := range n.opened {
			s.queue = nil
		}
	})
}

// VanishBetween loses all packets between the hosts at two addresses silently, as in "10.0.0.1", until it is called with false. Those on their
// way arrive. Behind a NAT a host's address is the inside one. A path over a third host, such as a relay, remains.
func (n *Network) VanishBetween(a, b string, on bool) {
	n.t.Helper()
	var ends [2]netip.Addr
	for i, ip := range []string{a, b} {
		at, err := netip.ParseAddr(ip)
		if err != nil {
			n.t.Fatalf("peerlanetest: host at %q: %v", ip, err)
		}
		ends[i] = at
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.apart[pairOf(ends[0], ends[1])] = on
}

// pairOf returns two addresses, the lower one first.
func pairOf(a, b netip.Addr) [2]netip.Addr {
	if b.Less(a) {
		a, b = b, a
	}
	return [2]netip.Addr{a, b}
}

// SetDelay sets the delay of the packets that are sent from now on. None overtakes an earlier one of its sender.
func (n *Network) SetDelay(d time.Duration) { n.change(func() { n.delay = d }) }

// change runs f with mu held and makes all readers look again.
func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	for _, s := range n.opened {
		s.wake()
	}
}

// close closes the hosts, the last first, and then the network. It is the only Cleanup of a network: a host that was made later, such as a
// relay's after a restart, must not end before what the test itself cleans up.
func (n *Network) close() {
	n.mu.Lock()
	ends := slices.Clone(n.ends)
	n.mu.Unlock()
	for _, end := range slices.Backward(ends) {
		end()
	}
	n.cutting.Wait()
	for _, s := range slices.Clone(n.opened) {
		_ = s.Close()
	}
}

// await waits until ok, which is asked whenever h gets or loses a connection.
func await(t testing.TB, h host.Host, what string, ok func() bool) {
	t.Helper()
	changed := make(chan struct{}, 1)
	poke := func(network.Network, network.Conn) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	n := &network.NotifyBundle{ConnectedF: poke, DisconnectedF: poke}
	h.Network().Notify(n)
	defer h.Network().StopNotify(n)
	ctx, cancel := context.WithTimeout(context.Background(), setupTime)
	defer cancel()
	for !ok() {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("peerlanetest: waited %v for: %s", setupTime, what)
		}
	}
}

// setupTime bounds what hosts need to connect.
const setupTime = 30 * time.Second
