package netcheck

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// configOf returns the Config of a host that has not sent to any helper.
func configOf(self host.Host, helpers ...host.Host) Config {
	c := Config{Self: self.ID(), Listens: self.Network().ListenAddresses(), Mapped: self.Addrs(), Known: func(peer.ID) bool { return false }}
	for _, h := range helpers {
		c.Helpers = append(c.Helpers, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()[:1]}) // the helper announces the others
	}
	return c
}

// surveyUntil repeats a survey, a few times, until it is complete: on a busy machine an answer may come too late, and counts as unknown.
func surveyUntil(t *testing.T, c Config, complete func(Result) bool) (r Result) {
	t.Helper()
	for i := 0; i == 0 || i < 3 && !complete(r); i++ {
		r = Survey(t.Context(), c)
	}
	return r
}

func TestSurveyWithTwoHelpers(t *testing.T) {
	a, _ := newServer(t, "127.0.0.1")
	b, _ := newServer(t, "127.0.0.2")
	r := surveyUntil(t, configOf(newHost(t, "127.0.0.1"), a, b), func(r Result) bool {
		return r.IPv4.UDP.Filtering == EndpointIndependent && r.IPv4.UDP.Reachable == Yes && r.IPv4.TCP.Reachable == Yes
	})
	for _, w := range []Transport{r.IPv4.TCP, r.IPv4.UDP} {
		require.Equal(t, 2, w.Asked)
		require.Equal(t, 2, w.Answered)
		require.Equal(t, None, w.Mapping)
		require.Equal(t, Yes, w.PortKept)
		require.Equal(t, Yes, w.Reachable)
	}
	require.Equal(t, EndpointIndependent, r.IPv4.UDP.Filtering)
	require.Zero(t, r.IPv6.TCP.Asked)
	for _, h := range r.Helpers {
		require.True(t, h.Full)
		require.Empty(t, h.Err)
	}
}

// A NAT may let in a helper because the host has sent to it.
func TestAKnownHelperProvesLess(t *testing.T) {
	t.Parallel() // it waits
	a, _ := newServer(t, "127.0.0.1")
	self := newHost(t, "127.0.0.1")
	c := configOf(self, a)
	c.Known = func(peer.ID) bool { return true }
	r := surveyUntil(t, c, func(r Result) bool { return r.IPv4.UDP.Filtering == NotPortDependent })
	require.Equal(t, NotPortDependent, r.IPv4.UDP.Filtering)
	require.Equal(t, Unknown, r.IPv4.UDP.Reachable)
	require.Equal(t, Unknown, r.IPv4.TCP.Reachable)
	require.NoError(t, self.Close())
	r = surveyUntil(t, c, func(r Result) bool { return r.IPv4.UDP.Reachable == No && r.IPv4.TCP.Reachable == No })
	require.Equal(t, No, r.IPv4.UDP.Reachable)
	require.Equal(t, No, r.IPv4.TCP.Reachable)
	c.Listens = nil
	r = Survey(t.Context(), c)
	require.Equal(t, No, r.IPv4.TCP.Reachable)
}

// Behind a NAT, the host asks a helper for the outside port of its listening socket.
func TestAHelperReportsTheOutsidePort(t *testing.T) {
	a, _ := newServer(t, "127.0.0.1")
	b, _ := newServer(t, "127.0.0.2")
	c := configOf(newHost(t, "127.0.0.1"), a, b)
	s := &survey{cfg: c, locals: localAddrs()}
	f := newFamily(s, netip.IPv4Unspecified())
	s.families = [2]*family{f, newFamily(s, netip.IPv6Unspecified())}
	defer f.close()
	for _, info := range c.Helpers {
		s.helpers = append(s.helpers, &helper{Helper: Helper{ID: info.ID}, more: info.Addrs})
	}
	s.callAll(t.Context())
	s.callAll(t.Context())
	defer s.hangUp()
	s.locals = nil // as behind a NAT that preserves ports
	s.cfg.Mapped = nil
	for _, over := range []byte{overTCP, overQUIC} {
		require.Equal(t, Unknown, f.reachable(t.Context(), over, &f.found.TCP))
		s.cfg.AskAt = func(context.Context, ma.Multiaddr, peer.ID) (ma.Multiaddr, error) { return nil, errors.New("no") }
		require.Equal(t, Unknown, f.reachable(t.Context(), over, &f.found.TCP))
		port := f.listens(over)
		s.cfg.AskAt = func(_ context.Context, at ma.Multiaddr, pid peer.ID) (ma.Multiaddr, error) {
			require.Equal(t, f.first(over).helper.ID, pid)
			return multiaddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), over), nil
		}
		require.Equal(t, Yes, f.reachable(t.Context(), over, &f.found.TCP))
		s.cfg.AskAt = nil
	}
}

// One helper is gone, the other is busy.
func TestSurveyWithUselessHelpers(t *testing.T) {
	gone, busy := newHost(t, "127.0.0.1"), newHost(t, "127.0.0.1")
	server := Serve(busy)
	defer server.Close()
	server.limits.total = atATimeInAll
	c := configOf(newHost(t, "127.0.0.1"), gone, busy)
	require.NoError(t, gone.Close())
	r := surveyUntil(t, c, func(r Result) bool { return r.IPv4.UDP.Mapping == None })
	require.NotEmpty(t, r.Helpers[0].Err)
	require.Zero(t, r.Helpers[0].RTT)
	require.True(t, r.Helpers[1].Full)
	require.Equal(t, None, r.IPv4.UDP.Mapping)
	require.Equal(t, UnknownBehavior, r.IPv4.UDP.Filtering)
	require.Equal(t, Unknown, r.IPv4.UDP.Reachable)
}

