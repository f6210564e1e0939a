package record_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
)

// site is an application that writes a log of its own and applies that of the other site, over one stream after another. Its records
// are text(name, n, size): what has been taken of them, the Store knows.
type site struct {
	t     *testing.T
	name  string
	total uint64
	size  int
	other *site
	log   record.LogID

	mu    sync.Mutex
	shelf *shelf
}

func (p *site) store() *shelf {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shelf
}

// kill ends the site's process, and begins another.
func (p *site) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shelf = p.shelf.kill()
}

// life is what one process of a site does on one stream.
type life struct {
	*site
	ctx    context.Context // ends what stands still
	rng    *rand.Rand
	shelf  *shelf
	stream *record.Stream
}

func (p *site) payload(seq uint64) []byte {
	return text(p.name, seq, int(seq*7919)%p.size)
}

// run writes, reads and waits for barriers until the stream ends, or everything is done.
func (l *life) run() {
	var all sync.WaitGroup
	seeds := [3]*rand.Rand{}
	for i := range seeds {
		seeds[i] = rand.New(rand.NewPCG(l.rng.Uint64(), 7))
	}
	all.Go(func() { l.write(seeds[0]) })
	all.Go(func() { l.read(seeds[1]) })
	all.Go(func() { l.wait(seeds[2]) })
	all.Wait()
}

// write writes what is left to write, alone or in batches, and sends again what has failed.
func (l *life) write(rng *rand.Rand) {
	for next := l.stream.Snapshot().Written + 1; next <= l.total; {
		var payloads [][]byte
		for n := rng.IntN(4); n >= 0 && next+uint64(len(payloads)) <= l.total; n-- {
			payloads = append(payloads, l.payload(next+uint64(len(payloads))))
		}
		last, err := l.stream.WriteBatch(l.ctx, payloads)
		switch {
		case errors.Is(err, record.ErrTooLarge) && len(payloads) > 1:
			last, err = l.stream.WriteRecord(l.ctx, payloads[0])
			payloads = payloads[:1]
		}
		switch {
		case err == nil:
			require.Equal(l.t, next+uint64(len(payloads))-1, last)
			next = last + 1
		case !l.again(err):
			return
		}
		time.Sleep(time.Duration(rng.IntN(1 << rng.IntN(24))))
	}
	_ = l.stream.CloseWrite() // the stream may have ended
}

// again has the stream send again what has failed, and reports whether that is what err says.
func (l *life) again(err error) bool {
	var f *record.RecordFailure
	if !errors.As(err, &f) {
		var e *record.Error
		require.ErrorAs(l.t, err, &e)
		return false
	}
	require.True(l.t, f.Retryable)
	return l.stream.Resend() == nil
}

// read applies what comes, in groups, and fails some.
func (l *life) read(rng *rand.Rand) {
	dst := make([]record.Record, 1+rng.IntN(5))
	for {
		n, err := l.stream.ReadBatch(l.ctx, dst)
		if err != nil {
			if err != io.EOF {
				var e *record.Error
				require.ErrorAs(l.t, err, &e)
			}
			return
		}
		var applied uint64
		for _, r := range dst[:n] {
			if rng.IntN(40) == 0 {
				_ = l.stream.Fail(r.Seq, 9, true, "try again") // the stream may have ended
				break
			}
			require.Equal(l.t, string(l.other.payload(r.Seq)), string(r.Payload), "record %d", r.Seq)
			if l.shelf.commit(l.other.log, r) != nil {
				return // killed
			}
			if applied = r.Seq; rng.IntN(3) == 0 {
				_ = l.stream.AckRecord(applied)
			}
		}
		if applied > 0 {
			_ = l.stream.AckRecord(applied)
		}
	}
}

// wait waits for barriers, which say what is true.
func (l *life) wait(rng *rand.Rand) {
	for {
		s := l.stream.Snapshot()
		err := l.stream.BarrierTo(l.ctx, s.Written)
		_, applied, _ := l.other.store().state()
		switch {
		case err == nil:
			require.LessOrEqual(l.t, s.Written, uint64(applied), "a barrier was met before the peer had applied")
			if s.Written == l.total || l.stream.Err() != nil || l.ctx.Err() != nil {
				return
			}
		case !l.again(err):
			if e := (*record.Error)(nil); errors.As(err, &e) {
				require.LessOrEqual(l.t, e.Applied, uint64(applied))
			}
			return
		}
		time.Sleep(time.Millisecond + time.Duration(rng.IntN(1<<rng.IntN(24))))
	}
}

