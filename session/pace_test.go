package session

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

const readTimeout = 4 * time.Second

// answers returns how the next n requests were answered: codes.OK is a response.
func (w *wire) answers(n int) map[codes.Code]int {
	w.t.Helper()
	all := make(map[codes.Code]int)
	for done := 0; done < n; {
		select {
		case g := <-w.got:
			switch g.Type {
			case frame.TypeError:
				f, err := frame.ConsumeFailure(g.body)
				require.NoError(w.t, err)
				all[f.Code]++
			case frame.TypeResponse:
				all[codes.OK]++
			default: // the rest of a response
				continue
			}
			done++
		case <-time.After(5 * time.Minute):
			require.Fail(w.t, "no answer", "%v", all)
		}
	}
	return all
}

// Requests that send a byte now and then hold memory for two ReadTimeouts at most. The largest are refused, and small ones are not.
func TestRequestsThatTrickleAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{ReadTimeout: readTimeout}}, 0, generous)
		w.s.cfg.Mux.SetCall(echo)
		big := make([]byte, 50<<10)
		for i := range 10 {
			w.send(frame.TypeRequest, 0, uint64(1+2*i), start(frame.TypeRequest, 0, frame.Start{Total: 1 << 20}, big))
		}
		w.send(frame.TypeRequest, 0, 21, start(frame.TypeRequest, 0, frame.Start{Total: 100}, []byte("x")))
		synctest.Wait()
		require.Equal(t, int64(10*len(big)+1), w.s.cfg.Quota.Snapshot().Bytes)
		for range 4 {
			time.Sleep(readTimeout / 2)
			for i := range 11 {
				w.send(frame.TypeContinue, 0, uint64(1+2*i), []byte("y"))
			}
		}
		synctest.Wait()
		require.LessOrEqual(t, w.s.cfg.Quota.Snapshot().Bytes, int64(22*32))
		w.send(frame.TypeContinue, 0, 21, make([]byte, 95))
		require.Equal(t, map[codes.Code]int{codes.Timeout: 10, codes.OK: 1}, w.answers(11))
		wantZero(t, w.s)
	})
}

// A slow link carries a large request, beside others, as long as it takes.
func TestASlowRequestArrives(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{ReadTimeout: readTimeout}}, 0, generous)
		w.s.cfg.Mux.SetCall(func(m *Message) ([]byte, error) { return fmt.Append(nil, len(m.Value)), nil })
		const parts = 25
		piece := make([]byte, 10<<10)
		for _, id := range []uint64{1, 3} {
			w.send(frame.TypeRequest, 0, id, start(frame.TypeRequest, 0, frame.Start{Total: parts * len(piece)}, piece))
		}
		for range parts - 1 {
			time.Sleep(readTimeout * 3 / 4)
			w.send(frame.TypeContinue, 0, 1, piece)
			w.send(frame.TypeContinue, 0, 3, piece)
		}
		require.Equal(t, map[codes.Code]int{codes.OK: 2}, w.answers(2))
		wantZero(t, w.s)
	})
}

// A one-way message that trickles ends the session: no other can pass it.
func TestAMessageThatTricklesEndsTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{ReadTimeout: readTimeout}}, 0, generous)
		w.s.cfg.Mux.SetLink("x", func(*Message) {})
		w.send(frame.TypeMessage, 0, 1, start(frame.TypeMessage, 0, frame.Start{Total: 1 << 20, Link: "x"}, make([]byte, 50<<10)))
		began := time.Now()
		for w.s.Err() == nil {
			time.Sleep(readTimeout / 2)
			w.push(frame.TypeContinue, 0, 1, []byte("y"))
		}
		require.ErrorIs(t, w.s.Err(), ErrSessionLost)
		require.LessOrEqual(t, time.Since(began), 3*readTimeout)
	})
}

