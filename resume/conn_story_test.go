package resume

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/traffic"
)

// Row: S3, S5, S6
func TestConnOutlivesItsCarriers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		for range 10 {
			say(t, p.client, p.server, "to the server")
			say(t, p.server, p.client, "to the client")
			p.cutNewest()
		}
		say(t, p.client, p.server, "after ten breaks")
		synctest.Wait()
		_, dials := p.newest()
		require.Equal(t, 11, dials)
		require.Contains(t, p.told.text(), "connected detached resumed detached resumed ")
		require.Contains(t, p.heard.text(), "connected detached resumed detached resumed ")
	})
}

// What is written while there is no carrier arrives later: Write waits only at the end of the window.
//
// Row: S4, S-f
func TestWriteNeverLosesAndNeverOverflows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 4 << 10
		p := newPair(t, &Options{Window: window}, &Options{Window: window})
		synctest.Wait()
		p.refuse(errRefused)
		p.cutNewest()
		data := traffic.Bytes(1, 10*window)
		require.NoError(t, p.client.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := p.client.Write(data)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, window-headerSize, n, "the window is full")

		require.NoError(t, p.client.SetWriteDeadline(time.Time{}))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := p.client.Write(data[n:])
			require.NoError(t, err)
		})
		time.Sleep(10 * time.Second)
		p.refuse(nil)
		got := make([]byte, len(data))
		_, err = io.ReadFull(p.server, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		wg.Wait()
	})
}

// A reader that does not read stops the writer at the window, and the carrier stays usable in the other direction.
//
// Row: S4
// Claim: resume.Options.Window
func TestSlowReaderStopsTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &Options{Window: 64 << 10}, &Options{Window: 4 << 10})
		require.NoError(t, p.client.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := p.client.Write(make([]byte, 1<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 4<<10, n, "the other side's window")
		say(t, p.server, p.client, "still here")
		time.Sleep(time.Minute) // probes go by
		say(t, p.server, p.client, "and still")
		require.Equal(t, "connected ", p.told.text())

		require.NoError(t, p.client.SetWriteDeadline(time.Time{}))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := p.client.Write(make([]byte, 1<<20))
			require.NoError(t, err)
		})
		_, err = io.ReadFull(p.server, make([]byte, 1<<20+4<<10))
		require.NoError(t, err)
		wg.Wait()
	})
}

// Row: S-c
func TestReadDeadlineIsNoBrokenLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		start := time.Now()
		require.NoError(t, p.client.SetReadDeadline(start.Add(200*time.Millisecond)))
		_, err := p.client.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		require.Equal(t, 200*time.Millisecond, time.Since(start))

		require.NoError(t, p.client.SetReadDeadline(time.Time{}))
		say(t, p.server, p.client, "nothing has happened")
		require.Equal(t, "connected ", p.told.text())
	})
}

// Row: S-d, S-b
func TestCloseIsSignalledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		start := time.Now()
		text := []byte("last words")
		_, err := p.client.Write(text)
		require.NoError(t, err)
		require.Equal(t, "last words", string(text), "the caller's buffer")
		require.NoError(t, p.client.Close())
		got, err := io.ReadAll(p.server)
		require.NoError(t, err)
		require.Equal(t, "last words", string(got))
		_, err = p.server.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = p.server.Write([]byte("too late"))
		require.ErrorIs(t, err, syscall.EPIPE)
		<-p.client.Done()
		require.NoError(t, p.server.Close())
		<-p.server.Done()
		require.Zero(t, time.Since(start))
		require.Equal(t, "connected closed ", p.told.text())
		require.NoError(t, p.told.last())
		require.Equal(t, "connected closed ", p.heard.text())
		require.NoError(t, p.heard.last())
	})
}

// Close is one of this side too: nothing waits on it, and every call says so.
//
// Row: S-d
func TestCloseEndsItsOwnCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &Options{Window: 4 << 10}, &Options{Window: 4 << 10})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := p.client.Read(make([]byte, 1))
				require.ErrorIs(t, err, net.ErrClosed)
			})
			wg.Go(func() {
				_, err := p.client.Write(make([]byte, 1<<20))
				require.ErrorIs(t, err, net.ErrClosed)
			})
		}
		synctest.Wait()
		require.NoError(t, p.client.Close())
		wg.Wait()
		require.NoError(t, p.client.Close())
		_, err := p.client.Read(nil)
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, p.client.SetDeadline(time.Now()), net.ErrClosed)
		require.ErrorIs(t, p.client.SetWriteDeadline(time.Now()), net.ErrClosed)
		require.ErrorIs(t, p.client.CloseRead(), net.ErrClosed)
		require.ErrorIs(t, p.client.CloseWrite(), net.ErrClosed)
		require.ErrorIs(t, p.client.Reconnect(), net.ErrClosed)
	})
}

