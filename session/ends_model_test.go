package session

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

var (
	endsSeeds = flag.Int("ends.seeds", 40, "how many runs the model of ends makes")
	endsFirst = flag.Uint64("ends.first", 0, "the seed of its first run; 0: random")
)

// The model of ends: two sides send one-way messages, call, and write to streams of every kind in both directions, in random order and at
// random paces; they close streams and sessions at random times, with slow readers and with cuts in the middle. At the end everything
// that a call accepted was delivered in order, or is named in an error of its stream or session; an end in order follows all of what
// was written, and nothing that was delivered is named as not sent.
func TestNothingIsLostSilentlyAtTheEnd(t *testing.T) {
	first := *endsFirst
	if first == 0 {
		first = rand.Uint64()
	}
	for i := range uint64(*endsSeeds) {
		seed := first + i
		inBubble(t, func(t *testing.T) { newEndsModel(t, seed).run() })
		if t.Failed() {
			t.Fatalf("failed with -ends.first=%d -ends.seeds=1", seed)
		}
	}
}

// endsModel is one run.
type endsModel struct {
	t    *testing.T
	seed uint64
	road *streamRoad
	work sync.WaitGroup

	mu       sync.Mutex
	rng      *rand.Rand
	ways     []*endsWay
	readings map[string]endsReading  // by stream and reader
	messages map[string]*endsMessage // by side and link
	names    int
}

// endsWay is one direction of one stream.
type endsWay struct {
	name   string
	writer *Session

	wrote            int
	ended            bool // Close or CloseWrite was called
	writeErr, endErr error

	endsReading
}

// endsReading is what its reader has found.
type endsReading struct {
	read    int
	eof     bool
	readErr error
	garbled bool
}

// endsMessage is one message or call.
type endsMessage struct {
	sender  *Session
	err     error // of the call; of Send nil
	call    bool
	handled bool
	told    []Outcome // OnUndelivered
}

func newEndsModel(t *testing.T, seed uint64) *endsModel {
	m := &endsModel{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), messages: map[string]*endsMessage{},
		readings: map[string]endsReading{}}
	cfg := Config{StreamWindow: 4 << 10 << m.below(8), ReplayWindow: 4 << 10 << m.below(8), MessageWindow: 1 << (8 + m.below(10)),
		DisableCompression: m.below(2) == 0}
	if m.below(4) == 0 {
		cfg.ResumeWindow = -1
	}
	if m.below(3) == 0 {
		cfg.Keys = keyring(t, 0)
	}
	alice, bob := cfg, cfg
	alice.OnUndelivered = func(e *Error) { m.undelivered("alice", e) }
	bob.OnUndelivered = func(e *Error) { m.undelivered("bob", e) }
	opts := faultnet.LinkOptions{Delay: time.Duration(m.below(30)) * time.Millisecond, CutDelivers: m.below(2) == 0}
	if m.below(2) == 0 {
		opts.Rate = 20_000 << m.below(8)
	}
	m.road = newStreamRoad(t, alice, AcceptorConfig{Config: bob}, opts)
	for side, mux := range map[string]*Mux{"bob": m.road.ours, "alice": m.road.mux} { // whose messages the mux handles
		mux.SetDefaultLink(func(msg *Message) {
			m.pause(5)
			m.mu.Lock()
			m.messages[side+msg.Link].handled = true
			m.mu.Unlock()
			_ = msg.Reply(nil) // ErrOneWay
		})
		mux.SetDefaultStream(func(st *Stream) {
			m.work.Add(1)
			defer m.work.Done()
			m.use(st, st.Session())
		})
	}
	return m
}

func (m *endsModel) below(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

// pause sleeps for up to so many milliseconds, mostly not at all.
func (m *endsModel) pause(most int) {
	if n := m.below(2*most) - most; n > 0 {
		time.Sleep(time.Duration(n) * time.Millisecond)
	}
}

func (m *endsModel) undelivered(side string, e *Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if x := m.messages[side+e.Link]; x != nil {
		x.told = append(x.told, e.Outcome)
	}
}

// name returns a new name for a link or stream.
func (m *endsModel) name(kind string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names++
	return fmt.Sprintf("%s-%d", kind, m.names)
}

func (m *endsModel) run() {
	sides := map[string]*Session{"alice": m.road.dialer, "bob": m.road.accepted}
	for name, s := range sides {
		for range m.below(4) {
			m.work.Go(func() { m.send(name, s) })
		}
		for range m.below(4) {
			m.work.Go(func() { m.call(name, s) })
		}
		for range m.below(4) {
			m.work.Go(func() { m.open(s, "shared", nil) })
		}
	}
	for range m.below(3) {
		m.work.Go(func() { m.open(m.road.dialer, "dedicated", &StreamOptions{Dedicated: true}) })
	}
	for range m.below(3) {
		m.work.Go(func() { m.open(m.road.dialer, "resumable", &StreamOptions{Dedicated: true, Resumable: true}) })
	}
	for range m.below(3) {
		m.work.Go(m.cut)
	}
	closed := map[*Session]error{}
	order := []*Session{m.road.dialer, m.road.accepted}
	if m.below(2) == 0 {
		slices.Reverse(order)
	}
	var closing sync.WaitGroup
	for i, s := range order {
		closing.Go(func() {
			m.pause(400)
			if i == 1 && m.below(2) == 0 {
				<-s.Done()
			}
			err := s.Close()
			m.mu.Lock()
			defer m.mu.Unlock()
			closed[s] = err
		})
	}
	closing.Wait()
	m.work.Wait()
	time.Sleep(time.Minute) // handlers may still run after a session that was lost
	m.check(closed)
}

// cut breaks one of the links.
func (m *endsModel) cut() {
	m.pause(300)
	r := m.road.road
	r.mu.Lock()
	links := slices.Clone(r.links)
	r.mu.Unlock()
	links[m.below(len(links))].Cut()
}

func (m *endsModel) send(side string, s *Session) {
	for range m.below(30) {
		m.pause(20)
		link := m.name("message")
		m.mu.Lock()
		m.messages[side+link] = &endsMessage{sender: s}
		m.mu.Unlock()
		if err := s.Send(context.Background(), link, make([]byte, m.below(3000))); err != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			require.False(m.t, m.messages[side+link].handled, "a message that Send refused was handled: %v", err)
			delete(m.messages, side+link)
			return
		}
	}
}

