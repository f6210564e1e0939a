package session

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// sessionFrames are the frames of a session's credit, with a payload that is right where there is credit.
var sessionFrames = map[frame.Type][]byte{
	frame.TypeSessionCredit: frame.AppendCredit(nil, 1), frame.TypeSessionReturn: frame.AppendCredit(nil, 1), frame.TypeSessionAsk: nil,
}

// A peer that breaks a rule of the session's credit ends the session, with the code that the rule names.
func TestBreachesOfTheSessionsCreditEndTheSession(t *testing.T) {
	const floor = frame.LeastCredit + frame.StreamShare
	const least = floor
	type breach struct {
		caps frame.Caps
		code codes.Code
		do   func(w *wire)
	}
	breaches := map[string]breach{
		"data beyond the credit": {frame.CapCredit, codes.FlowControl, func(w *wire) {
			w.push(frame.TypeStreamData, 0, 1, make([]byte, 64<<10))
			w.push(frame.TypeStreamData, 0, 1, make([]byte, 64<<10))
		}},
		"data beyond the credit, of several streams, one of which has ended": {frame.CapCredit, codes.FlowControl, func(w *wire) {
			w.push(frame.TypeStreamOpen, 0, 3, []byte("refused"))
			for id := range uint64(40) {
				w.push(frame.TypeStreamData, 0, 1+id%2*2, make([]byte, least/10))
			}
		}},
		"data without any credit": {frame.CapCredit, codes.FlowControl, func(w *wire) {
			w.push(frame.TypeStreamReset, 0, 1, failure(codes.Cancelled))
			w.push(frame.TypeSessionReturn, 0, 0, frame.AppendCredit(nil, least))
			w.push(frame.TypeStreamData, 0, 1, []byte("x"))
		}},
		"more returned than there was": {frame.CapCredit, codes.Protocol, func(w *wire) {
			w.push(frame.TypeSessionReturn, 0, 0, frame.AppendCredit(nil, least+1))
		}},
		"credit of 0":      {frame.CapCredit, codes.Protocol, func(w *wire) { w.push(frame.TypeSessionCredit, 0, 0, make([]byte, 4)) }},
		"a return of 0":    {frame.CapCredit, codes.Protocol, func(w *wire) { w.push(frame.TypeSessionReturn, 0, 0, make([]byte, 4)) }},
		"ASK with a body":  {frame.CapCredit, codes.Protocol, func(w *wire) { w.push(frame.TypeSessionAsk, 0, 0, []byte("x")) }},
		"credit cut short": {frame.CapCredit, codes.Protocol, func(w *wire) { w.push(frame.TypeSessionCredit, 0, 0, make([]byte, 3)) }},
		"credit beyond 2^30": {frame.CapCredit, codes.Protocol, func(w *wire) {
			w.push(frame.TypeSessionCredit, 0, 0, frame.AppendCredit(nil, frame.MaxTotal))
			w.push(frame.TypeSessionCredit, 0, 0, frame.AppendCredit(nil, 1))
		}},
	}
	for typ, payload := range sessionFrames {
		breaches[fmt.Sprint(typ, " without the bit")] = breach{0, codes.Protocol, func(w *wire) { w.push(typ, 0, 0, payload) }}
	}
	for name, b := range breaches {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				quota := &Quota{MaxBytes: 128 << 10} // so that no more is granted at once
				w := accepted(t, AcceptorConfig{Config: Config{Quota: quota}}, b.caps|frame.CapEnds, generous)
				release := make(chan struct{})
				defer close(release)
				w.s.cfg.Mux.SetStream("x", func(*Stream) { <-release })
				w.send(frame.TypeStreamOpen, 0, 1, []byte("x"))
				synctest.Wait()
				w.want(frame.TypeStreamAccept, 1)
				if b.caps != 0 {
					require.Equal(t, least, creditOf(t, w.want(frame.TypeSessionCredit, 0)))
				}
				b.do(w)
				require.Equal(t, b.code, w.wantEnd().Code, "%v", w.s.Err())
				require.ErrorIs(t, w.s.Err(), ErrSessionLost)
				synctest.Wait()
				require.Equal(t, []codes.Code{b.code}, w.resets.all(), "the peer is told")
			})
		})
	}
}

