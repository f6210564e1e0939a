package session

import (
	"fmt"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
)

// inLane is the receiving side of the one-way messages. Its fields are guarded by the session's mu.
type inLane struct {
	current *Message // the incomplete message; nil if none
	queue   queue[*Message]
	running bool          // deliver is running
	charge  int           // of all messages that have begun to arrive and are not acknowledged
	handled uint64        // id of the last handled message
	toAck   int           // charge of the handled messages that are not acknowledged
	ackedAt time.Duration // when the last acknowledgement was queued, as Session.elapsed
}

// busy reports whether a message that has begun to arrive has not been handled.
func (l *inLane) busy() bool { return l.current != nil || l.works() }

// works reports whether a message that has arrived has not been handled.
func (l *inLane) works() bool { return l.running || l.queue.len() > 0 }

func (l *inLane) assembling(id uint64) bool { return l.current != nil && l.current.id == id }

// onMessage handles the first part of a one-way message. s.mu is held.
func (s *Session) onMessage(h frame.Header, p []byte) error {
	start, body, err := s.consumeStartLocked(h, p)
	if err != nil {
		return err
	}
	if err := s.acceptIDLocked(h.Type, h.ID); err != nil {
		return err
	}
	if s.messages.in.current != nil {
		return fmt.Errorf("MESSAGE %d before the end of %d: %w", h.ID, s.messages.in.current.id, frame.ErrMalformed)
	}
	if s.messages.in.charge >= s.cfg.MessageWindow {
		return fmt.Errorf("MESSAGE %d beyond the window of %d bytes: %w", h.ID, s.cfg.MessageWindow, frame.ErrMalformed)
	}
	m := &Message{s: s, id: h.ID, Link: start.Link, codec: start.Codec, oneWay: true}
	m.in.begin(start, h.Flags)
	s.messages.in.charge += m.in.size() + messageCharge
	s.messages.in.current = m
	s.requests.partial++
	s.stats.messagesIn.Add(1)
	call, fn, refusal := s.cfg.Mux.handler(m.Link)
	m.handleCall, m.handle = call, fn
	size := m.in.refusal(s.cfg.MaxMessage)
	switch {
	case size.Code != codes.OK:
		s.skipLocked(m, size)
	case refusal.Code != codes.OK:
		s.skipLocked(m, refusal)
	}
	s.touchCall()
	return s.addMessageLocked(body)
}

// skipLocked refuses a one-way message and discards the rest of it.
func (s *Session) skipLocked(m *Message, f frame.Failure) {
	s.noteRefused("message", m.Link, f)
	s.controlFailureLocked(frame.TypeError, m.id, f)
	m.cancelled = true
	m.in.drop()
	s.part.release(fair.Bytes, m.held)
	m.held = 0
}

// addMessageLocked handles a part of the current one-way message, and queues the message for delivery when it is complete.
func (s *Session) addMessageLocked(p []byte) error {
	m := s.messages.in.current
	if len(p) > 0 || m.in.progress == 0 { // an empty part is no progress
		m.in.progress = s.carriedLocked()
	}
	if !m.cancelled {
		if f := s.take(m, len(p)); f.Code != codes.OK {
			s.skipLocked(m, f)
		}
	}
	if m.cancelled {
		if m.in.got += len(p); m.in.got > m.in.start.Total {
			return fmt.Errorf("message %d goes past its %d bytes: %w", m.id, m.in.start.Total, frame.ErrMalformed)
		}
	} else if err := m.in.add(p); err != nil {
		return err
	}
	if !m.in.complete() {
		s.requests.pace.Add(len(p))
		return nil
	}
	s.messages.in.current = nil
	s.requests.partial--
	s.messages.in.queue.push(m)
	if !s.messages.in.running {
		s.messages.in.running = true
		go s.deliver()
	}
	return nil
}

// deliver runs the handlers of received one-way messages, one at a time. It runs in its own goroutine, which ends when no message is left
// or the session has ended.
func (s *Session) deliver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.deliveredLocked()
	handler.Run((*handlers)(s), handler.OneWay, func() {
		for s.messages.in.queue.len() > 0 {
			s.deliverNext()
		}
	})
}

// deliveredLocked ends deliver, even if a handler has ended its goroutine with runtime.Goexit.
func (s *Session) deliveredLocked() {
	if s.messages.in.queue.len() > 0 {
		go s.deliver()
		return
	}
	s.messages.in.running = false
	s.checkIdleLocked()
}

// deliverNext runs the handler of the first message. s.mu is held, and released while the handler runs.
func (s *Session) deliverNext() {
	m := s.messages.in.queue.pop()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.part.release(fair.Bytes, m.held)
		m.held = 0
		s.end.moved++
		s.messages.in.handled = m.id
		s.messages.in.toAck += m.in.size() + messageCharge
		s.ackMessagesLocked()
	}()
	if !m.cancelled {
		s.deliverOne(m)
	}
}

// ackAfter bounds how long a handled message waits for its acknowledgement, which is progress to a Close of the sender.
const ackAfter = 500 * time.Millisecond

// ackMessagesLocked acknowledges the handled messages to the sender, once that is worth a frame.
func (s *Session) ackMessagesLocked() {
	now := s.elapsed()
	if s.messages.in.queue.len() > 0 && s.messages.in.toAck < s.cfg.MessageWindow/4 && now-s.messages.in.ackedAt < ackAfter {
		return
	}
	s.messages.in.ackedAt = now
	s.messages.in.charge -= s.messages.in.toAck
	s.messages.in.toAck = 0
	s.controlLocked(frame.Header{Type: frame.TypeMessageAck, ID: s.messages.in.handled}, nil)
}

// deliverOne runs the handler of one message. It reports a failure to the sender.
func (s *Session) deliverOne(m *Message) {
	refuse := func(f frame.Failure) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.controlFailureLocked(frame.TypeError, m.id, f)
	}
	f := s.awaitOpen()
	if f.Code == codes.OK {
		f = s.pace(m)
	}
	if f.Code != codes.OK {
		m.in.drop()
		refuse(f)
		return
	}
	value, err := s.takeBody(m)
	if err != nil {
		refuse(failureOf(err))
		return
	}
	m.Value = value
	returned := false
	defer func() {
		if !returned {
			why := hook.Why(recover())
			s.logFailure(why, "link", m.Link)
			refuse(unfinished(why))
		}
	}()
	s.touch()
	s.hookMessage(m)
	if chain := s.cfg.Mux.interceptors(); chain != nil {
		if err := m.handleThrough(chain); err != nil {
			refuse(failureOf(err))
		}
	} else if m.handle != nil {
		m.handle(m)
	} else if _, err := m.handleCall(m); err != nil {
		refuse(failureOf(err))
	}
	returned = true
}

// dropPartialLocked releases the incomplete message: the session has ended, and the rest does not come.
func (l *inLane) dropPartialLocked(s *Session) {
	if l.current != nil {
		l.current.in.drop()
		s.part.release(fair.Bytes, l.current.held)
		l.current = nil
	}
}

// dropQueueLocked releases the messages that wait for their handler.
func (l *inLane) dropQueueLocked(s *Session) {
	for l.queue.len() > 0 {
		m := l.queue.pop()
		m.in.drop()
		s.part.release(fair.Bytes, m.held)
	}
}
