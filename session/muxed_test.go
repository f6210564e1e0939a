package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// opened returns both ends of a stream of w's session, which the raw peer has accepted: id 1.
func (w *wire) opened() *Stream {
	w.t.Helper()
	result := make(chan *Stream, 1)
	go func() {
		st, err := w.s.OpenStream(w.t.Context(), "x", nil)
		require.NoError(w.t, err)
		result <- st
	}()
	g := <-w.got
	require.Equal(w.t, frame.TypeStreamOpen, g.Type)
	w.send(frame.TypeStreamAccept, 0, g.ID, nil)
	return <-result
}

// Row: U17
// Claim: session.Config.StreamWindow
func TestAWriterNeverExceedsItsCredit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		limits := generous
		limits.StreamWindow = 1000
		w := dialed(t, Config{}, 0, limits)
		st := w.opened()
		body := make([]byte, 5000)
		_, _ = rand.Read(body)
		done := make(chan error, 1)
		go func() {
			_, err := st.Write(body)
			if err == nil {
				err = st.CloseWrite()
			}
			done <- err
		}()
		var got []byte
		credit := 1000
		for _, more := range []int{0, 1, 999, 2000, 5000} {
			if more > 0 {
				w.send(frame.TypeStreamCredit, 0, 1, frame.AppendCredit(nil, uint32(more)))
			}
			credit += more
			synctest.Wait()
			for len(w.got) > 0 {
				g := w.want(frame.TypeStreamData, 1)
				got = append(got, g.body...)
			}
			require.Equal(t, min(credit, len(body)), len(got))
		}
		require.NoError(t, <-done)
		require.True(t, bytes.Equal(body, got))
	})
}

func TestAPeerThatExceedsItsCreditLosesThatStreamAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{StreamWindow: 100}, 0, generous)
		first, second := w.opened(), w.opened()
		w.send(frame.TypeStreamData, 0, 1, make([]byte, 60))
		w.send(frame.TypeStreamData, 0, 1, make([]byte, 41))
		w.wantFailure(frame.TypeStreamReset, 1, codes.FlowControl)
		n, err := io.ReadFull(first, make([]byte, 61))
		require.Equal(t, 60, n, "what came before the breach is kept")
		require.ErrorIs(t, err, ErrProtocol)
		_, err = first.Write([]byte("x"))
		require.ErrorIs(t, err, ErrProtocol)
		w.send(frame.TypeStreamData, 0, 1, []byte("still on its way"))
		w.send(frame.TypeStreamData, frame.FlagFin, 3, make([]byte, 100))
		all, err := io.ReadAll(second)
		require.NoError(t, err)
		require.Len(t, all, 100)
		w.send(frame.TypeStreamData, frame.FlagFin, 3, nil) // after FIN
		w.wantFailure(frame.TypeStreamReset, 3, codes.FlowControl)
		w.wantAlive()
		wantZero(t, w.s)
	})
}

func TestHalfCloseStopAndResetSayWhatTheyMean(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, 0, generous)
		st := w.opened()
		_, err := st.Write([]byte("ask"))
		require.NoError(t, err)
		require.NoError(t, st.CloseWrite())
		require.NoError(t, st.CloseWrite())
		_, err = st.Write([]byte("more"))
		require.ErrorIs(t, err, net.ErrClosed)
		var all []byte
		fin := false
		for !fin {
			g := w.want(frame.TypeStreamData, 1)
			all, fin = append(all, g.body...), g.Flags&frame.FlagFin != 0
		}
		require.Equal(t, "ask", string(all))
		w.send(frame.TypeStreamData, frame.FlagFin, 1, []byte("answer"))
		all, err = io.ReadAll(st)
		require.NoError(t, err)
		require.Equal(t, "answer", string(all), "bytes in the frame of FIN arrive")
		wantZero(t, w.s)
		require.NoError(t, st.SetDeadline(time.Now().Add(time.Hour)))
		require.NoError(t, st.Close())
		require.NoError(t, st.Close())
		require.ErrorIs(t, st.SetDeadline(time.Time{}), net.ErrClosed)
		_, err = st.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		w.wantNothing()

		st = w.opened() // 3: the peer stops reading
		w.failure(frame.TypeStreamStop, 3, codes.ReadClosed)
		require.NotZero(t, w.want(frame.TypeStreamData, 3).Flags&frame.FlagFin)
		_, err = st.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
		require.True(t, asError(t, err, Unknown).Remote)
		w.send(frame.TypeStreamData, frame.FlagFin, 3, []byte("y"))
		all, err = io.ReadAll(st)
		require.NoError(t, err)
		require.Equal(t, "y", string(all))

		st = w.opened() // 5: this side stops reading
		require.NoError(t, st.CloseRead())
		require.NoError(t, st.SetDeadline(time.Now().Add(time.Hour)), "the write deadline still counts")
		w.wantFailure(frame.TypeStreamStop, 5, codes.ReadClosed)
		w.send(frame.TypeStreamData, 0, 5, []byte("dropped"))
		_, err = st.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		require.NoError(t, st.Close())
		require.NotZero(t, w.want(frame.TypeStreamData, 5).Flags&frame.FlagFin)
		w.send(frame.TypeStreamData, frame.FlagFin, 5, nil)
		wantZero(t, w.s)

		st = w.opened() // 7: the peer resets
		w.send(frame.TypeStreamData, 0, 7, []byte("lost with the reset"))
		w.send(frame.TypeStreamReset, 0, 7, frame.AppendFailure(nil, frame.Failure{Code: 4711, Text: "why not"}))
		synctest.Wait()
		_, err = st.Read(make([]byte, 1))
		require.Equal(t, "why not", asError(t, err, Unknown).Text)
		require.Equal(t, codes.Code(4711), asError(t, err, Unknown).Code)
		_, err = st.Write([]byte("x"))
		require.Equal(t, "why not", asError(t, err, Unknown).Text)
		wantZero(t, w.s)

		st = w.opened() // 9: this side resets
		w.send(frame.TypeStreamData, 0, 9, []byte("unread"))
		synctest.Wait()
		require.NoError(t, st.Reset(42))
		require.NoError(t, st.Reset(43))
		w.wantFailure(frame.TypeStreamReset, 9, 42)
		_, err = st.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		w.wantNothing()
		wantZero(t, w.s)
	})
}

