package flow

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// An app is the owner of a lazy flow whose application takes bytes when the test says so.
type app struct {
	*Flow
	room  int
	words []error // errors that LastWord was called with

	in     Queue // guarded by the flow
	events []Event
	reason error // of the last event
	pump   sync.WaitGroup
}

// newApp returns an app with room bytes of room and credit at the other side.
func newApp(t *testing.T, cfg Config, room, credit int) *app {
	a := &app{room: room}
	cfg.Lazy = &Lazy{
		Credit: credit, FirstCarrier: time.Second,
		Space: func(want int) ([]byte, error) {
			a.Lock()
			defer a.Unlock()
			if a.in.Len() == a.room {
				return nil, ProtocolErrorf("no room")
			}
			return a.in.Space(want, a.room-a.in.Len()), nil
		},
		Received: func(n int, _ bool) { a.in.Commit(n) },
		Note:     func(e Event, err error) { a.events, a.reason = append(a.events, e), err },
		LastWord: func(err error) bool { a.words = append(a.words, err); return false },
	}
	a.Flow = New(&cfg)
	a.pump.Go(func() {
		for a.Receive() {
		}
	})
	t.Cleanup(func() {
		a.Close(net.ErrClosed)
		a.Wait()
		a.pump.Wait()
	})
	return a
}

// take takes n bytes, or fewer if there are not so many.
func (a *app) take(n int) string {
	synctest.Wait()
	a.Lock()
	defer a.Unlock()
	p := make([]byte, n)
	n = a.in.Read(p)
	a.ConsumeLocked(n)
	return string(p[:n])
}

// locked calls fn with the flow locked.
func (a *app) locked(fn func()) {
	a.Lock()
	defer a.Unlock()
	fn()
}

// joined returns two apps on one carrier, each with room for room bytes.
func joined(t *testing.T, cfg Config, room int) (a, b *app, link *faultnet.Link) {
	a, b = newApp(t, cfg, room, room), newApp(t, Config{Window: room}, room, room)
	link = faultnet.NewLink(faultnet.LinkOptions{})
	x, y := link.Ends()
	require.NoError(t, a.Attach(x, 0, false))
	require.NoError(t, b.Attach(y, 0, false))
	return a, b, link
}

// A side sends no more than the other has room for, until its application has taken some.
func TestALazyFlowKeepsToTheRoomOfTheOtherSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := joined(t, Config{}, MinWindow)
		wrote := make(chan int, 1)
		go func() {
			n, err := a.Write(make([]byte, 3*MinWindow))
			require.ErrorIs(t, err, syscall.EPIPE)
			wrote <- n
		}()
		synctest.Wait()
		require.Equal(t, MinWindow, b.in.Len())
		n, all := a.Delivered()
		require.Zero(t, n, "it is not taken")
		require.False(t, all)
		require.Len(t, b.take(MinWindow/2), MinWindow/2)
		synctest.Wait()
		require.Equal(t, MinWindow, b.in.Len())
		b.locked(func() { b.ConsumeLocked(b.in.Drop()); b.StopLocked(); b.StopLocked() })
		require.Less(t, <-wrote, 3*MinWindow, "the other side takes no more")
		a.locked(func() { require.Equal(t, Ends{Stopped: true}, a.EndsLocked()) })
	})
}

// A violation of the room closes the flow.
func TestMoreThanTheRoomIsAViolation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newApp(t, Config{}, MinWindow, 2*MinWindow), newApp(t, Config{}, MinWindow, MinWindow)
		x, y := faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, a.Attach(x, 0, false))
		require.NoError(t, b.Attach(y, 0, false))
		_, err := a.Write(make([]byte, 2*MinWindow))
		require.NoError(t, err)
		synctest.Wait()
		require.ErrorIs(t, b.Err(), ErrProtocol)
		require.ErrorIs(t, b.reason, ErrProtocol)
		require.Equal(t, []Event{Attached, Closed}, b.events)
		require.Empty(t, b.words)
		require.Equal(t, []error{io.ErrUnexpectedEOF}, a.words)
		require.Equal(t, []Event{Attached, Detached}, a.events)
	})
}

