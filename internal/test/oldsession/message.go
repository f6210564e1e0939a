package oldsession

import (
	"context"
	"errors"
)

const messageCharge = 64

// message is a one-way message, of this side or of the other.
type message struct {
	*body
	id      uint64
	link    string
	charge  int
	failed  bool // it is known to have
	refused bool // what still comes of it is passed over
	out     bool // it is sent whole
}

// outbox is the way out of one-way messages. Session.mu guards it.
type outbox struct {
	sent   []*message // and not acknowledged
	charge int
}

// Send sends a one-way message, and returns when it is on its way.
func (s *Session) Send(ctx context.Context, link string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusal(); err != nil {
		return err
	}
	if len(value) > int(s.theirs.MaxMessage) {
		return &Failure{Code: CodeTooLarge, NotSent: true}
	}
	s.waiting++
	err := s.wait(ctx, func() bool {
		return s.closing || s.goneAway || len(s.lane) == 0 && s.outbox.charge < int(s.theirs.MessageWindow)
	})
	s.waiting--
	if err != nil || s.closing || s.goneAway {
		return errors.Join(&Failure{Code: CodeGoingAway, NotSent: true}, err)
	}
	s.lane <- struct{}{} // is free, and only taken with mu held
	m := &message{id: s.newID(), link: link, charge: len(value) + messageCharge}
	s.outbox.sent = append(s.outbox.sent, m)
	s.outbox.charge += m.charge
	s.sendBody(context.Background(), typeMessage, m.id, start{link: link}, value, func() bool { return s.err != nil })
	m.out = true
	<-s.lane
	s.changed.Broadcast()
	return nil
}

// tellFailure tells of a message that has failed. mu is held.
func (s *Session) tellFailure(m *message, err error) {
	if !m.failed && s.cfg.OnFailure != nil {
		s.cfg.OnFailure(m.link, err)
	}
	m.failed = true
}

// Flush waits until all that was sent is handled, or known to have failed.
func (s *Session) Flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.lastOut
	return s.wait(ctx, func() bool {
		return len(s.outbox.sent) == 0 && s.err == nil || len(s.outbox.sent) > 0 && s.outbox.sent[0].id > last
	})
}

// onAck takes the word that messages have been handled. mu is held.
func (s *Session) onAck(id uint64) error {
	o := &s.outbox
	if !s.ours(id) || len(o.sent) == 0 || o.sent[0].id > id {
		return breach("MESSAGE_ACK of %d", id)
	}
	for len(o.sent) > 0 && o.sent[0].id <= id {
		if !o.sent[0].out {
			return breach("MESSAGE_ACK of %d, which is not sent", id)
		}
		o.charge -= o.sent[0].charge
		o.sent = o.sent[1:]
	}
	return nil
}

// inbox is the way in of one-way messages. Session.mu guards it.
type inbox struct {
	current *message // is coming
	queue   []*message
	running bool
	charge  int // of all that is not acknowledged
	handled int // of what is handled and not acknowledged
}

// onMessage takes the first part of a one-way message. mu is held.
func (s *Session) onMessage(f frame) error {
	b, rest, large, err := s.parse(f)
	in := &s.inbox
	switch {
	case err != nil:
		return err
	case in.current != nil:
		return breach("MESSAGE %d before the end of %d", f.id, in.current.id)
	case in.charge >= int(s.cfg.Limits.MessageWindow):
		return breach("MESSAGE %d beyond the window", f.id)
	}
	m := &message{body: b, id: f.id, link: b.link, charge: int(b.raw) + messageCharge}
	in.current = m
	in.charge += m.charge
	switch {
	case large:
		s.refuseMessage(m, CodeTooLarge)
	case s.cfg.OnMessage == nil:
		s.refuseMessage(m, CodeNotFound)
	}
	return s.addMessage(rest)
}

func (s *Session) refuseMessage(m *message, code uint32) {
	m.refused = true
	s.postFailure(typeError, m.id, code, "")
}

// addMessage takes a part of the message that is coming. mu is held.
func (s *Session) addMessage(p []byte) error {
	in := &s.inbox
	m := in.current
	if err := m.add(p); err != nil || !m.whole() {
		return err
	}
	in.current = nil
	in.queue = append(in.queue, m)
	if !in.running {
		in.running = true
		s.running.Go(s.deliver)
	}
	return nil
}

// deliver handles the messages that have come, one at a time.
func (s *Session) deliver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &s.inbox
	for len(in.queue) > 0 && s.err == nil {
		m := in.queue[0]
		in.queue = in.queue[1:]
		if !m.refused {
			s.mu.Unlock()
			value, err := m.value()
			if err == nil {
				err = recovered(func() error { return s.cfg.OnMessage(m.link, value) })
			}
			s.mu.Lock()
			if err != nil {
				code, text := failureOf(err)
				s.postFailure(typeError, m.id, code, text)
			}
		}
		in.handled += m.charge
		if len(in.queue) == 0 || in.handled >= int(s.cfg.Limits.MessageWindow)/4 {
			s.post(typeAck, 0, m.id, nil)
			in.charge -= in.handled
			in.handled = 0
		}
	}
	in.running = false
	s.changed.Broadcast()
}
