package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// flushPatience bounds a Flush or a Barrier: it ends with its session at the latest.
const flushPatience = 30 * time.Second

var errRefused = errors.New("the handler refuses")

func (m *model) addMessage(name string, x *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages[name] = x
}

// send sends one-way messages on one side of a session, and asks now and then what has become of them.
func (m *model) send(k *talk, side int, own string) {
	d := newDice(m.plan.seed, own)
	s := k.sides[side]
	for i := range d.IntN(60) {
		d.pause(5)
		name := fmt.Sprint(own, ".", i)
		x := &message{talk: k, sender: side, index: i + 1, size: d.IntN(3000)}
		if d.oneIn(20) {
			x.size = d.IntN(50_000)
		}
		m.addMessage(name, x)
		ctx, cancel := maybeShort(d)
		err := s.Send(ctx, name, bytesOf(name, x.size))
		cancel()
		m.mu.Lock()
		x.err, x.done = err, true
		m.mu.Unlock()
		m.sum.messages.Add(1)
		m.step()
		if err != nil && s.Err() != nil {
			return
		}
		if d.oneIn(20) && m.flush(k, side) != nil {
			return
		}
	}
}

// flush checks that what was sent before a Flush has been handled when that says so.
func (m *model) flush(k *talk, side int) error {
	m.mu.Lock()
	var before []*message
	for _, x := range m.messages {
		if x.talk == k && x.sender == side && !x.call && x.done && x.err == nil {
			before = append(before, x)
		}
	}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), flushPatience)
	defer cancel()
	err := k.sides[side].Flush(ctx)
	named := lossesOf(err)
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, x := range m.messages {
		x.told = append(x.told, named[name]...)
	}
	if err != nil {
		return err
	}
	for _, x := range before {
		if x.handled == 0 && len(x.told) == 0 {
			m.t.Errorf("a Flush returned nil, and message %d of the %s side of session %d had not been handled", x.index, sideNames[side], k.id)
		}
	}
	return nil
}

// maybeShort returns a ctx that now and then ends early.
func maybeShort(d dice) (context.Context, context.CancelFunc) {
	if d.oneIn(8) {
		return context.WithTimeout(context.Background(), time.Duration(d.IntN(100))*time.Millisecond)
	}
	return context.WithCancel(context.Background())
}

// call calls one side of a session from the other.
func (m *model) call(k *talk, side int, own string) {
	d := newDice(m.plan.seed, own)
	s := k.sides[side]
	for i := range d.IntN(20) {
		d.pause(15)
		name := fmt.Sprint(own, ".", i)
		x := &message{talk: k, sender: side, call: true, size: d.IntN(3 * m.plan.unit())}
		m.addMessage(name, x)
		ctx, cancel := maybeShort(d)
		var reply []byte
		var err error
		if d.oneIn(2) {
			reply, err = s.Call(ctx, name, bytesOf(name, x.size))
		} else {
			var msg *session.Message
			if msg, err = s.SendWait(ctx, name, bytesOf(name, x.size)); err == nil {
				reply = msg.Value
			}
		}
		cancel()
		m.called(name, x, reply, err)
		if err != nil && s.Err() != nil {
			return
		}
	}
}

// called settles a call that has returned.
func (m *model) called(name string, x *message, reply []byte, err error) {
	if err == nil && !bytes.Equal(reply, bytesOf("reply to "+name, x.size/2)) {
		m.t.Errorf("%s was answered with something else", name)
	}
	m.mu.Lock()
	x.err, x.done = err, true
	m.mu.Unlock()
	m.sum.calls.Add(1)
	m.step()
}

// callByRoad makes calls of the tag's.
func (m *model) callByRoad(own string) {
	d := newDice(m.plan.seed, own)
	for i := range d.IntN(20) {
		d.pause(15)
		name := fmt.Sprint(own, ".", i)
		x := &message{sender: dialing, call: true, size: d.IntN(3 * m.plan.unit())}
		m.addMessage(name, x)
		ctx, cancel := maybeShort(d)
		reply, ok, err := m.road.call(ctx, append([]byte(name+" "), bytesOf(name, x.size)...))
		cancel()
		if !ok {
			m.mu.Lock()
			delete(m.messages, name)
			m.mu.Unlock()
			return
		}
		m.called(name, x, reply, err)
		if errors.Is(err, peerlane.ErrStopped) {
			return
		}
	}
}

// handleCall is the tag's handler.
func (m *model) handleCall(_ context.Context, req *peerlane.Request) ([]byte, error) {
	m.enter()
	defer m.leave()
	head, body, _ := strings.Cut(string(req.Value), " ")
	return m.handled(accepting, head, []byte(body), nil)
}

// handleMessage is the default link of a side.
func (m *model) handleMessage(side int, msg *session.Message) {
	m.enter()
	defer m.leave()
	reply, err := m.handled(side, msg.Link, msg.Value, msg.Session())
	if strings.HasPrefix(msg.Link, "bye") {
		_ = msg.Session().Close() // finish asks again
	}
	if err != nil {
		_ = msg.Refuse(err) // who has given up, or wants no reply, has none
		return
	}
	_ = msg.Reply(reply) // likewise
}

// handled notes that a message was handled, and returns its answer.
func (m *model) handled(side int, name string, body []byte, s *session.Session) ([]byte, error) {
	d := newDice(m.plan.seed, "handler of "+name)
	d.pause(3)
	refuse := d.oneIn(8)
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.messages[name]
	if x == nil {
		m.t.Errorf("%q was handled, and nobody has sent it", name)
		return nil, errRefused
	}
	x.handled++
	x.refused = x.call && refuse
	x.garbled = x.garbled || !bytes.Equal(body, bytesOf(name, x.size)) || x.sender == side || s != nil && x.talk.sides[side] != s
	if !x.call {
		x.early = x.index <= x.talk.last[x.sender]
		x.talk.last[x.sender] = x.index
	}
	if x.refused {
		return nil, errRefused
	}
	return bytesOf("reply to "+name, x.size/2), nil
}

// undelivered is told of one-way messages that were lost.
func (m *model) undelivered(e *session.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if x := m.messages[e.Link]; x != nil {
		x.told = append(x.told, e)
	}
}
