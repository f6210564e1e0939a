package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// Row: N7, D6
func TestCallOutcomesByHowTheCallEnds(t *testing.T) {
	big := make([]byte, 1<<20)
	_, _ = rand.Read(big)
	for name, c := range map[string]struct {
		body    []byte
		end     func(w *wire)
		outcome Outcome
		is      error
	}{
		"the whole request left, then the carrier is cut": {[]byte("x"), func(w *wire) {
			w.want(frame.TypeRequest, 1)
			_ = w.conn.Close()
		}, Unknown, ErrSessionLost},
		"the handler answers with an error": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.Application)
		}, Delivered, nil},
		"the handler panics": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.Internal)
		}, Delivered, ErrInternal},
		"the handler gives no reply": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.NoReply)
		}, Delivered, ErrNoReply},
		"not found": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.NotFound)
		}, Rejected, ErrNotFound},
		"unavailable": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.Unavailable)
		}, Rejected, ErrUnavailable},
		"too large": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.TooLarge)
		}, Rejected, ErrTooLarge},
		"unsupported": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.Unsupported)
		}, Rejected, ErrUnsupported},
		"going away": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.GoingAway)
		}, NotSent, ErrGoingAway},
		"a code of a later version": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, 4711)
		}, Unknown, nil},
		"the peer times the request out": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeError, 1, codes.Timeout)
		}, Unknown, os.ErrDeadlineExceeded},
		"the peer breaks the protocol": {[]byte("x"), func(w *wire) {
			w.push(frame.TypeContinue, 0, 2, []byte("what?"))
		}, Unknown, ErrSessionLost},
		"the peer closes": {[]byte("x"), func(w *wire) {
			w.failure(frame.TypeGoAway, 1, codes.Closed)
			_ = w.conn.Close()
		}, Unknown, ErrSessionLost},
		"this side closes": {[]byte("x"), func(w *wire) { _ = w.s.Close() }, Unknown, ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := dialed(t, Config{}, frame.CapZstd, generous)
				go func() {
					synctest.Wait()
					c.end(w)
				}()
				_, err := w.s.Call(t.Context(), "", c.body)
				asError(t, err, c.outcome)
				if c.is != nil {
					require.ErrorIs(t, err, c.is)
				}
				wantZero(t, w.s)
			})
		})
	}
}

// Row: D6
func TestARequestThatHasNotLeftWholeIsNotSent(t *testing.T) {
	body := make([]byte, 4<<20)
	_, _ = rand.Read(body)
	ends := map[string]func(w *wire, cancel func()){
		"cut":    func(w *wire, _ func()) { _ = w.conn.Close() },
		"cancel": func(_ *wire, cancel func()) { cancel() },
		"close":  func(w *wire, _ func()) { _ = w.s.Close() },
		"silent": func(*wire, func()) {},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := silent(t, Config{}, 0, generous)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				result := make(chan error, 2)
				go func() {
					_, err := w.s.Call(ctx, "begun", body)
					result <- err
				}()
				synctest.Wait()
				go func() {
					_, err := w.s.Call(ctx, "queued", body)
					result <- err
				}()
				synctest.Wait()
				end(w, cancel)
				for range 2 {
					asError(t, <-result, NotSent)
				}
				if name == "cancel" {
					go w.listen()
					require.Equal(t, uint64(1), w.want(frame.TypeRequest, 1).ID)
					g := <-w.got
					for g.Type == frame.TypeContinue {
						g = <-w.got
					}
					require.Equal(t, frame.TypeCancel, g.Type)
					w.wantNothing()
				}
				wantZero(t, w.s)
			})
		})
	}
}

func TestARefusalBeforeTheWholeRequestLeftStopsIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{}, 0, generous)
		result := make(chan error, 1)
		go func() {
			_, err := w.s.Call(t.Context(), "", make([]byte, 8<<20))
			result <- err
		}()
		synctest.Wait()
		w.failure(frame.TypeError, 1, codes.Timeout)
		err := <-result
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		asError(t, err, NotSent)
		go w.listen()
		synctest.Wait()
		require.Less(t, w.read.Load(), int64(4*fragment))
		w.wantAlive()
		wantZero(t, w.s)
	})
}

