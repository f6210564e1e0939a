package session

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// mute is a raw peer that dialed a real Acceptor, and answers no PING. Its frames are handed to seen.
func mute(t *testing.T, cfg AcceptorConfig, seen func(frame.Header)) *wire {
	t.Helper()
	opened := make(chan *Session, 1)
	cfg.OnSession = func(s *Session) { opened <- s }
	cfg.Heartbeat, cfg.Local = -1, "bob"
	a, err := NewAcceptor(&cfg)
	require.NoError(t, err)
	here, there := net.Pipe()
	go func() { _ = a.Serve(there, "raw") }()
	sayHello(t, here, &frame.Hello{Role: frame.RoleSession, Limits: &generous, Caps: frame.CapEnds})
	w := newWire(t, here, <-opened)
	go func() {
		defer close(w.gone)
		r := frame.NewReader(here, func(int) {})
		for {
			h, _, err := r.Next()
			if err != nil {
				return
			}
			seen(h)
		}
	}()
	return w
}

// A peer that never acknowledges the ends of streams gets no more of them: what is kept for their receipts is bounded.
func TestStreamsWhoseEndsAreNotAcknowledgedAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		refused := 0
		w := mute(t, AcceptorConfig{Config: Config{MaxStreams: 2}}, func(h frame.Header) {
			if h.Type == frame.TypeStreamReset {
				refused++
			}
		})
		w.s.cfg.Mux.SetDefaultStream(func(*Stream) {})
		for i := range uint64(20) {
			w.push(frame.TypeStreamOpen, 0, 1+2*i, []byte("x"))
			w.push(frame.TypeStreamData, frame.FlagFin, 1+2*i, nil)
			time.Sleep(2 * w.s.cfg.CloseTimeout) // the handler's Close has given up
		}
		synctest.Wait()
		w.s.mu.Lock()
		kept := len(w.s.shared.open)
		w.s.mu.Unlock()
		require.Equal(t, 4, kept)
		require.Equal(t, 16, refused)
		w.push(frame.TypePong, 0, 1<<20, nil) // the peer has got round to it
		w.push(frame.TypeStreamOpen, 0, 1001, []byte("x"))
		synctest.Wait()
		require.Equal(t, 16, refused)
	})
}

// Streams that the peer resets leave nothing behind, though it has not acknowledged their ends.
func TestResetStreamsLeaveNoReceipts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := mute(t, AcceptorConfig{Config: Config{MaxStreams: 2}}, func(frame.Header) {})
		w.s.cfg.Mux.SetDefaultStream(func(*Stream) {})
		for i := range uint64(100) {
			w.push(frame.TypeStreamOpen, 0, 1+2*i, []byte("x"))
			synctest.Wait()
			w.push(frame.TypeStreamReset, 0, 1+2*i, frame.AppendFailure(nil, frame.Failure{Code: codes.Cancelled}))
			synctest.Wait()
		}
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		if len(w.s.shared.receipts)+len(w.s.shared.unasked)+len(w.s.shared.open) > 0 || w.s.shared.theirsKept+w.s.shared.theirs+w.s.shared.handlers > 0 {
			t.Errorf("%d receipts, %d streams, %d kept", len(w.s.shared.receipts), len(w.s.shared.open), w.s.shared.theirsKept)
		}
	})
}

// Frames that bring the end no nearer are no progress: a peer cannot hold up Close with them, whatever they are.
func TestFramesThatSettleNothingDoNotHoldUpClose(t *testing.T) {
	opened := uint64(1001)
	for name, push := range map[string]func(w *wire){
		"credit": func(w *wire) { w.push(frame.TypeStreamCredit, 0, 1, frame.AppendCredit(nil, 1)) },
		"data":   func(w *wire) { w.push(frame.TypeStreamData, 0, 1, []byte("x")) },
		"error": func(w *wire) {
			w.push(frame.TypeError, 0, 2, frame.AppendFailure(nil, frame.Failure{Code: codes.Internal}))
		},
		"optional":       func(w *wire) { w.push(0xF0, 0, 7, make([]byte, 1000)) },
		"small optional": func(w *wire) { w.push(0xF0, 0, 7, make([]byte, 10)) },
		"ping":           func(w *wire) { w.push(frame.TypePing, 0, 1, nil) },
		"open":           func(w *wire) { opened += 2; w.push(frame.TypeStreamOpen, 0, opened, []byte("x")) },
		"request": func(w *wire) {
			opened += 2
			w.push(frame.TypeRequest, 0, opened, append(make([]byte, 8), 1, 'x'))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := mute(t, AcceptorConfig{}, func(frame.Header) {})
				w.s.cfg.Mux.SetDefaultStream(func(st *Stream) {
					_, _ = st.Write([]byte("never acknowledged"))
					<-st.Session().Done()
				})
				w.push(frame.TypeStreamOpen, 0, 1, []byte("x"))
				require.NoError(t, w.s.Send(t.Context(), "never acknowledged", nil))
				synctest.Wait()
				began := time.Now()
				done := make(chan error, 1)
				go func() { done <- w.s.Close() }()
				for time.Since(began) < time.Minute && len(done) == 0 {
					time.Sleep(time.Second)
					push(w)
				}
				require.Less(t, time.Since(began), w.s.cfg.CloseTimeout+2*partingGrace)
				asError(t, <-done, Unknown)
			})
		})
	}
}

