package session

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// Claim: session.ErrProtocol, session.ErrSessionLost
func TestBreachesOfTheProtocolEndTheSession(t *testing.T) {
	request := start(frame.TypeRequest, 0, frame.Start{Total: 2, Link: "x"}, nil)
	for name, breach := range map[string]func(w *wire){
		"request with an id of this side": func(w *wire) { w.push(frame.TypeRequest, 0, 1, request) },
		"request with id 0":               func(w *wire) { w.push(frame.TypeRequest, 0, 0, request) },
		"request id used twice":           func(w *wire) { w.push(frame.TypeRequest, 0, 4, request); w.push(frame.TypeRequest, 0, 4, request) },
		"request id going down":           func(w *wire) { w.push(frame.TypeRequest, 0, 4, request); w.push(frame.TypeRequest, 0, 2, request) },
		"stream id used for a request": func(w *wire) {
			w.push(frame.TypeStreamOpen, 0, 4, []byte("x"))
			w.push(frame.TypeRequest, 0, 4, request)
		},
		"message id of this side":          func(w *wire) { w.push(frame.TypeMessage, 0, 1, head(0)) },
		"open id of this side":             func(w *wire) { w.push(frame.TypeStreamOpen, 0, 3, []byte("x")) },
		"open without a name":              func(w *wire) { w.push(frame.TypeStreamOpen, 0, 2, nil) },
		"open with a long name":            func(w *wire) { w.push(frame.TypeStreamOpen, 0, 2, make([]byte, 256)) },
		"response to nothing":              func(w *wire) { w.push(frame.TypeResponse, 0, 9, []byte{0, 0, 0, 0}) },
		"response to its own":              func(w *wire) { w.push(frame.TypeResponse, 0, 2, []byte{0, 0, 0, 0}) },
		"error for nothing":                func(w *wire) { w.push(frame.TypeError, 0, 9, make([]byte, 8)) },
		"error for its own":                func(w *wire) { w.push(frame.TypeError, 0, 2, make([]byte, 8)) },
		"error cut short":                  func(w *wire) { w.push(frame.TypeError, 0, 1, make([]byte, 7)) },
		"error with a long text":           func(w *wire) { w.push(frame.TypeError, 0, 1, make([]byte, 8+1025)) },
		"cancel of this side's":            func(w *wire) { w.push(frame.TypeCancel, 0, 1, nil) },
		"cancel of nothing":                func(w *wire) { w.push(frame.TypeCancel, 0, 8, nil) },
		"continue of nothing":              func(w *wire) { w.push(frame.TypeContinue, 0, 8, nil) },
		"continue of nothing of this side": func(w *wire) { w.push(frame.TypeContinue, 0, 9, nil) },
		"request longer than it says":      func(w *wire) { w.push(frame.TypeRequest, 0, 2, append(request, 1, 2, 3)) },
		"request that grows longer": func(w *wire) {
			w.push(frame.TypeRequest, 0, 2, request)
			w.push(frame.TypeContinue, 0, 2, make([]byte, 3))
		},
		"response longer than it says": func(w *wire) { w.push(frame.TypeResponse, 0, 1, []byte{0, 0, 0, 1, 2, 3}) },
		"second response": func(w *wire) {
			w.push(frame.TypeResponse, 0, 1, []byte{0, 0, 0, 9})
			w.push(frame.TypeResponse, 0, 1, []byte{0, 0, 0, 9})
		},
		"head cut short":              func(w *wire) { w.push(frame.TypeRequest, 0, 2, []byte{0, 0}) },
		"total over the format's cap": func(w *wire) { w.push(frame.TypeRequest, 0, 2, []byte{0xFF, 0, 0, 0, 0, 0, 0, 0, 0}) },
		"data before accept":          func(w *wire) { w.push(frame.TypeStreamData, 0, 3, []byte("x")) },
		"data of nothing":             func(w *wire) { w.push(frame.TypeStreamData, 0, 99, []byte("x")) },
		"empty data":                  func(w *wire) { w.push(frame.TypeStreamAccept, 0, 3, nil); w.push(frame.TypeStreamData, 0, 3, nil) },
		"accept twice":                func(w *wire) { w.push(frame.TypeStreamAccept, 0, 3, nil); w.push(frame.TypeStreamAccept, 0, 3, nil) },
		"accept of nothing":           func(w *wire) { w.push(frame.TypeStreamAccept, 0, 99, nil) },
		"credit of 0":                 func(w *wire) { w.push(frame.TypeStreamCredit, 0, 3, make([]byte, 4)) },
		"credit cut short":            func(w *wire) { w.push(frame.TypeStreamCredit, 0, 3, make([]byte, 3)) },
		"credit over the cap":         func(w *wire) { w.push(frame.TypeStreamCredit, 0, 3, []byte{0xFF, 0xFF, 0xFF, 0xFF}) },
		"credit over the cap in steps": func(w *wire) {
			for range 2 {
				w.push(frame.TypeStreamCredit, 0, 3, []byte{0x3F, 0xFF, 0xFF, 0xFF})
			}
		},
		"stop cut short":   func(w *wire) { w.push(frame.TypeStreamStop, 0, 3, nil) },
		"goaway cut short": func(w *wire) { w.push(frame.TypeGoAway, 0, 0, nil) },
		"ping with a body": func(w *wire) { w.push(frame.TypePing, 0, 1, []byte("x")) },
		"more requests than MaxInFlight": func(w *wire) {
			for i := range 6 {
				w.push(frame.TypeRequest, 0, uint64(2*i+2), request)
			}
		},
		"a frame over the cap": func(w *wire) {
			n := frame.MaxPayload + 1
			_, _ = w.conn.Write([]byte{byte(n >> 16), byte(n >> 8), byte(n), 1, 0, 0, 0, 0, 0, 0, 0, 0, 2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := dialed(t, Config{MaxInFlight: 5}, 0, generous)
				w.s.cfg.Mux.SetLink("x", func(*Message) {})
				w.s.cfg.Mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
				results := make(chan error, 2)
				go func() {
					_, err := w.s.Call(t.Context(), "", nil)
					results <- err
				}()
				w.want(frame.TypeRequest, 1)
				go func() {
					st, err := w.s.OpenStream(t.Context(), "x", nil)
					if err == nil {
						_, err = io.ReadAll(st)
					}
					results <- err
				}()
				w.want(frame.TypeStreamOpen, 3)
				breach(w)
				require.ErrorIs(t, w.wantEnd(), ErrProtocol)
				require.ErrorIs(t, <-results, ErrSessionLost)
				require.ErrorIs(t, <-results, ErrSessionLost)
				wantZero(t, w.s)
			})
		})
	}
}

func TestFramesAboutWhatHasEndedAreIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, 0, generous)
		w.s.cfg.Mux.SetCall(echo)
		go w.answerNext()
		_, err := w.s.Call(t.Context(), "", nil)
		require.NoError(t, err)
		st := w.opened() // 3
		require.NoError(t, st.Reset(1))
		w.want(frame.TypeStreamReset, 3)
		w.request(2, "", "x")
		w.want(frame.TypeResponse, 2)
		w.send(frame.TypeStreamOpen, 0, 4, []byte("nobody"))
		w.want(frame.TypeStreamReset, 4)

		w.respond(1, "again")
		w.failure(frame.TypeError, 1, codes.Internal)
		w.send(frame.TypeContinue, 0, 1, []byte("x"))
		w.send(frame.TypeContinue, 0, 2, []byte("x"))
		w.send(frame.TypeCancel, 0, 2, nil)
		for _, id := range []uint64{1, 2, 3, 4} {
			w.send(frame.TypeStreamData, 0, id, []byte("x"))
			w.send(frame.TypeStreamCredit, 0, id, frame.AppendCredit(nil, 1<<30))
			w.failure(frame.TypeStreamStop, id, codes.ReadClosed)
			w.failure(frame.TypeStreamReset, id, codes.Cancelled)
			w.send(frame.TypeStreamAccept, 0, id, nil)
		}
		w.send(0xFE, 0xFF, 123, make([]byte, 5000))
		w.send(frame.TypePong, 0, 999, nil)
		w.wantNothing()
		w.wantAlive()
		wantZero(t, w.s)
	})
}