// Row: D7, N7
// Claim: session.Snapshot.Cancelled, session.Snapshot.Late
func TestCancelReachesTheHandler(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		began := time.Now()
		seen := make(chan time.Duration, 3)
		started := make(chan struct{})
		p.mux.SetLink("wait", func(m *Message) {
			derived, cancel := context.WithTimeout(m.Context(), time.Hour)
			defer cancel()
			context.AfterFunc(m.Context(), func() { seen <- time.Since(began) })
			m.ctx.mu.Lock()
			assert.Len(t, m.ctx.after, 2, "a derived context costs a goroutine")
			m.ctx.mu.Unlock()
			close(started)
			<-derived.Done()
			assert.ErrorIs(t, derived.Err(), context.Canceled)
			seen <- time.Since(began)
			assert.ErrorIs(t, m.Reply(nil), context.Canceled)
			assert.ErrorIs(t, m.Reply(nil), ErrReplied)
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-started
			time.Sleep(200 * time.Millisecond)
			cancel()
		}()
		_, err := p.dialer.SendWait(ctx, "wait", nil)
		require.ErrorIs(t, err, context.Canceled)
		asError(t, err, Unknown)
		require.Equal(t, 200*time.Millisecond, time.Since(began))
		require.Equal(t, 200*time.Millisecond, <-seen)
		require.Equal(t, 200*time.Millisecond, <-seen)
		wantZero(t, p.accepted)
		require.Equal(t, uint64(1), p.accepted.Snapshot().Cancelled)
		require.Equal(t, uint64(1), p.accepted.Snapshot().Late)
	})
}

// Claim: session.Config.RequestTimeout
func TestTheEarlierOfRequestTimeoutAndDeadlineEndsACall(t *testing.T) {
	for _, c := range []struct {
		timeout, ctx, want time.Duration
		is                 error
	}{
		{0, 0, 30 * time.Second, os.ErrDeadlineExceeded},
		{5 * time.Second, 0, 5 * time.Second, os.ErrDeadlineExceeded},
		{5 * time.Second, 2 * time.Second, 2 * time.Second, context.DeadlineExceeded},
		{2 * time.Second, 5 * time.Second, 2 * time.Second, os.ErrDeadlineExceeded},
		{-1, 50 * time.Second, 50 * time.Second, context.DeadlineExceeded},
	} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{RequestTimeout: c.timeout}, AcceptorConfig{})
			deadlines := make(chan time.Duration, 1)
			began := time.Now()
			p.mux.SetCall(func(m *Message) ([]byte, error) {
				d, ok := m.Context().Deadline()
				assert.True(t, ok)
				deadlines <- d.Sub(began)
				<-m.Context().Done()
				assert.Error(t, m.Context().Err())
				time.Sleep(time.Millisecond) // let the caller be the first to give up
				return nil, m.Context().Err()
			})
			ctx := t.Context()
			if c.ctx > 0 {
				ctx = within(t, c.ctx)
			}
			_, err := p.dialer.Call(ctx, "", nil)
			require.ErrorIs(t, err, c.is, "%+v", c)
			asError(t, err, Unknown)
			require.Equal(t, c.want, time.Since(began), "%+v", c)
			time.Sleep(time.Second)
			require.Equal(t, c.want, <-deadlines, "%+v", c)
			var timeout interface{ Timeout() bool }
			require.True(t, errors.As(err, &timeout) && timeout.Timeout())
			wantZero(t, p.accepted)
		})
	}
}

func TestALateReplyIsDroppedAndCounted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, 0, generous)
		_, err := w.s.Call(within(t, time.Second), "", nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		w.want(frame.TypeRequest, 1)
		w.want(frame.TypeCancel, 1)
		w.respond(1, "too late")
		w.send(frame.TypeContinue, 0, 1, []byte("and more"))
		w.failure(frame.TypeError, 1, codes.Application)
		w.wantAlive()
		require.Equal(t, uint64(2), w.s.Snapshot().Late)
		require.Zero(t, w.s.Snapshot().Undelivered)
		go w.answerNext()
		reply, err := w.s.Call(t.Context(), "", nil)
		require.NoError(t, err)
		require.Equal(t, "fresh", string(reply))
	})
}

