package punch

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch/pb"
	"github.com/libp2p/go-msgio/pbio"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

func TestPlausibleAddresses(t *testing.T) {
	public, private := ma.StringCast("/ip4/11.0.0.1/tcp/4001"), ma.StringCast("/ip4/10.0.0.1/tcp/4001")
	for _, test := range []struct {
		a               string
		public, private bool // over such a relay
	}{
		{a: "/ip4/11.0.0.9/udp/4001/quic-v1", public: true, private: true},
		{a: "/ip4/11.0.0.9/tcp/1", public: true, private: true},
		{a: "/ip6/2600:11::1/tcp/1", public: true, private: true},
		{a: "/ip4/192.168.1.1/tcp/80", private: true},
		{a: "/ip4/10.1.2.3/udp/53/quic-v1", private: true},
		{a: "/ip4/100.64.0.1/tcp/80", private: true},
		{a: "/ip6/fd00::1/tcp/80", private: true},
		{a: "/ip6/::ffff:192.168.1.1/tcp/80", private: true},
		{a: "/ip4/127.0.0.1/tcp/80"},
		{a: "/ip6/::ffff:127.0.0.1/tcp/80"},
		{a: "/ip4/169.254.169.254/tcp/80"},
		{a: "/ip6/fe80::1/tcp/80"},
		{a: "/ip4/224.0.0.251/udp/5353/quic-v1"},
		{a: "/ip4/255.255.255.255/udp/1/quic-v1"},
		{a: "/ip4/0.0.0.0/tcp/1"},
		{a: "/ip4/11.0.0.9/tcp/0"},
		{a: "/ip4/11.0.0.9/tcp/80/ws"},
		{a: "/ip4/11.0.0.9/tcp/1/ip4/192.168.1.1/tcp/80"},
		{a: "/dns4/example.com/tcp/80"},
		{a: "/ip4/11.0.0.9/udp/4001"},
	} {
		require.Equal(t, test.public, isPlausible(ma.StringCast(test.a), public), test.a)
		require.Equal(t, test.private, isPlausible(ma.StringCast(test.a), private), test.a)
	}
}

// An hour of attempts with many holes that lead to nothing.
func TestManyHolesPerNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		made := 0
		for range 3600 {
			if done, ok := l.wide(netip.MustParseAddr("11.0.0.9")); ok {
				made++
				done(false)
			}
			time.Sleep(time.Second - time.Millisecond)
		}
		require.Equal(t, wideHour, made)
		require.Len(t, l.wides, made)
	})
}

// Those that have led to a connection do not stand in the way of others behind the same NAT.
func TestManyHolesThatAreOfUse(t *testing.T) {
	l := newLimits()
	for range 100 {
		done, ok := l.wide(netip.MustParseAddr("11.0.0.9"))
		require.True(t, ok)
		done(true)
	}
}

func TestManyHolesAtATime(t *testing.T) {
	l := newLimits()
	at := netip.MustParseAddr("11.0.0.9")
	for range maxWide {
		at = at.Next()
		_, ok := l.wide(at)
		require.True(t, ok)
	}
	require.False(t, l.mayWide())
	_, ok := l.wide(at.Next())
	require.False(t, ok)
}

// The networks that were dialed in vain take bounded memory, and are forgotten after a minute.
func TestDialsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		at := netip.MustParseAddr("11.0.0.0")
		for range 2 * maxTargets {
			at = at.Next()
			_, _ = l.dial([]ma.Multiaddr{ma.StringCast("/ip4/" + at.String() + "/tcp/1")})
		}
		require.Len(t, l.vain, maxTargets)
		time.Sleep(time.Minute)
		own := []ma.Multiaddr{ma.StringCast("/ip6/2600:11::1/tcp/1"), ma.StringCast("/ip6/2600:11::2/tcp/1")}
		for range 2 * maxVain {
			done, ok := l.dial(own)
			require.True(t, ok)
			done(networkOf(netip.MustParseAddr("2600:11::2")))
		}
		for i := range 2 * maxVain {
			_, ok := l.dial(own)
			require.Equal(t, i < maxVain, ok)
		}
	})
}

func TestPlacesOverOneRelay(t *testing.T) {
	l := newLimits()
	var all []func()
	for range perRelay {
		done, err := l.slot(l.begun, "relay")
		require.NoError(t, err)
		all = append(all, done)
	}
	_, err := l.slot(l.begun, "relay")
	require.ErrorIs(t, err, errBusy)
	other, err := l.slot(l.begun, "other")
	require.NoError(t, err)
	other()
	for _, done := range all {
		done()
	}
	require.Empty(t, l.begun)
}

// The peers that are remembered are bounded, and the last are kept.
func TestPeersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Service{peers: make(map[peer.ID]*seeker)}
		for i := range maxSeekers + 100 {
			s.seeker(peer.ID(fmt.Sprint(i)))
			time.Sleep(time.Millisecond)
		}
		require.Len(t, s.peers, maxSeekers)
		require.Contains(t, s.peers, peer.ID(fmt.Sprint(maxSeekers)))
		require.NotContains(t, s.peers, peer.ID("0"))
	})
}

func FuzzReadConnect(f *testing.F) {
	var seed bytes.Buffer
	a := ma.StringCast("/ip4/11.0.0.9/udp/4001/quic-v1")
	require.NoError(f, pbio.NewDelimitedWriter(&seed).WriteMsg(connectMessage([]ma.Multiaddr{a})))
	f.Add(seed.Bytes())
	require.NoError(f, pbio.NewDelimitedWriter(&seed).WriteMsg(&pb.HolePunch{Type: pb.HolePunch_SYNC.Enum()}))
	f.Add(seed.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	relay := ma.StringCast("/ip4/11.0.0.1/tcp/4001")
	f.Fuzz(func(t *testing.T, b []byte) {
		addrs, err := readConnect(pbio.NewDelimitedReader(bytes.NewReader(b), maxMessage), relay)
		require.Equal(t, err != nil, len(addrs) == 0)
		require.LessOrEqual(t, len(addrs), maxAddresses)
		for _, a := range addrs {
			require.True(t, isPlausible(a, relay))
		}
		require.LessOrEqual(t, len(networksOf(addrs)), maxIPs)
	})
}