// The same over a session that outlives its carrier, where what it sends is acknowledged.
func TestRefusalsDoNotHoldUpCloseThatAreAcknowledged(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newRawResumer(t, AcceptorConfig{})
		p.say(segment(segStart, 0, 0, ""))
		require.NoError(t, p.s.Send(t.Context(), "never acknowledged", nil))
		synctest.Wait()
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- p.s.Close() }()
		for id := uint64(1); time.Since(began) < time.Minute && len(done) == 0; id += 2 {
			time.Sleep(time.Second)
			b := frame.AppendHeader(nil, frame.Header{Length: 1, Type: frame.TypeStreamOpen, ID: id})
			p.say(segment(segData, len(b)+1, p.received.Load(), string(b)+"x"))
		}
		require.Less(t, time.Since(began), p.s.cfg.CloseTimeout+2*partingGrace)
	})
}

// A peer that says that it closes the session, and then nothing, does not hold up the Close of a stream.
func TestAStreamsCloseIsBoundedWhileThePeerCloses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := mute(t, AcceptorConfig{}, func(frame.Header) {})
		closed := make(chan error, 1)
		w.s.cfg.Mux.SetDefaultStream(func(st *Stream) {
			_, _ = st.Write([]byte("x"))
			time.Sleep(time.Second)
			began := time.Now()
			closed <- st.Close()
			require.Equal(t, w.s.cfg.CloseTimeout, time.Since(began))
		})
		w.push(frame.TypeStreamOpen, 0, 1, []byte("x"))
		synctest.Wait()
		w.push(frame.TypeGoAway, 0, 0, frame.AppendFailure(nil, frame.Failure{Code: codes.Closed}))
		w.push(frame.TypeGoAway, 0, 0, frame.AppendFailure(nil, frame.Failure{Code: codes.Closed})) // said again
		asError(t, <-closed, Unknown)
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		if w.s.end.theirs != phaseClosing {
			t.Errorf("GOAWAY said twice is not END")
		}
	})
}

// A peer that acknowledges everything but never says that it has a stream does not hold up its Close by what else it sends.
func TestAStreamsCloseIsBoundedBesideOtherTraffic(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newRawResumer(t, AcceptorConfig{})
		mux, closed := p.s.cfg.Mux, make(chan error, 1)
		mux.SetDefaultLink(func(*Message) {})
		mux.SetDefaultStream(func(st *Stream) {
			_, _ = st.Write([]byte("x"))
			closed <- st.Close()
		})
		say := func(h frame.Header, body []byte) {
			h.Length = len(body)
			b := append(frame.AppendHeader(nil, h), body...)
			p.say(segment(segData, len(b), p.received.Load(), string(b)))
		}
		p.say(segment(segStart, 0, 0, ""))
		say(frame.Header{Type: frame.TypeStreamOpen, ID: 1}, []byte("x"))
		began := time.Now()
		for id := uint64(3); time.Since(began) < time.Minute && len(closed) == 0; id += 2 {
			time.Sleep(time.Second)
			say(frame.Header{Type: frame.TypeMessage, ID: id}, start(frame.TypeMessage, 0, frame.Start{Link: "x"}, nil))
		}
		require.LessOrEqual(t, time.Since(began), 2*p.s.cfg.CloseTimeout)
		asError(t, <-closed, Unknown)
	})
}