func (w *wire) answerNext() {
	g := <-w.got
	w.respond(g.ID, "fresh")
}

// Row: D8, D9
// Claim: session.ErrTooLarge
func TestSizesAreExactToTheByte(t *testing.T) {
	const limit = 100 << 10
	for name, fill := range map[string]func([]byte){
		"random": func(b []byte) { _, _ = rand.Read(b) },
		"zeros":  func([]byte) {},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPair(t, Config{MaxMessage: limit}, AcceptorConfig{Config: Config{MaxMessage: limit}})
				p.mux.SetCall(func(m *Message) ([]byte, error) {
					reply := make([]byte, int(m.Value[0])<<16|int(m.Value[1])<<8|int(m.Value[2]))
					fill(reply)
					return reply, nil
				})
				ask := func(request, reply int) ([]byte, error) {
					body := make([]byte, request)
					fill(body)
					copy(body, []byte{byte(reply >> 16), byte(reply >> 8), byte(reply)})
					return p.dialer.Call(t.Context(), "", body)
				}
				for _, n := range []int{3, limit - 1, limit} {
					_, err := ask(n, 0)
					require.NoError(t, err, "request of %d", n)
					reply, err := ask(3, n)
					require.NoError(t, err, "reply of %d", n)
					require.Len(t, reply, n)
				}
				_, err := ask(limit+1, 0)
				require.ErrorIs(t, err, ErrTooLarge)
				asError(t, err, NotSent)
				_, err = ask(3, limit+1)
				require.ErrorIs(t, err, ErrTooLarge)
				asError(t, err, Delivered)
				require.ErrorIs(t, p.dialer.Send(t.Context(), "x", make([]byte, limit+1)), ErrTooLarge)
				_, err = ask(3, 3)
				require.NoError(t, err)
			})
		})
	}
}

// Row: D10
func TestTheReceiversLimitHoldsAgainstALyingPeer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{MaxMessage: 1000}}, frame.CapZstd, generous)
		w.s.cfg.Mux.SetCall(echo)
		head := func(flags frame.Flags, s frame.Start) []byte { return start(frame.TypeRequest, flags, s, nil) }
		w.send(frame.TypeRequest, 0, 1, head(0, frame.Start{Total: 1001}))
		w.wantFailure(frame.TypeError, 1, codes.TooLarge)
		w.send(frame.TypeContinue, 0, 1, make([]byte, 1001)) // was on its way
		w.send(frame.TypeRequest, frame.FlagCompressed, 3, head(frame.FlagCompressed, frame.Start{Total: 10, Raw: 1001}))
		w.wantFailure(frame.TypeError, 3, codes.TooLarge)
		w.send(frame.TypeRequest, frame.FlagCompressed, 5, head(frame.FlagCompressed, frame.Start{Total: 1001, Raw: 10}))
		w.wantFailure(frame.TypeError, 5, codes.TooLarge)
		w.send(frame.TypeRequest, 0, 7, start(frame.TypeRequest, 0, frame.Start{Total: 1000}, make([]byte, 1000)))
		w.want(frame.TypeResponse, 7)
		wantZero(t, w.s)
	})
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{MaxMessage: 1000}, 0, generous)
		go func() {
			w.want(frame.TypeRequest, 1)
			w.send(frame.TypeResponse, 0, 1, start(frame.TypeResponse, 0, frame.Start{Total: 1001}, make([]byte, 500)))
			w.want(frame.TypeCancel, 1)
			w.send(frame.TypeContinue, 0, 1, make([]byte, 501))
		}()
		_, err := w.s.Call(t.Context(), "", nil)
		require.ErrorIs(t, err, ErrTooLarge)
		asError(t, err, Delivered)
		w.wantAlive()
		wantZero(t, w.s)
	})
}

