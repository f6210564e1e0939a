package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// Row: N6
func TestMessagesOfAnySizeKeepTheirOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MessageWindow: 100 << 10, MaxMessage: 1 << 20}})
		var got []int
		p.mux.SetLink("log", func(m *Message) {
			got = append(got, len(m.Value))
			if len(m.Value)%3 == 0 {
				time.Sleep(time.Millisecond)
			}
		})
		p.mux.SetCall(echo)
		r := rand.New(rand.NewPCG(1, 2))
		var want []int
		for range 150 {
			n := r.IntN(1 << r.IntN(21))
			want = append(want, n)
			require.NoError(t, p.dialer.Send(t.Context(), "log", make([]byte, n)))
			if n%5 == 0 {
				_, err := p.dialer.Call(t.Context(), "", make([]byte, n))
				require.NoError(t, err)
			}
		}
		require.NoError(t, p.dialer.Flush(t.Context()))
		require.Equal(t, want, got)
		require.Zero(t, p.dialer.messages.out.charge)
		wantZero(t, p.accepted)
		require.Zero(t, p.accepted.messages.in.charge)
	})
}

// Row: U17
func TestSendWaitsForTheWindowAndForItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		limits := generous
		limits.MessageWindow = 200
		w := dialed(t, Config{}, 0, limits)
		value := make([]byte, 100)
		require.NoError(t, w.s.Send(t.Context(), "x", value)) // charge 164
		require.NoError(t, w.s.Send(t.Context(), "x", value)) // starts below the window
		value[0] = 1                                          // Send has copied it
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				err := w.s.Send(within(t, time.Duration(i+1)*time.Second), "gone", value)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				asError(t, err, NotSent)
			})
			synctest.Wait()
		}
		wg.Go(func() { require.NoError(t, w.s.Send(t.Context(), "stays", value)) })
		time.Sleep(10 * time.Second)
		first := w.want(frame.TypeMessage, 1)
		require.Zero(t, first.body[len(first.body)-100])
		w.want(frame.TypeMessage, 3)
		w.wantNothing()
		w.send(frame.TypeMessageAck, 0, 3, nil)
		wg.Wait()
		require.Equal(t, 10*time.Second, time.Since(began))
		s, _, err := frame.ConsumeStart(w.want(frame.TypeMessage, 5).body, frame.TypeMessage, 0, nil)
		require.NoError(t, err)
		require.Equal(t, "stays", s.Link)
		require.ErrorIs(t, w.s.Flush(within(t, time.Second)), context.DeadlineExceeded)
		w.send(frame.TypeMessageAck, 0, 5, nil)
		require.NoError(t, w.s.Flush(t.Context()))
		require.Empty(t, w.s.messages.out.flushers)
	})
}

func TestAMessageLargerThanTheWindowPasses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MessageWindow: 1}})
		var got int
		p.mux.SetLink("x", func(m *Message) { got += len(m.Value) })
		for range 3 {
			require.NoError(t, p.dialer.Send(t.Context(), "x", make([]byte, 3<<20)))
		}
		require.NoError(t, p.dialer.Flush(t.Context()))
		require.Equal(t, 9<<20, got)
	})
}

