package psk

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Row: N1, N2
func TestHandshakeThenSealOverTCP(t *testing.T) {
	from, to := testRing(t, testKey(t, "one secret")), testRing(t, testKey(t, "one secret"))
	initiator, responder := shake(t, from, to, "prologue")
	below, other := tcpPair(t)
	a, b := seal(below, initiator), seal(other, responder)
	require.Equal(t, below, a.NetConn())
	require.Equal(t, below.LocalAddr(), a.LocalAddr())
	require.Equal(t, below.RemoteAddr(), a.RemoteAddr())
	want := randomBytes(1 << 20)
	go func() {
		_, _ = a.Write(want)
		_ = a.CloseWrite()
	}()
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	go func() { _ = b.Close() }()
	_, err = a.Read(make([]byte, 1))
	require.Same(t, io.EOF, err)
	require.NoError(t, a.Close())
}

func TestASealedConnHasTheMethodsThatSealNames(t *testing.T) {
	conn := Seal(&fakeConn{}, nil)
	require.Implements(t, (*interface{ CloseRead() error })(nil), conn)
	require.Implements(t, (*interface{ CloseWrite() error })(nil), conn)
	require.Implements(t, (*interface{ NetConn() net.Conn })(nil), conn)
}

// There is no way to a conn without a key: other keys on the two sides give no byte, and there is nothing to fall back to.
//
// Row: N3
func TestOtherSecretsGiveNoByte(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	one, _ := shake(t, ring, ring, "one")
	_, two := shake(t, ring, ring, "two")
	a, b := net.Pipe()
	c, d := seal(a, one), seal(b, two)
	defer func() { _ = d.Close() }()
	go func() {
		_, _ = c.Write([]byte("for somebody else"))
		_ = c.Close()
	}()
	got, err := io.ReadAll(d)
	require.ErrorIs(t, err, ErrTampered)
	require.Empty(t, got)
}

func TestSecretsSealOneConn(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	s, _ := shake(t, ring, ring, "prologue")
	seal(&fakeConn{}, s)
	for _, test := range []struct {
		secrets *Secrets
		want    error
	}{{s, errUsed}, {nil, ErrInvalid}} {
		var wire bytes.Buffer
		c := seal(&fakeConn{read: strings.NewReader("anything").Read, write: wire.Write}, test.secrets)
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, test.want)
		_, err = c.Write([]byte("x"))
		require.ErrorIs(t, err, test.want)
		require.ErrorIs(t, c.CloseWrite(), test.want)
		require.NoError(t, c.Close())
		require.Zero(t, wire.Len(), "not one byte under a repeated key")
	}
}

func TestDeadlinesPassThrough(t *testing.T) {
	var read, write time.Time
	c := seal(&fakeConn{
		setReadDeadline:  func(at time.Time) error { read = at; return nil },
		setWriteDeadline: func(at time.Time) error { write = at; return errWire },
	}, nil)
	at := time.Now().Add(time.Hour)
	require.ErrorIs(t, c.SetDeadline(at), errWire)
	require.Equal(t, at, read)
	require.Equal(t, at, write)
	failing := seal(&fakeConn{setReadDeadline: func(time.Time) error { return errWire }}, nil)
	require.ErrorIs(t, failing.SetDeadline(at), errWire)
	require.ErrorIs(t, failing.CloseRead(), errWire)
}

// Any cut into writes, any reads, any rekey interval: the bytes come out as they went in.
//
// Row: N2
func TestAnyChunkingIsTransparent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ka, kb := fixedKeys()
		interval := rapid.Uint64Range(1, 5).Draw(rt, "interval")
		var wire bytes.Buffer
		a := newConn(&fakeConn{write: wire.Write}, ka, interval)
		a.out.aead = &spyAEAD{AEAD: a.out.aead, t: rt, seen: make(map[string]bool)}
		b := newConn(&fakeConn{read: wire.Read}, kb, interval)
		sizes := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(maxChunk-2, maxChunk+2), rapid.IntRange(0, maxBatch+100))
		want := writeAll(rt, a, rapid.SliceOfN(sizes, 1, 6).Draw(rt, "writes"))
		require.NoError(rt, a.Close())
		reads := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, 1<<17)), 1, 5).Draw(rt, "reads")
		var got []byte
		for i := 0; ; i++ {
			p := make([]byte, reads[i%len(reads)])
			n, err := b.Read(p)
			got = append(got, p[:n]...)
			if err != nil {
				require.Same(rt, io.EOF, err)
				break
			}
		}
		require.True(rt, bytes.Equal(want, got), "%d bytes in, %d out", len(want), len(got))
	})
}

func writeAll(rt *rapid.T, c *sealedConn, sizes []int) (all []byte) {
	for i, size := range sizes {
		p := bytes.Repeat([]byte{byte(i), 1}, size)[:size]
		n, err := c.Write(p)
		require.NoError(rt, err)
		require.Equal(rt, size, n)
		all = append(all, p...)
	}
	return all
}

// Whatever deadlines do to both sides, a writer that goes on with p[n:] and a reader that tries again see every byte once.
//
// Row: N2
func TestAnyDeadlinesLoseNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ka, kb := fixedKeys()
		var wire bytes.Buffer
		hiccup := rapid.IntRange(0, 2)
		a := newConn(&fakeConn{write: func(p []byte) (int, error) {
			if hiccup.Draw(rt, "write deadline") == 0 {
				n, _ := wire.Write(p[:rapid.IntRange(0, len(p)).Draw(rt, "left")])
				return n, os.ErrDeadlineExceeded
			}
			return wire.Write(p)
		}}, ka, 3)
		a.out.aead = &spyAEAD{AEAD: a.out.aead, t: rt, seen: make(map[string]bool)}
		b := newConn(&fakeConn{read: func(p []byte) (int, error) {
			if hiccup.Draw(rt, "read deadline") == 0 {
				return 0, os.ErrDeadlineExceeded
			}
			return wire.Read(p[:rapid.IntRange(1, len(p)).Draw(rt, "arrived")])
		}}, kb, 3)
		want := randomBytes(rapid.IntRange(1, 2*maxBatch).Draw(rt, "size"))
		for rest := want; len(rest) > 0; {
			n, err := a.Write(rest[:min(len(rest), rapid.IntRange(1, maxBatch+1).Draw(rt, "write"))])
			require.True(rt, err == nil || errors.Is(err, os.ErrDeadlineExceeded), "%v", err)
			rest = rest[n:]
		}
		for a.CloseWrite() != nil {
		}
		got := readPatiently(rt, b)
		require.True(rt, bytes.Equal(want, got), "%d bytes in, %d out", len(want), len(got))
	})
}

// readPatiently reads to the end and takes a deadline for a reason to go on.
func readPatiently(rt *rapid.T, c *sealedConn) (got []byte) {
	p := make([]byte, 40<<10)
	for {
		n, err := c.Read(p[:rapid.IntRange(1, len(p)).Draw(rt, "read")])
		got = append(got, p[:n]...)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			require.Zero(rt, n)
			continue
		}
		if err != nil {
			require.Same(rt, io.EOF, err)
			return got
		}
	}
}
