package peerlane

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/pipe"
	"github.com/peerlane/peerlane/internal/test/testnet"
)

// The hazards of libp2p streams under a net.Conn. Each of these tests fails on a bare stream of the transports it names.

// waitBlocked waits until n goroutines are inside the function with this name.
func waitBlocked(t *testing.T, function string, n int) {
	t.Helper()
	buf := make([]byte, 4<<20)
	require.Eventually(t, func() bool {
		stacks := string(buf[:runtime.Stack(buf, true)])
		return strings.Count(stacks, "peerlane."+function+"(") >= n
	}, patience, time.Millisecond, "%d goroutines in %s", n, function)
}

// go-yamux: two goroutines that write one stream overrun its window, and the receiver ends the whole connection.
// Row: P4, F1.
func TestY1ConcurrentWritersKeepTheConnection(t *testing.T) {
	const writers, chunk, chunks = 8, 1 << 10, 512
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		c, far := connPair(t, a, l)
		bystander, farBystander := connPair(t, a, l)

		var writing sync.WaitGroup
		for id := range writers {
			writing.Go(func() {
				block := bytes.Repeat([]byte{byte(id)}, chunk)
				for range chunks {
					if _, err := c.Write(block); err != nil {
						t.Errorf("writer %d: %v", id, err)
						return
					}
				}
			})
		}
		got := make([]byte, chunk)
		require.NoError(t, far.SetReadDeadline(time.Now().Add(patience)))
		for i := range writers * chunks {
			_, err := io.ReadFull(far, got)
			require.NoError(t, err, "block %d", i)
			require.Equal(t, bytes.Repeat(got[:1], chunk), got, "block %d is of several writers", i)
		}
		writing.Wait()

		_, err := bystander.Write([]byte("alive"))
		require.NoError(t, err)
		require.NoError(t, bystander.CloseWrite())
		require.Equal(t, "alive", string(readAll(t, farBystander)))
	})
}

// go-yamux: many writers and a reader that is slower than all of them; a lost window update leaves writers waiting.
// Row: P4, F2.
func TestY1ConcurrentWritersFinishWithASlowReader(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const writers, size = 16, 192 << 10
		c, far := newPair(t, a, b)
		var writing sync.WaitGroup
		for range writers {
			writing.Go(func() {
				if _, err := c.Write(make([]byte, size)); err != nil {
					t.Errorf("write: %v", err)
				}
			})
		}
		require.NoError(t, far.SetReadDeadline(time.Now().Add(patience)))
		small := make([]byte, 1000)
		for total := 0; total < writers*size; {
			n, err := far.Read(small)
			require.NoError(t, err, "after %d bytes", total)
			total += n
		}
		writing.Wait()
	})
}

// go-yamux: one token wakes one of several blocked readers; the others sleep for ever.
func TestY2EveryBlockedReadReturnsOnClose(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for range 5 {
			c, _ := connPair(t, a, l)
			errs := make(chan error, 3)
			for range cap(errs) {
				go func() {
					_, err := c.Read(make([]byte, 16))
					errs <- err
				}()
			}
			waitBlocked(t, "(*Conn).Read", cap(errs))
			require.NoError(t, c.Close())
			for range cap(errs) { // not after the linger in the background either
				err := within(t, lingerTime/2, "Read", func() error { return <-errs })
				require.ErrorIs(t, err, net.ErrClosed)
			}
		}
	})
}

func TestY2EveryBlockedCallReturnsWhenTheConnectionDies(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		const calls = 3
		errs := make(chan error, 2*calls)
		for range calls {
			go func() { _, err := c.Read(make([]byte, 16)); errs <- err }()
			go func() { errs <- writeUntilError(c) }()
		}
		waitBlocked(t, "(*Conn).Read", calls)
		waitBlocked(t, "(*Conn).Write", calls)
		require.NoError(t, far.under.Close())
		for range cap(errs) {
			err := within(t, patience, "Read or Write", func() error { return <-errs })
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}
	})
}

// go-yamux: no STOP_SENDING; after the peer's Close a writer fills the window and then blocks for ever.
// Row: C3.
func TestY3AWriterLearnsThatThePeerHasClosed(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		require.NoError(t, far.Close())
		err := within(t, patience, "Write", func() error { return writeUntilError(c) })
		require.ErrorIs(t, err, syscall.ECONNRESET)
		var typed *Error
		require.ErrorAs(t, err, &typed)
		require.True(t, typed.Remote)
	})
}

func TestY3AWriterBlockedOnTheWindowLearnsThatThePeerHasClosed(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		errs := make(chan error, 1)
		go func() { errs <- writeUntilError(c) }()
		waitBlocked(t, "(*Conn).Write", 1)
		require.NoError(t, far.Close())
		err := within(t, patience, "Write", func() error { return <-errs })
		require.ErrorIs(t, err, syscall.ECONNRESET)
	})
}

// A peer that neither ends its side nor writes must not hold the stream of a closed conn for ever.
func TestY3AClosedConnIsReleasedThoughThePeerStaysSilent(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		if c.linger > 0 {
			c.linger = 50 * time.Millisecond
		}
		require.NoError(t, c.Close())
		requireNoStreams(t, testTag, a)
		err := within(t, patience, "Write", func() error { return writeUntilError(far) })
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Empty(t, readAll(t, far))
	})
}

