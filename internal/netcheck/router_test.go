package netcheck

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newRouter answers datagrams, and drops the first.
func newRouter(t *testing.T, answer func(request []byte) []byte) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for i := 0; ; i++ {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if i > 0 {
				_, _ = c.WriteTo(answer(b[:n]), from)
			}
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		<-done
	})
	return addrPort(c.LocalAddr())
}

func TestNATPMP(t *testing.T) {
	t.Parallel() // it waits
	want := netip.MustParseAddr("11.0.0.9")
	for _, tt := range []struct {
		name    string
		answer  []byte
		outside netip.Addr
		ok      bool
	}{
		{"answer", append([]byte{0, 128, 0, 0, 0, 0, 0, 1}, want.AsSlice()...), want, true},
		{"answer without an address", []byte{0, 128, 0, 0}, netip.Addr{}, true},
		{"refusal", []byte{0, 128, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0}, netip.Addr{}, false},
	} {
		at := newRouter(t, func(request []byte) []byte {
			require.Equal(t, []byte{0, 0}, request)
			return tt.answer
		})
		outside, ok := askNATPMP(t.Context(), at)
		require.Equal(t, tt.outside, outside, tt.name)
		require.Equal(t, tt.ok, ok, tt.name)
	}
}

func TestPCP(t *testing.T) {
	t.Parallel() // it waits
	own := netip.MustParseAddr("192.168.1.2")
	for result, ok := range map[byte]bool{0: true, 1: false} {
		at := newRouter(t, func(request []byte) []byte {
			require.Len(t, request, 24)
			require.EqualValues(t, 2, request[0])
			require.Equal(t, own.As16(), [16]byte(request[8:]))
			b := make([]byte, 24)
			b[0], b[1], b[3] = 2, 128, result
			binary.BigEndian.PutUint32(b[8:], 1)
			return b
		})
		require.Equal(t, ok, askPCP(t.Context(), at, own))
	}
}

// A malformed answer is ignored, without another request, and the wait for a good one ends with the context.
func TestMalformedRouterAnswersAreIgnored(t *testing.T) {
	t.Parallel() // it waits
	var asked atomic.Int64
	at := newRouter(t, func([]byte) []byte {
		asked.Add(1)
		return []byte{7}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, ok := askNATPMP(ctx, at)
	require.False(t, ok)
	require.False(t, askPCP(ctx, at, netip.MustParseAddr("192.168.1.2")))
	require.LessOrEqual(t, asked.Load(), int64(10))
}

func TestARouterWithAClosedPort(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	at := addrPort(c.LocalAddr())
	require.NoError(t, c.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, ok := askNATPMP(ctx, at)
	require.False(t, ok)
}
