package resume

import (
	"context"
	"io"
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

func TestADialFunctionThatIsNilOrReturnsNothingIsAnError(t *testing.T) {
	_, err := Dial(nil, nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "dial is nil")
	_, err = DialContext(t.Context(), func(context.Context) (net.Conn, error) {
		return nil, nil
	}, nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "neither a conn nor an error")
	l, err := NewListener(nil, nil)
	require.NoError(t, err)
	_, err = l.Serve(nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.NoError(t, l.Close())
}

// An end without a reason is an end all the same.
func TestAnEndWithoutAReasonIsNetErrClosed(t *testing.T) {
	for name, end := range map[string]func(*Conn){
		"Abort": func(c *Conn) { c.Abort(nil) }, "End": func(c *Conn) { c.End(nil) }, "Flow.Close": func(c *Conn) { c.flow.Close(nil) },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, nil, nil)
			waiting := make(chan error, 1)
			go func() { _, err := p.client.Read(make([]byte, 1)); waiting <- err }()
			_, err := p.client.Write([]byte("x"))
			require.NoError(t, err)
			synctest.Wait()
			end(p.client)
			require.ErrorIs(t, <-waiting, net.ErrClosed, name)
			<-p.client.Done()
			require.ErrorIs(t, p.client.Err(), net.ErrClosed, name)
			_, err = p.client.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed, name)
		})
	}
	f := NewFlow(nil)
	f.Detach(nil)
	require.NoError(t, f.Err())
	f.Close(nil)
	require.ErrorIs(t, f.Err(), net.ErrClosed)
	f.Wait()
}

// Claim: resume.Backoff.Min
// Claim: resume.Backoff.Max
func TestABackoffOfAnyValuesCanBeWaitedBy(t *testing.T) {
	values := []time.Duration{math.MinInt64, -1, 0, 1, time.Millisecond, 10 * time.Second, math.MaxInt64}
	for _, least := range values {
		for _, most := range values {
			b := Backoff{Min: least, Max: most}
			lo, hi := least, most
			if lo <= 0 {
				lo = 50 * time.Millisecond
			}
			if hi <= 0 {
				hi = max(5*time.Second, lo)
			}
			lo = min(lo, hi)
			for _, n := range []int{math.MinInt, -1, 0, 1} {
				d := b.Wait(n)
				require.True(t, d >= lo/2 && d <= lo, "%+v.Wait(%d) = %v", b, n, d)
			}
			for _, n := range []int{2, 63, 64, 65, 200, math.MaxInt} {
				d := b.Wait(n)
				require.True(t, d >= lo/2 && d <= hi, "%+v.Wait(%d) = %v", b, n, d)
			}
			require.GreaterOrEqual(t, b.Wait(200), hi/2)
		}
	}
	for range 100 {
		require.GreaterOrEqual(t, Backoff{Min: 10 * time.Second}.Wait(1), 5*time.Second)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		n := 0
		err := Backoff{Min: -1, Max: -1}.Retry(ctx, nil, func(context.Context) error { n++; return errRefused }, nil)
		require.ErrorIs(t, err, errRefused)
		require.Greater(t, n, 3600/5)
	})
}

func TestABackoffWhoseMaxIsLessThanItsMinIsRefused(t *testing.T) {
	for _, b := range []Backoff{{Min: 2, Max: 1}, {Min: 10 * time.Second, Max: 5 * time.Second}} {
		_, err := NewListener(nil, &Options{Backoff: b})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Options.Backoff.Max")
	}
	for _, b := range []Backoff{{Min: 10 * time.Second}, {Max: 1}, {Min: 1, Max: 1}} {
		l, err := NewListener(nil, &Options{Backoff: b})
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}

// Claim: resume.Options.Backlog
func TestABacklogBeyondItsBoundIsRefused(t *testing.T) {
	for _, n := range []int{-1, maxBacklog + 1, math.MaxInt, math.MinInt} {
		_, err := NewListener(nil, &Options{Backlog: n})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "Options.Backlog")
	}
	l, err := NewListener(nil, &Options{Backlog: maxBacklog})
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// Claim: resume.FlowConfig.Window, resume.MinWindow
func TestAFlowKeepsAsMuchAsItsWindow(t *testing.T) {
	for window, want := range map[int]int{0: 1 << 20, 1: MinWindow, -1: MinWindow, MinWindow: MinWindow, 10000: 10000} {
		synctest.Test(t, func(t *testing.T) {
			f := NewFlow(&FlowConfig{Window: window, ResumeWindow: time.Hour})
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

// Claim: resume.FlowConfig.ResumeWindow, resume.FlowConfig.Drop
func TestAFlowIsPatientAndDropsItsCarriers(t *testing.T) {
	for patience, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Second, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			var dropped []net.Conn
			f := NewFlow(&FlowConfig{ResumeWindow: patience, Drop: func(c net.Conn) { dropped = append(dropped, c) }})
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

// Claim: resume.ErrDetached
func TestOfTwoCarriersOneIsFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFlow(&FlowConfig{ResumeWindow: time.Hour})
		sink := func() net.Conn {
			here, there := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, there) }()
			return here
		}
		first := stuckConn{sink(), make(chan struct{})}
		require.NoError(t, f.Attach(first, 0, false))
		go func() { _, _ = f.Read(make([]byte, 10)) }()
		synctest.Wait()
		f.Detach(errRefused)
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- f.Attach(sink(), 0, false) }()
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

// Claim: resume.FlowConfig.Unasked
func TestUnaskedIsWhenTheOtherSideHearsOfItsBytes(t *testing.T) {
	for _, unasked := range []time.Duration{0, time.Second, 20 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			f := NewFlow(&FlowConfig{Unasked: unasked, ResumeWindow: time.Hour})
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