// creditOf returns the credit that a frame grants.
func creditOf(t *testing.T, g got) int {
	n, err := frame.ConsumeCredit(g.body)
	require.NoError(t, err)
	return int(n)
}

// A peer that opens and resets streams, and returns nothing, gets no more credit with each.
func TestCreditDoesNotGrowWithStreamsThatComeAndGo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := new(Quota)
		w := accepted(t, AcceptorConfig{Config: Config{Quota: quota}}, frame.CapCredit, generous)
		w.s.cfg.Mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
		w.send(frame.TypeStreamOpen, 0, 1, []byte("x"))
		for i := range uint64(1000) {
			w.send(frame.TypeStreamOpen, 0, 3+2*i, []byte("x"))
			w.send(frame.TypeStreamReset, 0, 3+2*i, failure(codes.Cancelled))
			synctest.Wait()
			for len(w.got) > 0 {
				<-w.got
			}
		}
		require.LessOrEqual(t, quota.Snapshot().Bytes, 2*floorFor(2)+int64(2*bufferCost+2*w.s.cfg.StreamWindow))
		w.send(frame.TypeStreamReset, 0, 1, failure(codes.Cancelled))
		synctest.Wait()
		require.LessOrEqual(t, quota.Snapshot().Bytes, 2*floorFor(2)+int64(2*bufferCost+2*w.s.cfg.StreamWindow), "it has not returned it")
		_ = w.s.Close()
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// opened opens streams.
func opened(t *testing.T, s *Session, n int) (all []*Stream) {
	t.Helper()
	for range n {
		st, err := s.OpenStream(t.Context(), "x", nil)
		for i := 0; err != nil && i < 100; i++ { // unused credit is asked back for it
			require.ErrorIs(t, err, ErrUnavailable)
			time.Sleep(retryHint)
			st, err = s.OpenStream(t.Context(), "x", nil)
		}
		require.NoError(t, err)
		all = append(all, st)
	}
	return all
}

// The streams of one peer that nobody reads hold what the peer may have and no more, none of them is reset, and another peer's data moves.
// Once they are read, all of their data arrives.
func TestUnreadStreamsOfAPeerHoldItsShareAndLoseNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit, size = 16 << 20, 200 << 10
		mux, read := NewMux(), make(chan struct{})
		var whole atomic.Int64
		mux.SetStream("x", func(st *Stream) {
			<-read
			b, err := io.ReadAll(st)
			if err == nil && bytes.Equal(b, pattern(size)) {
				whole.Add(1)
			}
		})
		mux.SetStream("discard", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
		c := newGuests(t, Config{Mux: mux, Quota: &Quota{MaxBytes: limit}, Heartbeat: -1})
		var writers sync.WaitGroup
		var all []*Session
		var streams []*Stream
		for range 2 {
			s, err := c.dial("mallory", "")
			require.NoError(t, err)
			all = append(all, s)
			streams = append(streams, opened(t, s, 128)...)
		}
		for _, st := range streams {
			writers.Go(func() {
				_, err := st.Write(pattern(size))
				require.NoError(t, err)
				require.NoError(t, st.Close())
			})
		}
		synctest.Wait()
		held := c.quota.Snapshot().Bytes
		require.LessOrEqual(t, held, int64(limit*7/8))
		require.Greater(t, held, int64(limit/2))

		s, err := c.dial("alice", "")
		require.NoError(t, err)
		st, err := s.OpenStream(t.Context(), "discard", nil)
		require.NoError(t, err)
		_, err = st.Write(make([]byte, 4<<20))
		require.NoError(t, err)
		require.NoError(t, st.Close())
		require.NoError(t, s.Close())
		require.LessOrEqual(t, c.quota.Snapshot().Bytes, int64(limit))

		close(read)
		writers.Wait()
		synctest.Wait()
		require.Equal(t, int64(len(streams)), whole.Load())
		for _, s := range all {
			wantCreditsAgree(t, s, c.acceptor)
		}
		require.Zero(t, c.quota.Snapshot().Bytes)
	})
}

// pattern is data that shows what is missing of it.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = endsByte(i)
	}
	return b
}

