package session

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/registry"
)

// Row: S7. Traffic of every kind goes both ways while the session moves, and back, between a slow link and a fast one.
func TestASessionMovesUnderTrafficWithoutLossOrWait(t *testing.T) {
	const slow, fast = 200 * time.Millisecond, 5 * time.Millisecond
	for name, delays := range map[string][2]time.Duration{"slow to fast": {slow, fast}, "fast to slow": {fast, slow}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) { testMoveUnderTraffic(t, delays[0], delays[1]) })
		})
	}
}

func testMoveUnderTraffic(t *testing.T, from, to time.Duration) {
	r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: faultnet.LinkOptions{Buffer: 16 << 20, Delay: from}}
	var told, toldBack []uint64
	r.mux.SetCall(echo)
	r.ours.SetCall(echo)
	r.mux.SetLink("tell", func(m *Message) { told = append(told, binary.BigEndian.Uint64(m.Value)) })
	r.ours.SetLink("tell", func(m *Message) { toldBack = append(toldBack, binary.BigEndian.Uint64(m.Value)) })
	r.mux.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
	r.dial(Config{}, AcceptorConfig{})
	r.opts.Delay = to

	ctx := t.Context()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var longest time.Duration
	const calls = 400
	for side, s := range map[byte]*Session{1: r.dialer, 2: r.accepted} {
		for lane := range 4 {
			wg.Go(func() {
				for i := range calls / 4 {
					body := append(bytes.Repeat([]byte{side}, 3000), byte(lane), byte(i))
					began := time.Now()
					answer, err := s.Call(ctx, "", body)
					require.NoError(t, err)
					require.True(t, bytes.Equal(body, answer))
					mu.Lock()
					longest = max(longest, time.Since(began))
					mu.Unlock()
				}
			})
		}
		wg.Go(func() {
			for i := range 1000 {
				require.NoError(t, s.Send(ctx, "tell", binary.BigEndian.AppendUint64(nil, uint64(i))))
				time.Sleep(3 * time.Millisecond)
			}
			require.NoError(t, s.Flush(ctx))
		})
	}
	wg.Go(func() {
		st, err := r.dialer.OpenStream(ctx, "echo", nil)
		require.NoError(t, err)
		data := make([]byte, 4<<20)
		_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
		wg.Go(func() {
			for at := 0; at < len(data); at += 8 << 10 {
				_, err := st.Write(data[at : at+8<<10])
				require.NoError(t, err)
				time.Sleep(4 * time.Millisecond)
			}
			require.NoError(t, st.CloseWrite())
		})
		got, err := io.ReadAll(st)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got), "the stream came back with other bytes")
	})
	time.Sleep(time.Second)
	began := time.Now()
	require.NoError(t, r.dialer.Reconnect(ctx))
	require.Equal(t, 2*to, time.Since(began), "Reconnect takes the hello's round trip")
	wg.Wait()
	for _, got := range [][]uint64{told, toldBack} {
		require.Len(t, got, 1000)
		for i, v := range got {
			require.Equal(t, uint64(i), v)
		}
	}
	round := 2 * max(from, to)
	require.LessOrEqual(t, longest, round+round/10, "a call waited longer than one round trip of the slower link")
	for _, s := range []*Session{r.dialer, r.accepted} {
		require.Equal(t, []State{StateConnected, StateMigrated}, r.states(s))
		require.Zero(t, s.Snapshot().Resent)
	}
	_, err := end(r, 0, 0).Write([]byte{0})
	require.ErrorIs(t, err, net.ErrClosed, "the old carrier is closed")
	t.Logf("longest call %v", longest)
}

// Row: S7. Row: U14.
// Claim: session.ErrUnsupported
func TestReconnectIsForTheDialingSideOfASessionThatSurvives(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		require.ErrorIs(t, r.accepted.Reconnect(t.Context()), ErrUnsupported)
		p := newPair(t, mortal, AcceptorConfig{})
		require.ErrorIs(t, p.dialer.Reconnect(t.Context()), ErrUnsupported)
		require.NoError(t, r.dialer.Close())
		require.Error(t, r.dialer.Reconnect(t.Context()))
	})
}

// Row: S7.
func TestReconnectWithoutARouteFailsAndTheSessionGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.mux.SetCall(echo)
		r.block(true)
		err := r.dialer.Reconnect(t.Context())
		require.ErrorIs(t, err, errNoRoute)
		_, err = r.dialer.Call(t.Context(), "", []byte("x"))
		require.NoError(t, err)
		require.Equal(t, []State{StateConnected}, r.states(r.dialer))

		r.link(-1).Cut()
		r.await(r.dialer, StateDetached)
		began := time.Now()
		err = r.dialer.Reconnect(within(t, 3*time.Second))
		require.True(t, asError(t, err, Unknown).Timeout(), "%v", err)
		require.Equal(t, 3*time.Second, time.Since(began))
		r.block(false)
		time.Sleep(10 * time.Second)
		require.Equal(t, StateResumed, r.dialer.State())
	})
}