func TestCloseWriteIsNotLostBehindAWriteThatTimesOut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		limits := generous
		limits.StreamWindow = 10
		w := dialed(t, Config{}, 0, limits)
		st := w.opened()
		require.NoError(t, st.SetWriteDeadline(time.Now().Add(time.Second)))
		wrote := make(chan int, 1)
		go func() {
			n, _ := st.Write(make([]byte, 30))
			wrote <- n
		}()
		synctest.Wait()
		require.NoError(t, st.CloseWrite())
		require.Equal(t, 10, <-wrote)
		require.Len(t, w.want(frame.TypeStreamData, 1).body, 10)
		require.NotZero(t, w.want(frame.TypeStreamData, 1).Flags&frame.FlagFin)
	})
}

func TestADeadlineInTheMiddleOfAWriteTellsTheTruth(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{StreamWindow: 100 << 10}})
		got := make(chan []byte, 1)
		p.mux.SetStream("x", func(st *Stream) {
			time.Sleep(10 * time.Second)
			all, _ := io.ReadAll(st)
			got <- all
		})
		st, err := p.dialer.OpenStream(t.Context(), "x", nil)
		require.NoError(t, err)
		body := make([]byte, 300<<10)
		_, _ = rand.Read(body)
		require.NoError(t, st.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := st.Write(body)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 100<<10, n)
		require.NoError(t, st.SetWriteDeadline(time.Time{}))
		m, err := st.Write(body[n:])
		require.NoError(t, err)
		require.Equal(t, len(body), n+m)
		require.NoError(t, st.CloseWrite())
		require.True(t, bytes.Equal(body, <-got))
		require.NoError(t, st.SetReadDeadline(time.Now().Add(-1)))
		_, err = st.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

func TestCloseWithUnreadDataUnblocksTheWriter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetStream("x", func(st *Stream) { time.Sleep(time.Second) })
		st, err := p.dialer.OpenStream(t.Context(), "x", nil)
		require.NoError(t, err)
		began := time.Now()
		_, err = st.Write(make([]byte, 8<<20))
		require.ErrorIs(t, err, syscall.EPIPE)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, codes.Unread, asError(t, st.Close(), Rejected).Code)
		wantZero(t, p.dialer)
		wantZero(t, p.accepted)
	})
}

func TestConcurrentWritersDoNotMix(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{StreamWindow: 5000}})
		got := make(chan []byte, 1)
		p.mux.SetStream("x", func(st *Stream) {
			all, _ := io.ReadAll(st)
			got <- all
		})
		st, err := p.dialer.OpenStream(t.Context(), "x", nil)
		require.NoError(t, err)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for range 10 {
					n, err := st.Write(bytes.Repeat([]byte{byte(i)}, 7777))
					require.NoError(t, err)
					require.Equal(t, 7777, n)
				}
			})
		}
		wg.Wait()
		require.NoError(t, st.CloseWrite())
		all := <-got
		require.Len(t, all, 80*7777)
		for len(all) > 0 {
			require.Equal(t, bytes.Repeat(all[:1], 7777), all[:7777])
			all = all[7777:]
		}
	})
}

// Row: N9
func TestWhatAHandlerWroteAndClosedArrivesAlsoWhenItPanicsThen(t *testing.T) {
	for name, opts := range map[string]*StreamOptions{"shared": {}, "dedicated": {Dedicated: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPair(t, Config{}, AcceptorConfig{})
				p.mux.SetStream("panics", func(st *Stream) {
					_, err := st.Write([]byte("last words"))
					require.NoError(t, err)
					require.NoError(t, st.Close())
					panic("boom")
				})
				st, err := p.dialer.OpenStream(t.Context(), "panics", opts)
				require.NoError(t, err)
				time.Sleep(time.Minute) // the panic has had its time to overtake
				got, err := io.ReadAll(st)
				require.NoError(t, err)
				require.Equal(t, "last words", string(got))
				require.NoError(t, st.Close())
			})
		})
	}
}

