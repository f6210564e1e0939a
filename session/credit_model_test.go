package session

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/faultnet"
)

var (
	creditSeeds = flag.Int("credit.seeds", 30, "how many runs the model of credit makes")
	creditFirst = flag.Uint64("credit.first", 0, "the seed of its first run; 0: random")
)

// How a reader of the model reads. Those up to patientReader read all.
const (
	readAll = iota
	readSlowly
	patientReader // after a pause
	readSomeAndStop
	readSomeAndReset
	readNothing
	readers
)

// The model of credit: two sides with little memory open streams to each other, many at once, and write, read, stop and reset at random,
// while others take memory, and carriers are lost. No stream that is read to its end lacks anything, none is reset for lack of memory, none
// waits for ever for one that is not read, and at the end both sides agree on the credit, and hold nothing.
func TestCreditIsNeverLost(t *testing.T) {
	first := *creditFirst
	if first == 0 {
		first = rand.Uint64()
	}
	for i := range uint64(*creditSeeds) {
		seed := first + i
		inBubble(t, func(t *testing.T) { newCreditModel(t, seed).run() })
		if t.Failed() {
			t.Fatalf("failed with -credit.first=%d -credit.seeds=1", seed)
		}
	}
}

type creditModel struct {
	t    *testing.T
	road *road
	over chan struct{}
	work sync.WaitGroup

	mu  sync.Mutex
	rng *rand.Rand
}

func newCreditModel(t *testing.T, seed uint64) *creditModel {
	m := &creditModel{t: t, over: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 1))}
	var quotas [2]Quota
	for i := range quotas {
		quotas[i].MaxBytes = []int64{600 << 10, 2 << 20, 20 << 20, 0}[m.intn(4)]
	}
	m.road = newRoad(t, Config{Quota: &quotas[0]}, AcceptorConfig{Config: Config{Quota: &quotas[1]}},
		faultnet.LinkOptions{Delay: time.Duration(m.intn(30)) * time.Millisecond, Buffer: 4 << 20})
	for kind := range readers {
		serve := func(st *Stream) {
			m.use(st, kind, nil)
		}
		m.road.mux.SetStream(fmt.Sprint(kind), serve)
		m.road.ours.SetStream(fmt.Sprint(kind), serve)
	}
	for i := range quotas {
		m.work.Go(func() { m.press(&quotas[i]) })
	}
	m.work.Go(m.cut)
	return m
}

func (m *creditModel) intn(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

// press takes memory and gives it back.
func (m *creditModel) press(q *Quota) {
	part := q.Hold("another", "")
	defer part.Leave()
	held := 0
	for {
		select {
		case <-m.over:
			part.release(fair.Bytes, held)
			return
		case <-time.After(time.Duration(m.intn(500)) * time.Millisecond):
		}
		if n := m.intn(1 << 20); m.intn(2) == 0 {
			part.release(fair.Bytes, held)
			held = 0
		} else if part.take(fair.Bytes, n).Code == codes.OK {
			held += n
		}
	}
}

// cut loses and changes carriers.
func (m *creditModel) cut() {
	for {
		select {
		case <-m.over:
			return
		case <-time.After(time.Duration(m.intn(3000)) * time.Millisecond):
		}
		if m.intn(2) == 0 {
			m.road.link(-1).Cut()
		} else {
			_ = m.road.dialer.Reconnect(m.t.Context()) // the carrier may be lost
		}
	}
}

func (m *creditModel) run() {
	var users sync.WaitGroup
	for _, s := range []*Session{m.road.dialer, m.road.accepted} {
		for range 12 {
			users.Go(func() {
				for range 3 {
					m.open(s)
				}
			})
		}
	}
	done := make(chan struct{})
	go func() {
		users.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Hour):
		require.Fail(m.t, "streams wait for ever")
	}
	close(m.over)
	m.work.Wait()
	time.Sleep(10 * time.Second) // handlers return, and what they have not told arrives
	wantCreditsAgree(m.t, m.road.dialer, m.road.acceptor)
	wantZero(m.t, m.road.dialer)
	wantZero(m.t, m.road.accepted)
}

// open opens a stream and uses it.
func (m *creditModel) open(s *Session) {
	kind := m.intn(readers)
	for {
		st, err := s.OpenStream(m.t.Context(), fmt.Sprint(kind), nil)
		if err == nil {
			own := m.intn(readers)
			m.use(st, own, []int{kind, own})
			return
		}
		require.ErrorIs(m.t, err, ErrUnavailable)
		time.Sleep(100 * time.Millisecond)
	}
}

// use writes to a stream and reads it. If kinds are those of both sides, it requires that all arrives if both read all.
func (m *creditModel) use(st *Stream, kind int, kinds []int) {
	var writing sync.WaitGroup
	writing.Go(func() {
		b := pattern(m.intn(400 << 10))
		b = append(binary.BigEndian.AppendUint64(nil, uint64(len(b))), b...)
		for len(b) > 0 {
			n, err := st.Write(b[:min(len(b), 1+m.intn(100<<10))])
			if m.noMemory(err); err != nil {
				return
			}
			b = b[n:]
		}
		_ = st.CloseWrite()
	})
	whole := m.read(st, kind)
	if len(kinds) > 0 && max(kinds[0], kinds[1]) <= patientReader {
		require.True(m.t, whole, "something is missing: %v", kinds)
	}
	if kind > patientReader && m.intn(2) == 0 {
		_ = st.Close() // ends the Write
	}
	writing.Wait()
	m.noMemory(st.Close())
}

