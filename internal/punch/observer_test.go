package punch

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// A listening is a host that listens at addresses, and does nothing else.
type listening struct {
	host.Host
	at []ma.Multiaddr
}

func (l *listening) Network() network.Network { return &listened{at: l.at} }
func (l *listening) Addrs() []ma.Multiaddr    { return nil }

// A listened is its network.
type listened struct {
	network.Network
	at []ma.Multiaddr
}

func (l *listened) ListenAddresses() []ma.Multiaddr { return l.at }

func parsed(texts ...string) (all []ma.Multiaddr) {
	for _, s := range texts {
		all = append(all, ma.StringCast(s))
	}
	return all
}

// Behind a NAT64, a host is seen at IPv4 addresses where it listens on IPv6 ones, and asks from there.
func TestAHostBehindANAT64IsSeenAtIPv4Addresses(t *testing.T) {
	listens := parsed("/ip4/0.0.0.0/udp/4000/quic-v1", "/ip6/::/udp/6000/quic-v1", "/ip4/0.0.0.0/tcp/4000", "/ip6/::/tcp/6000", "/ip6/::/tcp/80/ws")
	o := newObserver(&listening{at: listens}, func() {})
	prefix := netip.Prefix{}
	o.nat64 = func(context.Context) (netip.Prefix, bool) { return prefix, prefix.IsValid() }
	require.Equal(t, map[kind]ma.Multiaddr{
		"ip4/udp/quic-v1": listens[0], "ip6/udp/quic-v1": listens[1], "ip4/tcp": listens[2], "ip6/tcp": listens[3],
	}, o.locals(t.Context()))
	prefix = netip.MustParsePrefix("64:ff9b::/96")
	require.Equal(t, map[kind]ma.Multiaddr{
		"ip4/udp/quic-v1": listens[1], "ip6/udp/quic-v1": listens[1], "ip4/tcp": listens[3], "ip6/tcp": listens[3],
	}, o.locals(t.Context()))

	relay := ma.StringCast("/ip4/11.0.0.1/udp/4001/quic-v1")
	for local, want := range map[string]int{
		"/ip6/2600::1/udp/6001/quic-v1": 0, // it does not listen there
		"/ip4/192.168.1.2/tcp/6000":     0,
		"/ip6/2600::1/udp/6000/quic-v1": 1,
	} {
		o := newObserver(o.host, func() {})
		o.saw("relay", relay, ma.StringCast(local), ma.StringCast("/ip4/11.0.0.9/udp/61000/quic-v1"))
		require.Len(t, o.candidates("relay"), want, local)
	}
}

func TestUDPFor(t *testing.T) {
	require.Equal(t, "udp4", udpFor(netip.MustParseAddr("11.0.0.1")))
	require.Equal(t, "udp4", udpFor(netip.MustParseAddr("::ffff:11.0.0.1")))
	require.Equal(t, "udp6", udpFor(netip.MustParseAddr("64:ff9b::b00:1")))
}

// A peer that has just seen the host is not asked again, unless the host may be in another network since.
func TestAPeerIsAskedAgainWhenTheNetworkIsSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := ma.StringCast("/ip4/11.0.0.1/udp/4001/quic-v1")
		o := newObserver(&listening{at: parsed("/ip4/192.168.1.2/udp/4000/quic-v1")}, func() {})
		o.nat64 = func(context.Context) (netip.Prefix, bool) { return netip.Prefix{}, false }
		require.Len(t, o.missing(t.Context(), "relay"), 1)
		seen := func() {
			o.saw("relay", at, o.host.Network().ListenAddresses()[0], ma.StringCast("/ip4/11.0.0.9/udp/61000/quic-v1"))
		}
		seen()
		time.Sleep(freshFor - 1)
		require.Empty(t, o.missing(t.Context(), "relay"))
		time.Sleep(time.Nanosecond)
		require.Len(t, o.missing(t.Context(), "relay"), 1, "it is long ago")
		seen()
		time.Sleep(time.Nanosecond)
		o.suspect()
		require.Len(t, o.missing(t.Context(), "relay"), 1)
		require.Len(t, o.candidates("relay"), 1, "the sighting is kept until there is a newer one")
		time.Sleep(time.Nanosecond)
		seen()
		require.Empty(t, o.missing(t.Context(), "relay"))
	})
}