// Row: N9
// Claim: session.Config.MaxStreams
func TestOpeningIsRefusedCancelledAndBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MaxStreams: 3}})
		release := make(chan struct{})
		p.mux.SetStream("x", func(*Stream) { <-release })
		p.mux.SetStream("panics", func(*Stream) { panic("boom") })
		st, err := p.dialer.OpenStream(t.Context(), "panics", nil)
		require.NoError(t, err)
		_, err = st.Read(make([]byte, 1))
		require.ErrorIs(t, err, ErrInternal)
		var open []*Stream
		for range 3 {
			st, err := p.dialer.OpenStream(t.Context(), "x", nil)
			require.NoError(t, err)
			require.Equal(t, "x", st.Name())
			require.Same(t, p.dialer, st.Session())
			require.False(t, st.Dedicated())
			open = append(open, st)
		}
		_, err = p.dialer.OpenStream(t.Context(), "x", nil)
		require.ErrorIs(t, err, ErrUnavailable)
		asError(t, err, NotSent)
		close(release)
		for _, st := range open {
			require.NoError(t, st.Close())
		}
		wantZero(t, p.dialer)
		for range 100 {
			st, err := p.dialer.OpenStream(t.Context(), "x", nil)
			require.NoError(t, err)
			require.NoError(t, st.Close())
			synctest.Wait()
		}
		wantZero(t, p.accepted)
	})
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{}, 0, generous)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		for range 2 { // one OPEN is being written, one waits
			go func() {
				_, err := w.s.OpenStream(ctx, "x", nil)
				results <- err
			}()
			synctest.Wait()
		}
		cancel()
		outcomes := make(map[Outcome]int)
		for range 2 {
			var e *Error
			require.ErrorAs(t, <-results, &e)
			require.ErrorIs(t, e, context.Canceled)
			outcomes[e.Outcome]++
		}
		require.Equal(t, map[Outcome]int{Unknown: 1, NotSent: 1}, outcomes)
		go w.listen()
		w.want(frame.TypeStreamOpen, 1)
		w.wantFailure(frame.TypeStreamReset, 1, codes.Cancelled)
		w.send(frame.TypeStreamAccept, 0, 1, nil) // crossed the RESET
		w.send(frame.TypeStreamData, 0, 1, []byte("x"))
		w.wantNothing()
		w.wantAlive()
		wantZero(t, w.s)
	})
}

func TestTheEndOfTheSessionEndsStreams(t *testing.T) {
	for name, dedicated := range map[string]bool{"shared": false, "dedicated": true} {
		t.Run(name, func(t *testing.T) {
			for _, end := range []struct {
				do func(p *pair)
				is error
			}{
				{func(p *pair) { _ = p.dialer.Close() }, ErrClosed},
				{func(p *pair) { _ = p.dialer.Conn().Close() }, ErrSessionLost},
				{func(p *pair) { _ = p.dialer.Shutdown(within(p.t, time.Second)) }, ErrClosed},
			} {
				inBubble(t, func(t *testing.T) {
					p := newPair(t, mortal, AcceptorConfig{})
					p.mux.SetStream("x", func(st *Stream) {
						_, err := io.ReadAll(st)
						if !dedicated && end.is != ErrClosed { // a pipe does not tell a reset from an end
							require.Error(t, err)
						}
					})
					st, err := p.dialer.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: dedicated})
					require.NoError(t, err)
					require.Equal(t, dedicated, st.Dedicated())
					read := make(chan error, 1)
					go func() {
						_, err := st.Read(make([]byte, 1))
						read <- err
					}()
					synctest.Wait()
					end.do(p)
					if err = <-read; err != io.EOF || end.is != ErrClosed && !dedicated { // likewise; in order, the handler has closed the stream
						require.ErrorIs(t, err, end.is)
					}
					<-p.dialer.Done()
					synctest.Wait()
					_, err = st.Write([]byte("x"))
					require.ErrorIs(t, err, end.is)
					require.NoError(t, st.Close())
					wantZero(t, p.dialer)
					wantZero(t, p.accepted)
				})
			}
		})
	}
}

func TestHandlersOfEndedStreamsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{MaxStreams: 4}}, 0, generous)
		release := make(chan struct{})
		w.s.cfg.Mux.SetStream("x", func(*Stream) { <-release })
		for i := range 50 {
			w.send(frame.TypeStreamOpen, 0, uint64(2*i+1), []byte("x"))
			w.failure(frame.TypeStreamReset, uint64(2*i+1), codes.Cancelled)
		}
		synctest.Wait()
		w.s.mu.Lock()
		require.Equal(t, 8, w.s.shared.handlers)
		w.s.mu.Unlock()
		for i := range 50 {
			if i < 8 {
				w.want(frame.TypeStreamAccept, uint64(2*i+1))
			} else {
				w.wantFailure(frame.TypeStreamReset, uint64(2*i+1), codes.Unavailable)
			}
		}
		close(release)
		wantZero(t, w.s)
	})
}