// Row: S-d
func TestCloseDeliversOverALaterCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		synctest.Wait()
		p.refuse(errRefused)
		p.cutNewest()
		_, err := p.client.Write([]byte("written without a carrier"))
		require.NoError(t, err)
		require.NoError(t, p.client.Close())
		time.Sleep(time.Second)
		p.refuse(nil)
		got, err := io.ReadAll(p.server)
		require.NoError(t, err)
		require.Equal(t, "written without a carrier", string(got))
		<-p.client.Done()
		require.NoError(t, p.told.last())
	})
}

// The reader may take its time: what it has received, with the end, is its own.
//
// Row: S-d
func TestCloseDoesNotWaitForTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		start := time.Now()
		data := traffic.Bytes(2, 500<<10)
		_, err := p.client.Write(data)
		require.NoError(t, err)
		require.NoError(t, p.client.Close())
		<-p.client.Done()
		require.Zero(t, time.Since(start))
		require.NoError(t, p.told.last())
		time.Sleep(time.Hour)
		got, err := io.ReadAll(p.server)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
	})
}

// Row: S-d
func TestHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		_, err := p.client.Write([]byte("question"))
		require.NoError(t, err)
		require.NoError(t, p.client.CloseWrite())
		require.NoError(t, p.client.CloseWrite())
		_, err = p.client.Write([]byte("more"))
		require.ErrorIs(t, err, net.ErrClosed)
		got, err := io.ReadAll(p.server)
		require.NoError(t, err)
		require.Equal(t, "question", string(got))
		p.cutNewest() // the other direction goes on, over a break too
		say(t, p.server, p.client, "answer")
		require.NoError(t, p.client.CloseRead())
		require.NoError(t, p.client.CloseRead())
		_, err = p.client.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		synctest.Wait()
		_, err = p.server.Write([]byte("nobody listens"))
		require.ErrorIs(t, err, syscall.EPIPE)
	})
}

// Who closes its reading side is in nobody's way: what still comes is thrown away.
func TestCloseReadFreesTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &Options{Window: 4 << 10}, &Options{Window: 4 << 10})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := p.client.Write(make([]byte, 1<<20))
			require.ErrorIs(t, err, syscall.EPIPE)
		})
		synctest.Wait()
		require.NoError(t, p.server.CloseRead())
		wg.Wait()
		synctest.Wait()
		require.Zero(t, p.server.in.Len())
		say(t, p.server, p.client, "the other direction lives")
		unacked, _ := p.client.flow.Kept()
		require.Zero(t, unacked)
	})
}

// Row: S5
// Claim: resume.ErrLost
func TestLossIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &Options{ResumeWindow: 30 * time.Second}, &Options{ResumeWindow: 10 * time.Second})
		say(t, p.client, p.server, "x")
		_, err := p.server.Write([]byte("received before the loss"))
		require.NoError(t, err)
		synctest.Wait()
		p.refuse(errRefused)
		start := time.Now()
		p.cutNewest()
		<-p.client.Done()
		<-p.server.Done()
		require.Equal(t, 10*time.Second, time.Since(start), "the smaller patience holds on both sides")

		got, err := io.ReadAll(p.client)
		require.ErrorIs(t, err, ErrLost)
		require.Equal(t, "received before the loss", string(got))
		for _, c := range []*Conn{p.client, p.server} {
			_, err = c.Read(make([]byte, 1))
			require.ErrorIs(t, err, ErrLost)
			require.NotErrorIs(t, err, io.EOF)
			_, err = c.Write([]byte("x"))
			require.ErrorIs(t, err, ErrLost)
			require.NoError(t, c.SetDeadline(time.Now()))
			require.ErrorIs(t, c.CloseWrite(), ErrLost)
		}
		_, err = p.client.Write([]byte("x"))
		require.ErrorContains(t, err, errRefused.Error(), "the text says why")
		require.Equal(t, "connected detached lost ", p.told.text())
		require.Equal(t, "connected detached lost ", p.heard.text())
		require.ErrorIs(t, p.told.last(), ErrLost)
		p.l.mu.Lock()
		defer p.l.mu.Unlock()
		require.Empty(t, p.l.conns)
		require.Empty(t, p.l.detached)
	})
}

