package nat

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	outside = netip.MustParseAddr("11.0.0.10")
	inside  = netip.MustParseAddrPort("192.168.1.2:4001")
	relay   = netip.MustParseAddrPort("11.0.0.1:4001")
	relay2  = netip.MustParseAddrPort("11.0.0.1:4002") // another port of the relay
	peer    = netip.MustParseAddrPort("11.0.0.20:4001")
	start   = time.Unix(1000, 0)
)

func send(t *testing.T, n *NAT, now time.Time, p Protocol, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	out, ok := n.Out(now, Packet{p, inside, to})
	require.True(t, ok)
	require.Equal(t, to, out.Dst)
	return out.Src
}

func comesIn(n *NAT, now time.Time, p Protocol, from, to netip.AddrPort) bool {
	in, ok := n.In(now, Packet{p, from, to})
	return ok && in.Dst == inside && in.Src == from
}

// What each kind maps and lets in, after one packet to the relay.
func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		kind                  Kind
		sameForPort, sameAll  bool // the outside address is the same for another port of the relay, for another peer
		inRelay2, inPeer, own bool // who can send to the relay's mapping; the port is kept
	}{
		{"easiest", Easiest, true, true, true, true, true},
		{"easy", Easy, true, true, false, false, true},
		{"address-restricted", Kind{Filtering: AddressDependent}, true, true, true, false, true},
		{"address-dependent", Kind{Mapping: AddressDependent, Filtering: AddressDependent, RandomPorts: true}, true, false, true, false, false},
		{"hard", Hard, false, false, false, false, false},
	} {
		for _, p := range []Protocol{UDP, TCP} {
			t.Run(tt.name, func(t *testing.T) {
				n := New(tt.kind, outside)
				at := send(t, n, start, p, relay)
				require.Equal(t, outside, at.Addr())
				if tt.own {
					require.Equal(t, inside.Port(), at.Port())
				}
				require.True(t, comesIn(n, start, p, relay, at))
				require.Equal(t, tt.inRelay2, comesIn(n, start, p, relay2, at), "from another port of the relay")
				require.Equal(t, tt.inPeer, comesIn(n, start, p, peer, at), "from a peer")
				require.False(t, comesIn(n, start, p, relay, netip.AddrPortFrom(outside, at.Port()^1)), "to a port without a mapping")

				require.Equal(t, tt.sameForPort, send(t, n, start, p, relay2) == at)
				require.Equal(t, tt.sameAll, send(t, n, start, p, peer) == at)
				require.Equal(t, tt.sameAll, comesIn(n, start, p, peer, at), "from a peer that was sent to")
			})
		}
	}
}

func TestAFirewallKeepsAddressesAndFilters(t *testing.T) {
	n := New(Easy, netip.Addr{})
	require.False(t, comesIn(n, start, UDP, peer, inside))
	require.Equal(t, inside, send(t, n, start, UDP, peer))
	require.True(t, comesIn(n, start, UDP, peer, inside))
	require.False(t, comesIn(n, start, UDP, relay, inside))
	require.False(t, comesIn(n, start, TCP, peer, inside), "the protocols have mappings of their own")
	require.Equal(t, 3, n.Dropped())
	require.False(t, n.Outside(outside))
}

func TestAMappingExpiresWhenNothingUsesIt(t *testing.T) {
	for p, timeout := range map[Protocol]time.Duration{UDP: udpTimeout, TCP: tcpTimeout} {
		n := New(Hard, outside)
		at := send(t, n, start, p, relay)
		now := start.Add(timeout)
		require.True(t, comesIn(n, now, p, relay, at), "in use for the whole timeout")
		now = now.Add(timeout)
		require.Equal(t, at, send(t, n, now, p, relay), "what came in keeps it too")
		now = now.Add(timeout + 1)
		require.False(t, comesIn(n, now, p, relay, at))
		require.NotEqual(t, at, send(t, n, now, p, relay))
		require.Equal(t, 1, n.Mappings())
	}
}

func TestTwoHostsWithOnePortGetTwo(t *testing.T) {
	n := New(Easy, outside)
	first := send(t, n, start, UDP, relay)
	other := netip.AddrPortFrom(netip.MustParseAddr("192.168.1.3"), inside.Port())
	out, ok := n.Out(start, Packet{UDP, other, relay})
	require.True(t, ok)
	require.NotEqual(t, first, out.Src)
	in, ok := n.In(start, Packet{UDP, relay, out.Src})
	require.True(t, ok)
	require.Equal(t, other, in.Dst)
	require.True(t, comesIn(n, start, UDP, relay, first))
}

func TestForgetAndRemap(t *testing.T) {
	n := New(Easy, outside)
	at := send(t, n, start, UDP, relay)
	n.Forget()
	require.False(t, comesIn(n, start, UDP, relay, at))
	require.Equal(t, at, send(t, n, start, UDP, relay), "the port is kept")
	n.Remap()
	require.False(t, comesIn(n, start, UDP, relay, at))
	moved := send(t, n, start, UDP, relay)
	require.True(t, comesIn(n, start, UDP, relay, moved))
	require.True(t, n.Outside(moved.Addr()))
}

func TestWithoutAFreePortThePacketIsDropped(t *testing.T) {
	few := Hard
	few.Ports = 1000
	n := New(few, outside)
	for i := range few.Ports {
		_, ok := n.Out(start, Packet{UDP, inside, netip.AddrPortFrom(peer.Addr(), uint16(i))})
		require.True(t, ok, "%d", i)
	}
	_, ok := n.Out(start, Packet{UDP, inside, relay})
	require.False(t, ok)
	_, ok = n.Out(start, Packet{TCP, inside, relay})
	require.True(t, ok, "TCP has its own ports")
	_, ok = n.Out(start.Add(udpTimeout+1), Packet{UDP, inside, relay})
	require.True(t, ok, "an expired mapping gives its port back")
}
