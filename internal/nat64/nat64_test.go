package nat64

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// A site is the network of a machine, as a Translator sees it.
type site struct {
	four, six netip.Addr // of the machine; invalid: it has none
	answer    []netip.Addr
	err       error
	wait      time.Duration
	asked     int
}

func (s *site) translator() *Translator {
	t := newTranslator()
	t.route = func(to netip.Addr) (netip.Addr, bool) {
		from := s.six
		if to.Is4() {
			from = s.four
		}
		return from, from.IsValid()
	}
	t.lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		s.asked++
		if network != "ip6" || host != "ipv4only.arpa." {
			return nil, errors.New("not what RFC 7050 asks")
		}
		select {
		case <-time.After(s.wait):
			return s.answer, s.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return t
}

var (
	six      = netip.MustParseAddr("2001:db8::7")
	notFound = &net.DNSError{Err: "no such host", IsNotFound: true}
	timeout  = &net.DNSError{Err: "timeout", IsTimeout: true}
)

func TestAddressesOfANAT64(t *testing.T) {
	for text, want := range map[string]string{ // RFC 6052, section 2.4
		"2001:db8::/32":           "2001:db8:c000:221::",
		"2001:db8:100::/40":       "2001:db8:1c0:2:21::",
		"2001:db8:122::/48":       "2001:db8:122:c000:2:2100::",
		"2001:db8:122:300::/56":   "2001:db8:122:3c0:0:221::",
		"2001:db8:122:344::/64":   "2001:db8:122:344:c0:2:2100::",
		"2001:db8:122:344::/96":   "2001:db8:122:344::192.0.2.33",
		"64:ff9b::/96":            "64:ff9b::192.0.2.33",
		"2001:db8:122:344:1::/96": "",
	} {
		p, four := netip.MustParsePrefix(text), netip.MustParseAddr("192.0.2.33")
		got := synthesize(p, four)
		if want != "" {
			require.Equal(t, netip.MustParseAddr(want), got, text)
		}
		back, ok := embedded(p, got)
		require.True(t, ok, text)
		require.Equal(t, four, back, text)
		for _, only := range ipv4OnlyAddrs {
			require.Equal(t, p, prefixIn([]netip.Addr{six, synthesize(p, only)}), text)
		}
	}
	_, ok := embedded(wellKnown, six)
	require.False(t, ok)
	_, ok = embedded(netip.MustParsePrefix("2001:db8:122:344::/64"), netip.MustParseAddr("2001:db8:122:344:c0:2:2100:1"))
	require.False(t, ok, "bits behind the address are zero")
	require.False(t, prefixIn([]netip.Addr{six, netip.MustParseAddr("::ffff:192.0.0.170"), ipv4OnlyAddrs[0]}).IsValid())
}

// A machine with IPv4 dials as ever, and does not even ask.
func TestWithIPv4NothingIsTranslated(t *testing.T) {
	s := &site{four: netip.MustParseAddr("192.168.1.2"), six: six, answer: []netip.Addr{synthesize(wellKnown, ipv4OnlyAddrs[0])}}
	tr := s.translator()
	a := ma.StringCast("/ip4/11.0.0.1/tcp/4001")
	require.Equal(t, a, tr.Out(t.Context(), a))
	_, ok := tr.Prefix(t.Context())
	require.False(t, ok)
	require.Zero(t, s.asked)

	s.four, s.six = netip.Addr{}, netip.Addr{} // and so does one without a network
	require.Equal(t, a, tr.Out(t.Context(), a))
	require.Zero(t, s.asked)
}

func TestOutAndIn(t *testing.T) {
	own := netip.MustParsePrefix("2600:64::/96")
	s := &site{six: six, answer: []netip.Addr{synthesize(own, ipv4OnlyAddrs[1])}}
	tr := s.translator()
	for from, to := range map[string]string{
		"/ip4/11.0.0.1/udp/4001/quic-v1": "/ip6/2600:64::b00:1/udp/4001/quic-v1",
		"/ip4/11.0.0.1/tcp/80/ws":        "/ip6/2600:64::b00:1/tcp/80/ws",
		"/ip4/192.168.1.1/tcp/4001":      "", // private networks are not behind a NAT64
		"/ip4/127.0.0.1/tcp/4001":        "",
		"/ip6/2600::1/tcp/4001":          "",
		"/dns4/example.com/tcp/4001":     "",
		"/unix/run/app.sock":             "",
	} {
		a, want := ma.StringCast(from), ma.StringCast(from)
		if to != "" {
			want = ma.StringCast(to)
		}
		got := tr.Out(t.Context(), a)
		require.Equal(t, want.String(), got.String())
		require.Equal(t, from, tr.In(got).String())
		require.Equal(t, from, a.String(), "it is not changed")
	}
	require.Equal(t, "/ip4/11.0.0.1/tcp/1", tr.In(ma.StringCast("/ip6/64:ff9b::b00:1/tcp/1")).String())
	private := ma.StringCast("/ip6/64:ff9b::c0a8:101/tcp/1")
	require.Equal(t, private, tr.In(private))
	require.Equal(t, 1, s.asked)
	require.Nil(t, tr.Out(t.Context(), nil))
}

// What the resolver says is believed for ten minutes, in one network; where it does not answer the prefix is the well-known one.
func TestThePrefixIsFoundOnceInEachNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := netip.MustParsePrefix("2600:64::/96")
		s := &site{six: six, err: timeout}
		tr := s.translator()
		requirePrefix := func(want netip.Prefix, asked int) {
			t.Helper()
			p, ok := tr.Prefix(t.Context())
			require.Equal(t, want, p)
			require.Equal(t, want.IsValid(), ok)
			require.Equal(t, asked, s.asked)
		}
		requirePrefix(wellKnown, 1)
		s.err, s.answer = nil, []netip.Addr{synthesize(own, ipv4OnlyAddrs[0])}
		requirePrefix(wellKnown, 1)
		time.Sleep(keptFailed)
		requirePrefix(own, 2)
		s.answer = nil
		s.err = notFound
		time.Sleep(keptFor - time.Second)
		requirePrefix(own, 2)
		s.six = netip.MustParseAddr("2001:db8:1::7") // another network, without a NAT64
		requirePrefix(netip.Prefix{}, 3)
		requirePrefix(netip.Prefix{}, 3)
		time.Sleep(keptFor)
		s.wait = time.Hour
		began := time.Now()
		requirePrefix(wellKnown, 4)
		require.Equal(t, lookupTime, time.Since(began))
	})
}

// A dial that is given up leaves no wrong finding behind, and one that waits for it goes on.
func TestADialThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{six: six, answer: []netip.Addr{synthesize(wellKnown, ipv4OnlyAddrs[0])}, wait: lookupTime / 2}
		tr := s.translator()
		ctx, cancel := context.WithTimeout(t.Context(), lookupTime/4)
		defer cancel()
		second := make(chan bool)
		go func() {
			synctest.Wait() // the first one asks
			_, ok := tr.Prefix(t.Context())
			second <- ok
		}()
		_, ok := tr.Prefix(ctx)
		require.False(t, ok)
		require.True(t, <-second)
		require.Equal(t, 2, s.asked)

		tr.asking <- struct{}{}
		_, ok = tr.Prefix(ctx)
		require.False(t, ok)
	})
}

// The system's routes tell without a packet.
func TestSystemRoute(t *testing.T) {
	from, ok := systemRoute(netip.MustParseAddr("127.0.0.1"))
	require.True(t, ok)
	require.Equal(t, netip.MustParseAddr("127.0.0.1"), from)
}
