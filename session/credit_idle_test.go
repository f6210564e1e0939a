package session

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// idleStreams returns a session whose streams have moved as much as they may, and are idle.
func idleStreams(t *testing.T, limit int64, n int) (*guests, *Session) {
	mux := NewMux()
	mux.SetCall(echo)
	mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
	c := newGuests(t, Config{Mux: mux, Quota: &Quota{MaxBytes: limit}, Heartbeat: -1, DisableCompression: true})
	s, err := c.dial("alice", "")
	require.NoError(t, err)
	for _, st := range opened(t, s, n) {
		_, err := st.Write(make([]byte, 300<<10))
		require.NoError(t, err)
	}
	time.Sleep(time.Hour)
	return c, s
}

// The credit of streams that are idle leaves room for all other work of the same peer, on that session and another.
func TestIdleStreamsLeaveRoomForOtherWork(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 3 << 20
		c, s := idleStreams(t, limit, 32)
		_, err := s.Call(t.Context(), "", make([]byte, limit/5))
		require.NoError(t, err)
		var all sync.WaitGroup
		var refused atomic.Int64
		for range 2000 {
			all.Go(func() {
				if _, err := s.Call(t.Context(), "", make([]byte, 100)); err != nil {
					refused.Add(1)
				}
			})
		}
		all.Wait()
		require.Zero(t, refused.Load())
		require.NoError(t, s.Err())

		budget := c.acceptor.Sessions()[0]
		require.True(t, (*memory)(budget.part).Take(256<<10), "for a lane")
		(*memory)(budget.part).Give(256 << 10)

		other, err := c.dial("alice", "")
		require.NoError(t, err)
		opened(t, other, 32)
		s.Abort()
		other.Abort()
	})
}

// Streams that a lone peer opens one after another, and uses, are not refused because of credit that the others do not use.
func TestUnusedCreditRefusesNoStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, s := idleStreams(t, 8<<20, 0)
		for _, st := range opened(t, s, 128) {
			_, err := st.Write(make([]byte, 1<<20))
			require.NoError(t, err)
		}
		s.Abort()
	})
}

// A peer that neither uses nor returns credit, or next to none, loses its session after half a minute in which others want the memory, and
// not before.
func TestCreditThatIsNotReturnedEndsTheSession(t *testing.T) {
	for _, trickles := range []bool{false, true} {
		inBubble(t, func(t *testing.T) { keepCredit(t, trickles) })
	}
}

// keepCredit has a peer keep its credit, or return a byte now and then.
func keepCredit(t *testing.T, trickles bool) {
	const limit = 16 << 20
	quota := &Quota{MaxBytes: limit}
	w := accepted(t, AcceptorConfig{Config: Config{Quota: quota}}, frame.CapCredit, generous)
	w.s.cfg.Mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
	for i := range uint64(60) {
		w.send(frame.TypeStreamOpen, 0, 1+2*i, []byte("x"))
		synctest.Wait()
	}
	hostile := quota.all().Holders()[0]
	require.Greater(t, hostile.Used(fair.Bytes), int64(limit/4))
	require.LessOrEqual(t, hostile.Used(fair.Bytes), int64(limit*5/8))
	time.Sleep(time.Hour)
	require.NoError(t, w.s.Err(), "nobody wants it")

	parts, got := make([]*QuotaPart, 3), make([]int, 3)
	for i, name := range []string{"a", "b", "c"} {
		parts[i] = quota.Hold(name, "")
		defer parts[i].Leave()
	}
	for range 600 {
		for i, part := range parts {
			if got[i] < limit/4 && part.Take(0, 64<<10) == nil {
				got[i] += 64 << 10
			}
		}
		if trickles && w.s.Err() == nil {
			w.send(frame.TypeSessionReturn, 0, 0, frame.AppendCredit(nil, 1))
		}
		time.Sleep(retryHint)
		synctest.Wait()
	}
	require.ErrorIs(t, w.s.Err(), ErrUnavailable)
	require.Equal(t, []int{limit / 4, limit / 4, limit / 4}, got)
	for i, part := range parts {
		part.Release(0, got[i])
	}
}
