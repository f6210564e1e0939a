package record_test

import (
	"context"
	"errors"
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
	"github.com/peerlane/peerlane/record"
)

// works fails unless the stream carries records both ways: what was written is applied.
func works(t *testing.T, w *twins) {
	t.Helper()
	for from := range w.both {
		seq, err := w.both[from].WriteRecord(t.Context(), []byte("still here"))
		require.NoError(t, err)
		expectRecord(t, w.both[1-from], seq)
		require.NoError(t, w.both[1-from].AckRecord(seq))
		require.NoError(t, w.both[from].Barrier(soon(t, time.Minute)))
	}
}

// rawOpen is the OPEN of a side without a place, with these capabilities and a log called log.
func rawOpen(caps byte, log byte) []byte {
	b := []byte{0xF5, 'p', 'l', 'c', 1, 0x11, 0, 0, 0, 0, 0, caps, 0, 1, 0, 0, 0, 0x40, 0, 0, 0, 0x10, 0, 0}
	b = append(b, make([]byte, 16)...)
	b[len(b)-1] = log
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1)
	return append(b, make([]byte, 24)...)
}

// twin returns a Store that stands where s does.
func (s *shelf) twin() *shelf {
	s.mu.Lock()
	defer s.mu.Unlock()
	twin := newShelf()
	twin.place = s.place
	twin.kept = slices.Clone(s.kept)
	return twin
}

// A stream that comes to nothing leaves the one that has the Store alone, whichever side it fails on.
//
// Row: N24
func TestAStreamThatComesToNothingEndsNoOther(t *testing.T) {
	silent := func(t *testing.T, conn net.Conn, _ *shelf) {
		_, err := io.CopyN(io.Discard, conn, 80)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, conn)
	}
	for name, try := range map[string]struct {
		side int // whose Store is asked for
		peer func(t *testing.T, conn net.Conn, there *shelf)
		want error
	}{
		"an open that no peer answers": {0, silent, context.DeadlineExceeded},
		"an open on a closed conn":     {0, func(_ *testing.T, conn net.Conn, _ *shelf) { _ = conn.Close() }, io.ErrUnexpectedEOF},
		"an open that is refused": {0, func(t *testing.T, conn net.Conn, _ *shelf) {
			_, err := record.AcceptConn(t.Context(), conn, &record.Options{WindowBytes: -1})
			require.ErrorIs(t, err, record.ErrInvalid)
		}, io.ErrUnexpectedEOF},
		"an open to a peer with another history": {0, func(t *testing.T, conn net.Conn, _ *shelf) {
			other := newShelf()
			other.place.Peer, other.place.Applied = record.NewLogID(), 7
			_, err := record.AcceptConn(t.Context(), conn, &record.Options{Store: other})
			require.ErrorIs(t, err, record.ErrHistory)
		}, record.ErrHistory},
		"an open to a peer that takes smaller records": {0, func(t *testing.T, conn net.Conn, twin *shelf) {
			s, err := record.AcceptConn(t.Context(), conn, &record.Options{MaxRecord: 2, Store: twin})
			require.NoError(t, err)
			<-s.Done()
			require.ErrorContains(t, s.Err(), "too large")
		}, record.ErrTooLarge},
		"a writer with a log of its own": {1, func(t *testing.T, conn net.Conn, _ *shelf) {
			_, err := record.OpenConn(t.Context(), conn, nil)
			require.ErrorIs(t, err, record.ErrHistory)
		}, record.ErrHistory},
		"an old writer with a log of its own": {1, func(t *testing.T, conn net.Conn, _ *shelf) {
			_, err := conn.Write(rawOpen(0, 9))
			require.NoError(t, err)
			_, _ = io.Copy(io.Discard, conn)
		}, record.ErrHistory},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stores := [2]*shelf{newShelf(), newShelf()}
				w := newTwins(t, &record.Options{Store: stores[0]}, &record.Options{Store: stores[1]}, faultnet.LinkOptions{Delay: time.Millisecond})
				works(t, w)
				_, err := w.both[0].WriteRecord(t.Context(), []byte("not acknowledged"))
				require.NoError(t, err)
				for range 5 {
					here, there := faultnet.Pipe(faultnet.LinkOptions{Delay: time.Millisecond})
					var peer sync.WaitGroup
					peer.Go(func() { try.peer(t, there, stores[1].twin()) })
					establish := record.OpenConn
					if try.side == 1 {
						establish = record.AcceptConn
					}
					_, err := establish(t.Context(), here, &record.Options{Store: stores[try.side]})
					require.ErrorIs(t, err, try.want)
					peer.Wait()
				}
				expectRecord(t, w.both[1], 2)
				require.NoError(t, w.both[1].AckRecord(2))
				works(t, w)
				for _, s := range stores {
					_, _, wrong := s.state()
					require.NoError(t, wrong)
				}
			})
		})
	}
}