// Unread replies hold no more than the quota. The caller of a dropped one learns that the handler ran.
func TestRepliesThatNobodyReadsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit, size, calls = 1 << 20, 64 << 10, 100
		quota := &Quota{MaxBytes: limit}
		w := deaf(t, AcceptorConfig{Config: Config{Quota: quota, Heartbeat: -1}}, 0, generous)
		failed := make(chan error, calls)
		w.s.cfg.Mux.SetLink("x", func(m *Message) {
			if err := m.Reply(make([]byte, size)); err != nil {
				failed <- err
			}
		})
		for i := range calls {
			w.send(frame.TypeRequest, 0, uint64(1+2*i), start(frame.TypeRequest, 0, frame.Start{Link: "x"}, nil))
		}
		synctest.Wait()
		require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
		require.Greater(t, quota.Snapshot().Bytes, int64(limit/2))
		require.GreaterOrEqual(t, len(failed), calls-limit/size)
		require.ErrorIs(t, <-failed, ErrUnavailable)
		refused := 1 + len(failed)
		go w.listen()
		require.Equal(t, map[codes.Code]int{codes.ReplyTooLarge: refused, codes.OK: calls - refused}, w.answers(calls))
		synctest.Wait() // they come in turns
		w.request(2*calls+1, "x", "")
		require.Equal(t, map[codes.Code]int{codes.OK: 1}, w.answers(1), "there is room again")
		wantZero(t, w.s)
	})
}

// Unread stream data is in the quota. Data that it has no room for ends its stream, and the others go on.
func TestStreamsThatNobodyReadsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 1 << 20
		quota := &Quota{MaxBytes: limit}
		w := accepted(t, AcceptorConfig{Config: Config{Quota: quota}}, 0, generous)
		read := make(chan struct{})
		got := make(chan int, 10)
		w.s.cfg.Mux.SetStream("x", func(st *Stream) {
			<-read
			b, _ := io.ReadAll(st)
			got <- len(b)
		})
		for i := range 5 {
			w.send(frame.TypeStreamOpen, 0, uint64(1+2*i), []byte("x"))
			for range 8 {
				w.push(frame.TypeStreamData, 0, uint64(1+2*i), make([]byte, 32<<10))
			}
		}
		synctest.Wait()
		require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
		require.Greater(t, quota.Snapshot().Bytes, int64(limit/2))
		resets := 0
		for len(w.got) > 0 {
			if g := <-w.got; g.Type == frame.TypeStreamReset {
				f, err := frame.ConsumeFailure(g.body)
				require.NoError(t, err)
				require.Equal(t, codes.Unavailable, f.Code)
				resets++
			}
		}
		require.Positive(t, resets)
		require.Less(t, resets, 4, "three have room")
		for i := range 5 {
			w.push(frame.TypeStreamData, frame.FlagFin, uint64(1+2*i), nil)
		}
		close(read)
		whole := 0
		for range 5 {
			if <-got == 8*32<<10 {
				whole++
			}
		}
		require.Equal(t, 5-resets, whole)
		synctest.Wait()
		require.Zero(t, quota.Snapshot().Bytes)
		w.wantAlive()
	})
}

// An incomplete message holds nothing once the session has ended, however it ends.
func TestAnIncompleteMessageHoldsNothingAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*Session){
		"closed":  func(s *Session) { _ = s.Close() },
		"aborted": (*Session).Abort,
		"drained": func(s *Session) {
			s.Drain("")
			_ = s.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := accepted(t, AcceptorConfig{Config: Config{CloseTimeout: time.Second}}, 0, generous)
				w.s.cfg.Mux.SetLink("x", func(*Message) {})
				w.send(frame.TypeMessage, 0, 1, start(frame.TypeMessage, 0, frame.Start{Total: 1 << 20, Link: "x"}, make([]byte, 50<<10)))
				synctest.Wait()
				require.Equal(t, int64(50<<10), w.s.cfg.Quota.Snapshot().Bytes)
				end(w.s)
				require.Zero(t, w.s.cfg.Quota.Snapshot().Bytes)
			})
		})
	}
}