// Claim: session.Config.MaxInFlight, session.Snapshot.InFlightOut
func TestCallsWaitForAPlaceInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		limits := generous
		limits.MaxInFlight = 1
		w := dialed(t, Config{}, 0, limits)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		errs := make([]error, 10)
		for i := range errs {
			wg.Go(func() {
				c := t.Context()
				if i%3 == 1 {
					c = ctx
				}
				_, errs[i] = w.s.Call(c, fmt.Sprint(i), nil)
			})
			synctest.Wait()
		}
		require.Equal(t, 1, w.s.Snapshot().InFlightOut)
		cancel()
		synctest.Wait()
		for i := range errs {
			if i%3 == 1 {
				asError(t, errs[i], NotSent)
				continue
			}
			g := <-w.got
			require.Equal(t, frame.TypeRequest, g.Type)
			s, _, err := frame.ConsumeStart(g.body, g.Type, g.Flags, nil)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), s.Link)
			w.wantNothing()
			w.respond(g.ID, "")
		}
		wg.Wait()
		wantZero(t, w.s)
	})
}

// Row: D16
func TestRequestAndReplyAreOwnedCopies(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		var kept [][]byte
		p.mux.SetLink("keep", func(m *Message) {
			kept = append(kept, m.Value)
			scratch := bytes.Clone(m.Value)
			require.NoError(t, m.Reply(scratch))
			clear(scratch)
		})
		var replies []*Message
		for i := range 50 {
			body := bytes.Repeat([]byte{byte(i + 1)}, 1<<(i%18))
			reply, err := p.dialer.SendWait(t.Context(), "keep", body)
			require.NoError(t, err)
			replies = append(replies, reply)
			clear(body)
		}
		for i := range 50 {
			want := bytes.Repeat([]byte{byte(i + 1)}, 1<<(i%18))
			require.True(t, bytes.Equal(want, kept[i]), "request %d", i)
			require.True(t, bytes.Equal(want, replies[i].Value), "reply %d", i)
			require.ErrorIs(t, replies[i].Reply(nil), ErrOneWay)
			require.False(t, replies[i].WantsReply())
		}
	})
}

func TestBothSidesCallEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		countdown := func(m *Message) {
			if m.Value[0] == 0 {
				require.NoError(t, m.Reply([]byte("bottom")))
				return
			}
			r, err := m.Session().SendWait(m.Context(), "down", []byte{m.Value[0] - 1})
			require.NoError(t, err)
			require.NoError(t, m.Reply(r.Value))
		}
		p.mux.SetLink("down", countdown)
		p.ours.SetLink("down", countdown)
		for _, s := range []*Session{p.dialer, p.accepted} {
			r, err := s.SendWait(t.Context(), "down", []byte{40})
			require.NoError(t, err)
			require.Equal(t, "bottom", string(r.Value))
		}
		wantZero(t, p.dialer)
		wantZero(t, p.accepted)
	})
}

func TestCallsAreRecycledSafelyUnderCancellation(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MaxInFlight: 5}})
		p.mux.SetCall(func(m *Message) ([]byte, error) {
			time.Sleep(time.Duration(m.Value[0]%7) * time.Millisecond)
			return m.Value, nil
		})
		var wg sync.WaitGroup
		for g := range 20 {
			wg.Go(func() {
				for i := range 40 {
					body := bytes.Repeat([]byte{byte(g), byte(i)}, 1+i*i*40)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%9)*time.Millisecond+time.Microsecond)
					reply, err := p.dialer.Call(ctx, "", body)
					cancel()
					if err == nil && !bytes.Equal(body, reply) {
						t.Errorf("call %d.%d got somebody else's reply", g, i)
					}
				}
			})
		}
		wg.Wait()
		wantZero(t, p.dialer)
		time.Sleep(time.Second)
		wantZero(t, p.accepted)
	})
}

func TestADeadContextOrALongLinkSendsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, 0, generous)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := w.s.Call(ctx, "", nil)
		require.ErrorIs(t, err, context.Canceled)
		asError(t, err, NotSent)
		require.ErrorIs(t, w.s.Send(ctx, "", nil), context.Canceled)
		long := string(make([]byte, 256))
		_, err = w.s.Call(t.Context(), long, nil)
		require.ErrorIs(t, err, ErrTooLarge)
		require.ErrorIs(t, w.s.Send(t.Context(), long, nil), ErrTooLarge)
		_, err = w.s.OpenStream(t.Context(), long, nil)
		require.ErrorIs(t, err, ErrTooLarge)
		_, err = w.s.OpenStream(t.Context(), "", nil)
		require.Error(t, err)
		w.wantNothing()
	})
}
