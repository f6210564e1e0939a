package session

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// Close called while another Close puts on the streams what lanes hold back waits for it, and returns the same. Nothing new is opened.
func TestASecondCloseWaitsForTheLanes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		got := make(chan []byte, 1)
		p.mux.SetStream("x", func(st *Stream) {
			b, err := io.ReadAll(st)
			require.NoError(t, err)
			got <- b
		})
		st, err := p.dialer.OpenStream(t.Context(), "x", nil)
		require.NoError(t, err)
		p.dialer.flushOnClose(func(context.Context) error {
			for range 10 {
				time.Sleep(100 * time.Millisecond)
				if _, err := st.Write([]byte("block")); err != nil {
					return err
				}
			}
			return nil
		})
		p.dialer.flushOnClose(func(context.Context) error { panic("a lane of the application's") })
		errs := make([]error, 2)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() { errs[i] = p.dialer.Close() })
			time.Sleep(300 * time.Millisecond)
		}
		_, err = p.dialer.OpenStream(t.Context(), "x", nil)
		require.ErrorIs(t, asError(t, err, NotSent), ErrClosed)
		all.Wait()
		require.Len(t, <-got, 50)
		require.ErrorContains(t, errs[0], "panicked")
		require.Equal(t, errs[0], errs[1])
	})
}

// The application's Close of a dedicated stream that its session is closing waits too, and returns the same.
func TestAStreamThatTheSessionClosesIsClosedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.mux.SetStream("x", func(st *Stream) { <-st.Session().Done() })
		st, err := r.dialer.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
		require.NoError(t, err)
		_, err = st.Write([]byte("hello"))
		require.NoError(t, err)
		closed := make(chan error, 1)
		go func() { closed <- r.dialer.Close() }()
		synctest.Wait()
		own := st.Close()
		asError(t, own, Unknown)
		require.Equal(t, own, st.Close())
		require.Equal(t, []error{own}, lostThings(t, <-closed)[:1])
	})
}

// Close after Reset, and of a stream that nothing was written to, has nothing to wait for.
func TestCloseOfAStreamWithNothingToTellIsNil(t *testing.T) {
	for name, opts := range map[string]*StreamOptions{"shared": nil, "dedicated": {Dedicated: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPair(t, Config{}, AcceptorConfig{})
				p.mux.SetStream("x", func(st *Stream) { <-st.Session().Done() })
				st, err := p.dialer.OpenStream(t.Context(), "x", opts)
				require.NoError(t, err)
				go func() { _, _ = st.Write([]byte("hello")) }()
				synctest.Wait()
				require.NoError(t, st.Reset(codes.Cancelled))
				require.NoError(t, st.Close())
				st, err = p.dialer.OpenStream(t.Context(), "x", opts)
				require.NoError(t, err)
				began := time.Now()
				require.NoError(t, st.Close())
				require.Zero(t, time.Since(began))
			})
		})
	}
}

// Reset ends a Close that waits: nothing that was written counts any more.
func TestResetEndsACloseThatWaits(t *testing.T) {
	for name, opts := range map[string]*StreamOptions{"shared": nil, "dedicated": {Dedicated: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPair(t, Config{}, AcceptorConfig{Config: Config{StreamWindow: 4096}})
				p.mux.SetStream("x", func(st *Stream) { <-st.Session().Done() })
				st, err := p.dialer.OpenStream(t.Context(), "x", opts)
				require.NoError(t, err)
				go func() { _, _ = st.Write(make([]byte, 10_000)) }()
				synctest.Wait()
				closed := make(chan error, 1)
				go func() { closed <- st.Close() }()
				synctest.Wait()
				began := time.Now()
				require.NoError(t, st.Reset(codes.Cancelled))
				require.NoError(t, <-closed)
				require.LessOrEqual(t, time.Since(began), 2*partingGrace)
			})
		})
	}
}

// A Close that waits ends when the peer resets the stream.
func TestCloseOfAStreamEndsWithItsReset(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := mute(t, AcceptorConfig{}, func(frame.Header) {})
		closed := make(chan error, 1)
		w.s.cfg.Mux.SetDefaultStream(func(st *Stream) {
			_, _ = st.Write([]byte("x"))
			closed <- st.Close()
		})
		w.push(frame.TypeStreamOpen, 0, 1, []byte("x"))
		time.Sleep(time.Second)
		began := time.Now()
		w.push(frame.TypeStreamReset, 0, 1, frame.AppendFailure(nil, frame.Failure{Code: codes.Cancelled}))
		require.True(t, asError(t, <-closed, Unknown).Remote)
		require.Zero(t, time.Since(began))
	})
}

// Shutdown returns what did not arrive of a session that was lost before it was drained.
func TestShutdownOfALostSessionSaysWhatWasLost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, mortal, AcceptorConfig{})
		hold := make(chan struct{})
		p.mux.SetDefaultLink(func(*Message) { <-hold })
		require.NoError(t, p.dialer.Send(t.Context(), "a", []byte("x")))
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- p.dialer.Shutdown(t.Context()) }()
		synctest.Wait()
		_ = p.dialer.Conn().Close()
		err := <-done
		require.ErrorIs(t, err, ErrSessionLost)
		require.Equal(t, "a", asError(t, lostThings(t, err)[0], Unknown).Link)
		close(hold)
	})
}

// That a peer did not want the rest of a stream is told by a Close soon after, for the peer may be closing the session, and not for ever.
func TestWhatThePeerDidNotWantIsForgotten(t *testing.T) {
	for _, v := range []struct {
		after time.Duration
		told  bool
	}{{time.Minute, true}, {time.Hour, false}} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{}, AcceptorConfig{})
			p.mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(st, zeros{}) })
			for range 300 {
				st, err := p.dialer.OpenStream(t.Context(), "x", nil)
				require.NoError(t, err)
				synctest.Wait()
				require.NoError(t, st.Reset(codes.Cancelled))
				synctest.Wait()
			}
			time.Sleep(v.after)
			err := p.accepted.Close()
			if !v.told {
				require.NoError(t, err)
				return
			}
			require.True(t, asError(t, lostThings(t, err)[0], Unknown).Remote)
		})
	}
}

// One hello more than there are places for a stream, while the first one is being answered.
func TestTwoOpeningsOfAStreamAtOnce(t *testing.T) {
	for range 500 {
		s := &Session{caps: frame.CapEnds}
		s.cfg.MaxStreams = 4
		a, _ := net.Pipe()
		b, _ := net.Pipe()
		at, err := s.arrive(1, a)
		require.NoError(t, err)
		var first sync.WaitGroup
		first.Go(func() { s.opened(at, nil) })
		_, err = s.arrive(1, b)
		require.NoError(t, err)
		first.Wait()
	}
}