// wantCreditsAgree requires that the dialing side's credit is what the accepting side has granted, and the other way round, and that none
// is left while there are no streams.
func wantCreditsAgree(t *testing.T, s *Session, a *Acceptor) {
	t.Helper()
	synctest.Wait()
	other := a.find(s.ID())
	require.NotNil(t, other)
	for _, sides := range [2][2]*Session{{s, other}, {other, s}} {
		purse, in := &sides[0].shared.purse, &sides[1].shared.in
		require.Equal(t, in.unused, purse.left)
		require.Zero(t, in.unread-in.owed.Load())
		require.Zero(t, in.due)
		require.Equal(t, in.streams, purse.streams)
		require.Zero(t, sides[0].shared.short.len()+sides[0].shared.below.len())
		if in.streams == 0 {
			require.Zero(t, in.unused)
			require.Zero(t, in.spare)
			require.Zero(t, purse.kept)
			require.Zero(t, in.buffers.Load())
		}
	}
}

// used returns what a peer has of a quota.
func used(q *Quota, peer string) int64 {
	h := q.all().Hold(peer, peer)
	defer h.Leave()
	return h.Used(fair.Bytes)
}

// A peer whose credit has grown gives way to others that want the memory, while its data moves, and has it again when they are gone.
func TestCreditShrinksWhileOthersWantMemory(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 4 << 20
		mux := NewMux()
		var moved [2]atomic.Int64
		for i, name := range []string{"x", "y"} {
			mux.SetStream(name, func(st *Stream) {
				b := make([]byte, 16<<10)
				for {
					time.Sleep(20 * time.Millisecond) // so that data waits
					n, err := st.Read(b)
					if moved[i].Add(int64(n)); err != nil {
						return
					}
				}
			})
		}
		c := newGuests(t, Config{Mux: mux, Quota: &Quota{MaxBytes: limit}, Heartbeat: -1})
		fill := func(peer, name string) *Session {
			began := time.Now()
			s, err := c.dial(peer, "")
			require.NoError(t, err)
			for range 16 {
				st, err := s.OpenStream(t.Context(), name, nil)
				for ; err != nil; st, err = s.OpenStream(t.Context(), name, nil) { // it has little at first
					require.ErrorIs(t, err, ErrUnavailable)
					require.Less(t, time.Since(began), time.Minute)
					time.Sleep(100 * time.Millisecond)
				}
				go func() {
					for {
						if _, err := st.Write(make([]byte, 64<<10)); err != nil {
							return
						}
					}
				}()
			}
			return s
		}
		speed := func(i int) float64 {
			before := moved[i].Load()
			time.Sleep(2 * time.Second)
			return float64(moved[i].Load() - before)
		}
		hog := fill("hog", "x")
		time.Sleep(3 * time.Second)
		require.Greater(t, used(c.quota, "hog"), int64(limit*2/5))
		alone := speed(0)
		require.Positive(t, alone)

		others := []*Session{fill("other", "y"), fill("second", "y"), fill("third", "y")} // together they want more than the rest
		least, most := int64(limit), int64(0)
		for range 60 {
			time.Sleep(100 * time.Millisecond)
			least, most = min(least, used(c.quota, "hog")), max(most, used(c.quota, "other"))
			require.LessOrEqual(t, c.quota.Snapshot().Bytes, int64(limit))
		}
		require.LessOrEqual(t, least, int64(limit/4))
		require.Greater(t, most, int64(limit/8))
		require.Greater(t, speed(0), alone/10)
		require.Greater(t, speed(1), alone/10)

		for _, s := range others {
			s.Abort()
		}
		time.Sleep(10 * time.Second)
		require.Zero(t, used(c.quota, "other"))
		require.Greater(t, used(c.quota, "hog"), int64(limit*2/5))
		require.GreaterOrEqual(t, speed(0), 0.95*alone)
		hog.Abort()
		time.Sleep(time.Second)
		require.Zero(t, c.quota.Snapshot().Bytes)
	})
}