// The flow waits for its first carrier for another time than for a later one.
func TestALazyFlowWaitsForItsFirstCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		first, later := newApp(t, Config{ResumeWindow: time.Hour}, MinWindow, MinWindow), newApp(t, Config{ResumeWindow: time.Hour}, MinWindow, MinWindow)
		here, _ := net.Pipe()
		require.NoError(t, later.Attach(here, 0, false))
		first.pump.Wait()
		require.Equal(t, time.Second, time.Since(began))
		require.ErrorIs(t, first.Err(), ErrLost)
		later.Detach(nil)
		later.pump.Wait()
		require.Equal(t, time.Hour+time.Second, time.Since(began))
		require.Equal(t, []Event{Attached, Detached, Closed}, later.events)
	})
}

// The bytes of several calls do not mix, and a call that waits for its turn heeds the deadline.
func TestWritesInTurnDoNotMix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := joined(t, Config{}, MinWindow)
		write := func(c byte, n int) (int, error) {
			a.Lock()
			defer a.Unlock()
			return a.WriteInTurnLocked(slices.Repeat([]byte{c}, n))
		}
		var writing sync.WaitGroup
		for _, c := range []byte("xyz") {
			writing.Go(func() {
				n, err := write(c, 2*MinWindow)
				require.NoError(t, err)
				require.Equal(t, 2*MinWindow, n)
			})
		}
		var got string
		for len(got) < 6*MinWindow {
			got += b.take(100)
		}
		writing.Wait()
		for i := range 3 {
			part := got[i*2*MinWindow : (i+1)*2*MinWindow]
			require.Equal(t, string(slices.Repeat([]byte{part[0]}, 2*MinWindow)), part)
		}
		writing.Go(func() { _, _ = write('x', 2*MinWindow) })
		synctest.Wait()
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := write('y', 1)
		require.Zero(t, n)
		require.Error(t, err)
		writing.Wait()
	})
}

// A flow that closes once everything is delivered waits for that, and ends without a loss.
func TestALazyFlowClosesOnceItIsDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := joined(t, Config{}, MinWindow)
		_, err := a.Write([]byte("hello"))
		require.NoError(t, err)
		a.locked(func() { a.FinishLocked(); a.CloseDeliveredLocked() })
		synctest.Wait()
		require.ErrorIs(t, a.Err(), net.ErrClosed)
		require.Zero(t, a.Undelivered())
		n, all := a.Delivered()
		require.EqualValues(t, 6, n, "the end is one byte")
		require.True(t, all)
		b.locked(func() { require.True(t, b.EndsLocked().In) })
		require.Equal(t, "hello", b.take(10))

		c, _, link := joined(t, Config{ResumeWindow: time.Hour}, MinWindow)
		link.Cut()
		_, err = c.Write([]byte("hello"))
		require.NoError(t, err)
		c.locked(func() {
			c.CloseDeliveredLocked()
			require.Equal(t, headerSize+5, c.UnackedLocked())
			c.ExpireLocked()
			c.CloseLocked(errRefused)
		})
		require.ErrorIs(t, c.Err(), errRefused)
		require.Equal(t, 5, c.Undelivered())
	})
}

// When both directions have ended, the end of the carrier is no loss.
func TestALazyFlowThatBothHaveEndedIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, link := joined(t, Config{}, MinWindow)
		b.locked(func() { b.FinishLocked(); b.StopLocked() })
		synctest.Wait()
		link.Cut()
		synctest.Wait()
		require.ErrorIs(t, a.Err(), ErrOver)
		require.Equal(t, []Event{Attached, Closed}, a.events)
	})
}

// The owner of a lazy flow may end it for the error of a carrier.
func TestTheLastWordOfACarrierEndsALazyFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := errors.New("that was all")
		a := newApp(t, Config{}, MinWindow, MinWindow)
		a.cfg.Lazy.LastWord = func(err error) bool {
			a.words = append(a.words, err)
			a.Close(last)
			return true
		}
		x, y := faultnet.Pipe(faultnet.LinkOptions{})
		require.NoError(t, a.Attach(x, 0, false))
		require.NoError(t, y.Close())
		a.pump.Wait()
		require.ErrorIs(t, a.Err(), last)
		require.Equal(t, []Event{Attached, Closed}, a.events, "and is not detached first")
		require.Len(t, a.words, 1)
	})
}
