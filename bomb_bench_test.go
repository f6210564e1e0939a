package peerlane

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/internal/zstd"
	"github.com/peerlane/peerlane/peerlanetest"
)

// dialBomber opens a session that may send compressed bodies, from a host of its own, and discards what it is answered.
func dialBomber(tb testing.TB, b host.Host) *Conn {
	tb.Helper()
	a := testnet.Host(tb, testnet.TCPTLS)
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	c := openCarrier(tb, a, b)
	require.NoError(tb, frame.WriteHello(c, frame.AppendHello(nil, &frame.Hello{
		Kind: frame.KindHello, Version: frame.Version, Role: frame.RoleSession, Limits: rawLimits, Caps: frame.CapZstd})))
	body, err := frame.ReadHello(c)
	require.NoError(tb, err)
	ack, _, err := frame.ConsumeHello(body)
	require.NoError(tb, err)
	require.Equal(tb, frame.KindAck, ack.Kind)
	return c
}

// compressedRequest is a request whose body is packed, which unpacks to raw bytes.
func compressedRequest(id uint64, packed []byte, raw int) []byte {
	start := frame.AppendStart(nil, frame.TypeRequest, frame.FlagCompressed, frame.Start{Total: len(packed), Raw: raw})
	b := frame.AppendHeader(nil, frame.Header{Length: len(start) + len(packed), Type: frame.TypeRequest, Flags: frame.FlagCompressed, ID: id})
	return append(append(b, start...), packed...)
}

// bombard sends bombs of raw zeros to b until stop, over a session of a peer of its own, or if raw is negative ordinary requests of so many
// bytes: a megabyte a second, so that what is measured is what the server makes of them.
func bombard(tb testing.TB, b host.Host, raw int) (stop func()) {
	c := dialBomber(tb, b)
	packed := zstd.Append(nil, make([]byte, max(raw, 0)))
	request := func(id uint64) []byte { return compressedRequest(id, packed, raw) }
	if raw < 0 {
		request = func(id uint64) []byte { return requestHead(id, -raw, noise(-raw)) }
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(io.Discard, c) })
	both.Go(func() {
		for id := uint64(1); ; {
			var some []byte
			for len(some) < 32<<10 {
				some = append(some, request(id)...)
				id += 2
			}
			if _, err := c.Write(some); err != nil {
				return
			}
			time.Sleep(time.Duration(len(some)) * time.Microsecond)
		}
	})
	return func() {
		c.resetWith(9)
		both.Wait()
	}
}

// delays calls b for d, one call after the other, and returns how long the calls took, in order of size, and how many failed.
func delays(tb testing.TB, c *Client, b host.Host, body []byte, d time.Duration) (all []time.Duration, failed int) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		began := time.Now()
		if _, err := c.Send(context.Background(), b.ID(), callTag, body); err != nil {
			failed++
			if failed == 1 {
				tb.Log(err)
			}
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all, failed
}

// BenchmarkCallsUnderBombs measures the calls of an honest peer while others flood the server with bodies that unpack to far more than they
// have on the wire.
func BenchmarkCallsUnderBombs(b *testing.B) {
	small := []byte("hello")
	text := bytes.Repeat([]byte("peerlane "), 8000)
	for _, load := range []struct{ bombers, raw int }{{0, 0}, {1, -200}, {1, 64 << 10}, {1, 1 << 20}, {1, 32 << 20}, {4, 32 << 20}} {
		for _, body := range [][]byte{small, text} {
			b.Run(fmt.Sprintf("%dx%dKiB/%dB", load.bombers, load.raw>>10, len(body)), func(b *testing.B) {
				y := testnet.Host(b, testnet.TCPTLS)
				s, err := NewServer(y, nil)
				require.NoError(b, err)
				defer func() { _ = s.Stop() }()
				require.NoError(b, s.Start(callTag, echoHandler))
				x := testnet.Host(b, testnet.TCPTLS)
				peerlanetest.Teach(x, y.ID(), y.Addrs()...)
				c, err := NewClient(x, nil)
				require.NoError(b, err)
				defer func() { _ = c.Close() }()
				_, _ = delays(b, c, y, body, 200*time.Millisecond)
				for range load.bombers {
					defer bombard(b, y, load.raw)()
				}
				var all []time.Duration
				failed := 0
				for b.Loop() {
					all, failed = delays(b, c, y, body, 2*time.Second)
				}
				b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
				b.ReportMetric(float64(failed)/float64(len(all)), "failed")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
