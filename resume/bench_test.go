package resume

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkConn is a Conn over TCP on loopback: one ping-pong of 128 bytes, and Writes of 128 bytes and of 64 KiB one way. The
// metric x-plain is the time per turn, divided by that of the TCP conn alone, measured right before.
func BenchmarkConn(b *testing.B) {
	for _, bench := range []struct {
		name string
		size int
		echo bool
	}{{"pingpong/128", 128, true}, {"oneway/128", 128, false}, {"oneway/65536", 64 << 10, false}} {
		b.Run(bench.name, func(b *testing.B) {
			x, stop := benchmarked(b, plainPair, bench.echo)
			p := make([]byte, bench.size)
			turns, start := 0, time.Now()
			for ; time.Since(start) < 500*time.Millisecond; turns++ {
				turn(x, p, bench.echo)
			}
			stop()
			plain := float64(time.Since(start)) / float64(turns)

			x, stop = benchmarked(b, resumePair, bench.echo)
			b.SetBytes(int64(bench.size))
			b.ReportAllocs()
			start = time.Now()
			for b.Loop() {
				turn(x, p, bench.echo)
			}
			stop()
			b.ReportMetric(float64(time.Since(start))/float64(b.N)/plain, "x-plain")
		})
	}
}

func turn(x net.Conn, p []byte, echo bool) {
	_, _ = x.Write(p)
	if echo {
		_, _ = io.ReadFull(x, p)
	}
}

// benchmarked returns a conn whose other side echoes or discards, and what waits until that has taken everything.
func benchmarked(b *testing.B, pair func(*testing.B) (net.Conn, net.Conn, func()), echo bool) (net.Conn, func()) {
	x, y, stop := pair(b)
	done := make(chan struct{})
	go func() {
		w := io.Discard
		if echo {
			w = y
		}
		// The short cuts of a TCP conn are hidden: both do the same.
		_, _ = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{y}, make([]byte, 64<<10))
		close(done)
	}()
	return x, func() {
		_ = x.(interface{ CloseWrite() error }).CloseWrite()
		<-done
		stop()
	}
}

func resumePair(b *testing.B) (net.Conn, net.Conn, func()) {
	under, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	x, y, stop, err := paired(tcpDial(under.Addr().String()), under)
	require.NoError(b, err)
	return x, y, stop
}

func plainPair(b *testing.B) (net.Conn, net.Conn, func()) {
	under, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	x, err := net.Dial("tcp", under.Addr().String())
	require.NoError(b, err)
	y, err := under.Accept()
	require.NoError(b, err)
	return x, y, func() { _, _, _ = x.Close(), y.Close(), under.Close() }
}
