package netcheck

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
)

// count returns how many requests in a row are allowed, at most 10,000.
func count(l *limits, who func(i int) (peer.ID, netip.Addr)) (n int) {
	for i := range 10_000 {
		done, ok := l.begin(who(i))
		if !ok {
			return n
		}
		done()
		n++
	}
	return n
}

func TestLimitsOfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		home := netip.MustParseAddr("11.0.0.1")
		v6 := netip.MustParseAddr("2600:11::1")
		for _, tt := range []struct {
			name string
			who  func(i int) (peer.ID, netip.Addr)
			want int
		}{
			{"one peer", func(int) (peer.ID, netip.Addr) { return "p", home }, maxOfPeer},
			{"one peer from everywhere", func(i int) (peer.ID, netip.Addr) {
				return "p", netip.AddrFrom4([4]byte{11, 1, byte(i >> 8), byte(i)})
			}, maxOfPeer},
			{"one network", func(i int) (peer.ID, netip.Addr) { return peer.ID(fmt.Sprint(i)), home }, maxOfNetwork},
			{"one network of IPv6", func(i int) (peer.ID, netip.Addr) {
				b := v6.As16()
				b[15] = byte(i)
				return peer.ID(fmt.Sprint(i)), netip.AddrFrom16(b)
			}, maxOfNetwork},
			{"all networks", func(i int) (peer.ID, netip.Addr) {
				return peer.ID(fmt.Sprint(i)), netip.AddrFrom4([4]byte{11, 1, byte(i >> 8), byte(i)})
			}, maxInAll},
		} {
			l := newLimits()
			require.Equal(t, tt.want, count(l, tt.who), tt.name)
			require.Zero(t, count(l, tt.who), tt.name)
			time.Sleep(time.Minute)
			require.Equal(t, tt.want, count(l, tt.who), "%s, a minute later", tt.name)
			require.Empty(t, l.running)
		}
	})
}

func TestLimitsAtATime(t *testing.T) {
	l := newLimits()
	var all []func()
	for i := range 256 {
		if done, ok := l.begin(peer.ID(fmt.Sprint(i)), netip.AddrFrom4([4]byte{11, 0, 0, byte(i % 128)})); ok {
			all = append(all, done)
		}
	}
	require.Len(t, all, atATimeInAll)
	for _, done := range all {
		done()
	}
	all = nil
	for i := range 16 {
		if done, ok := l.begin(peer.ID(fmt.Sprint(i)), netip.AddrFrom4([4]byte{11, 0, 0, 200})); ok {
			all = append(all, done)
		}
	}
	require.Len(t, all, atATime)
	for _, done := range all {
		done()
	}
	require.Zero(t, l.total)
	require.Empty(t, l.running)
}
