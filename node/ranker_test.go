package node

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/stretchr/testify/require"
)

const viaRelay = "/ip4/192.0.2.7/tcp/1/p2p/" + otherPeer + "/p2p-circuit"

// delays returns the delay of each address.
func delays(all []network.AddrDelay) map[string]time.Duration {
	out := make(map[string]time.Duration)
	for _, d := range all {
		out[d.Addr.String()] = d.Delay
	}
	return out
}

// addresses returns n public TCP addresses.
func addresses(n int) []ma.Multiaddr {
	var out []ma.Multiaddr
	for i := range n {
		out = append(out, ma.StringCast(fmt.Sprintf("/ip4/1.2.3.%d/tcp/1", i+1)))
	}
	return out
}

func TestARankerKnowsNothingAtFirst(t *testing.T) {
	addrs := append(addresses(9), ma.StringCast(viaRelay))
	require.Equal(t, delays(swarm.DefaultDialRanker(append([]ma.Multiaddr{}, addrs...))), delays(newRanker().rank(addrs)))
	require.Empty(t, newRanker().rank(nil))
}

func TestARankerDialsTheAddressThatWorkedLastAlone(t *testing.T) {
	r := newRanker()
	addrs := append(addresses(9), ma.StringCast("/dns4/example.org/tcp/1"), ma.StringCast(viaRelay))
	r.remember(addrs[3])
	r.remember(addrs[8])
	r.remember(addrs[3]) // again, so that it becomes the newest
	ranked := r.rank(addrs)
	got := delays(ranked)
	require.Len(t, got, len(addrs))
	require.Equal(t, addrs[3], ranked[0].Addr)
	require.Zero(t, ranked[0].Delay)
	for a, d := range got {
		if a != addrs[3].String() {
			require.GreaterOrEqual(t, d, headStart, a)
		}
	}
	require.Equal(t, headStart, got[addrs[8].String()])
	require.Greater(t, got[viaRelay], headStart)
}

// A connection over WebTransport reports an address without certificate hashes.
func TestARankerRecognizesAddressesWithoutCertificateHashes(t *testing.T) {
	r := newRanker()
	dialed := ma.StringCast("/ip4/1.2.3.4/udp/1/quic-v1/webtransport/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g")
	r.remember(ma.StringCast("/ip4/1.2.3.4/udp/1/quic-v1/webtransport"))
	ranked := r.rank(append(addresses(3), dialed))
	require.Equal(t, dialed, ranked[0].Addr)
}

// A relay that worked does not come before direct addresses, but is dialed before the last of many.
func TestARankerLeavesDirectAddressesBeforeRelays(t *testing.T) {
	r := newRanker()
	circuit := ma.StringCast(viaRelay)
	r.remember(circuit)
	few := delays(r.rank(append(addresses(2), circuit)))
	require.Equal(t, swarm.RelayDelay, few[viaRelay])
	many := delays(r.rank(append(addresses(20), circuit)))
	require.Equal(t, swarm.RelayDelay, many[viaRelay])
	before := 0
	for a, d := range many {
		if a != viaRelay && d <= many[viaRelay] {
			before++
		}
	}
	require.Equal(t, swarm.DefaultPerPeerRateLimit-keptSlots, before)
	other := ma.StringCast("/ip4/192.0.2.8/tcp/1/p2p/" + otherPeer + "/p2p-circuit")
	ranked := r.rank([]ma.Multiaddr{other, circuit})
	require.Equal(t, circuit, ranked[0].Addr, "among relays, the one that worked")
}

