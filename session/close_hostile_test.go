package session

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/frame"
)

// mute is a raw peer that dialed a real Acceptor, and answers no PING. Its frames are handed to seen.
func mute(t *testing.T, cfg AcceptorConfig, seen func(frame.Header)) *wire {
	t.Helper()
	opened := make(chan *Session, 1)
	cfg.OnSession = func(s *Session) { opened <- s }
	cfg.Heartbeat, cfg.Local = -1, "bob"
	a, err := NewAcceptor(cfg)
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
		kept := len(w.s.streams)
		w.s.mu.Unlock()
		require.Equal(t, 4, kept)
		require.Equal(t, 16, refused)
		w.push(frame.TypePong, 0, 1<<20, nil) // the peer has got round to it
		w.push(frame.TypeStreamOpen, 0, 1001, []byte("x"))
		synctest.Wait()
		require.Equal(t, 16, refused)
	})
}

// Frames that bring the end no nearer are no progress: a peer cannot hold up Close with them.
func TestFramesThatSettleNothingDoNotHoldUpClose(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := mute(t, AcceptorConfig{}, func(frame.Header) {})
		w.s.cfg.Mux.SetDefaultStream(func(st *Stream) { <-st.Session().Done() })
		w.push(frame.TypeStreamOpen, 0, 1, []byte("x"))
		require.NoError(t, w.s.Send(t.Context(), "never acknowledged", nil))
		synctest.Wait()
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- w.s.Close() }()
		for time.Since(began) < time.Minute && len(done) == 0 {
			time.Sleep(time.Second)
			w.push(frame.TypeStreamCredit, 0, 1, frame.AppendCredit(nil, 1))
			w.push(frame.TypeStreamData, 0, 1, []byte("x"))
			w.push(frame.TypeError, 0, 2, frame.AppendFailure(nil, frame.Failure{Code: frame.CodeInternal}))
			w.push(0xF0, 0, 7, make([]byte, 1000)) // an optional type
			w.push(frame.TypePing, 0, 1, nil)
		}
		require.Less(t, time.Since(began), w.s.cfg.CloseTimeout+2*partingGrace)
		asError(t, <-done, Unknown)
	})
}
