package record_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
)

// move is one thing that an application does in a random run.
type move struct {
	kind  string
	side  int
	n     int  // how many
	pick  int  // which record, counted from where there is something to be right about
	final bool // of a failure
	size  int
}

// moveKinds weighs the kinds of moves: mostly work, seldom an end.
var moveKinds = slices.Concat(slices.Repeat([]string{"write", "write", "batch", "read", "read", "read batch", "iterate", "ack", "ack", "barrier"}, 6),
	slices.Repeat([]string{"barrier to", "fail", "resend", "cancel"}, 4), []string{"close write", "close"})

func moves() *rapid.Generator[[]move] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) move {
		return move{
			kind: rapid.SampledFrom(moveKinds).Draw(t, "kind"), side: rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "side"),
			n: rapid.SampledFrom([]int{1, 2, 3, 4}).Draw(t, "n"), pick: rapid.SampledFrom([]int{-1, 0, 1, 1, 2, 2, 3, 4}).Draw(t, "pick"),
			final: rapid.SampledFrom([]int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}).Draw(t, "final") == 0, size: rapid.SampledFrom([]int{1, 10, 300}).Draw(t, "size"),
		}
	}), 10, 120)
}

// Each call, in both directions, does at rest what the sequential model says: order, numbers, which call waits, and why one ends.
//
// Row: N10, N11, N12, N13
func TestAStreamDoesWhatItsModelSays(t *testing.T) {
	for range 10 { // of rapid's 100 runs
		rapid.Check(t, func(rt *rapid.T) { playModel(t, rt) })
	}
}

func playModel(t *testing.T, rt *rapid.T) {
	all := moves().Draw(rt, "moves")
	var opts [2]*record.Options
	for i := range opts {
		opts[i] = &record.Options{
			Window:     rapid.SampledFrom([]int{1, 2, 3, 4, 6, 9, 40}).Draw(rt, "window"),
			BatchBytes: rapid.SampledFrom([]int{0, 1, 20, 700}).Draw(rt, "batch bytes"),
			Linger:     time.Duration(rapid.IntRange(0, 3).Draw(rt, "linger")) * time.Millisecond,
			AckDelay:   time.Duration(rapid.IntRange(-1, 20).Draw(rt, "ack delay")) * time.Millisecond,
			NoBatchAck: rapid.Bool().Draw(rt, "no batch ack"),
		}
	}
	delay := time.Duration(rapid.IntRange(0, 3).Draw(rt, "delay")) * time.Millisecond
	var err error
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, opts[0], opts[1], faultnet.LinkOptions{Delay: delay})
		p := &player{t: t, w: w, m: newModel(min(opts[0].Window, opts[1].Window))}
		err = p.play(all)
	})
	if err != nil {
		rt.Fatal(err)
	}
}

// player makes the calls of a run, on a stream and in its model.
type player struct {
	t     *testing.T
	w     *twins
	m     *model
	wrote int // names payloads
}

func (p *player) play(all []move) error {
	defer func() {
		for _, a := range p.m.waiting {
			a.cancel()
		}
		synctest.Wait()
	}()
	for i, v := range all {
		if err := p.move(v); err != nil {
			return fmt.Errorf("move %d, %+v: %w", i, v, err)
		}
		quiet(settling)
		p.m.learn()
		if err := p.m.settle(); err != nil {
			return fmt.Errorf("move %d, %+v: %w", i, v, err)
		}
		p.m.learn()
		if err := p.compare(); err != nil {
			return fmt.Errorf("move %d, %+v: %w", i, v, err)
		}
	}
	return nil
}