// Through a relay, TCP is dialed before QUIC, and after direct addresses.
func TestARankerPrefersTCPTowardsRelays(t *testing.T) {
	const circuit = "/p2p/" + otherPeer + "/p2p-circuit"
	quic, tcp := ma.StringCast("/ip4/5.6.7.8/udp/1/quic-v1"+circuit), ma.StringCast("/ip4/5.6.7.8/tcp/1"+circuit)
	ws, direct := ma.StringCast("/ip4/5.6.7.8/tcp/2/ws"+circuit), ma.StringCast("/ip4/1.2.3.4/udp/1/quic-v1")
	r := newRanker()
	ranked := r.rank([]ma.Multiaddr{quic, ws, tcp})
	require.Equal(t, []ma.Multiaddr{tcp, ws, quic}, addrsOf(ranked))
	require.Zero(t, ranked[0].Delay)
	require.Positive(t, ranked[2].Delay)
	got := delays(r.rank([]ma.Multiaddr{quic, tcp, direct}))
	require.Zero(t, got[direct.String()])
	require.Equal(t, swarm.RelayDelay, got[tcp.String()])
	require.Greater(t, got[quic.String()], got[tcp.String()])
	r.remember(quic)
	require.Equal(t, quic, r.rank([]ma.Multiaddr{tcp, quic})[0].Addr, "TCP may be blocked")
}

func TestARankerIsBounded(t *testing.T) {
	r := newRanker()
	first := ma.StringCast("/ip4/1.2.3.4/tcp/1")
	r.remember(first)
	for i := range maxWorked {
		r.remember(ma.StringCast(fmt.Sprintf("/ip4/1.2.3.4/tcp/%d", i+2)))
	}
	require.Len(t, r.worked, maxWorked)
	known, _ := r.known([]ma.Multiaddr{first})
	require.Empty(t, known, "the oldest is dropped")
}

// silent returns loopback addresses that accept connections and send nothing.
func silent(t *testing.T, n int) []ma.Multiaddr {
	t.Helper()
	var out []ma.Multiaddr
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		at, err := manet.FromNetAddr(l.Addr())
		require.NoError(t, err)
		out = append(out, at)
	}
	return out
}

// startHigh returns a node on a port above the range from which the system chooses.
func startHigh(t *testing.T) *Node {
	t.Helper()
	for port := 61000 + rand.N(4000); port < 65536; port++ {
		if n, err := New(t.Context(), &Options{ListenAddrs: []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)}}); err == nil {
			t.Cleanup(func() { require.NoError(t, n.Close()) })
			return n
		}
	}
	t.Fatal("no port is free")
	return nil
}

// A node reaches a peer again although other addresses are silent, and waits for none of them.
func TestANodeDialsTheAddressThatWorkedFirst(t *testing.T) {
	const round = 30 * time.Second // libp2p's dial timeout, far longer than a dial takes on a loaded machine
	slow := libp2p.SwarmOpts(swarm.WithDialTimeout(round), swarm.WithDialTimeoutLocal(round))
	a, b := start(t, Options{Libp2p: []libp2p.Option{slow}}), startHigh(t)
	info := peer.AddrInfo{ID: b.ID(), Addrs: b.Host().Addrs()}
	a.Remember(info)
	require.NoError(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
	a.Remember(peer.AddrInfo{ID: b.ID(), Addrs: silent(t, 16)}) // with lower ports, which libp2p dials first
	for range 2 {
		require.NoError(t, a.Host().Network().ClosePeer(b.ID()))
		began := time.Now()
		require.NoError(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.Less(t, time.Since(began), round/2)
	}
}

// The caller's own ranker takes precedence, however it is set.
func TestACallersRankerReplacesOurs(t *testing.T) {
	b := start(t, Options{})
	for name, option := range map[string]func(network.DialRanker) libp2p.Option{
		"DialRanker": libp2p.DialRanker, //nolint:staticcheck // deprecated, and still used
		"SwarmOpts":  func(d network.DialRanker) libp2p.Option { return libp2p.SwarmOpts(swarm.WithDialRanker(d)) },
	} {
		asked := make(chan struct{}, 1)
		own := func(addrs []ma.Multiaddr) []network.AddrDelay {
			select {
			case asked <- struct{}{}:
			default:
			}
			return swarm.NoDelayDialRanker(addrs)
		}
		a := start(t, Options{Libp2p: []libp2p.Option{option(own)}})
		require.NoError(t, a.Host().Connect(t.Context(), b.Info()), name)
		require.Len(t, asked, 1, name)
	}
}
