package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// step is one thing that the application does in a random run.
type step struct {
	kind    string
	size    int
	after   time.Duration // since the step before
	patient time.Duration // 0: for ever
	work    time.Duration // of the handler
	fails   int           // of the handler: 0 answers, 1 error, 2 panic
}

// kinds weighs the kinds of steps: mostly work, seldom an end.
var kinds = slices.Concat(slices.Repeat([]string{"call", "call", "back", "send", "send", "send", "stream"}, 10),
	[]string{"cut", "close", "shutdown"})

func steps() *rapid.Generator[[]step] {
	ms := func(label string, t *rapid.T, n int) time.Duration {
		return time.Duration(rapid.IntRange(0, n).Draw(t, label)) * time.Millisecond
	}
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			kind:  rapid.SampledFrom(kinds).Draw(t, "kind"),
			size:  rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, 200<<10)).Draw(t, "size"),
			after: ms("after", t, 4), patient: ms("patient", t, 30) * time.Duration(rapid.IntRange(0, 1).Draw(t, "bounded")),
			work: ms("work", t, 15), fails: max(0, rapid.IntRange(-3, 2).Draw(t, "fails")),
		}
	}), 10, 80)
}

// book is what a run did, kept by both sides.
type book struct {
	mu       sync.Mutex
	steps    []step
	ran      map[int]int // how often the handler of a step ran
	handled  []int       // messages, in order
	admitted []int
	failed   map[int]Outcome // messages, by OnUndelivered
	wrong    []string
}

func (b *book) wrongf(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
}

// run does what the handler of step i does.
func (b *book) run(i int) (fails int) {
	b.mu.Lock()
	b.ran[i]++
	b.mu.Unlock()
	time.Sleep(b.steps[i].work)
	return b.steps[i].fails
}

// answer handles calls.
func (b *book) answer(m *Message) ([]byte, error) {
	switch b.run(int(binary.BigEndian.Uint32(m.Value))) {
	case 1:
		return nil, errors.New("no")
	case 2:
		panic("boom")
	}
	return m.Value, nil
}

// take handles messages; their link is their number.
func (b *book) take(m *Message) {
	i, _ := strconv.Atoi(m.Link)
	b.mu.Lock()
	b.handled = append(b.handled, i)
	b.mu.Unlock()
	if b.run(i) == 2 {
		panic("boom")
	}
}

func (b *book) call(ctx context.Context, s *Session, i int) {
	body := make([]byte, 4+b.steps[i].size)
	binary.BigEndian.PutUint32(body, uint32(i))
	reply, err := s.Call(ctx, "", body)
	b.mu.Lock()
	ran := b.ran[i]
	b.mu.Unlock()
	if err == nil {
		if !bytes.Equal(reply, body) || ran != 1 {
			b.wrongf("step %d: reply of %d bytes, ran %d", i, len(reply), ran)
		}
		return
	}
	var e *Error
	switch {
	case !errors.As(err, &e):
		b.wrongf("step %d: %v is not an *Error", i, err)
	case e.Outcome == Delivered && ran != 1:
		b.wrongf("step %d: %v, ran %d times", i, err, ran)
	}
	if e != nil && (e.Outcome == NotSent || e.Outcome == Rejected) {
		time.Sleep(time.Minute) // it must not run later either
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.ran[i] != 0 {
			b.wrong = append(b.wrong, fmt.Sprintf("step %d: %v, ran %d times", i, err, b.ran[i]))
		}
	}
}

func (b *book) stream(ctx context.Context, s *Session, i int) {
	st, err := s.OpenStream(ctx, "echo", nil)
	if err != nil {
		return
	}
	defer func() { _ = st.Close() }()
	body := bytes.Repeat([]byte{byte(i)}, b.steps[i].size)
	go func() {
		_, _ = st.Write(body)
		_ = st.CloseWrite()
	}()
	stop := context.AfterFunc(ctx, func() { _ = st.Reset(1) })
	defer stop()
	got, err := io.ReadAll(st)
	if err == nil && !bytes.Equal(got, body) || !bytes.HasPrefix(body, got) {
		b.wrongf("step %d: %d bytes of %d came back: %v", i, len(got), len(body), err)
	}
}

// Row: N6, N7, D6
func TestOutcomesAreTrueInRandomRuns(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := &book{steps: steps().Draw(rt, "steps"), ran: map[int]int{}, failed: map[int]Outcome{}}
		inFlight, window := rapid.IntRange(1, 5).Draw(rt, "inFlight"), rapid.IntRange(1, 5000).Draw(rt, "window")
		inBubble(t, func(t *testing.T) { playRun(t, b, inFlight, window) })
		if len(b.wrong) > 0 {
			rt.Fatalf("%v", b.wrong)
		}
	})
}

func playRun(t *testing.T, b *book, inFlight, window int) {
	dial := Config{Mux: NewMux(), StreamWindow: 5000, OnUndelivered: func(e *Error) {
		i, _ := strconv.Atoi(e.Link)
		b.mu.Lock()
		defer b.mu.Unlock()
		if _, twice := b.failed[i]; twice {
			b.wrong = append(b.wrong, fmt.Sprintf("message %d failed twice", i))
		}
		b.failed[i] = e.Outcome
	}}
	p := newPair(t, dial, AcceptorConfig{Config: Config{MaxInFlight: inFlight, MessageWindow: window, StreamWindow: 3000}})
	for _, x := range []*Mux{p.mux, p.ours} {
		x.SetCall(b.answer)
		x.SetDefaultLink(b.take)
		x.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
	}
	var wg sync.WaitGroup
	for i, s := range b.steps {
		time.Sleep(s.after)
		ctx := t.Context()
		if s.patient > 0 {
			ctx = within(t, s.patient)
		}
		switch s.kind {
		case "call":
			wg.Go(func() { b.call(ctx, p.dialer, i) })
		case "back":
			wg.Go(func() { b.call(ctx, p.accepted, i) })
		case "stream":
			wg.Go(func() { b.stream(ctx, p.dialer, i) })
		case "send":
			if p.dialer.Send(ctx, strconv.Itoa(i), make([]byte, s.size)) == nil {
				b.admitted = append(b.admitted, i)
			}
		case "cut":
			_ = p.accepted.Conn().Close()
		case "close":
			_ = p.dialer.Close()
		case "shutdown":
			wg.Go(func() { _ = p.accepted.Shutdown(ctx) })
		}
	}
	_ = p.dialer.Shutdown(within(t, time.Minute))
	wg.Wait()
	time.Sleep(time.Minute)
	wantZero(t, p.dialer)
	wantZero(t, p.accepted)
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.handled) > len(b.admitted) {
		b.wrong = append(b.wrong, fmt.Sprintf("handled %v of %v", b.handled, b.admitted))
		return
	}
	for k, i := range b.admitted {
		outcome, failed := b.failed[i]
		switch {
		case k < len(b.handled) && b.handled[k] != i:
			b.wrong = append(b.wrong, fmt.Sprintf("handled %v of %v", b.handled, b.admitted))
			return
		case k < len(b.handled) && failed && (outcome == NotSent || outcome == Rejected):
			b.wrong = append(b.wrong, fmt.Sprintf("message %d was handled, and failed as %v", i, outcome))
		case k >= len(b.handled) && !failed:
			b.wrong = append(b.wrong, fmt.Sprintf("message %d was not handled, and nobody was told", i))
		case k >= len(b.handled) && outcome == Delivered:
			b.wrong = append(b.wrong, fmt.Sprintf("message %d was not handled, and is told as delivered", i))
		}
	}
}
