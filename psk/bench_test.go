package psk

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/flynn/noise"
)

var benchSizes = []int{64, 1 << 10, 4 << 10, 16 << 10, 64 << 10}

// BenchmarkSeal compares what one record costs: bare crypto/cipher, this package's direction, a whole Conn.Write into
// nothing, and flynn's CipherState, which allocates its nonce.
func BenchmarkSeal(b *testing.B) {
	keys, _ := fixedKeys()
	for _, size := range benchSizes {
		plain := make([]byte, size)
		out := make([]byte, 0, size+batchBuffer)
		aead, nonce := newAEAD(keys.send[:]), make([]byte, 12)
		d := newDirection(keys.send, rekeyInterval)
		state := noise.UnsafeNewCipherState(suite, keys.send, 0)
		c := writing(func(p []byte) (int, error) { return len(p), nil })
		for _, way := range []struct {
			name string
			run  func()
		}{
			{"bare", func() { aead.Seal(out, nonce, plain, nil) }},
			{"direction", func() { d.appendRecord(out, plain[:min(size, maxBody-tagSize)]) }},
			{"flynn", func() { _, _ = state.Encrypt(out, nil, plain) }},
			{"conn", func() { _, _ = c.Write(plain) }},
		} {
			b.Run(fmt.Sprintf("%s/%d", way.name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					way.run()
				}
			})
		}
	}
}

// BenchmarkOpen is the same for the reading side; each way opens what it sealed, so bare is the sum of both.
func BenchmarkOpen(b *testing.B) {
	keys, _ := fixedKeys()
	for _, size := range benchSizes {
		plain, got := make([]byte, size), make([]byte, size)
		sealed, opened := make([]byte, 0, size+tagSize), make([]byte, 0, size)
		aead, nonce := newAEAD(keys.send[:]), make([]byte, 12)
		b.Run(fmt.Sprintf("bare/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = aead.Open(opened, nonce, aead.Seal(sealed, nonce, plain, nil), nil)
			}
		})
		b.Run(fmt.Sprintf("conn/%d", size), func(b *testing.B) {
			w, r := memoryPair()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = w.Write(plain)
				_, _ = io.ReadFull(r, got)
			}
		})
	}
}

// BenchmarkTCP is one direction over loopback TCP, sealed and not.
func BenchmarkTCP(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for name, wrap := range map[string]func(a, b net.Conn) (net.Conn, net.Conn){
			"plain":  func(a, b net.Conn) (net.Conn, net.Conn) { return a, b },
			"sealed": func(a, b net.Conn) (net.Conn, net.Conn) { c, d := sealPair(a, b); return c, d },
		} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				from, to := wrap(tcpPair(b))
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{to}, make([]byte, 64<<10))
				}()
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := from.Write(p); err != nil {
						b.Fatal(err)
					}
				}
				_ = from.Close()
				<-done
			})
		}
	}
}

// BenchmarkHandshake is both sides of one handshake; Argon2id is not in it.
func BenchmarkHandshake(b *testing.B) {
	key := testKey(b, "one secret")
	from, to := testRing(b, key), testRing(b, key)
	b.ReportAllocs()
	for b.Loop() {
		shake(b, from, to, "prologue")
	}
}

// BenchmarkRespond compares the refusals, which must not differ, and the acceptance.
func BenchmarkRespond(b *testing.B) {
	key, other := testKey(b, "one secret"), testKey(b, "another secret")
	ring := testRing(b, key)
	good, _ := testRing(b, key).Initiate(nil)
	bad, _ := testRing(b, other).Initiate(nil)
	for _, test := range []struct {
		name string
		id   KeyID
		from *Initiator
	}{
		{"unknown id", other.ID(), bad},
		{"wrong key", key.ID(), bad},
		{"replay", key.ID(), good},
	} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = ring.Respond(nil, test.id, test.from.Message())
			}
		})
	}
}

// BenchmarkDerive is what the default parameters cost, once per key.
func BenchmarkDerive(b *testing.B) {
	for b.Loop() {
		if _, err := Derive([]byte("correct horse battery staple"), nil); err != nil {
			b.Fatal(err)
		}
	}
}