// Streams whose links are cut after any number of bytes, those of a hello included, and whose processes are killed between two calls
// of the Store or in the middle of one: what each side has applied is what the other has written, each record once and in order.
//
// Row: N10, N11, N12, N13
func TestRecordsAreAppliedOnceAcrossStreamsThatBreak(t *testing.T) {
	for range 25 {
		synctest.Test(t, func(t *testing.T) { breakStreams(t, rand.Uint64()) })
	}
}

func breakStreams(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	size := 1 + rng.IntN(1<<rng.IntN(12))
	sites := [2]*site{}
	for i, name := range []string{"a", "b"} {
		s := newShelf()
		pace := rand.New(rand.NewPCG(seed, uint64(2+i)))
		var mu sync.Mutex
		span := 1 << rng.IntN(22)
		s.slow = func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(pace.IntN(span))
		}
		sites[i] = &site{t: t, name: name, total: uint64(1 + rng.IntN(300)), size: size, shelf: s, log: s.place.Log}
	}
	sites[0].other, sites[1].other = sites[1], sites[0]
	cuts := 5 + rng.IntN(40)
	streams, killed := 0, 0
	for ; streams < 1000; streams++ {
		link := faultnet.NewLink(faultnet.LinkOptions{Delay: time.Duration(rng.IntN(1e6)), CutDelivers: rng.IntN(2) == 0})
		last := streams >= cuts
		if !last {
			n := rng.IntN(400)
			if rng.IntN(3) > 0 {
				n = rng.IntN(1 << (8 + rng.IntN(8)))
			}
			link.CutAfter(int64(n))
		}
		if done := oneStream(t, rng, sites, link, !last, &killed); done {
			break
		}
	}
	for _, p := range sites {
		place, applied, wrong := p.store().state()
		require.NoError(t, wrong, "seed %d", seed)
		require.Equal(t, p.total, place.Next-1, "seed %d", seed)
		require.Equal(t, p.other.total, uint64(applied), "seed %d", seed)
		for i, e := range p.store().effects {
			require.Equal(t, string(p.other.payload(uint64(i+1))), e, "seed %d, record %d", seed, i+1)
		}
	}
	t.Logf("seed %d: %d and %d records over %d streams, %d kills", seed, sites[0].total, sites[1].total, streams+1, killed)
}

// oneStream opens a stream over link and lets both sites live on it until it ends. It reports whether all is done.
func oneStream(t *testing.T, rng *rand.Rand, sites [2]*site, link *faultnet.Link, mayKill bool, killed *int) bool {
	here, there := link.Ends()
	shelves := [2]*shelf{sites[0].store(), sites[1].store()}
	opts := [2]*record.Options{}
	for i := range opts {
		opts[i] = &record.Options{
			Store: shelves[i], Window: 1 + rng.IntN(1<<rng.IntN(9)), WindowBytes: 5<<10 + rng.IntN(1<<rng.IntN(16)), MaxRecord: 5 << 10,
			BatchBytes: rng.IntN(1 << rng.IntN(14)), Linger: time.Duration(rng.IntN(1<<rng.IntN(22)) - 1).Abs(),
			AckDelay: time.Duration(rng.IntN(1<<rng.IntN(24)) - 1), NoBatchAck: rng.IntN(3) == 0,
		}
	}
	first := rng.IntN(2) // who opens
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	both, errs := openBoth(context.Background(), here, there, opts[first], opts[1-first])
	done := true
	var lives sync.WaitGroup
	for i, s := range both {
		if errs[i] != nil {
			require.NotErrorIs(t, errs[i], record.ErrHistory)
			require.NotErrorIs(t, errs[i], record.ErrProtocol)
			done = false
			continue
		}
		who := (first + i) % 2
		l := &life{site: sites[who], ctx: ctx, rng: rand.New(rand.NewPCG(rng.Uint64(), 3)), shelf: shelves[who], stream: s}
		lives.Go(func() {
			l.run()
			time.Sleep(time.Second)
			_ = s.Close() // the cut, or the kill, may have come first
			require.NoError(t, ctx.Err(), "it stands still")
			<-s.Done()
		})
	}
	if mayKill && rng.IntN(3) == 0 {
		*killed++
		time.Sleep(time.Duration(rng.IntN(1 << (10 + rng.IntN(17)))))
		sites[rng.IntN(2)].kill()
		if rng.IntN(2) == 0 {
			time.Sleep(10 * time.Millisecond) // its Store says so first
		}
		link.Cut()
	}
	lives.Wait()
	for i, s := range both {
		if errs[i] == nil && !errors.Is(s.Err(), record.ErrClosed) {
			require.NotErrorIs(t, s.Err(), record.ErrProtocol)
			done = false
		}
	}
	return done
}