// Row: N5
// Claim: session.Config.OnUndelivered, session.Snapshot.Undelivered
func TestFailuresOfMessagesAreToldOnceAndBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var mu sync.Mutex
		hooked := 0
		p := newPair(t, Config{OnUndelivered: func(*Error) {
			mu.Lock()
			defer mu.Unlock()
			hooked++
		}}, AcceptorConfig{Config: Config{MaxMessage: 1000}})
		p.mux.SetCall(func(*Message) ([]byte, error) { return nil, errors.New("no") })
		p.mux.SetLink("boom", func(*Message) { panic("boom") })
		p.mux.SetLink("exit", func(*Message) { runtime.Goexit() })
		p.mux.SetLink("fine", func(*Message) {})
		for _, link := range []string{"", "boom", "exit", "fine", "nobody", "fine"} {
			require.NoError(t, p.dialer.Send(t.Context(), link, nil))
		}
		err := p.dialer.Flush(t.Context())
		require.ErrorIs(t, err, ErrNotFound)
		require.ErrorIs(t, err, ErrInternal)
		require.NoError(t, p.dialer.Flush(t.Context()), "each failure is told once")
		for range 2 * maxFailures {
			require.NoError(t, p.dialer.Send(t.Context(), "nobody", nil))
		}
		err = p.dialer.Flush(t.Context())
		require.ErrorContains(t, err, fmt.Sprintf("and %d more", maxFailures))
		require.Len(t, err.(interface{ Unwrap() []error }).Unwrap(), maxFailures+1)
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, 4+2*maxFailures, hooked, "a handler that ends its goroutine has not handled its message")
		require.Equal(t, uint64(hooked), p.dialer.Snapshot().Undelivered)
		wantZero(t, p.accepted)
	})
}

// Row: N6
// Claim: session.Error.Link
func TestTheEndOfTheSessionTellsWhatBecameOfMessages(t *testing.T) {
	for name, hooked := range map[string]bool{"with a hook": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				limits := generous
				limits.MessageWindow = 400 << 10
				byLink := map[string]Outcome{}
				count := 0
				cfg := Config{Heartbeat: -1}
				var s *Session
				if hooked {
					cfg.OnUndelivered = func(e *Error) {
						count++
						if e.Link == "silent" { // a hook that asks in the middle of the end
							require.Error(t, s.Flush(t.Context()))
						}
					}
				}
				w := silent(t, cfg, 0, limits)
				s = w.s
				for i, link := range []string{"failed", "left", "partly"} {
					require.NoError(t, w.s.Send(t.Context(), link, make([]byte, 1+i*100<<10)))
					synctest.Wait()
				}
				require.NoError(t, w.s.Send(t.Context(), "queued", make([]byte, 10)))
				waits := make(chan error, 1)
				go func() { waits <- w.s.Send(t.Context(), "waits", make([]byte, 10)) }()
				w.failure(frame.TypeError, 1, codes.NotFound)
				w.failure(frame.TypeError, 1, codes.NotFound) // a second time counts for nothing
				synctest.Wait()
				select { // the window may have had room for it
				case err := <-waits:
					require.NoError(t, err)
				default:
				}
				_ = w.conn.Close()
				err := w.s.Flush(t.Context())
				for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
					var typed *Error
					require.ErrorAs(t, e, &typed)
					_, twice := byLink[typed.Link]
					require.False(t, twice, "%q is told twice", typed.Link)
					byLink[typed.Link] = typed.Outcome
				}
				require.Equal(t, Rejected, byLink["failed"])
				require.Equal(t, NotSent, byLink["partly"])
				require.Equal(t, NotSent, byLink["queued"])
				synctest.Wait()
				if hooked {
					require.Equal(t, len(byLink), count)
				}
			})
		})
	}
}

func TestAMessageThatLeftWholeIsUnknownWhenTheSessionIsLost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, 0, generous)
		require.NoError(t, w.s.Send(t.Context(), "x", []byte("1")))
		require.NoError(t, w.s.Send(t.Context(), "x", []byte("2")))
		w.want(frame.TypeMessage, 1)
		w.want(frame.TypeMessage, 3)
		w.send(frame.TypeMessageAck, 0, 1, nil)
		_ = w.conn.Close()
		<-w.s.Done()
		err := w.s.Flush(t.Context())
		require.ErrorIs(t, err, ErrSessionLost)
		asError(t, err, Unknown)
		require.NoError(t, w.s.Flush(t.Context()))
	})
}

