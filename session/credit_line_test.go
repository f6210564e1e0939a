package session

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

var lineFirst = flag.Uint64("line.first", 0, "the seed of the model of waiting streams; 0: random")

// However streams that wait for credit come and go, and whatever takes the credit that they were offered: none is forgotten that could send.
func TestNoStreamWithCreditIsForgotten(t *testing.T) {
	seed := *lineFirst
	if seed == 0 {
		seed = rand.Uint64()
	}
	for i := range uint64(20) {
		inBubble(t, func(t *testing.T) { (&lineModel{t: t, rng: rand.New(rand.NewPCG(seed+i, 1))}).run() })
		if t.Failed() {
			t.Fatalf("failed with -line.first=%d", seed+i)
		}
	}
}

type lineModel struct {
	t    *testing.T
	rng  *rand.Rand
	w    *wire
	next uint64
}

func (m *lineModel) run() {
	limits := generous
	limits.StreamWindow = []uint32{1000, 20 << 10, 1 << 20}[m.rng.IntN(3)]
	m.w = accepted(m.t, AcceptorConfig{Config: Config{MaxStreams: 1000}}, frame.CapCredit|frame.CapEnds, limits)
	stop := make(chan struct{})
	defer close(stop)
	seeds := make(chan uint64, 10000)
	for range cap(seeds) {
		seeds <- m.rng.Uint64()
	}
	m.w.s.cfg.Mux.SetStream("x", func(st *Stream) { writeAtRandom(st, rand.New(rand.NewPCG(<-seeds, 2)), stop) })
	m.next = 1
	for range 400 {
		m.step()
		synctest.Wait()
		for len(m.w.got) > 0 {
			<-m.w.got
		}
		m.check()
	}
	m.w.s.Abort()
	synctest.Wait()
}

func writeAtRandom(st *Stream, rng *rand.Rand, stop chan struct{}) {
	(*laneStream)(st).SetBulk(rng.IntN(4) == 0)
	for range 20 {
		switch rng.IntN(4) {
		case 0:
			_ = st.SetWriteDeadline(time.Now().Add(time.Duration(rng.IntN(3000)) * time.Millisecond))
		case 1:
			_ = st.SetWriteDeadline(time.Time{})
		}
		_, err := st.Write(make([]byte, 1+rng.IntN([]int{10, 5000, 100000}[rng.IntN(3)])))
		if err != nil && !os.IsTimeout(err) {
			break
		}
		select {
		case <-time.After(time.Duration(rng.IntN(500)) * time.Millisecond):
		case <-stop:
			return
		}
	}
	switch rng.IntN(3) {
	case 0:
		_ = st.CloseWrite()
	case 1:
		_ = st.Reset(codes.Cancelled)
	}
}

// step does one thing that a peer may do, or lets time pass.
func (m *lineModel) step() {
	id := uint64(1 + 2*m.rng.IntN(int(m.next/2+1)))
	m.w.s.mu.Lock()
	st, known := m.w.s.shared.open[id]
	m.w.s.mu.Unlock()
	switch m.rng.IntN(10) {
	case 0, 1:
		m.w.send(frame.TypeStreamOpen, 0, m.next, []byte("x"))
		m.next += 2
	case 2, 3:
		m.w.send(frame.TypeSessionCredit, 0, 0, frame.AppendCredit(nil, uint32(1+m.rng.IntN([]int{10, 5000, 100000}[m.rng.IntN(3)]))))
	case 4:
		if known && st.sent > 0 {
			m.w.send(frame.TypeStreamCredit, 0, id, frame.AppendCredit(nil, uint32(1+m.rng.IntN(int(min(st.sent, 50000))))))
		}
	case 5:
		m.w.send(frame.TypeSessionAsk, 0, 0, nil)
	case 6:
		if known && m.rng.IntN(4) == 0 {
			m.w.send(frame.TypeStreamReset, 0, id, failure(codes.Cancelled))
		}
	case 7:
		m.w.s.mu.Lock()
		m.w.s.setScarceLocked(m.rng.IntN(2) == 0)
		m.w.s.mu.Unlock()
	default:
		time.Sleep(time.Duration(m.rng.IntN(1000)) * time.Millisecond)
	}
}

// check looks at each stream that has something to send.
func (m *lineModel) check() {
	s := m.w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Nil(m.t, s.err)
	kept := int64(0)
	for _, st := range s.shared.open {
		kept += st.share.kept
		if len(st.out) == 0 || st.ended || st.queued {
			require.False(m.t, st.finAsked && !st.finSent && len(st.out) == 0 && !st.queued, "FIN of %d", st.id)
			continue
		}
		room, flight := s.shared.purse.room(&st.share), st.flight.sent-st.flight.heard < uint64(st.flight.limit)
		switch {
		case st.credit == 0:
		case !flight && st.place.in == nil:
			require.True(m.t, s.shared.watching, "stream %d is at the limit of its flight, and nobody watches", st.id)
		case room == 0:
			want := &s.shared.short
			if st.share.kept > 0 {
				want = &s.shared.below
			}
			require.True(m.t, st.place.in == want, "stream %d is in no line, or in the wrong one", st.id)
		default:
			require.Fail(m.t, "forgotten", "stream %d has credit for %d of its %d bytes, and is not queued", st.id, min(room, st.credit), len(st.out))
		}
	}
	require.Equal(m.t, kept, s.shared.purse.kept)
	if !s.out.scarce {
		require.Zero(m.t, s.out.ready.len()+s.out.held.len(), "the writer is done")
	}
}

// A stream whose flight was lowered while it was queued may send more after a while, as any other that its flight holds up.
func TestAFlightLoweredBeforeItsTurnIsWatched(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const size = 100 << 10
		w := accepted(t, AcceptorConfig{}, frame.CapCredit|frame.CapEnds, generous)
		w.s.cfg.Mux.SetStream("x", func(st *Stream) { _, _ = st.Write(make([]byte, size)) })
		w.send(frame.TypeStreamOpen, 0, 1, []byte("x"))
		w.send(frame.TypeSessionCredit, 0, 0, frame.AppendCredit(nil, leastFlight+leastFragment))
		synctest.Wait()
		w.s.mu.Lock()
		st := w.s.shared.open[1]
		require.NoError(t, w.s.onSessionFrame(frame.Header{Length: 4, Type: frame.TypeSessionCredit}, frame.AppendCredit(nil, size)))
		require.True(t, st.queued)
		st.flight.limit = leastFlight // as hear may
		w.s.mu.Unlock()
		time.Sleep(10 * time.Second)
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		require.EqualValues(t, size, st.sent)
	})
}