func (m *endsModel) call(side string, s *Session) {
	for range m.below(10) {
		m.pause(30)
		link := m.name("call")
		m.mu.Lock()
		x := &endsMessage{sender: s, call: true}
		m.messages[side+link] = x
		m.mu.Unlock()
		_, err := s.SendWait(context.Background(), link, make([]byte, m.below(100_000)))
		m.mu.Lock()
		x.err = err
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// open opens a stream and uses it.
func (m *endsModel) open(s *Session, kind string, opts *StreamOptions) {
	m.pause(200)
	st, err := s.OpenStream(context.Background(), m.name(kind), opts)
	if err == nil {
		m.use(st, s)
	}
}

// use writes to a stream, reads from it, and ends it or leaves that to the session.
func (m *endsModel) use(st *Stream, s *Session) {
	m.mu.Lock()
	out := &endsWay{name: st.Name(), writer: s}
	m.ways = append(m.ways, out)
	m.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { m.read(st, s) })
	for range m.below(12) {
		m.pause(20)
		p := make([]byte, m.below(20_000))
		for i := range p {
			p[i] = endsByte(out.wrote + i)
		}
		n, err := st.Write(p)
		out.wrote += n
		if err != nil {
			out.writeErr = err
			break
		}
	}
	m.pause(50)
	switch m.below(3) {
	case 0:
		out.endErr = st.CloseWrite()
		out.ended = out.endErr == nil
	case 1:
		if m.below(2) == 0 {
			out.endErr = st.CloseWrite()
			out.ended = out.endErr == nil
			both.Wait() // Close would drop what has not been read
			out.endErr = errors.Join(out.endErr, st.Close())
		}
	}
	both.Wait()
}

// read reads a stream to its end.
func (m *endsModel) read(st *Stream, s *Session) {
	p := make([]byte, 1+m.below(10_000))
	read, garbled := 0, false
	for {
		m.pause(10)
		n, err := st.Read(p)
		for i, b := range p[:n] {
			garbled = garbled || b != endsByte(read+i)
		}
		read += n
		if err == nil {
			continue
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.readings[st.Name()+s.cfg.Local] = endsReading{read, err == io.EOF, err, garbled}
		return
	}
}

func endsByte(i int) byte { return byte(i ^ i>>8 ^ i>>16) }

func (m *endsModel) check(closed map[*Session]error) {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.t
	for _, w := range m.ways {
		w.endsReading = m.readings[w.name+map[string]string{"alice": "bob", "bob": "alice"}[w.writer.cfg.Local]]
		state := fmt.Sprintf("seed %d: %s by %s: wrote %d (%v), ended %v (%v), read %d, eof %v (%v); Close: %v", m.seed, w.name,
			w.writer.cfg.Local, w.wrote, w.writeErr, w.ended, w.endErr, w.read, w.eof, w.readErr, closed[w.writer])
		require.False(t, w.garbled, state)
		require.LessOrEqual(t, w.read, w.wrote, state)
		if w.eof {
			require.Equal(t, w.wrote, w.read, state)
		}
		named := outcomesOf(errors.Join(w.endErr, closed[w.writer]), w.name)
		// Its reader has closed the session before it came to the end, or had all of it when the stream's own connection broke.
		ownEnd := errors.Is(w.readErr, ErrClosed) || strings.HasPrefix(w.name, "dedicated") && w.readErr != nil
		unopened := w.readErr == nil // OpenStream failed at its reader, whose peer serves it
		if w.read < w.wrote || w.ended && !w.eof && !ownEnd && !unopened {
			require.NotEmpty(t, named, state)
		} else if w.eof {
			require.NotContains(t, named, NotSent, state)
		}
	}
	for link, x := range m.messages {
		named := append(outcomesOf(closed[x.sender], strings.TrimPrefix(link, x.sender.cfg.Local)), x.told...)
		state := fmt.Sprintf("seed %d: %s: handled %v, told %v, error %v; Close: %v", m.seed, link, x.handled, x.told, x.err, closed[x.sender])
		var e *Error
		switch {
		case x.call && x.err == nil:
			require.True(t, x.handled, state)
		case x.call:
			require.ErrorAs(t, x.err, &e, state)
			require.False(t, x.handled && (e.Outcome == NotSent || e.Outcome == Rejected), state)
		case x.handled:
			require.NotContains(t, named, NotSent, state)
			require.NotContains(t, named, Rejected, state)
		default:
			require.NotEmpty(t, named, state)
		}
	}
}

// outcomesOf returns the outcomes of the errors in err that are about a link or stream.
func outcomesOf(err error, link string) []Outcome {
	var found []Outcome
	if e, ok := err.(*Error); ok && e.Link == link { //nolint:errorlint // the tree is walked
		found = append(found, e.Outcome)
	}
	switch e := err.(type) { //nolint:errorlint // likewise
	case interface{ Unwrap() []error }:
		for _, cause := range e.Unwrap() {
			found = append(found, outcomesOf(cause, link)...)
		}
	case interface{ Unwrap() error }:
		found = append(found, outcomesOf(e.Unwrap(), link)...)
	}
	return found
}