// A peer that may open, and says OPEN over and over without going on, ends no stream: this side takes its Store over when the first
// frame has come.
func TestAnOpenerThatGoesAwayEndsNoOther(t *testing.T) {
	for name, last := range map[string][]byte{
		"without a word": nil,
		"with CLOSE":     {6, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 4, 'n'},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kept := newShelf()
				w := newTwins(t, nil, &record.Options{Store: kept}, faultnet.LinkOptions{})
				for range 5 { // nothing is applied yet: any log may take the place
					here, there := faultnet.Pipe(faultnet.LinkOptions{})
					var accepted sync.WaitGroup
					accepted.Go(func() {
						_, err := record.AcceptConn(t.Context(), there, &record.Options{Store: kept})
						require.Error(t, err)
						if last != nil {
							require.ErrorIs(t, err, record.ErrHistory)
						}
					})
					_, err := here.Write(rawOpen(2, 9))
					require.NoError(t, err)
					_, err = io.CopyN(io.Discard, here, 80)
					require.NoError(t, err)
					synctest.Wait()
					_, err = here.Write(last)
					require.NoError(t, err)
					require.NoError(t, here.Close())
					accepted.Wait()
				}
				works(t, w)
			})
		})
	}
}

// An opener that knows no take-over still takes the Store over as it opens, if the places fit.
func TestAnOldOpenerTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := newShelf()
		w := newTwins(t, nil, &record.Options{Store: kept}, faultnet.LinkOptions{})
		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		_, err := here.Write(rawOpen(0, 9))
		require.NoError(t, err)
		s, err := record.AcceptConn(t.Context(), there, &record.Options{Store: kept})
		require.NoError(t, err)
		<-w.both[1].Done()
		require.ErrorIs(t, w.both[1].Err(), record.ErrSuperseded)
		require.NoError(t, here.Close())
		<-s.Done()
	})
}

// Two opens at once: one stream is left, and it works.
func TestOfTwoOpensAtOnceOneStreamIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := [2]*shelf{newShelf(), newShelf()}
		opts := [2]*record.Options{{Store: stores[0]}, {Store: stores[1]}}
		first := newTwins(t, opts[0], opts[1], faultnet.LinkOptions{Delay: time.Millisecond})
		works(t, first)
		var all sync.WaitGroup
		var both [3]*twins
		for i := range both {
			both[i] = &twins{link: faultnet.NewLink(faultnet.LinkOptions{Delay: time.Duration(i+1) * time.Millisecond})}
			here, there := both[i].link.Ends()
			all.Go(func() {
				var errs [2]error
				both[i].both, errs = openBoth(t.Context(), here, there, opts[0], opts[1])
				t.Log(i, errs)
			})
		}
		all.Wait()
		quiet(time.Minute)
		left := 0
		for _, w := range both {
			for _, s := range w.both {
				if s != nil {
					t.Log(s.Err())
				}
			}
			for _, s := range w.both {
				if s != nil {
					t.Cleanup(func() { _ = s.Close() })
				}
			}
			if w.both[0] != nil && w.both[1] != nil && w.both[0].Err() == nil && w.both[1].Err() == nil {
				left++
				works(t, w)
			}
		}
		require.Equal(t, 1, left)
		require.Error(t, first.both[0].Err())
	})
}

// mover is an application at one side of streams that take over from each other while records flow both ways.
type mover struct {
	t       *testing.T
	shelf   *shelf
	mu      sync.Mutex
	effects []string          // what was applied, in order
	acked   uint64            // the last that AckRecord has taken
	wrote   map[uint64]string // by number: what WriteRecord has returned for
	n       int
}

