package ticket

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
)

func TestChooseTakesWhatIsWorthItsPlace(t *testing.T) {
	relay := "/ip4/203.0.113.9/udp/4001/quic-v1/p2p/" + bob + "/p2p-circuit"
	for name, test := range map[string]struct{ all, want []string }{
		"none": {nil, nil},
		"loopback alone": {
			[]string{"/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"},
			[]string{"/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"},
		},
		"loopback and link-local beside others": {
			[]string{"/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/192.168.1.7/tcp/1", "/ip4/0.0.0.0/tcp/1"},
			[]string{"/ip4/192.168.1.7/tcp/1"},
		},
		"what is for browsers": {
			[]string{"/ip4/192.168.1.7/udp/1/quic-v1/webtransport", "/ip4/192.168.1.7/udp/1/webrtc-direct", "/ip4/192.168.1.7/udp/1/quic-v1"},
			[]string{"/ip4/192.168.1.7/udp/1/quic-v1"},
		},
		"what is for browsers alone": {
			[]string{"/ip4/192.168.1.7/udp/1/quic-v1/webtransport"}, []string{"/ip4/192.168.1.7/udp/1/quic-v1/webtransport"},
		},
		"one twice": {
			[]string{"/ip4/192.168.1.7/tcp/1", "/ip4/192.168.1.7/tcp/1"}, []string{"/ip4/192.168.1.7/tcp/1"},
		},
		"the widest reach first, and QUIC before TCP": {
			[]string{"/ip4/192.168.1.7/tcp/1", relay, "/ip6/2606:4700::7/tcp/1", "/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1"},
			[]string{"/ip4/8.8.8.8/udp/1/quic-v1", "/ip6/2606:4700::7/tcp/1", relay, "/ip4/192.168.1.7/tcp/1"},
		},
		"another network rather than another transport": {
			[]string{
				"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.1.1/tcp/1", "/ip4/10.0.1.1/udp/1/quic-v1",
				"/ip4/10.0.2.1/tcp/1", "/ip4/10.0.2.1/udp/1/quic-v1", "/ip4/10.0.3.1/tcp/1", "/ip4/10.0.3.1/udp/1/quic-v1",
			},
			[]string{
				"/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.1.1/udp/1/quic-v1", "/ip4/10.0.2.1/udp/1/quic-v1", "/ip4/10.0.3.1/udp/1/quic-v1",
				"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.1.1/tcp/1", "/ip4/10.0.2.1/tcp/1", "/ip4/10.0.3.1/tcp/1",
			},
		},
	} {
		var got []string
		for _, a := range Choose(addrs(t, test.all...)) {
			got = append(got, a.String())
		}
		require.Equal(t, test.want, got, name)
	}
}

func TestWhatChooseTakesFitsIntoAShortTicket(t *testing.T) {
	var all []string
	for i := range 40 {
		all = append(all, fmt.Sprintf("/ip4/10.0.%d.1/udp/40123/quic-v1", i), fmt.Sprintf("/ip6/2606:4700::%d/tcp/40123", i),
			fmt.Sprintf("/ip4/203.0.113.%d/udp/4001/quic-v1/p2p/%s/p2p-circuit", i, bob))
	}
	chosen := Choose(addrs(t, all...))
	require.Len(t, chosen, 3)
	k := sample(t)
	k.Sources = []peer.AddrInfo{{ID: id(t, alice), Addrs: chosen}}
	require.LessOrEqual(t, len(encoded(t, k)), 300)
}
