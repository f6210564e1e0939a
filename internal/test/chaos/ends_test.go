package chaos

import (
	"context"
	"sync"
	"time"

	"github.com/peerlane/peerlane/session"
)

// someWork is how many steps of the work there are between two faults or ends, at most.
const someWork = 250

// startWork starts random work on both sides of each session.
func (m *model) startWork() {
	for _, k := range m.talks {
		d := newDice(m.plan.seed, "work of "+m.name("talk"))
		for side := range sideNames {
			if !d.oneIn(4) { // one at most: the order of two senders is not known
				m.goWork("message", func(own string) { m.send(k, side, own) })
			}
			m.goSome(d, 3, "call", func(own string) { m.call(k, side, own) })
			m.goSome(d, 2, "shared", func(own string) { m.openStream(k, side, own, nil) })
			m.goSome(d, 2, "bulk", func(own string) { m.openLane(k, side, own) })
			m.goSome(d, 2, "record", func(own string) { m.openLog(k, side, own) })
		}
		m.goSome(d, 2, "dedicated", func(own string) { m.openStream(k, dialing, own, dedicated) })
		m.goSome(d, 2, "resumable", func(own string) { m.openStream(k, dialing, own, resumable) })
	}
	m.goWork("client", m.callByRoad)
}

var (
	dedicated = &session.StreamOptions{Dedicated: true}
	resumable = &session.StreamOptions{Dedicated: true, Resumable: true}
)

// goSome starts some workers of a kind, or none.
func (m *model) goSome(d dice, most int, kind string, f func(name string)) {
	for range d.IntN(most + 1) {
		m.goWork(kind, f)
	}
}

// breakIt breaks the network now and then, and mends it.
func (m *model) breakIt() {
	d := newDice(m.plan.seed, "faults")
	at := 0
	for range d.IntN(4) {
		at += d.IntN(someWork)
		m.pace(at)
		name, mend := m.breakSomething(d)
		m.note("fault: %s", name)
		m.sum.fault(name)
		time.Sleep(time.Duration(d.IntN(500)) * time.Millisecond) // how long it lasts
		mend()
		m.note("over: %s", name)
	}
	m.fault.SetDelay(0)
}

// endIt ends each session from either side, in any order, and now and then all of a side.
func (m *model) endIt() {
	var all sync.WaitGroup
	for _, k := range m.talks {
		d := newDice(m.plan.seed, "ends of "+m.name("talk"))
		at := d.IntN(4 * someWork)
		first := d.IntN(2)
		for i, side := range []int{first, 1 - first} {
			own, then := newDice(d.Uint64(), "end"), at+i*d.IntN(someWork)
			all.Go(func() {
				m.pace(then)
				if i == 1 && own.oneIn(2) {
					awaitSome(k.sides[side].Done(), 2*time.Second)
				}
				m.end(own, k, side)
			})
		}
	}
	d := newDice(m.plan.seed, "ends of sides")
	if d.oneIn(2) {
		at := d.IntN(4 * someWork)
		all.Go(func() {
			m.pace(at)
			m.endSide(d)
		})
	}
	all.Wait()
}

// awaitSome waits for done, or for so long.
func awaitSome(done <-chan struct{}, most time.Duration) {
	select {
	case <-done:
	case <-time.After(most):
	}
}

// end is one end of a session.
func (m *model) end(d dice, k *talk, side int) {
	s := k.sides[side]
	how := "close"
	begin := func() error { return s.Close() }
	switch d.IntN(20) {
	case 0:
		how, begin = "abort", func() error { m.cutOne(k, side); s.Abort(); return nil }
		m.sum.aborts.Add(1)
	case 1, 2, 3:
		how, begin = "shutdown", func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(d.IntN(2500))*time.Millisecond)
			defer cancel()
			err := s.Shutdown(ctx)
			if err != nil {
				m.cutOne(k, side)
			}
			return err
		}
		m.sum.drains.Add(1)
	case 4, 5:
		how, begin = "drain", func() error {
			s.Drain("the model drains")
			awaitSome(s.Done(), time.Second)
			return s.Err()
		}
		m.sum.drains.Add(1)
	case 6, 7:
		how, begin = "close from a handler", func() error { return m.closeFromHandler(d, k, side) }
	case 8:
		how, begin = "nothing", func() error { return nil }
	}
	m.note("%s by %s of %d", how, sideNames[side], k.id)
	err := begin()
	m.note("%s by %s of %d is over: %s", how, sideNames[side], k.id, brief(err))
	m.sum.ends.Add(1)
}

// closeFromHandler has the handler of a call close the session.
func (m *model) closeFromHandler(d dice, k *talk, side int) error {
	name := m.name("bye")
	x := &message{talk: k, sender: 1 - side, call: true, size: d.IntN(1000)}
	m.addMessage(name, x)
	reply, err := k.sides[1-side].Call(context.Background(), name, bytesOf(name, x.size))
	m.called(name, x, reply, err)
	return err
}

// cutOne notes that a side has cut off a session.
func (m *model) cutOne(k *talk, side int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k.cut[side] = true
}

// endSide ends all of one side.
func (m *model) endSide(d dice) {
	how := "close of the dialing side"
	begin := func() error { return m.road.endDialing() }
	switch d.IntN(10) {
	case 0:
		how, begin = "end of the dialing host", func() error { m.cutOff(dialing); return m.a.Close() }
	case 1:
		how, begin = "end of the accepting host", func() error { m.cutOff(accepting); return m.b.Close() }
	case 2, 3, 4, 5:
		how, begin = "shutdown of the accepting side", func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(d.IntN(3000))*time.Millisecond)
			defer cancel()
			m.shutdown(ctx)
			return nil
		}
		m.sum.drains.Add(1)
	case 6:
		if r, ok := m.road.(*rootRoad); ok && r.keeper != nil {
			how, begin = "close of the keeper", r.keeper.Close
		}
	}
	m.note("%s", how)
	err := begin()
	m.note("%s is over: %s", how, brief(err))
	m.sum.ends.Add(1)
}