// Row: S-h
func TestNothingBlocksDuringAReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		synctest.Wait()
		p.onLink(func(l *faultnet.Link) { l.Freeze() }) // the hello gets no answer
		p.cutNewest()
		synctest.Wait()
		start := time.Now()
		require.Equal(t, "a", p.client.LocalAddr().String())
		require.Equal(t, "b", p.client.RemoteAddr().String())
		require.NoError(t, p.client.SetDeadline(time.Now().Add(time.Second)))
		_, err := p.client.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		synctest.Wait() // the timer of the other deadline
		_, err = p.client.Write([]byte("x"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, p.client.Reconnect())
		require.Equal(t, time.Second, time.Since(start))
		require.NoError(t, p.client.SetDeadline(time.Time{}))
		p.onLink(nil)
		say(t, p.client, p.server, "back again")
	})
}

// Row: S7
func TestReconnectReplacesALivingCarrierWithoutALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		for i := range 5 {
			say(t, p.client, p.server, "before")
			require.NoError(t, p.client.Reconnect())
			synctest.Wait()
			_, dials := p.newest()
			require.Equal(t, i+2, dials)
			say(t, p.server, p.client, "after")
		}
		_, resent := p.client.flow.Kept()
		require.Zero(t, resent)
		require.Equal(t, "connected resumed resumed resumed resumed resumed ", p.told.text())
		require.Equal(t, p.told.text(), p.heard.text())
		require.ErrorIs(t, p.server.Reconnect(), ErrInvalid)
	})
}

// Row: S7
func TestReconnectEndsTheWaitingOfTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &Options{Backoff: Backoff{Min: 40 * time.Second, Max: 40 * time.Second}}, nil)
		synctest.Wait()
		p.refuse(errRefused)
		p.cutNewest()
		time.Sleep(time.Second)
		p.refuse(nil)
		start := time.Now()
		require.NoError(t, p.client.Reconnect())
		say(t, p.server, p.client, "at once")
		require.Zero(t, time.Since(start))
	})
}

// Row: S7
func TestReconnectKeepsTheOldCarrierIfThereIsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil, nil)
		p.refuse(errRefused)
		require.NoError(t, p.client.Reconnect())
		synctest.Wait()
		say(t, p.server, p.client, "nothing has happened")
		_, dials := p.newest()
		require.Equal(t, 2, dials, "one attempt")
		require.Equal(t, "connected ", p.told.text())
	})
}

// A process that stood still, or a network that loses everything, comes back as a new carrier.
//
// Row: S6
func TestSilenceIsALoss(t *testing.T) {
	for name, fault := range map[string]func(*faultnet.Link){"frozen": (*faultnet.Link).Freeze, "vanished": (*faultnet.Link).Vanish} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, nil, nil)
			say(t, p.client, p.server, "x")
			time.Sleep(time.Minute)
			require.Equal(t, "connected ", p.told.text(), "%s: an idle conn is not silent", name)
			link, _ := p.newest()
			start := time.Now()
			fault(link)
			_, err := p.client.Write([]byte("into the silence"))
			require.NoError(t, err)
			got := make([]byte, 16)
			_, err = io.ReadFull(p.server, got)
			require.NoError(t, err)
			require.Equal(t, "into the silence", string(got), name)
			took := time.Since(start)
			require.True(t, took >= 10*time.Second && took <= 33*time.Second, "%s: %v", name, took)
		})
	}
}

// Row: S-f
func TestConcurrentWritesDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &Options{Window: 4 << 10}, &Options{Window: 4 << 10})
		const size, writers, rounds = 3000, 5, 20
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for range rounds {
					_, err := p.client.Write(bytes.Repeat([]byte{byte(w)}, size))
					require.NoError(t, err)
				}
			})
		}
		got := make([]byte, size)
		for range writers * rounds {
			_, err := io.ReadFull(p.server, got)
			require.NoError(t, err)
			require.Equal(t, bytes.Repeat(got[:1], size), got)
		}
		wg.Wait()
	})
}

// A Write that waits for its turn has a deadline too.
func TestWriteWaitsForItsTurnWithADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &Options{Window: 4 << 10}, nil)
		link, _ := p.newest()
		link.Freeze()
		require.NoError(t, p.client.SetWriteDeadline(time.Now().Add(time.Second)))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := p.client.Write(make([]byte, 1<<20))
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			})
		}
		wg.Wait()
		link.Thaw()
	})
}

func TestAStrangerBreaksTheProtocol(t *testing.T) {
	require.True(t, errors.Is(ErrStranger, ErrProtocol))
}
