package node

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

const (
	testPeer  = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	otherPeer = "12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3"
)

func TestParsePeerAcceptsPastedAddresses(t *testing.T) {
	pid, err := peer.Decode(testPeer)
	require.NoError(t, err)
	tcp, quic := "/ip4/192.0.2.7/tcp/4001", "/ip4/192.0.2.7/udp/4001/quic-v1"
	circuit := tcp + "/p2p/" + otherPeer + "/p2p-circuit"
	for in, want := range map[string][]string{
		testPeer:                                                           nil,
		peer.ToCid(pid).String():                                           nil,
		"/p2p/" + testPeer:                                                 nil,
		tcp + "/p2p/" + testPeer:                                           {tcp},
		"  " + tcp + "/p2p/" + testPeer + " \n":                            {tcp},
		circuit + "/p2p/" + testPeer:                                       {circuit},
		"/dns4/example.org/tcp/1/p2p/" + testPeer:                          {"/dns4/example.org/tcp/1"},
		testPeer + "," + tcp + "/p2p/" + testPeer:                          {tcp},
		tcp + "/p2p/" + testPeer + "," + testPeer:                          {tcp},
		tcp + "/p2p/" + testPeer + ",\n" + quic + "/p2p/" + testPeer + ",": {tcp, quic},
		tcp + "/p2p/" + testPeer + " " + tcp + "/p2p/" + testPeer:          {tcp},
	} {
		info, err := ParsePeer(in)
		require.NoError(t, err, "%q", in)
		require.Equal(t, pid, info.ID, "%q", in)
		var got []string
		for _, a := range info.Addrs {
			got = append(got, a.String())
		}
		require.Equal(t, want, got, "%q", in)
	}
}

func TestParsePeerErrorsNameTheMistake(t *testing.T) {
	for in, want := range map[string]string{
		"":               "empty",
		" , \n":          "empty",
		"192.0.2.7:4001": "neither a Peer ID nor an address such as",
		testPeer[:20]:    "the Peer ID \"" + testPeer[:20] + "\" is cut off or mistyped",
		testPeer + "0":   "cut off or mistyped",
		"/ip4/192.0.2.7/tcp/4001/p2p/" + testPeer[:40]:           "the Peer ID \"" + testPeer[:40] + "\" in ",
		"/ip4/192.0.2.7/tcp/1/p2p/x/p2p-circuit/p2p/" + testPeer: "the Peer ID \"x\" in ",
		"/ip4/192.0.2.7/tcp/4001":                                "must end in /p2p/<peer id>",
		"/ip4/1.2.3.4/tcp/1/p2p/" + testPeer + "/p2p-circuit":    "must end in /p2p/<peer id>",
		"/ip4/192.0.2.7/tcp":                                     "is not a multiaddr",
		"/ip4/0.0.0.0/tcp/1/p2p/" + testPeer:                     "an address to listen on",
		"/ip6/::/tcp/1/p2p/" + testPeer:                          "an address to listen on",
		testPeer + "," + otherPeer:                               "two peers",
	} {
		_, err := ParsePeer(in)
		require.ErrorIs(t, err, ErrInvalid, "%q", in)
		require.ErrorContains(t, err, want, "%q", in)
	}
}

func TestLoopbackAddressesAreOmittedIfThereAreOthers(t *testing.T) {
	pid, err := peer.Decode(testPeer)
	require.NoError(t, err)
	local, local6 := ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/ip6/::1/tcp/1")
	lan, dns := ma.StringCast("/ip4/192.168.1.2/udp/1/quic-v1"), ma.StringCast("/dns4/example.org/tcp/1")
	end := "/p2p/" + testPeer
	require.Equal(t, []string{lan.String() + end, dns.String() + end}, pasteable(pid, []ma.Multiaddr{local, lan, local6, dns}))
	require.Equal(t, []string{local.String() + end, local6.String() + end}, pasteable(pid, []ma.Multiaddr{local, local6}))
	require.Empty(t, pasteable(pid, nil))
}

// An accepted peer is formatted and parsed again without a change, address by address.
func FuzzParsePeer(f *testing.F) {
	for _, s := range []string{testPeer, "/ip4/192.0.2.7/tcp/1/p2p/" + testPeer, "/ip4/1.2.3.4/tcp/1", "a,b",
		"/ip4/1.2.3.4/tcp/1/p2p/" + otherPeer + "/p2p-circuit/p2p/" + testPeer} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		info, err := ParsePeer(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid, "%q", s)
			return
		}
		require.NoError(t, info.ID.Validate(), "%q", s)
		for _, text := range pasteable(info.ID, info.Addrs) {
			again, err := ParsePeer(text)
			require.NoError(t, err, "%q from %q", text, s)
			require.Equal(t, info.ID, again.ID, "%q from %q", text, s)
			require.Len(t, again.Addrs, 1, "%q from %q", text, s)
		}
	})
}
