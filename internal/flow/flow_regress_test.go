package flow

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// drain reads a flow until it is closed.
func drain(f *Flow) {
	p := make([]byte, 4096)
	for {
		if _, err := f.Read(p); err != nil {
			return
		}
	}
}

// countConn counts Writes.
type countConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// tlsPair returns two ends of a TLS connection over TCP.
func tlsPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		_ = c.(*tls.Conn).Handshake()
		accepted <- c
	}()
	client, err = tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	server = <-accepted
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// A TLS conn whose Write has met its deadline is broken for good, and says "deadline" for ever after: the flow gives it up.
func TestACarrierThatDoesNotSurviveADeadlineIsGivenUp(t *testing.T) {
	client, _ := tlsPair(t)
	lost := make(chan error, 1)
	f := New(&Config{Window: 32 << 20, OnLost: func(err error) { lost <- err }})
	conn := &countConn{Conn: client}
	go drain(f)
	require.NoError(t, f.Attach(conn, 0, false))
	go func() {
		for conn.writes.Load() < 2 { // START, and the first of what is kept by then
			time.Sleep(time.Millisecond)
		}
		_ = f.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	}()
	_, err := f.Write(make([]byte, 24<<20)) // nobody reads at the other end
	require.NoError(t, err, "it is kept")
	require.Error(t, <-lost)
	require.Less(t, conn.writes.Load(), int64(1000))
	f.Close(net.ErrClosed)
	f.Wait()
}

// What is to be acknowledged may be in several chunks: the last of them is asked for.
func TestAwaitAckedAsksForTheLastByte(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			a, b := faultnet.Pipe(faultnet.LinkOptions{})
			x, y := New(nil), New(nil)
			go drain(x)
			go drain(y)
			for _, n := range []int{3000, 9000, 100 << 10} {
				_, err := x.Write(make([]byte, n))
				require.NoError(t, err)
			}
			done := make(chan error, 1)
			go func() { done <- x.AwaitAcked() }()
			require.NoError(t, x.Attach(a, 0, false))
			require.NoError(t, y.Attach(b, 0, false))
			began := time.Now()
			require.NoError(t, <-done)
			require.Zero(t, time.Since(began))
			for _, f := range []*Flow{x, y} {
				f.Close(net.ErrClosed)
				f.Wait()
			}
		})
	}
}

// Close forgets what is kept, whoever is about to send it.
func TestNothingIsKeptAfterClose(t *testing.T) {
	for range 100 {
		a, b := net.Pipe()
		f := New(nil)
		_, err := f.Write(make([]byte, 100000))
		require.NoError(t, err)
		go func() { _, _ = io.Copy(io.Discard, b) }()
		require.NoError(t, f.Attach(a, 0, false))
		f.Close(net.ErrClosed)
		f.Wait()
		kept, _ := f.Kept()
		require.Zero(t, kept)
		_ = b.Close()
	}
}

// Batches hold their whole buffers, which must not be much more than what is in them.
func TestBatchesHoldAtMostThreeTimesTheWindow(t *testing.T) {
	for _, size := range []int{batchCopy, batchCopy + 1, 64 << 10, MaxBatch} {
		f := New(nil)
		for f.out.room() >= size {
			b := f.NewBatch()
			_, err := f.WriteBatch(b, append(b.Buffer(), make([]byte, size)...))
			require.NoError(t, err)
		}
		held := 0
		for c := f.out.head; c != nil; c = c.next {
			held += len(c.buf)
		}
		require.LessOrEqual(t, held, 3<<20, "batches of %d bytes", size)
		f.Close(net.ErrClosed)
		f.Wait()
	}
}
