package mdns

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

const testPeer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

// packetOf returns the message in which a peer announces its addresses.
func packetOf(t *testing.T, id peer.ID, ttl uint32, addrs ...string) []byte {
	t.Helper()
	var all []ma.Multiaddr
	for _, a := range addrs {
		all = append(all, ma.StringCast(a))
	}
	packet, err := answer("label", id, all, ttl)
	require.NoError(t, err)
	return packet
}

func TestAnAnswerContainsAPeersAddresses(t *testing.T) {
	id, err := peer.Decode(testPeer)
	require.NoError(t, err)
	addrs := []string{"/ip4/192.168.0.7/tcp/4001", "/ip4/192.168.0.7/udp/4001/quic-v1", "/ip6/fd00::7/tcp/4001"}
	asks, claims := parse(packetOf(t, id, lifetime, addrs...))
	require.False(t, asks)
	require.Len(t, claims, 1)
	require.Equal(t, id, claims[0].id)
	require.Equal(t, addrs, strings.Fields(strings.Trim(fmt.Sprint(claims[0].addrs), "[]")))

	_, claims = parse(packetOf(t, id, goodbye, addrs...))
	require.Equal(t, []claim{{id: id}}, claims)
	packet, err := question()
	require.NoError(t, err)
	asks, claims = parse(packet)
	require.True(t, asks)
	require.Empty(t, claims)
}

// The messages are those that go-libp2p v0.51.0 sends.
const (
	libp2pQuestion = "3d5c00000001000000000000045f703270045f756470056c6f63616c00000c0001"
	libp2pAnswer   = "3d5c84000000000100000003045f703270045f756470056c6f63616c00000c000100000c80003a37366431336e787a6731376f31357a727433363870" +
		"637076776b747263323632737237306d7a39303879753972386b7a656b6a3569306f79c00cc0270021000100000c800045000000000fa13736643133" +
		"6e787a6731376f31357a727433363870637076776b747263323632737237306d7a39303879753972386b7a656b6a3569306f79056c6f63616c00c027" +
		"0010000100000c80005958646e73616464723d2f6970342f3139322e302e322e322f7463702f343030312f7032702f313244334b6f6f575241715232" +
		"3948476b3837434a52394a527775626273375a5971324778674e5955614874385478396d736369c07300010001000000780004c0000202"
)

func TestMessagesOfLibp2pAreParsed(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		require.NoError(t, err)
		return b
	}
	asks, _ := parse(unhex(libp2pQuestion))
	require.True(t, asks)
	asks, claims := parse(unhex(libp2pAnswer))
	require.False(t, asks)
	id, err := peer.Decode("12D3KooWRAqR29HGk87CJR9JRwubbs7ZYq2GxgNYUaHt8Tx9msci")
	require.NoError(t, err)
	require.Equal(t, []claim{{id, []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.2/tcp/4001")}}}, claims)
}

// An answer fits into a packet of any network, regardless of the number of the host's addresses.
func TestAnAnswerIsSmall(t *testing.T) {
	id, err := peer.Decode(testPeer)
	require.NoError(t, err)
	var addrs []string
	for i := range 100 {
		addrs = append(addrs, fmt.Sprintf("/ip6/2001:db8:1111:2222:3333:4444:5555:%x/udp/60001/quic-v1", 0xa000+i))
	}
	require.LessOrEqual(t, len(packetOf(t, id, lifetime, addrs...)), 1440)
}

func TestAddressesOutsideTheLocalNetworkAreIgnored(t *testing.T) {
	for _, s := range []string{
		"/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/udp/1/quic-v1", "/ip6/fe80::1/tcp/1",
		"/ip4/192.168.0.1/tcp/1/ws", "/ip4/192.168.0.1/udp/1", "/ip4/192.168.0.1/udp/1/quic-v1/webtransport", "/dns4/host.local/tcp/1",
		"/ip4/192.168.0.1", "/ip4/192.168.0.1/tcp/1/p2p/" + testPeer + "/p2p-circuit", "/unix/a",
	} {
		require.False(t, isLocal(ma.StringCast(s)), s)
	}
	require.False(t, isLocal(nil))
	for _, s := range []string{"/ip4/169.254.1.1/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1", "/ip4/192.168.0.1/tcp/1"} {
		require.True(t, isLocal(ma.StringCast(s)), s)
	}
}

func TestTheAddressesOfAnInterface(t *testing.T) {
	i := iface{addrs: []netip.Addr{netip.MustParseAddr("192.168.0.7"), netip.MustParseAddr("fd00::7"), netip.MustParseAddr("fe80::7")}}
	listen := func(all ...string) (addrs []ma.Multiaddr) {
		for _, a := range all {
			addrs = append(addrs, ma.StringCast(a))
		}
		return addrs
	}
	require.Equal(t, listen("/ip4/192.168.0.7/tcp/1", "/ip6/fd00::7/udp/2/quic-v1", "/ip4/192.168.0.7/tcp/3"),
		addrsOn(i, listen("/ip4/0.0.0.0/tcp/1", "/ip6/::/udp/2/quic-v1", "/ip4/192.168.0.7/tcp/3", "/ip4/192.168.1.1/tcp/4",
			"/ip4/127.0.0.1/tcp/5", "/ip4/0.0.0.0/tcp/6/ws", "/p2p-circuit")))
}

func TestOtherMessagesAreIgnored(t *testing.T) {
	other := dnsmessage.MustNewName("_http._tcp.local.")
	head := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("x._http._tcp.local."), Class: dnsmessage.ClassINET}
	ours := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("x." + serviceName), Class: dnsmessage.ClassINET, TTL: 1}
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: other, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}}}
	packet, err := m.Pack()
	require.NoError(t, err)
	asks, _ := parse(packet)
	require.False(t, asks)
	m.Response = true
	m.Answers = []dnsmessage.Resource{
		{Header: head, Body: &dnsmessage.TXTResource{TXT: []string{"dnsaddr=/ip4/192.168.0.1/tcp/1/p2p/" + testPeer}}},
		{Header: ours, Body: &dnsmessage.TXTResource{TXT: []string{"dnsaddr=nonsense", "other=1", "dnsaddr=/ip4/192.168.0.1/tcp/1"}}},
		{Header: ours, Body: &dnsmessage.AResource{}},
	}
	packet, err = m.Pack()
	require.NoError(t, err)
	_, claims := parse(packet)
	require.Empty(t, claims)
	for range maxRecords {
		m.Answers = append(m.Answers, m.Answers[0])
	}
	m.Answers = append(m.Answers, dnsmessage.Resource{Header: ours,
		Body: &dnsmessage.TXTResource{TXT: []string{"dnsaddr=/ip4/192.168.0.1/tcp/1/p2p/" + testPeer}}})
	packet, err = m.Pack()
	require.NoError(t, err)
	_, claims = parse(packet)
	require.Empty(t, claims, "further records are ignored")
}

func FuzzParse(f *testing.F) {
	q, err := question()
	require.NoError(f, err)
	f.Add(q)
	id, err := peer.Decode(testPeer)
	require.NoError(f, err)
	a, err := answer("label", id, []ma.Multiaddr{ma.StringCast("/ip4/192.168.0.7/tcp/4001")}, lifetime)
	require.NoError(f, err)
	f.Add(a)
	f.Fuzz(func(t *testing.T, packet []byte) {
		_, claims := parse(packet)
		for _, c := range claims {
			require.NotEmpty(t, c.id)
			require.LessOrEqual(t, len(c.addrs), maxAddrs)
			for _, a := range c.addrs {
				require.True(t, isLocal(a), "%s", a)
			}
		}
	})
}