// use writes to a stream, and applies what it reads, until it ends.
func (m *mover) use(s *record.Stream, rng *rand.Rand) {
	var all sync.WaitGroup
	defer all.Wait()
	naps := [2]int{1 << (16 + rng.IntN(6)), 1 << (16 + rng.IntN(6))}
	all.Go(func() {
		for {
			m.mu.Lock()
			m.n++
			text := fmt.Sprint("record ", m.n)
			m.mu.Unlock()
			seq, err := s.WriteRecord(m.t.Context(), []byte(text))
			if err != nil {
				return
			}
			m.mu.Lock()
			m.wrote[seq] = text
			m.mu.Unlock()
			time.Sleep(time.Duration(naps[0]))
		}
	})
	for {
		r, err := s.ReadRecord(m.t.Context())
		if err != nil {
			return
		}
		m.mu.Lock()
		require.Greater(m.t, r.Seq, m.acked, "a record came again that was acknowledged")
		if n := uint64(len(m.effects)); r.Seq > n { // otherwise the stream before has applied it, and not acknowledged
			require.Equal(m.t, n+1, r.Seq, "records are missing")
			m.effects = append(m.effects, string(r.Payload))
		}
		if s.AckRecord(r.Seq) == nil {
			m.acked = r.Seq
		}
		m.mu.Unlock()
		time.Sleep(time.Duration(naps[1]))
	}
}

// Streams take over from each other, and some come to nothing, while both logs grow: each record is applied once and in order, none
// that was acknowledged comes again, and every stream that may take over does.
//
// Row: N22, N24
func TestTakingOverUnderWay(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			var sides [2]*mover
			for i := range sides {
				sides[i] = &mover{t: t, shelf: newShelf(), wrote: make(map[uint64]string)}
				if rng.IntN(2) == 0 {
					nap := time.Duration(rng.IntN(int(3 * time.Millisecond)))
					sides[i].shelf.slow = func() time.Duration { return nap }
				}
			}
			var all sync.WaitGroup
			var newest [2]*record.Stream
			stores := [2]record.Store{sides[0].shelf, sides[1].shelf}
			for range 8 {
				link := faultnet.NewLink(faultnet.LinkOptions{Delay: time.Duration(rng.IntN(int(5 * time.Millisecond)))})
				here, there := link.Ends()
				opts := [2]*record.Options{{Store: stores[0]}, {Store: stores[1]}}
				from := rng.IntN(2)
				if rng.IntN(3) == 0 && newest[0] != nil { // comes to nothing
					link.CutAfter(int64(rng.IntN(150)))
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					tried, errs := openBoth(ctx, here, there, opts[from], opts[1-from])
					cancel()
					for _, s := range tried {
						if s != nil {
							_ = s.Close()
						}
					}
					if errs[0] != nil && errs[1] != nil {
						require.NoError(t, errors.Join(newest[0].Err(), newest[1].Err()), "seed %d", seed)
						continue
					}
					link = faultnet.NewLink(faultnet.LinkOptions{}) // one side has said yes: the stream before may have ended
					here, there = link.Ends()
				}
				both, errs := openBoth(t.Context(), here, there, opts[from], opts[1-from])
				require.NoError(t, errors.Join(errs[:]...), "seed %d", seed)
				newest[from], newest[1-from] = both[0], both[1]
				for i, s := range newest {
					use := rand.New(rand.NewPCG(rng.Uint64(), 2))
					all.Go(func() { sides[i].use(s, use) })
				}
				time.Sleep(time.Duration(rng.IntN(int(100 * time.Millisecond))))
			}
			for _, s := range newest {
				_ = s.Close()
			}
			all.Wait()
			for i, m := range sides {
				_, _, wrong := m.shelf.state()
				require.NoError(t, wrong, "seed %d, side %d", seed, i)
				for n, text := range sides[1-i].effects {
					if wrote, ok := m.wrote[uint64(n+1)]; ok {
						require.Equal(t, wrote, text, "seed %d, record %d", seed, n+1)
					}
				}
				require.NotEmpty(t, m.effects, "seed %d", seed)
			}
		})
	}
}