// move makes one move, which may have to wait.
func (p *player) move(v move) error {
	s, e, peer := p.w.both[v.side], p.m.ends[v.side], p.m.ends[1-v.side]
	switch v.kind {
	case "write", "batch":
		p.write(s, v)
	case "read", "read batch", "iterate":
		if p.m.first("read", v.side) == nil { // who of two is first is nobody's business
			p.read(s, v)
		}
	case "barrier":
		p.ask(&asked{side: v.side, kind: "barrier", seq: e.out.last()}, func(ctx context.Context, a *asked) { a.err = s.Barrier(ctx) })
	case "barrier to":
		seq := uint64(max(0, int(e.out.applied)+v.pick))
		p.ask(&asked{side: v.side, kind: "barrier", seq: seq}, func(ctx context.Context, a *asked) { a.err = s.BarrierTo(ctx, seq) })
	case "ack":
		seq := uint64(max(0, int(e.in.applied)+v.pick))
		return differ(s.AckRecord(seq), e.ack(seq))
	case "fail":
		f := record.RecordFailure{FailedSeq: uint64(max(0, int(e.in.applied)+v.pick)), Code: uint32(v.n), Retryable: !v.final, Message: "no"}
		return differ(s.Fail(f.FailedSeq, f.Code, f.Retryable, f.Message), e.fail(peer, f))
	case "resend":
		return differ(s.Resend(), e.resend())
	case "cancel":
		if i := slices.IndexFunc(p.m.waiting, func(a *asked) bool { return a.side == v.side }); i >= 0 {
			p.m.waiting[i].cancel()
		}
	case "close write":
		err := s.CloseWrite()
		if e.dead() == nil {
			e.out.ended = true
		}
		return differ(err, e.dead())
	case "close":
		over := e.over
		err := s.Close()
		if e.dead() == nil || e.left && !e.asked {
			e.lost, e.asked = e.loses(p.m.acked[v.side]), true
		}
		e.closes(peer)
		if over != nil && err != nil {
			return differ(err, over)
		}
		return differ(err, e.lost)
	}
	return nil
}

func differ(err, want error) error {
	if same(err, want) {
		return nil
	}
	return fmt.Errorf("%w, want %w", err, want)
}

// ask makes a call that may have to wait.
func (p *player) ask(a *asked, call func(context.Context, *asked)) {
	ctx, cancel := context.WithCancel(p.t.Context())
	a.cancel = cancel
	p.m.waiting = append(p.m.waiting, a)
	go func() {
		call(ctx, a)
		a.done = true
	}()
}

func (p *player) write(s *record.Stream, v move) {
	n := 1
	if v.kind == "batch" {
		n = v.n
	}
	a := &asked{side: v.side, kind: "write"}
	var payloads [][]byte
	for range n {
		p.wrote++
		b := text("p", uint64(p.wrote), v.size)
		payloads, a.parts = append(payloads, b), append(a.parts, string(b))
	}
	p.ask(a, func(ctx context.Context, a *asked) {
		if v.kind == "batch" {
			a.last, a.err = s.WriteBatch(ctx, payloads)
		} else {
			a.last, a.err = s.WriteRecord(ctx, payloads[0])
		}
		for _, b := range payloads {
			clear(b) // may be reused at once
		}
	})
}

func (p *player) read(s *record.Stream, v move) {
	a := &asked{side: v.side, kind: "read", most: 1}
	if v.kind != "read" {
		a.most = v.n
	}
	p.ask(a, func(ctx context.Context, a *asked) {
		switch v.kind {
		case "read":
			var r record.Record
			if r, a.err = s.ReadRecord(ctx); a.err == nil {
				a.got = append(a.got, r)
			}
		case "read batch":
			a.got = make([]record.Record, v.n)
			var n int
			n, a.err = s.ReadBatch(ctx, a.got)
			a.got = a.got[:n]
			for i, r := range a.got {
				a.got[i].Payload = slices.Clone(r.Payload)
			}
		default:
			a.most = 1
			a.err = io.EOF // when there is none
			for r, err := range s.Records(ctx) {
				if a.err = err; err == nil {
					a.got = append(a.got, record.Record{Seq: r.Seq, Payload: slices.Clone(r.Payload)})
				}
				break
			}
		}
	})
}

// compare reports a Snapshot that is not as the model.
func (p *player) compare() error {
	for i, e := range p.m.ends {
		if e.dead() != nil {
			if err := p.w.both[i].Err(); !same(err, e.dead()) && !errors.Is(err, e.dead()) {
				return fmt.Errorf("side %d ended with %w, want %w", i, err, e.dead())
			}
			continue
		}
		if err := p.w.both[i].Err(); err != nil {
			return fmt.Errorf("side %d ended with %w", i, err)
		}
		s := p.w.both[i].Snapshot()
		got := [...]uint64{s.Written, s.Acked, s.Delivered, s.Applied, s.PendingAck}
		want := [...]uint64{e.out.last(), p.m.acked[i], e.in.delivered, e.in.applied, 0}
		if got != want {
			return fmt.Errorf("side %d is at %v, want %v: written, acked, delivered, applied, to be told", i, got, want)
		}
	}
	return nil
}

// What the model itself gets wrong would hide what a stream gets wrong.
func TestTheModelOfAStreamHasAWindow(t *testing.T) {
	m := newModel(2)
	wait, err := m.ends[0].writes(3)
	require.ErrorIs(t, err, record.ErrTooLarge)
	require.False(t, wait)
	m.ways[0].log = []string{"x"}
	wait, err = m.ends[0].writes(2)
	require.NoError(t, err)
	require.True(t, wait)
}