// A peer with streams that are idle returns the credit that it does not use as soon as another peer wants the memory, and not before; it has
// more again when it uses it.
func TestUnusedCreditIsReturnedWhenOthersWantIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 3 << 20
		mux := NewMux()
		mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
		c := newGuests(t, Config{Mux: mux, Quota: &Quota{MaxBytes: limit}, Heartbeat: -1})
		s, err := c.dial("idle", "")
		require.NoError(t, err)
		streams := opened(t, s, 32)
		time.Sleep(time.Hour)
		require.Greater(t, used(c.quota, "idle"), int64(limit/2), "nobody wants it")

		var others []*Session // together they want more than the rest
		for _, name := range []string{"one", "two", "three", "four"} {
			other, err := c.dial(name, "")
			require.NoError(t, err)
			others = append(others, other)
			for _, st := range opened(t, other, 8) {
				_, err = st.Write(make([]byte, 1<<20))
				require.NoError(t, err)
			}
		}
		time.Sleep(askTime + time.Second)
		require.LessOrEqual(t, used(c.quota, "idle"), int64(32*bufferCost)+2*floorFor(32))
		for _, other := range others {
			require.NoError(t, other.Close())
		}
		wantCreditsAgree(t, s, c.acceptor)

		_, err = streams[0].Write(make([]byte, 1<<20))
		require.NoError(t, err)
		require.Greater(t, used(c.quota, "idle"), int64(32*bufferCost)+2*floorFor(32))
		require.NoError(t, s.Close())
		synctest.Wait()
		require.Zero(t, c.quota.Snapshot().Bytes)
	})
}

// A peer that returns the floor again and again, because it knows of no stream, gets it at once a few times, and then once in a while.
func TestTheFloorIsNotSentToAndFroWithoutEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{Quota: &Quota{MaxBytes: 128 << 10}}}, frame.CapCredit, generous)
		release := make(chan struct{})
		defer close(release)
		w.s.cfg.Mux.SetStream("x", func(*Stream) { <-release })
		w.send(frame.TypeStreamOpen, 0, 1, []byte("x"))
		synctest.Wait()
		w.want(frame.TypeStreamAccept, 1)
		unused := func() int64 {
			w.s.mu.Lock()
			defer w.s.mu.Unlock()
			return w.s.shared.in.unused
		}
		returned := 0
		for range 10 {
			for n := 0; len(w.got) > 0; n++ {
				require.LessOrEqual(t, n, mostRegrants+1)
				w.send(frame.TypeSessionReturn, 0, 0, frame.AppendCredit(nil, uint32(creditOf(t, w.want(frame.TypeSessionCredit, 0)))))
				returned++
				synctest.Wait()
			}
			require.Zero(t, unused())
			time.Sleep(askTime)
			synctest.Wait()
			require.NotEmpty(t, w.got, "it has the floor again")
		}
		require.LessOrEqual(t, returned, 10*(mostRegrants+1))
		require.EqualValues(t, floorFor(1), unused())
	})
}

// Of many streams that wait, a peer's grant of a few bytes is offered to the one that can use it, not to all.
func TestAGrantIsOfferedToNoMoreStreamsThanCanUseIt(t *testing.T) {
	const streams = 500
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{MaxStreams: streams}}, frame.CapCredit, generous)
		w.s.cfg.Mux.SetStream("x", func(st *Stream) { _, _ = st.Write(make([]byte, 1000)) })
		for i := range uint64(streams) {
			w.send(frame.TypeStreamOpen, 0, 1+2*i, []byte("x"))
		}
		arrived := 0
		grant := func(n uint32) (offered int) {
			w.s.mu.Lock()
			require.NoError(t, w.s.onSessionFrame(frame.Header{Length: 4, Type: frame.TypeSessionCredit}, frame.AppendCredit(nil, n)))
			offered = w.s.out.ready.len()
			w.s.mu.Unlock()
			synctest.Wait()
			for len(w.got) > 0 {
				if g := <-w.got; g.Type == frame.TypeStreamData {
					arrived += len(g.body)
				}
				synctest.Wait()
			}
			return offered
		}
		grant(1)
		for range streams {
			require.LessOrEqual(t, grant(1), 1)
		}
		require.LessOrEqual(t, grant(2500), 5)
		grant(1000 * streams)
		require.Equal(t, 1000*streams, arrived)
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		require.Zero(t, w.s.shared.short.len()+w.s.shared.below.len())
	})
}
