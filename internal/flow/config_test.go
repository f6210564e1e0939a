package flow

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// An end without a reason is an end all the same.
func TestAnEndWithoutAReasonIsNetErrClosed(t *testing.T) {
	f := New(nil)
	f.Detach(nil)
	require.NoError(t, f.Err())
	f.Close(nil)
	require.ErrorIs(t, f.Err(), net.ErrClosed)
	f.Wait()
}

func TestAFlowKeepsAsMuchAsItsWindow(t *testing.T) {
	for window, want := range map[int]int{0: 1 << 20, 1: MinWindow, -1: MinWindow, MinWindow: MinWindow, 10000: 10000} {
		synctest.Test(t, func(t *testing.T) {
			f := New(&Config{Window: window, ResumeWindow: time.Hour})
			done := make(chan int)
			go func() {
				n, err := f.Write(make([]byte, 2<<20))
				require.ErrorIs(t, err, errRefused)
				done <- n
			}()
			synctest.Wait()
			kept, _ := f.Kept()
			require.True(t, kept <= want && kept > want-200, "Window %d: %d", window, kept)
			f.Close(errRefused)
			require.Less(t, <-done, want)
			f.Wait()
		})
	}
}

func TestAFlowIsPatientAndDropsItsCarriers(t *testing.T) {
	for patience, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Second, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			var dropped []net.Conn
			f := New(&Config{ResumeWindow: patience, Drop: func(c net.Conn) { dropped = append(dropped, c) }})
			here, there := net.Pipe()
			if patience >= 0 {
				require.NoError(t, f.Attach(here, 0, false))
				go func() { _, _ = there.Read(make([]byte, 100)) }()
				synctest.Wait()
				time.Sleep(time.Hour)
				require.NoError(t, f.Err(), "a carrier is all it needs")
				require.NoError(t, f.Pause())
				synctest.Wait()
				require.Equal(t, []net.Conn{here}, dropped)
			}
			began := time.Now()
			for f.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			require.Less(t, time.Since(began)-want, 2*time.Millisecond)
			require.ErrorIs(t, f.Err(), ErrLost)
			_, err := f.Write([]byte("x"))
			require.ErrorIs(t, err, ErrLost)
			_, _ = here.Close(), there.Close()
			f.Wait()
		})
	}
}

// stuckConn is a carrier whose Read does not heed Close, until it is released.
type stuckConn struct {
	net.Conn
	release chan struct{}
}

func (c stuckConn) Read([]byte) (int, error) {
	<-c.release
	return 0, net.ErrClosed
}

func TestOfTwoCarriersOneIsFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(&Config{ResumeWindow: time.Hour})
		discarded := func() net.Conn {
			here, there := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, there) }()
			return here
		}
		first := stuckConn{discarded(), make(chan struct{})}
		require.NoError(t, f.Attach(first, 0, false))
		go func() { _, _ = f.Read(make([]byte, 10)) }()
		synctest.Wait()
		f.Detach(errRefused)
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- f.Attach(discarded(), 0, false) }()
		}
		synctest.Wait()
		require.Empty(t, results, "nothing may use the carrier before")
		close(first.release)
		errs := []error{<-results, <-results}
		if errs[0] != nil {
			errs[0], errs[1] = errs[1], errs[0]
		}
		require.NoError(t, errs[0])
		require.ErrorIs(t, errs[1], ErrDetached)
		require.True(t, f.Attached())
		f.Close(errRefused)
		f.Wait()
	})
}

func TestUnaskedIsWhenTheOtherSideHearsOfItsBytes(t *testing.T) {
	for _, unasked := range []time.Duration{0, time.Second, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := New(&Config{Unasked: unasked, ResumeWindow: time.Hour})
			here, there := faultnet.Pipe(faultnet.LinkOptions{})
			require.NoError(t, f.Attach(here, 0, false))
			go func() {
				for {
					if _, err := f.Read(make([]byte, 10)); err != nil {
						return
					}
				}
			}()
			b := make([]byte, headerSize)
			_, err := io.ReadFull(there, b)
			require.NoError(t, err)
			require.Equal(t, kindStart, headerOf(b).kind)
			_, err = there.Write(append(header{kind: kindStart}.append(nil), append(header{kind: kindData, length: 3}.append(nil), "abc"...)...))
			require.NoError(t, err)
			began := time.Now()
			require.NoError(t, there.SetReadDeadline(time.Now().Add(time.Minute)))
			_, err = io.ReadFull(there, b)
			if unasked == 0 {
				require.Error(t, err, "nobody has asked")
			} else {
				require.NoError(t, err)
				require.Equal(t, header{kind: kindData, number: 3}, headerOf(b))
				require.Equal(t, unasked, time.Since(began))
			}
			f.Close(errRefused)
			_ = there.Close()
			f.Wait()
		})
	}
}
