package peerlane

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

// The bytes of a conn are the bytes of the stream, so gostream may be on either side.

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// halfClose closes the write side of a gostream conn, which has the method without saying so.
func halfClose(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
}

// exchange sends a megabyte each way, half-closing behind it, and checks what arrives.
func exchange(t *testing.T, dialed, accepted net.Conn) {
	t.Helper()
	there, back := noise(1<<20), bytes.Repeat(noise(1<<10), 1<<10)
	errs := make(chan error, 1)
	go func() {
		got, err := io.ReadAll(accepted)
		if err == nil && !bytes.Equal(got, there) {
			t.Error("what was dialed sent other bytes")
		}
		_, werr := accepted.Write(back)
		if err == nil {
			err = werr
		}
		errs <- err
		_ = accepted.Close()
	}()
	_, err := dialed.Write(there)
	require.NoError(t, err)
	halfClose(t, dialed)
	require.Equal(t, back, readAll(t, dialed))
	require.NoError(t, <-errs)
	require.NoError(t, dialed.Close())
}

func TestGostreamDialsAPeerlaneListener(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for range 2 { // the second time gostream negotiates lazily
			dialed, err := gostream.Dial(testContext(t), a, b.ID(), testTag)
			require.NoError(t, err)
			_, err = dialed.Write(nil) // sends the negotiation that gostream puts off
			require.NoError(t, err)
			accepted, err := l.Accept()
			require.NoError(t, err)
			exchange(t, dialed, accepted)
		}
		requireNoStreams(t, testTag, a, b)
	})
}

func TestPeerlaneDialsAGostreamListener(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l, err := gostream.Listen(b, testTag)
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		for range 2 {
			dialed, err := Dial(testContext(t), a, b.ID(), testTag)
			require.NoError(t, err)
			accepted, err := l.Accept()
			require.NoError(t, err)
			exchange(t, dialed, accepted)
		}
		requireNoStreams(t, testTag, a, b)
	})
}

// A gostream client that writes and closes at once must be heard, though its negotiation was never answered.
func TestAGostreamClientThatWritesAndClosesIsHeard(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for range 2 {
			dialed, err := gostream.Dial(testContext(t), a, b.ID(), testTag)
			require.NoError(t, err)
			_, err = dialed.Write([]byte("bye"))
			require.NoError(t, err)
			require.NoError(t, dialed.Close())
			accepted, err := l.Accept()
			require.NoError(t, err)
			require.Equal(t, "bye", string(readAll(t, accepted)))
			require.NoError(t, accepted.Close())
		}
	})
}
