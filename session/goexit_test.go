package session

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
)

// A stream's handler that ends its goroutine has not finished its answer: the peer must not take a half for the whole.
func TestAStreamWhoseHandlerEndsItsGoroutineIsReset(t *testing.T) {
	for name, opts := range map[string]*StreamOptions{
		"shared": nil, "dedicated": {Dedicated: true}, "resumable": outlasting,
	} {
		for name2, end := range map[string]func(){"Goexit": runtime.Goexit, "panic": func() { panic("boom") }} {
			t.Run(name+" "+name2, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
					r.mux.SetStream("half", func(st *Stream) {
						_, _ = st.Write([]byte("half"))
						end()
					})
					st, err := r.dialer.OpenStream(t.Context(), "half", opts)
					require.NoError(t, err)
					_, err = io.ReadAll(st)
					_ = st.Reset(codes.Cancelled)
					var e *Error
					require.ErrorAs(t, err, &e)
					require.True(t, e.Remote)
					require.ErrorIs(t, err, ErrInternal)
					time.Sleep(2 * time.Minute)
					wantZero(t, r.dialer)
					wantZero(t, r.accepted)
				})
			})
		}
	}
}

// Hooks run in goroutines of the session's: one that ends its goroutine ends nothing else.
func TestHooksThatEndTheirGoroutineEndNothingElse(t *testing.T) {
	t.Run("OnState", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			var mu sync.Mutex
			var states []State
			r := newStreamRoad(t, Config{OnState: func(_ *Session, c StateChange) {
				mu.Lock()
				states = append(states, c.State)
				mu.Unlock()
				runtime.Goexit()
			}}, AcceptorConfig{}, faultnet.LinkOptions{})
			for range 3 {
				r.link(len(r.coded) - 1).Cut()
				synctest.Wait()
				require.NoError(t, r.dialer.AwaitCarrier(within(t, time.Minute)))
			}
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, []State{StateConnected, StateDetached, StateResumed, StateDetached, StateResumed, StateDetached, StateResumed}, states)
		})
	})
	t.Run("OnUndelivered", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{OnUndelivered: func(*Error) { runtime.Goexit() }}, AcceptorConfig{})
			p.mux.SetCall(func(*Message) ([]byte, error) { return []byte("fine"), nil })
			require.NoError(t, p.dialer.Send(t.Context(), "nobody", nil))
			require.ErrorIs(t, p.dialer.Flush(t.Context()), ErrNotFound)
			reply, err := p.dialer.Call(t.Context(), "", nil)
			require.NoError(t, err)
			require.Equal(t, "fine", string(reply))
		})
	})
	for name, cfg := range map[string]AcceptorConfig{
		"Admit":     {Admit: func(string) error { runtime.Goexit(); return nil }},
		"OnSession": {OnSession: func(*Session) { runtime.Goexit() }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a, err := NewAcceptor(&cfg)
				require.NoError(t, err)
				for range 20 { // more than there are places for hellos
					here, there := faultnet.Pipe(faultnet.LinkOptions{})
					var serving sync.WaitGroup
					serving.Go(func() { _ = a.Serve(there, "alice") })
					s, err := Dial(t.Context(), here, "bob", nil, nil)
					if err == nil {
						_, err = s.Call(t.Context(), "", nil)
						_ = s.Close()
					}
					require.Error(t, err)
					if name == "Admit" {
						require.ErrorIs(t, err, ErrInternal)
					}
					serving.Wait()
					require.Empty(t, a.Sessions())
				}
			})
		})
	}
	t.Run("Opener", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			a, err := NewAcceptor(nil)
			require.NoError(t, err)
			link := faultnet.NewLink(faultnet.LinkOptions{})
			here, there := link.Ends()
			var serving sync.WaitGroup
			serving.Go(func() { _ = a.Serve(there, "alice") })
			exits := 3
			s, err := Dial(t.Context(), here, "bob", func(context.Context, Want) (net.Conn, error) {
				if exits--; exits >= 0 {
					runtime.Goexit()
				}
				here, there := faultnet.Pipe(faultnet.LinkOptions{})
				serving.Go(func() { _ = a.Serve(there, "alice") })
				return here, nil
			}, nil)
			require.NoError(t, err)
			_, err = s.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
			require.Equal(t, "x", asError(t, err, NotSent).Link)
			link.Cut()
			synctest.Wait()
			require.NoError(t, s.AwaitCarrier(within(t, time.Minute)))
			require.NoError(t, s.Close())
			serving.Wait()
		})
	})
}
