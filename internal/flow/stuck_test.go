package flow

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// mutePeer attaches f to a carrier whose other end reads all and says only what say is called for.
func mutePeer(t *testing.T, f *Flow, received uint64) (say func(header)) {
	t.Helper()
	a, b := faultnet.Pipe(faultnet.LinkOptions{})
	require.NoError(t, f.Attach(a, received, false))
	go func() { _, _ = io.Copy(io.Discard, b) }()
	return func(h header) {
		_, err := b.Write(h.append(nil))
		require.NoError(t, err)
		synctest.Wait()
	}
}

// A side that reads and never acknowledges leaves a Write waiting: Stuck tells for how long, anew after each acknowledgement and
// on each carrier, and not while there is none.
func TestStuckCountsTheWaitForAnAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 4 << 10
		f := New(&Config{Window: window, ResumeWindow: time.Hour})
		say := mutePeer(t, f, 0)
		var running sync.WaitGroup
		running.Go(func() { _, _ = io.Copy(io.Discard, readerOf(f)) })
		say(header{kind: kindStart})
		_, err := f.Write(make([]byte, window-headerSize))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Zero(t, f.Stuck(), "nobody waits")
		running.Go(func() { _, _ = f.Write(make([]byte, 2*window)) })
		time.Sleep(10 * time.Second)
		require.Equal(t, 10*time.Second, f.Stuck())
		say(header{kind: kindAsk}) // answered, which is no progress
		require.Equal(t, 10*time.Second, f.Stuck())
		say(header{kind: kindData, number: window / 2})
		require.Zero(t, f.Stuck(), "some of it has arrived")
		time.Sleep(time.Second)
		say(header{kind: kindData, number: window / 4})
		require.Equal(t, time.Second, f.Stuck(), "that was known")
		say(header{kind: kindData, number: window - headerSize})
		require.Zero(t, f.Stuck())
		time.Sleep(5 * time.Second)
		require.Equal(t, 5*time.Second, f.Stuck())
		f.Detach(io.ErrUnexpectedEOF)
		time.Sleep(5 * time.Second)
		require.Zero(t, f.Stuck(), "it is not the carrier's fault")
		mutePeer(t, f, window)
		time.Sleep(3 * time.Second)
		require.Equal(t, 3*time.Second, f.Stuck())
		require.NoError(t, f.SetWriteDeadline(time.Now()))
		synctest.Wait()
		require.Zero(t, f.Stuck(), "the Write waits no more")
		running.Go(func() { _ = f.AwaitAcked() })
		time.Sleep(2 * time.Second)
		require.Equal(t, 2*time.Second, f.Stuck())
		f.Close(net.ErrClosed)
		running.Wait()
		f.Wait()
		require.Zero(t, f.Stuck())
	})
}

// readerOf is f as an io.Reader.
func readerOf(f *Flow) io.Reader { return struct{ io.Reader }{f} }