func TestLiesAboutMessagesEndTheSession(t *testing.T) {
	for name, lie := range map[string]func(w *wire){
		"ack of nothing":            func(w *wire) { w.push(frame.TypeMessageAck, 0, 99, nil) },
		"ack twice":                 func(w *wire) { w.push(frame.TypeMessageAck, 0, 1, nil); w.push(frame.TypeMessageAck, 0, 1, nil) },
		"ack of its own parity":     func(w *wire) { w.push(frame.TypeMessageAck, 0, 2, nil) },
		"ack of what has not left":  func(w *wire) { w.push(frame.TypeMessageAck, 0, 3, nil) },
		"message inside a message":  func(w *wire) { w.push(frame.TypeMessage, 0, 2, head(10)); w.push(frame.TypeMessage, 0, 4, head(10)) },
		"message beyond the window": func(w *wire) { w.message(2, "x", string(make([]byte, 500))); w.push(frame.TypeMessage, 0, 4, head(0)) },
		"too many bytes": func(w *wire) {
			w.push(frame.TypeMessage, 0, 2, head(2))
			w.push(frame.TypeContinue, 0, 2, make([]byte, 3))
		},
		"too many refused bytes": func(w *wire) {
			w.push(frame.TypeMessage, 0, 2, start(frame.TypeMessage, 0, frame.Start{Total: 5000, Link: "x"}, nil))
			w.push(frame.TypeContinue, 0, 2, make([]byte, 5001))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				mux := NewMux()
				block := make(chan struct{})
				defer close(block)
				mux.SetLink("x", func(*Message) { <-block })
				w := dialed(t, Config{Mux: mux, MessageWindow: 500, MaxMessage: 1000}, 0, generous)
				require.NoError(t, w.s.Send(t.Context(), "x", nil))
				w.want(frame.TypeMessage, 1)
				lie(w)
				require.ErrorIs(t, w.wantEnd(), ErrProtocol)
			})
		})
	}
}

func head(total int) []byte {
	return start(frame.TypeMessage, 0, frame.Start{Total: total, Link: "x"}, nil)
}

// Row: N8
func TestObjectsTravelByTheirCodec(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		type point struct{ X, Y int }
		p := newPair(t, Config{}, AcceptorConfig{})
		require.NoError(t, p.ours.RegisterCodec(upper{}))
		require.Error(t, p.ours.RegisterCodec(upper{}))
		require.Error(t, p.ours.RegisterCodec(JSON))
		var got point
		p.mux.SetLink("point", func(m *Message) {
			require.NoError(t, m.Object(&got))
			require.ErrorIs(t, m.ReplyObj("", 1), ErrOneWay)
		})
		require.NoError(t, p.dialer.SendObj(t.Context(), "point", "", point{1, 2}))
		require.NoError(t, p.dialer.Flush(t.Context()))
		require.Equal(t, point{1, 2}, got)

		p.mux.SetLink("swap", func(m *Message) {
			var v point
			if err := m.Object(&v); err != nil {
				_ = m.Refuse(err)
				return
			}
			_ = m.ReplyObj("json", point{v.Y, v.X})
		})
		require.NoError(t, p.dialer.SendWaitObj(t.Context(), "swap", "json", point{3, 4}, &got))
		require.Equal(t, point{4, 3}, got)

		err := p.dialer.SendWaitObj(t.Context(), "swap", "upper", "text", &got)
		require.ErrorIs(t, err, ErrUnsupported)
		asError(t, err, Rejected)
		require.NoError(t, p.mux.RegisterCodec(upper{}))
		require.Error(t, p.dialer.SendWaitObj(t.Context(), "swap", "upper", "text", &got), "not a point")

		err = p.dialer.SendObj(t.Context(), "point", "cbor", 1)
		require.ErrorIs(t, err, ErrUnsupported)
		err = p.dialer.SendObj(t.Context(), "point", "", func() {})
		asError(t, err, NotSent)
		err = p.dialer.SendWaitObj(t.Context(), "swap", "", point{}, &[]string{})
		require.ErrorContains(t, err, "decode")
		require.ErrorContains(t, err, "json object")
		asError(t, err, Delivered)
	})
}

// upper is a codec of strings.
type upper struct{}

func (upper) Name() string                       { return "upper" }
func (upper) Marshal(v any) ([]byte, error)      { return fmt.Append(nil, v), nil }
func (upper) Unmarshal(data []byte, v any) error { return errors.New("upper cannot") }