// A canceled survey returns its findings so far.
func TestSurveyEndsWithItsContext(t *testing.T) {
	a, _ := newServer(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := Survey(ctx, configOf(newHost(t, "127.0.0.1"), a))
	require.Zero(t, r.IPv4.TCP.Answered)
	require.Equal(t, UnknownBehavior, r.IPv4.UDP.Mapping)
}

// A peer that announces many addresses, including other hosts' addresses, cannot make a survey dial them all.
func TestAHelperCannotDirectDialsElsewhere(t *testing.T) {
	s := &survey{}
	h := &helper{tried: []ma.Multiaddr{ma.StringCast("/ip4/11.0.0.1/tcp/4001")}}
	dialed := netip.MustParseAddrPort("11.0.0.1:4001")
	for at, want := range map[string]bool{
		"/ip4/11.0.0.1/udp/4001/quic-v1":    true,
		"/ip4/11.0.0.1/tcp/4001":            false, // already tried
		"/ip4/11.0.0.2/tcp/4001":            false,
		"/ip6/2600:11::1/tcp/4001":          true,
		"/ip6/fe80::1/tcp/4001":             false,
		"/ip6/fd00::1/tcp/4001":             false, // a private network
		"/ip6/::1/tcp/4001":                 false,
		"/dns4/example.org/tcp/4001":        false,
		"/ip4/192.168.1.1/udp/4001/quic-v1": false,
	} {
		require.Equal(t, want, s.isUsable(h, ma.StringCast(at), dialed), at)
	}
	require.Equal(t, 1, h.counts(ma.StringCast("/ip4/11.0.0.2/tcp/1")))
	require.Zero(t, h.counts(ma.StringCast("/ip4/11.0.0.2/udp/1/quic-v1")))
	for a, want := range map[string]byte{
		"/ip4/11.0.0.1/tcp/1": overTCP, "/ip4/11.0.0.1/udp/1/quic-v1": overQUIC,
		"/ip4/11.0.0.1/udp/1/quic-v1/webtransport": 0, "/ip4/11.0.0.1/tcp/1/ws": 0,
	} {
		over, ok := transportOf(ma.StringCast(a))
		require.Equal(t, want, over, a)
		require.Equal(t, want != 0, ok, a)
	}
}

// Without a NAT, the sockets of this machine reach each other.
func TestHairpin(t *testing.T) {
	t.Parallel() // it waits
	a, _ := newServer(t, "127.0.0.1")
	f := newFamily(&survey{}, netip.IPv4Unspecified())
	var err error
	f.common, err = newSocket("udp4")
	require.NoError(t, err)
	f.fresh, err = newSocket("udp4")
	require.NoError(t, err)
	defer f.close()
	var seen []netip.AddrPort
	for _, s := range []*socket{f.common, f.fresh} {
		c, err := s.dial(t.Context(), addrOf(t, a, overQUIC), a.ID())
		require.NoError(t, err)
		at, _, _, err := see(t.Context(), c)
		require.NoError(t, err)
		seen = append(seen, endpoint(at))
	}
	require.Equal(t, Yes, f.hairpin(t.Context(), seen[1], seen[0]))
	nowhere := netip.MustParseAddrPort("127.0.0.1:9")
	require.Equal(t, No, f.hairpin(t.Context(), nowhere, nowhere))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.Equal(t, Unknown, f.hairpin(ctx, nowhere, nowhere))
}

// A helper in the local network does not prove that there is no NAT.
func TestPublicHelpersArePreferred(t *testing.T) {
	inside := &call{over: overQUIC, to: netip.MustParseAddrPort("192.168.1.9:1")}
	outside := &call{over: overTCP, to: netip.MustParseAddrPort("11.0.0.1:1")}
	six := &call{over: overQUIC, to: netip.MustParseAddrPort("[fd00::1]:1")}
	s := &survey{helpers: []*helper{{calls: []*call{inside, six}}}}
	f, f6 := newFamily(s, netip.IPv4Unspecified()), newFamily(s, netip.IPv6Unspecified())
	require.Equal(t, []*call{inside}, f.calls(overQUIC))
	s.helpers = append(s.helpers, &helper{calls: []*call{outside}})
	require.Empty(t, f.calls(overQUIC))
	require.Equal(t, []*call{inside}, f.allCalls(overQUIC))
	require.Equal(t, []*call{outside}, f.calls(overTCP))
	require.Equal(t, []*call{six}, f6.calls(overQUIC))
}

// A survey that is ended early does not say that a packet was filtered which it has not waited for.
func TestAnArrivalThatWasNotWaitedForIsUnknown(t *testing.T) {
	p := &probe{helper: &call{trip: time.Hour}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	came := make(chan netip.AddrPort, 1)
	from, has := p.arrival(ctx, came)
	require.Equal(t, Unknown, has)
	require.False(t, from.IsValid())
	p.helper.trip = 0
	_, has = p.arrival(t.Context(), came)
	require.Equal(t, No, has)
	came <- netip.MustParseAddrPort("1.2.3.4:5")
	from, has = p.arrival(t.Context(), came)
	require.Equal(t, Yes, has)
	require.Equal(t, netip.MustParseAddrPort("1.2.3.4:5"), from)
}
