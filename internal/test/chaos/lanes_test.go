package chaos

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// A lane is a stream, or a lane of bulk.
type lane interface {
	io.ReadWriteCloser
	CloseRead() error
	CloseWrite() error
}

// A use is what one side does with a lane.
type use struct {
	m       *model
	d       dice
	lane    lane
	drop    func() error // ends it at once
	leave   bool         // what ends it may be left to the session
	out, in *way
	both    sync.WaitGroup
}

// way returns one direction of a lane.
func (m *model) way(k *talk, name string, writer int) *way {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.ways {
		if w.name == name && w.writer == writer {
			return w
		}
	}
	w := &way{talk: k, name: name, writer: writer}
	m.ways = append(m.ways, w)
	return w
}

// openStream opens a stream of a kind and uses it.
func (m *model) openStream(k *talk, side int, name string, opts *session.StreamOptions) {
	newDice(m.plan.seed, "opener of "+name).pause(20)
	m.road.handlers(1-side).SetStream(name, func(st *session.Stream) { m.serveStream(k, 1-side, st) })
	st, err := k.sides[side].OpenStream(context.Background(), name, opts)
	m.step()
	if err != nil {
		m.note("open %s by %s: %s", name, sideNames[side], brief(err))
		return
	}
	m.sum.streams.Add(1)
	m.useStream(k, side, st)
}

// serveStream serves the stream at the other side.
func (m *model) serveStream(k *talk, side int, st *session.Stream) {
	m.enter()
	defer m.leave()
	if st.Session() != k.sides[side] {
		m.t.Errorf("stream %q came on another session", st.Name())
	}
	m.useStream(k, side, st)
}

func (m *model) useStream(k *talk, side int, st *session.Stream) {
	u := &use{m: m, lane: st, leave: true, drop: func() error { return st.Reset(4711) }}
	u.run(k, side, st.Name())
}

// openLane opens a lane of bulk, serves it at the other side, and uses it.
func (m *model) openLane(k *talk, side int, name string) {
	d := newDice(m.plan.seed, "opener of "+name)
	opts := &bulk.Options{Compress: d.oneIn(2), Mode: bulk.Mode(d.IntN(2)), HandshakeTimeout: setupPatience}
	if opts.Mode == bulk.Dedicated && d.oneIn(2) {
		opts.Strands = 2 + d.IntN(3)
	}
	bulk.Handle(m.road.handlers(1-side), name, nil, func(l *bulk.Lane) {
		m.enter()
		defer m.leave()
		m.useLane(k, 1-side, l)
	})
	d.pause(20)
	l, err := bulk.Open(context.Background(), k.sides[side], name, opts)
	m.step()
	if err != nil {
		m.note("open %s by %s: %s", name, sideNames[side], brief(err))
		return
	}
	m.sum.lanes.Add(1)
	m.useLane(k, side, l)
}

func (m *model) useLane(k *talk, side int, l *bulk.Lane) {
	u := &use{m: m, lane: l, drop: func() error { return l.Abort(codes.Code(4711)) }}
	u.run(k, side, l.Name())
}

// run writes and reads at once, and ends the lane in one of the ways that there are.
func (u *use) run(k *talk, side int, name string) {
	u.d = newDice(u.m.plan.seed, "user of "+name+" at "+sideNames[side])
	u.out, u.in = u.m.way(k, name, side), u.m.way(k, name, 1-side)
	u.in.served = true
	reads := -1
	if u.d.oneIn(12) { // it does not want all
		reads = u.d.IntN(8)
	}
	own := newDice(u.d.Uint64(), "reader")
	u.both.Go(func() { u.read(own, reads) })
	u.write()
	u.d.pause(20)
	u.end()
	u.both.Wait()
	if !u.leave { // who leaves a lane of bulk to its handler's end does not learn how that went
		u.closeIt()
	}
}

func (u *use) write() {
	key := keyOf(u.out.name + sideNames[u.out.writer])
	for range u.d.IntN(30) {
		u.d.pause(10)
		p := make([]byte, u.d.IntN(u.m.plan.unit()))
		for i := range p {
			p[i] = byteAt(key, u.out.wrote+i)
		}
		n, err := u.lane.Write(p)
		u.out.wrote += n
		u.m.sum.bytes.Add(uint64(n))
		u.m.step()
		if err != nil {
			u.out.writeErr, u.out.rest = err, len(p)-n
			return
		}
	}
}

// end ends what this side writes, or all, or leaves that to the session.
func (u *use) end() {
	switch u.d.IntN(9) {
	case 0, 1, 2:
		u.closeWrite()
	case 3, 4, 5:
		u.closeWrite()
		u.both.Wait() // Close would drop what has not been read
		u.closeIt()
	case 6:
		if u.d.oneIn(4) { // Close alone, whatever the peer still writes
			u.in.dropped = true
			u.closeIt()
		}
	case 7:
		if u.d.oneIn(4) {
			u.out.aborted, u.in.dropped = true, true
			_ = u.drop() // nothing is asked of it
		}
	}
}

func (u *use) closeWrite() {
	err := u.lane.CloseWrite()
	u.out.ended = err == nil
	u.out.endErr = errors.Join(u.out.endErr, err)
}

func (u *use) closeIt() {
	err := u.lane.Close()
	u.out.ended = u.out.ended || err == nil && u.out.wrote > 0 // Close of what nothing was written to says nothing
	u.out.endErr = errors.Join(u.out.endErr, err)
}

// read reads to the end, or for so many times.
func (u *use) read(d dice, most int) {
	w := u.in
	key := keyOf(w.name + sideNames[w.writer])
	p := make([]byte, 300+d.IntN(10_000))
	for i := 0; i != most; i++ {
		d.pause(5)
		n, err := u.lane.Read(p)
		for j, b := range p[:n] {
			w.garbled = w.garbled || b != byteAt(key, w.read+j)
		}
		w.read += n
		u.m.step()
		if err != nil {
			w.eof, w.readErr = err == io.EOF, err
			if !w.eof {
				u.out.backErr = err
			}
			return
		}
	}
	w.quit = true
	_ = u.lane.CloseRead() // the rest is not wanted, whatever becomes of it
}