// Row: S7. A detached session that waits for its next attempt tries at once.
func TestReconnectEndsTheWaitForTheNextAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		cfg := Config{ResumeWindow: time.Hour}
		cfg.Backoff.Min, cfg.Backoff.Max = 20*time.Minute, 20*time.Minute
		r := newRoad(t, cfg, AcceptorConfig{Config: cfg}, faultnet.LinkOptions{})
		r.lose()
		time.Sleep(time.Second)
		r.block(false)
		began := time.Now()
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		require.Zero(t, time.Since(began))
		require.Equal(t, StateResumed, r.dialer.State())
	})
}

// A Reconnect that comes while the session still moves, and fails, must not leave it without anybody who looks for a
// carrier.
func TestAReconnectThatFailsWhileTheSessionMovesDoesNotStrandIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: faultnet.LinkOptions{Delay: 2 * time.Second}}
		r.mux.SetCall(echo)
		r.dial(Config{}, AcceptorConfig{})
		time.Sleep(10 * time.Second)
		r.opts.Delay = 5 * time.Millisecond
		require.NoError(t, r.dialer.Reconnect(t.Context())) // END of the old link takes two seconds
		r.prepare = func(i int, l *faultnet.Link) {
			if i == 2 {
				l.Cut()
			}
		}
		require.Error(t, r.dialer.Reconnect(t.Context()))
		began := time.Now()
		_, err := r.dialer.Call(within(t, 30*time.Second), "", []byte("x"))
		require.NoError(t, err)
		require.Less(t, time.Since(began), 10*time.Second)
	})
}

// Many who ask for a move at once, while links break: the session goes on.
func TestManyReconnectsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: faultnet.LinkOptions{Delay: 5 * time.Millisecond}}
		r.mux.SetCall(echo)
		r.dial(Config{}, AcceptorConfig{})
		r.prepare = func(i int, l *faultnet.Link) {
			if i%3 == 0 {
				l.CutAfter(int64(20 + 37*i))
			}
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 10 {
					_ = r.dialer.Reconnect(within(t, time.Second))
				}
			})
			wg.Go(func() {
				for range 50 {
					_, err := r.dialer.Call(t.Context(), "", []byte("x"))
					require.NoError(t, err)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		require.NoError(t, r.dialer.Err())
	})
}

// The new carrier dies in the middle of the move, in every byte of it: nothing is lost.
func TestACutAtAnyByteOfAMoveLosesNothing(t *testing.T) {
	for _, delivers := range []bool{false, true} {
		for at := int64(0); at < 400; at += 3 {
			inBubble(t, func(t *testing.T) {
				r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()},
					opts: faultnet.LinkOptions{Delay: time.Millisecond, CutDelivers: delivers}}
				r.mux.SetCall(echo)
				r.ours.SetCall(echo)
				r.dial(Config{}, AcceptorConfig{})
				r.prepare = func(i int, l *faultnet.Link) {
					if i == 1 {
						l.CutAfter(at)
					}
				}
				var wg sync.WaitGroup
				for _, s := range []*Session{r.dialer, r.accepted} {
					wg.Go(func() {
						for i := range 30 {
							answer, err := s.Call(t.Context(), "", []byte{byte(i)})
							require.NoError(t, err, "cut at %d", at)
							require.Equal(t, []byte{byte(i)}, answer)
						}
					})
				}
				time.Sleep(10 * time.Millisecond)
				_ = r.dialer.Reconnect(t.Context())
				wg.Wait()
				require.NoError(t, r.dialer.Err())
			})
		}
	}
}

// numbered is a carrier that describes itself by its number, behind those that do not describe themselves.
type numbered struct {
	net.Conn
	number int
}

func (c numbered) Describe() string { return fmt.Sprintf("~%05d", c.number) }

// A move that another one follows at once counts as well, and the history has its carrier.
func TestMovesInARowAreCounted(t *testing.T) {
	const moves = 2000
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.wrap = func(i int, here, there net.Conn) (h, t net.Conn) { return numbered{here, i}, numbered{there, i} }
		isInOrder := func(s *Session) bool {
			all := s.ForDiagnostics().State().Carriers
			return slices.IsSortedFunc(all, func(a, b registry.Carrier) int {
				return cmp.Or(cmp.Compare(a.Path, b.Path), -1) // equal ones are out of order
			})
		}
		r.mux.SetCall(func(m *Message) ([]byte, error) { return m.Value, nil })
		for range moves {
			called := make(chan error, 1)
			go func() {
				_, err := r.dialer.Call(t.Context(), "", []byte("x"))
				called <- err
			}()
			require.NoError(t, r.dialer.Reconnect(t.Context()))
			require.NoError(t, <-called)
			require.True(t, isInOrder(r.dialer))
			require.True(t, isInOrder(r.accepted))
		}
		synctest.Wait()
		v := r.dialer.Snapshot()
		require.EqualValues(t, moves, v.Migrations)
		require.Zero(t, v.Resumes)
	})
}
