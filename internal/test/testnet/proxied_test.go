package testnet

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

func proxied() []Transport { return []Transport{TCPTLS, TCPNoise, QUIC} }

// quiet shows what must not happen.
const quiet = 300 * time.Millisecond

// echoStream makes b echo, and returns a stream of a's to it that works.
func echoStream(t *testing.T, a, b host.Host) network.Stream {
	t.Helper()
	b.SetStreamHandler("/echo", func(s network.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), 20*time.Second)
	defer cancel()
	s, err := a.NewStream(ctx, b.ID(), "/echo")
	require.NoError(t, err)
	requireEcho(t, s, "hello")
	return s
}

func requireEcho(t *testing.T, s network.Stream, msg string) {
	t.Helper()
	_, err := s.Write([]byte(msg))
	require.NoError(t, err)
	require.Equal(t, msg, readN(t, s, len(msg)))
}

func readN(t *testing.T, s network.Stream, n int) string {
	t.Helper()
	require.NoError(t, s.SetReadDeadline(time.Now().Add(20*time.Second)))
	buf := make([]byte, n)
	_, err := io.ReadFull(s, buf)
	require.NoError(t, err)
	return string(buf)
}

// requireSilent writes and checks that no echo comes for a moment.
func requireSilent(t *testing.T, s network.Stream, msg string) {
	t.Helper()
	_, err := s.Write([]byte(msg))
	require.NoError(t, err)
	require.NoError(t, s.SetReadDeadline(time.Now().Add(quiet)))
	n, err := s.Read(make([]byte, 1))
	var timeout net.Error // yamux does not know os.ErrDeadlineExceeded
	require.ErrorAs(t, err, &timeout, "read %d bytes", n)
	require.True(t, timeout.Timeout(), "read %d bytes, %v", n, err)
}

func TestProxiedHostsKnowOnlyTheProxy(t *testing.T) {
	for _, tr := range proxied() {
		t.Run(string(tr), func(t *testing.T) {
			a, b, f := Proxied(t, tr)
			s := echoStream(t, a, b)
			at := b.Addrs()
			require.Len(t, at, 1)
			require.Equal(t, f.(proxy).Addr(), hostPort(t, at[0]))
			require.Equal(t, at, a.Peerstore().Addrs(b.ID()), "after identify")
			require.Equal(t, at[0], s.Conn().RemoteMultiaddr())
			require.NotContains(t, at, b.Network().ListenAddresses()[0])
			require.Empty(t, a.Addrs())

			require.NoError(t, a.Network().ClosePeer(b.ID()))
			require.Eventually(t, func() bool { return len(b.Network().ConnsToPeer(a.ID())) == 0 }, 20*time.Second, time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			require.Error(t, b.Connect(ctx, peer.AddrInfo{ID: a.ID()}), "b must not find a")
		})
	}
}

func TestProxiedBytesPassTheProxy(t *testing.T) {
	t.Parallel() // it waits for real
	for _, tr := range proxied() {
		t.Run(string(tr), func(t *testing.T) {
			a, b, f := Proxied(t, tr)
			s := echoStream(t, a, b)
			f.Freeze()
			requireSilent(t, s, "held")
			f.Thaw()
			require.Equal(t, "held", readN(t, s, 4))
			f.SetDelay(50 * time.Millisecond)
			started := time.Now()
			requireEcho(t, s, "slow")
			require.GreaterOrEqual(t, time.Since(started), 100*time.Millisecond)
			f.SetDelay(0)
			f.Vanish(true)
			requireSilent(t, s, "lost")
		})
	}
}

func TestCutKillsATCPConnectionSoon(t *testing.T) {
	for _, tr := range []Transport{TCPTLS, TCPNoise} {
		t.Run(string(tr), func(t *testing.T) {
			a, b, f := Proxied(t, tr)
			s := echoStream(t, a, b)
			started := time.Now()
			f.Cut()
			_, err := s.Read(make([]byte, 1))
			require.Error(t, err)
			for h, far := range map[host.Host]peer.ID{a: b.ID(), b: a.ID()} {
				require.Eventually(t, func() bool { return len(h.Network().ConnsToPeer(far)) == 0 }, 20*time.Second, time.Millisecond, "the end")
			}
			require.Less(t, time.Since(started), 5*time.Second)
			requireEcho(t, echoStream(t, a, b), "again")
		})
	}
}

func TestCutLeavesAQUICConnectionToItsTimeoutAndADialWorks(t *testing.T) {
	t.Parallel() // it waits for real
	a, b, f := Proxied(t, QUIC)
	s := echoStream(t, a, b)
	f.Cut()
	requireSilent(t, s, "lost")
	require.Len(t, a.Network().ConnsToPeer(b.ID()), 1)
	require.NoError(t, a.Network().ClosePeer(b.ID()))
	requireEcho(t, echoStream(t, a, b), "again")
	require.Equal(t, 2, f.(*faultnet.UDP).Flows())
}

func TestAQUICConnectionSurvivesRebindLossAndAShortVanish(t *testing.T) {
	t.Parallel() // it waits for real
	a, b, f := Proxied(t, QUIC)
	s := echoStream(t, a, b)
	u := f.(*faultnet.UDP)
	before := b.Network().ConnsToPeer(a.ID())[0]
	u.Rebind()
	requireEcho(t, s, "rebound")
	u.SetLoss(0.1, 1)
	requireEcho(t, s, "lossy")
	u.SetLoss(0, 1)
	u.Vanish(true)
	requireSilent(t, s, "late")
	u.Vanish(false)
	require.Equal(t, "late", readN(t, s, 4))
	require.Equal(t, []network.Conn{before}, b.Network().ConnsToPeer(a.ID()))
}

func TestCutAfterBreaksATCPConnectionInTheMiddle(t *testing.T) {
	a, b, f := Proxied(t, TCPTLS)
	s := echoStream(t, a, b)
	f.(*faultnet.TCP).CutAfter(100 << 10)
	_, err := io.Copy(s, io.LimitReader(zeros{}, 16<<20))
	require.Error(t, err)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
