package frame

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/peerlane/peerlane/internal/zstd"
)

// benchSizes sweeps bodies from a ping to many frames.
var benchSizes = []int{0, 64, 512, 4 << 10, 32 << 10, MaxPayload, 1 << 20}

// sweep runs fn for each size, with bytes per second and allocations.
func sweep(b *testing.B, fn func(b *testing.B, n int)) {
	b.Helper()
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			fn(b, n)
		})
	}
}

// BenchmarkWrite lays out a body as frames of at most MaxPayload bytes into a reused buffer.
func BenchmarkWrite(b *testing.B) {
	sweep(b, func(b *testing.B, n int) {
		body := pattern(n)
		buf := parts(nil, body)
		for b.Loop() {
			buf = parts(buf[:0], body)
		}
	})
}

// BenchmarkRead reads a body's frames from a source that never waits.
func BenchmarkRead(b *testing.B) {
	sweep(b, func(b *testing.B, n int) {
		src := parts(nil, pattern(n))
		r := NewReader(&forever{src: src}, nil)
		for b.Loop() {
			for {
				h, _, err := r.Next()
				if err != nil {
					b.Fatal(err)
				}
				if h.Flags == FlagFin {
					break
				}
			}
		}
	})
}

func BenchmarkConsumeHeader(b *testing.B) {
	buf := AppendHeader(nil, Header{Length: 64, Type: TypeStreamData, ID: 9})
	b.SetBytes(HeaderSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ConsumeHeader(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRequest writes a request's one frame and takes it apart again.
func BenchmarkRequest(b *testing.B) {
	intern := table("echo")
	for _, n := range benchSizes[:5] {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			body := pattern(n)
			s := Start{Total: n, Timeout: 1500e6, Link: "echo"}
			buf := make([]byte, 0, n+64)
			for b.Loop() {
				buf = AppendHeader(buf[:0], Header{Length: StartSize(TypeRequest, 0, &s) + n, Type: TypeRequest, ID: 1})
				buf = append(AppendStart(buf, TypeRequest, 0, s), body...)
				h, at, err := ConsumeHeader(buf)
				if err != nil {
					b.Fatal(err)
				}
				if _, got, err := ConsumeStart(buf[at:], h.Type, h.Flags, intern); err != nil || len(got) != n {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkHello reads a hello and lays it out again.
func BenchmarkHello(b *testing.B) {
	wire := vectors(b, "hello.hex")["hello session with psk"]
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		h, err := parseHello(bytes.NewReader(wire))
		if err != nil {
			b.Fatal(err)
		}
		AppendHello(nil, h)
	}
}

func BenchmarkCompressText(b *testing.B) { benchCompress(b, text) }

func BenchmarkCompressRandom(b *testing.B) {
	benchCompress(b, func(n int) []byte { return random(1, n) })
}

func benchCompress(b *testing.B, body func(n int) []byte) {
	b.Helper()
	sweep(b, func(b *testing.B, n int) {
		body := body(n)
		for b.Loop() {
			Compress(body)
		}
	})
}

func BenchmarkDecompress(b *testing.B) {
	sweep(b, func(b *testing.B, n int) {
		if n < MinCompress {
			b.Skip("never compressed") // Compress refuses it: no peer of ours sends one
		}
		small := zstd.Append(nil, text(n))
		for b.Loop() {
			if _, err := Decompress(small, n); err != nil {
				b.Fatal(err)
			}
		}
	})
}
