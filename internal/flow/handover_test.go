package flow

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// gated holds back the Writes of a carrier that hold says, until it is closed or opened.
type gated struct {
	net.Conn
	hold func([]byte) bool
	gate chan struct{}
	once sync.Once
}

func (g *gated) Write(p []byte) (int, error) {
	if g.hold(p) {
		<-g.gate
	}
	return g.Conn.Write(p)
}

func (g *gated) open() { g.once.Do(func() { close(g.gate) }) }

func (g *gated) Close() error {
	defer g.open()
	return g.Conn.Close()
}

func newFlow(t *testing.T, cfg Config) *Flow {
	f := New(&cfg)
	t.Cleanup(func() {
		f.Close(net.ErrClosed)
		f.Wait()
	})
	return f
}

// A carrier is not closed while its END is still on its way out: the other side would find bytes missing.
//
// Row: S6
func TestHandOverWaitsForItsEndToLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost []error
		cfg := Config{OnLost: func(err error) { lost = append(lost, err) }}
		a, b := newFlow(t, cfg), newFlow(t, cfg)
		x, y := faultnet.Pipe(faultnet.LinkOptions{})
		slow := &gated{Conn: x, gate: make(chan struct{}), hold: func(p []byte) bool { return kind(p[0]) == kindEnd }}
		require.NoError(t, a.Attach(slow, 0, false))
		require.NoError(t, b.Attach(y, 0, false))
		say(t, flowConn{a}, flowConn{b}, "over the first")
		x2, y2 := faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, a.Attach(x2, 0, true))
		require.NoError(t, b.Attach(y2, 0, true))
		for _, f := range []*Flow{a, b} {
			go func() { _, _ = io.Copy(io.Discard, flowConn{f}) }()
		}
		synctest.Wait() // the END of b has come to a, that of a waits
		a.mu.Lock()
		require.NotNil(t, a.old)
		a.mu.Unlock()
		slow.open()
		synctest.Wait()
		require.Empty(t, lost)
		require.Nil(t, a.old)
		require.Nil(t, b.old)
		_, resent := a.Kept()
		require.Zero(t, resent)
	})
}

// flowConn is a flow as the net.Conn that say wants.
type flowConn struct{ *Flow }

func (flowConn) Close() error                    { return nil }
func (flowConn) LocalAddr() net.Addr             { return nil }
func (flowConn) RemoteAddr() net.Addr            { return nil }
func (flowConn) SetDeadline(time.Time) error     { return errors.ErrUnsupported }
func (flowConn) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

// The number that a Write waits for is lost with the old carrier, and leaves no gap behind: it is asked for again on the new
// one, on which the flow has settled with that.
//
// Row: S4, S6
func TestHandOverThatLosesAnAnswerAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var settled []net.Conn
		f := newFlow(t, Config{Window: MinWindow, OnSettled: func(c net.Conn) { settled = append(settled, c) }})
		go func() { _, _ = io.Copy(io.Discard, flowConn{f}) }()
		x1, y1 := faultnet.Pipe(faultnet.LinkOptions{})
		x2, y2 := faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, f.Attach(x1, 0, false))
		wrote := make(chan error, 1)
		go func() {
			_, err := f.Write(make([]byte, MinWindow))
			wrote <- err
		}()
		go func() { _, _ = io.Copy(io.Discard, y1) }() // takes all and answers nothing
		synctest.Wait()
		require.NoError(t, f.Attach(x2, 0, true))
		synctest.Wait()
		require.NoError(t, y1.Close()) // no END, no answer
		first := make([]byte, 2*headerSize)
		_, err := io.ReadFull(y2, first)
		require.NoError(t, err)
		at := headerOf(first)
		require.Equal(t, kindStart, at.kind)
		require.Equal(t, header{kind: kindAsk}, headerOf(first[headerSize:]))
		require.Equal(t, []net.Conn{x1, x2}, settled)
		go func() { _, _ = io.Copy(io.Discard, y2) }()
		_, err = y2.Write(header{kind: kindData, number: at.number}.append(header{kind: kindStart}.append(nil)))
		require.NoError(t, err)
		require.NoError(t, <-wrote)
	})
}

// A sender that starts again before what the other side has, for it knew no better, may also end there.
//
// Row: S6
func TestHandOverMayEndBeforeWhatWasReceived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlow(t, Config{})
		x1, y1 := faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, f.Attach(x1, 0, false))
		_, _ = y1.Write(append(header{kind: kindData, length: 5}.append(header{kind: kindStart}.append(nil)), "hello"...))
		got := make([]byte, 6)
		_, err := io.ReadFull(flowConn{f}, got[:5])
		require.NoError(t, err)
		x2, y2 := faultnet.Pipe(faultnet.LinkOptions{})
		x3, y3 := faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, f.Attach(x2, 0, false))
		_, _ = y2.Write(append(header{kind: kindData, length: 2}.append(header{kind: kindStart}.append(nil)), "he"...))
		require.NoError(t, f.Attach(x3, 0, true))
		_, _ = y2.Write(header{kind: kindEnd, number: 2}.append(nil))
		_, _ = y3.Write(append(header{kind: kindData, length: 4}.append(header{kind: kindStart, number: 2}.append(nil)), "llo!"...))
		_, err = io.ReadFull(flowConn{f}, got[5:])
		require.NoError(t, err)
		require.Equal(t, "hello!", string(got))
	})
}

// Who gives a closed flow a carrier loses it, and need not wait for the flow a second time.
func TestAttachToAClosedFlowClosesTheCarrier(t *testing.T) {
	f := New(nil)
	f.Close(net.ErrClosed)
	f.Wait()
	x, y := faultnet.Pipe(faultnet.LinkOptions{})
	require.ErrorIs(t, f.Attach(x, 0, false), net.ErrClosed)
	_, err := y.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// A carrier that follows none is given up after a while.
func TestHandOverThatIsNotFollowedIsALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := make(chan error, 1)
		f := newFlow(t, Config{OnLost: func(err error) { lost <- err }})
		go func() { _, _ = io.Copy(io.Discard, flowConn{f}) }()
		x, y := faultnet.Pipe(faultnet.LinkOptions{})
		start := time.Now()
		require.NoError(t, f.Attach(x, 0, false))
		_, _ = y.Write(header{kind: kindEnd}.append(header{kind: kindStart}.append(nil)))
		require.ErrorIs(t, <-lost, errNoNext)
		require.Equal(t, handoverTimeout, time.Since(start))
	})
}
