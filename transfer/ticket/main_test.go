package ticket

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alice has an Ed25519 key, bob an RSA key, whose ID is a hash.
const (
	alice = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	bob   = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
)

func id(t testing.TB, text string) peer.ID {
	t.Helper()
	id, err := peer.Decode(text)
	require.NoError(t, err)
	return id
}

func addrs(t testing.TB, texts ...string) (all []ma.Multiaddr) {
	t.Helper()
	for _, text := range texts {
		a, err := ma.NewMultiaddr(text)
		require.NoError(t, err, text)
		all = append(all, a)
	}
	return all
}

// four are the addresses of a host with two networks.
var four = []string{
	"/ip4/198.51.100.7/udp/40123/quic-v1", "/ip4/198.51.100.7/tcp/40123",
	"/ip6/2001:db8::7/udp/40123/quic-v1", "/ip4/192.168.1.7/udp/40123/quic-v1",
}

// sample is a ticket as send prints it.
func sample(t testing.TB) Ticket {
	k := Ticket{Token: make([]byte, 16), Sources: []peer.AddrInfo{{ID: id(t, alice), Addrs: addrs(t, four...)}}}
	for i := range k.Root {
		k.Root[i] = byte(i)
	}
	for i := range k.Token {
		k.Token[i] = byte(0xf0 + i)
	}
	return k
}

func encoded(t testing.TB, k Ticket) string {
	t.Helper()
	text, err := k.Encode()
	require.NoError(t, err)
	return text
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	require.NoError(t, err)
	return b
}
