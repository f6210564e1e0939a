package nat64

import (
	"net/netip"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// Whatever a resolver answers, a prefix is one of RFC 6052's lengths under which one of the answers stands for one of ipv4Only's addresses.
func FuzzPrefixIn(f *testing.F) {
	for _, bits := range []int{32, 40, 48, 56, 64, 96} {
		p, err := six.Prefix(bits)
		require.NoError(f, err)
		for _, four := range ipv4OnlyAddrs {
			f.Add(synthesize(p, four).AsSlice())
		}
	}
	f.Add(append(six.AsSlice(), synthesize(wellKnown, ipv4OnlyAddrs[0]).AsSlice()...))
	f.Add([]byte{192, 0, 0, 170})
	f.Fuzz(func(t *testing.T, b []byte) {
		var addrs []netip.Addr
		for ; len(b) >= 16; b = b[16:] {
			addrs = append(addrs, netip.AddrFrom16([16]byte(b)))
		}
		if a, ok := netip.AddrFromSlice(b); ok {
			addrs = append(addrs, a)
		}
		p := prefixIn(addrs)
		if !p.IsValid() {
			return
		}
		require.Equal(t, p.Masked(), p)
		require.Contains(t, []int{32, 40, 48, 56, 64, 96}, p.Bits())
		stands := false
		for _, a := range addrs {
			four, ok := embedded(p, a)
			stands = stands || ok && (four == ipv4OnlyAddrs[0] || four == ipv4OnlyAddrs[1])
		}
		require.True(t, stands, "%v of %v", p, addrs)
	})
}

// An address is translated back to what it was, and only the IP address of it is another meanwhile.
func FuzzIn(f *testing.F) {
	for _, s := range []string{
		"/ip4/1.2.3.4/tcp/1", "/ip6/64:ff9b::102:304/udp/1/quic-v1", "/ip6/64:ff9b::7f00:1/tcp/1", "/ip6zone/eth0/ip6/fe80::1/tcp/1",
		"/dns4/example.com/tcp/1", "/ip6/2001:db8::1/tcp/1/p2p-circuit",
	} {
		f.Add(ma.StringCast(s).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil || len(a) == 0 {
			return
		}
		here := newTranslator()
		in := here.In(a)
		require.Len(t, in, len(a))
		require.True(t, in[1:].Equal(a[1:]), "%s of %s", in, a)
		if in.Equal(a) {
			return
		}
		four := ipOf(in)
		require.True(t, four.Is4() && isPublic(four), "%s of %s", in, a)
		require.Equal(t, ipOf(a), synthesize(wellKnown, four))
	})
}