// go-yamux: a deadline error is no os.ErrDeadlineExceeded; data comes after the deadline, or with a timeout error; a
// Read of nothing blocks.
func TestY4DeadlineErrorsAreTheSameOnEveryTransport(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, _ := newPair(t, a, b)
		require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Millisecond)))
		_, readErr := c.Read(make([]byte, 1))
		writeErr := writeUntilError(c)
		for _, err := range []error{readErr, writeErr} {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NotErrorIs(t, err, net.ErrClosed)
			var ne net.Error
			require.ErrorAs(t, err, &ne)
			require.True(t, ne.Timeout())
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			require.Equal(t, Network, op.Net)
		}
	})
}

func TestY4NoDataIsReadAfterTheDeadline(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		_, err := far.Write([]byte("0123456789"))
		require.NoError(t, err)
		one := make([]byte, 1)
		_, err = c.Read(one) // the rest is buffered now
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(deadline.Past))
		for range 20 {
			n, err := c.Read(one)
			require.Zero(t, n)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		require.NoError(t, c.SetReadDeadline(time.Time{}))
		require.NoError(t, far.CloseWrite())
		require.Equal(t, "123456789", string(readAll(t, c)))
	})
}

func TestY4ReadOfNothingReturnsAtOnce(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, _ := newPair(t, a, b)
		err := within(t, patience, "Read(nil)", func() error { _, err := c.Read(nil); return err })
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(deadline.Past))
		_, err = c.Read(nil)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

// QUIC: Close does not unblock a Write that waits for the peer's window.
func TestQ1CloseUnblocksAWriteStuckInFlowControl(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		for name, shut := range map[string]func(*Conn) error{"Close": (*Conn).Close, "CloseWrite": (*Conn).CloseWrite} {
			c, _ := newPair(t, a, b)
			errs := make(chan error, 1)
			go func() { errs <- writeUntilError(c) }()
			waitBlocked(t, "(*Conn).Write", 1)
			require.NoError(t, within(t, patience, name, func() error { return shut(c) }))
			err := within(t, patience, "Write", func() error { return <-errs })
			require.ErrorIs(t, err, net.ErrClosed, name)
			require.NoError(t, c.Close())
			require.NoError(t, listenerOf(b, []protocol.ID{testTag}).Close())
		}
	})
}

// QUIC: Read returns the last bytes together with io.EOF; a caller that looks at the error first loses them.
func TestQ2TheLastBytesComeWithoutAnError(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		buf := make([]byte, 64)
		for range 20 {
			c, far := connPair(t, a, l)
			_, err := far.Write([]byte("tail"))
			require.NoError(t, err)
			require.NoError(t, far.CloseWrite())
			n, err := c.Read(buf)
			require.NoError(t, err)
			require.Equal(t, "tail", string(buf[:n]))
			for range 2 {
				n, err = c.Read(buf)
				require.Zero(t, n)
				require.True(t, err == io.EOF, "want exactly io.EOF, got %T %v", err, err)
			}
			require.NoError(t, errors.Join(c.Close(), far.Close()))
		}
	})
}

// QUIC: a reset after the end destroys what the peer has not read yet; so Close must not reset there. On yamux it is
// the only way to stop the peer's writes, and must come behind the end.
func TestQ3WhatWasWrittenBeforeCloseIsRead(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, tr testnet.Transport) {
		size := 150 << 10
		if tr == loopback {
			size = pipe.Window
		}
		c, far := newPair(t, a, b)
		sent := bytes.Repeat([]byte("peerlane"), size/8)
		_, err := c.Write(sent)
		require.NoError(t, err)
		_, err = far.Write([]byte("never read"))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		err = within(t, patience, "Write", func() error { return writeUntilError(far) })
		require.ErrorIs(t, err, syscall.ECONNRESET) // the close has arrived here
		require.Equal(t, sent, readAll(t, far))
	})
}

// Lazy multistream: where the peer is known to serve the tag, negotiation waits for the first Read or Write, a deadline
// that passes in it is kept for ever, and the peer's handler does not run before.
// Row: C7.
func TestLAcceptFiresThoughNobodyWrites(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for i := range 3 { // from the second on the peer is known to serve the tag
			c, err := Dial(testContext(t), a, b.ID(), testTag)
			require.NoError(t, err)
			var far net.Conn
			err = within(t, patience, "Accept", func() (err error) { far, err = l.Accept(); return err })
			require.NoError(t, err, "dial %d", i)
			require.NoError(t, errors.Join(c.Close(), far.Close()))
		}
	})
}

func TestLADeadlineInTheFirstReadLeavesTheConnUsable(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for range 3 {
			c, far := connPair(t, a, l)
			require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
			_, err := c.Read(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, c.SetReadDeadline(time.Time{}))
			_, err = far.Write([]byte("late"))
			require.NoError(t, err)
			require.NoError(t, far.CloseWrite())
			require.Equal(t, "late", string(readAll(t, c)))
		}
	})
}

func TestLDialFailsThoughThePeerWasKnownToServeTheTag(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		c, _ := connPair(t, a, l)
		require.NoError(t, c.Close())
		require.NoError(t, l.Close())
		require.NoError(t, a.Peerstore().AddProtocols(b.ID(), testTag)) // what identify said before
		_, err := Dial(testContext(t), a, b.ID(), testTag)
		require.ErrorIs(t, err, ErrNotServed)
	})
}