// noMemory requires that an error of a stream is not that there was no memory for its data.
func (m *creditModel) noMemory(err error) {
	if e, is := errors.AsType[*Error](err); is {
		require.NotEqual(m.t, codes.Unavailable, e.Code, "%v", err)
		require.NotEqual(m.t, codes.FlowControl, e.Code, "%v", err)
	}
}

// read reads a stream in one of the ways, and reports whether all of it arrived.
func (m *creditModel) read(st *Stream, kind int) bool {
	left := -1
	switch kind {
	case patientReader:
		time.Sleep(time.Duration(m.intn(5)) * time.Second)
	case readSomeAndReset, readSomeAndStop:
		left = m.intn(100 << 10)
	case readNothing:
		time.Sleep(time.Duration(m.intn(5)) * time.Second)
		return false
	}
	var got []byte
	b := make([]byte, 64<<10)
	for left != 0 {
		if kind == readSlowly {
			time.Sleep(time.Duration(m.intn(20)) * time.Millisecond)
		}
		p := b[:1+m.intn(len(b))]
		if left > 0 {
			p = p[:min(len(p), left)]
		}
		n, err := st.Read(p)
		got = append(got, p[:n]...)
		if left > 0 {
			left -= n
		}
		if m.noMemory(err); err != nil {
			return err == io.EOF && len(got) >= 8 && int(binary.BigEndian.Uint64(got)) == len(got)-8 && string(got[8:]) == string(pattern(len(got)-8))
		}
	}
	if kind == readSomeAndReset {
		_ = st.Reset(codes.Cancelled)
	} else {
		_ = st.CloseRead()
	}
	return false
}

// Streams that nobody reads do not hold up one that is read, however little credit the session has.
func TestStreamsThatNobodyReadsHoldUpNoOther(t *testing.T) {
	for _, limit := range []int64{300 << 10, 1 << 20, 0} {
		for unread := range 17 {
			inBubble(t, func(t *testing.T) {
				mux, done := NewMux(), make(chan struct{})
				mux.SetStream("x", func(*Stream) { <-done })
				mux.SetStream("read", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
				c := newGuests(t, Config{Mux: mux, Quota: &Quota{MaxBytes: limit}, Heartbeat: -1})
				s, err := c.dial("alice", "")
				require.NoError(t, err)
				began := time.Now()
				streams := opened(t, s, unread)
				st, err := s.OpenStream(t.Context(), "read", nil)
				for ; err != nil; st, err = s.OpenStream(t.Context(), "read", nil) {
					require.ErrorIs(t, err, ErrUnavailable)
					time.Sleep(retryHint)
				}
				for _, st := range streams {
					go func() { _, _ = st.Write(make([]byte, 8<<20)) }()
				}
				if unread%2 == 0 {
					synctest.Wait() // they have taken what they can before the other begins
				}
				require.NoError(t, st.SetWriteDeadline(time.Now().Add(time.Minute)))
				_, err = st.Write(make([]byte, 1<<20))
				require.NoError(t, err)
				require.NoError(t, st.Close())
				require.Less(t, time.Since(began), time.Minute)
				close(done)
				require.NoError(t, c.acceptor.Shutdown(within(t, time.Minute)))
				synctest.Wait()
				require.Zero(t, c.quota.Snapshot().Bytes)
			})
		}
	}
}

// A carrier that is lost after any byte changes nothing of the credit: what is counted arrives once.
func TestTheCreditOfASessionIsExactWhereverACarrierIsLost(t *testing.T) {
	for after := int64(0); after < 40_000; after += 7 + after/20 {
		inBubble(t, func(t *testing.T) {
			quota := &Quota{MaxBytes: 300 << 10}
			r := newRoad(t, Config{}, AcceptorConfig{Config: Config{Quota: quota}}, faultnet.LinkOptions{Delay: time.Millisecond})
			r.mux.SetStream("read", func(st *Stream) { _, _ = io.Copy(st, st) })
			r.mux.SetStream("stop", func(st *Stream) {
				_, _ = io.ReadFull(st, make([]byte, 1000))
				_ = st.CloseRead()
			})
			r.mux.SetStream("reset", func(st *Stream) { _ = st.Reset(codes.Cancelled) })
			r.link(0).CutAfter(after)
			var all sync.WaitGroup
			for _, name := range []string{"read", "stop", "reset"} {
				all.Go(func() {
					st, err := r.dialer.OpenStream(t.Context(), name, nil)
					require.NoError(t, err)
					_, err = st.Write(pattern(10_000))
					if name == "read" {
						require.NoError(t, err)
						require.NoError(t, st.CloseWrite())
						b, err := io.ReadAll(st)
						require.NoError(t, err)
						require.Equal(t, pattern(10_000), b)
					}
					_ = st.Close() // the others tell that bytes were dropped
				})
			}
			all.Wait()
			time.Sleep(10 * time.Second)
			wantCreditsAgree(t, r.dialer, r.acceptor)
			wantZero(t, r.dialer)
			wantZero(t, r.accepted)
			if after < 1000 {
				require.NotZero(t, r.dialer.Snapshot().Resumes)
			}
		})
	}
}