// What a handler has not read is in the quota until the handler returns, also after the end of the session: else a peer that comes again and
// again would fill the memory.
func TestWhatAHandlerHasNotReadCountsAfterTheEnd(t *testing.T) {
	for name, end := range map[string]func(*Session){"closed": func(s *Session) { _ = s.Close() }, "aborted": (*Session).Abort} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				quota := new(Quota)
				w := accepted(t, AcceptorConfig{Config: Config{Quota: quota, CloseTimeout: time.Second}}, 0, generous)
				release := make(chan struct{})
				w.s.cfg.Mux.SetStream("x", func(*Stream) { <-release })
				w.send(frame.TypeStreamOpen, 0, 1, []byte("x"))
				w.push(frame.TypeStreamData, 0, 1, make([]byte, 32<<10))
				synctest.Wait()
				end(w.s)
				synctest.Wait()
				require.GreaterOrEqual(t, quota.Snapshot().Bytes, int64(32<<10))
				close(release)
				synctest.Wait()
				require.Zero(t, quota.Snapshot().Bytes)
			})
		})
	}
}

// A peer gets no more time by changing carriers again and again, or by coming and going.
func TestAStalledRequestIsRefusedOverManyCarriers(t *testing.T) {
	for name, next := range map[string]func(p *pair){
		"moves": func(p *pair) { require.NoError(p.t, p.dialer.Reconnect(p.t.Context())) },
		"cuts":  func(p *pair) { _ = p.dialer.Conn().Close() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				quota := new(Quota)
				p := newPair(t, Config{}, AcceptorConfig{Config: Config{ReadTimeout: readTimeout, Quota: quota}})
				p.mux.SetCall(echo)
				p.dialer.mu.Lock()
				p.dialer.controlLocked(frame.Header{Type: frame.TypeRequest, ID: p.dialer.newIDLocked()},
					start(frame.TypeRequest, 0, frame.Start{Total: 1 << 20}, make([]byte, 10<<10)))
				p.dialer.mu.Unlock()
				synctest.Wait()
				require.Equal(t, int64(10<<10), quota.Snapshot().Bytes)
				for range 6 {
					time.Sleep(readTimeout / 2)
					next(p)
				}
				require.Zero(t, quota.Snapshot().Bytes)
			})
		})
	}
}

// A stream that has been read to its end, and that is not asked for more, holds nothing.
func TestAStreamThatHasBeenReadHoldsNothing(t *testing.T) {
	for _, finFirst := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			quota := new(Quota)
			p := newPair(t, Config{Quota: quota}, AcceptorConfig{})
			p.mux.SetStream("x", func(st *Stream) {
				_, _ = st.Write(make([]byte, 10))
				if !finFirst {
					time.Sleep(time.Second)
				}
			})
			st, err := p.dialer.OpenStream(t.Context(), "x", nil)
			require.NoError(t, err)
			_ = st.CloseWrite() // the handler may have returned, which reads nothing
			synctest.Wait()
			require.NotZero(t, quota.Snapshot().Bytes)
			_, err = io.ReadFull(st, make([]byte, 10))
			require.NoError(t, err)
			time.Sleep(2 * time.Second)
			require.Zero(t, quota.Snapshot().Bytes)
		})
	}
}

// A stream of this side whose data nobody reads, and that nobody closes, holds nothing once the session has ended, however the stream ended.
// Until then its data can be read. A reset gives it back at once.
func TestAnUnreadStreamOfOursHoldsNothingAfterTheEnd(t *testing.T) {
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprintf("reset: %v", reset), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				quota := new(Quota)
				p := newPair(t, Config{Quota: quota}, AcceptorConfig{})
				p.mux.SetStream("x", func(st *Stream) {
					_, _ = st.Write(make([]byte, 1000))
					if reset {
						time.Sleep(time.Second)
						_ = st.Reset(codes.Application)
					}
				})
				st, err := p.dialer.OpenStream(t.Context(), "x", nil)
				require.NoError(t, err)
				_ = st.CloseWrite() // the peer may have ended that direction already
				synctest.Wait()
				require.NotZero(t, quota.Snapshot().Bytes)
				time.Sleep(time.Minute)
				require.Equal(t, reset, quota.Snapshot().Bytes == 0)
				require.Zero(t, p.dialer.Snapshot().Streams, "it has ended")
				_ = p.dialer.Close()
				require.Zero(t, quota.Snapshot().Bytes)
				got, err := io.ReadAll(st)
				if !reset {
					require.NoError(t, err)
					require.Len(t, got, 1000)
				}
				require.NoError(t, st.Close())
				require.Zero(t, quota.Snapshot().Bytes)
			})
		})
	}
}
