package chaos

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/peerlane/peerlane/record"
)

// A recordUse is what one side does with a record stream.
type recordUse struct {
	m       *model
	d       dice
	s       *record.Stream
	out, in *log
}

func (m *model) log(k *talk, name string, writer int) *log {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.logs {
		if l.name == name && l.writer == writer {
			return l
		}
	}
	l := &log{talk: k, name: name, writer: writer}
	m.logs = append(m.logs, l)
	return l
}

// recordOptions returns the options of one side of a record stream.
func recordOptions(d dice) *record.Options {
	opts := &record.Options{Window: 1 << d.IntN(9), WindowBytes: 4 << 10 << d.IntN(13), HandshakeTimeout: setupPatience, CloseTimeout: closeTimeout}
	opts.MaxRecord = opts.WindowBytes / 2
	if d.oneIn(3) {
		opts.Linger = time.Duration(d.IntN(3)) * time.Millisecond
	}
	opts.NoBatchAck = d.oneIn(4)
	return opts
}

// openLog opens a record stream, serves it at the other side, and uses it.
func (m *model) openLog(k *talk, side int, name string) {
	d := newDice(m.plan.seed, "opener of "+name)
	theirs := recordOptions(d)
	accept := func(record.AcceptInfo) (*record.Options, error) { return theirs, nil }
	record.Handle(m.road.handlers(1-side), name, accept, func(s *record.Stream) {
		m.enter()
		defer m.leave()
		m.useLog(k, 1-side, s)
	})
	d.pause(20)
	s, err := record.Open(context.Background(), k.sides[side], name, recordOptions(d))
	m.step()
	if err != nil {
		m.note("open %s by %s: %s", name, sideNames[side], brief(err))
		return
	}
	m.sum.logs.Add(1)
	m.useLog(k, side, s)
}

func (m *model) useLog(k *talk, side int, s *record.Stream) {
	u := &recordUse{m: m, s: s, d: newDice(m.plan.seed, "user of "+s.Name()+" at "+sideNames[side])}
	u.out, u.in = m.log(k, s.Name(), side), m.log(k, s.Name(), 1-side)
	u.in.served = true
	var writing sync.WaitGroup
	own := newDice(u.d.Uint64(), "writer")
	writing.Go(func() { u.write(own) })
	if u.d.oneIn(3) {
		u.apply()
	} else {
		u.read()
	}
	if u.d.oneIn(40) {
		u.out.aborted, u.in.quit = true, true
		_ = s.CloseWithError(record.CodeApplication, "enough") // nothing is asked of it
	}
	if u.d.oneIn(2) {
		writing.Wait()
	}
	u.out.closeErr, u.out.closed = s.Close(), true
	writing.Wait()
}

func recordOf(name string, writer int, seq uint64) []byte {
	full := fmt.Sprintf("%s %s %d", name, sideNames[writer], seq)
	return bytesOf(full, int(keyOf(full)>>8%900))
}

// write writes records and waits now and then for all to be applied.
func (u *recordUse) write(d dice) {
	for range d.IntN(80) {
		d.pause(3)
		ctx, cancel := context.WithTimeout(context.Background(), flushPatience)
		seq, err := u.s.WriteRecord(ctx, recordOf(u.out.name, u.out.writer, u.out.wrote+1))
		cancel()
		u.m.step()
		if err != nil {
			break
		}
		u.m.sum.records.Add(1)
		u.out.wrote = seq
		if d.oneIn(40) {
			u.barrier(d)
		}
	}
	if !d.oneIn(4) {
		_ = u.s.CloseWrite() // Close tells
	}
}

// barrier waits, for a bounded time since the reader may acknowledge nothing.
func (u *recordUse) barrier(d dice) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(100+d.IntN(400))*time.Millisecond)
	defer cancel()
	seq := u.out.wrote
	if u.s.BarrierTo(ctx, seq) == nil {
		u.out.barrier = seq
	}
}

// got takes a record that has come.
func (u *recordUse) got(r record.Record) {
	u.in.disorder = u.in.disorder || r.Seq != u.in.read+1
	u.in.garbled = u.in.garbled || !bytes.Equal(r.Payload, recordOf(u.in.name, u.in.writer, r.Seq))
	u.in.read = r.Seq
	u.m.step()
}

// read reads records one by one, all or some.
func (u *recordUse) read() {
	reads, acks := 1<<30, !u.d.oneIn(3)
	if u.d.oneIn(4) {
		reads = u.d.IntN(80)
	}
	for range reads {
		u.d.pause(2)
		r, err := u.s.ReadRecord(context.Background())
		if err != nil {
			u.in.eof, u.in.readErr = err == io.EOF, err
			return
		}
		u.got(r)
		if acks {
			u.in.applied = max(u.in.applied, r.Seq) // before the writer can know of it
			_ = u.s.AckRecord(r.Seq)                // the stream may have ended
		}
	}
	u.in.quit = true
}

// apply has record.Apply read.
func (u *recordUse) apply() {
	u.in.readErr = record.Apply(context.Background(), u.s, func(_ context.Context, r record.Record) error {
		u.d.pause(2)
		u.got(r)
		u.in.applied = r.Seq // likewise
		return nil
	}, nil)
	u.in.eof = u.in.readErr == nil
}
