//go:build unix

package peerlane

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

// BenchmarkDial measures one conn from Dial to Close, beside gostream on the same hosts. The two take turns of 64 conns,
// so that a busy machine slows down both; cpu/gostream is the ratio of their CPU time, both sides included. Where the
// server speaks first, both exchange the same packets. Where the client does, gostream sends the negotiation with the
// first byte, and the round trip in which our Dial learns that the tag is served is one more.
func BenchmarkDial(b *testing.B) {
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		b.Run(string(tr)+"/server first", func(b *testing.B) { benchmarkDial(b, tr, false) })
		b.Run(string(tr)+"/client first", func(b *testing.B) { benchmarkDial(b, tr, true) })
	}
}

func benchmarkDial(b *testing.B, tr testnet.Transport, clientFirst bool) {
	x, y := testnet.Pair(b, tr)
	ctx := context.Background()
	require.NoError(b, x.Connect(ctx, peer.AddrInfo{ID: y.ID()}))
	ours, err := Listen(y, "/bench/ours")
	require.NoError(b, err)
	theirs, err := gostream.Listen(y, "/bench/theirs")
	require.NoError(b, err)
	for _, l := range []net.Listener{ours, theirs} {
		defer func() { _ = l.Close() }()
		go sendByte(l, clientFirst)
	}
	// Identify has told x of both tags, or gostream would not be lazy.
	require.Eventually(b, func() bool {
		known, err := x.Peerstore().SupportsProtocols(y.ID(), "/bench/theirs")
		return err == nil && len(known) == 1
	}, patience, time.Millisecond)

	const turn = 64
	run := func(dial func() (net.Conn, error)) time.Duration {
		before := cpuTime(b)
		for range turn {
			c, err := dial()
			if err == nil && clientFirst {
				_, err = c.Write([]byte("x"))
			}
			if err == nil {
				_, err = io.ReadAll(c)
			}
			if err != nil {
				b.Fatal(err)
			}
			_ = c.Close() // gostream over QUIC fails here: the peer has closed
		}
		return cpuTime(b) - before
	}
	var mine, gostreams time.Duration
	b.ResetTimer()
	for n := 0; n < b.N; n += turn {
		mine += run(func() (net.Conn, error) { return Dial(ctx, x, y.ID(), "/bench/ours") })
		gostreams += run(func() (net.Conn, error) { return gostream.Dial(ctx, x, y.ID(), "/bench/theirs") })
	}
	conns := float64((b.N + turn - 1) / turn * turn)
	b.ReportMetric(float64(mine)/conns, "cpu-ns/conn")
	b.ReportMetric(float64(mine)/float64(gostreams), "cpu/gostream")
}

// sendByte sends a byte on each conn, after it has got one if clientFirst, and closes it.
func sendByte(l net.Listener, clientFirst bool) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			p := []byte("x")
			if clientFirst {
				_, _ = io.ReadFull(c, p)
			}
			_, _ = c.Write(p)
			_ = c.Close()
		}()
	}
}

// cpuTime returns the CPU time that the process has used.
func cpuTime(b *testing.B) time.Duration {
	var use syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