func TestFloodsOfWhoDoesNotReadEndTheSessionWithinBounds(t *testing.T) {
	for name, flood := range map[string]func(w *wire, i int){
		"PING":            func(w *wire, i int) { w.push(frame.TypePing, 0, uint64(i+1), nil) },
		"OPEN of nothing": func(w *wire, i int) { w.push(frame.TypeStreamOpen, 0, uint64(2*i+2), []byte("nobody")) },
		"OPEN and RESET": func(w *wire, i int) {
			w.push(frame.TypeStreamOpen, 0, uint64(2*i+2), []byte("x"))
			w.push(frame.TypeStreamReset, 0, uint64(2*i+2), make([]byte, 8))
		},
		"REQUEST of nothing": func(w *wire, i int) {
			w.push(frame.TypeRequest, 0, uint64(2*i+2), start(frame.TypeRequest, 0, frame.Start{Link: "nobody"}, nil))
		},
		"REQUEST and CANCEL": func(w *wire, i int) {
			w.push(frame.TypeRequest, 0, uint64(2*i+2), start(frame.TypeRequest, 0, frame.Start{Link: "x"}, nil))
			w.push(frame.TypeCancel, 0, uint64(2*i+2), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := silent(t, Config{}, 0, generous)
				release := make(chan struct{})
				w.s.cfg.Mux.SetLink("x", func(*Message) { <-release })
				w.s.cfg.Mux.SetStream("x", func(*Stream) { <-release })
				before := heap()
				for i := range 60_000 {
					flood(w, i)
					if w.s.Err() != nil {
						break
					}
				}
				w.s.mu.Lock()
				require.LessOrEqual(t, len(w.s.out.urgent), maxUrgent+2000)
				require.LessOrEqual(t, w.s.shared.handlers, 2*w.s.cfg.MaxStreams)
				w.s.mu.Unlock()
				require.Less(t, heap()-before, int64(32<<20))
				if name != "PING" { // needs one PONG in all
					require.Error(t, w.wantEnd())
				}
				close(release)
			})
		})
	}
}

// A dropped answer must never go unnoticed: either every request is answered or the session ends.
func TestAnswersAreNotDroppedWhenAPeerReadsAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{}, 0, generous)
		n := 0
		for ; n < 30_000 && w.s.Err() == nil; n++ {
			w.push(frame.TypeRequest, 0, uint64(2*n+2), start(frame.TypeRequest, 0, frame.Start{Link: "nobody"}, nil))
		}
		go w.listen()
		synctest.Wait()
		if w.s.Err() == nil {
			require.Len(t, w.got, n)
		}
	})
}

func TestNothingIsLeftAfterManySessions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for i := range 50 {
			p := newPair(t, mortal, AcceptorConfig{})
			p.mux.SetCall(echo)
			p.mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(st, st) })
			_, err := p.dialer.Call(t.Context(), "", []byte("x"))
			require.NoError(t, err)
			_, err = p.dialer.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: i%2 == 0})
			require.NoError(t, err)
			if i%3 == 0 {
				_ = p.dialer.Close()
			} else {
				_ = p.accepted.Conn().Close()
			}
			<-p.dialer.Done()
			<-p.accepted.Done()
			synctest.Wait()
			require.Empty(t, p.acceptor.Sessions())
			require.Zero(t, p.acceptor.cfg.Quota.Snapshot().Sessions)
			wantZero(t, p.dialer)
			wantZero(t, p.accepted)
		}
		time.Sleep(time.Hour)
	})
}
