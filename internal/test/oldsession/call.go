package oldsession

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// call is a request of this side. Session.mu guards it.
type call struct {
	id    uint64 // 0: it has not begun
	s     *Session
	reply *body // what has come of it
	value []byte
	err   error
	over  bool
}

// finish ends a call. mu is held.
func (c *call) finish(value []byte, err error) {
	if !c.over {
		c.over, c.value, c.err = true, value, err
		delete(c.s.calls, c.id)
		c.s.changed.Broadcast()
	}
}

// Call sends a request to a link and returns the answer. An error of the other side is a *Failure; the end of ctx cancels.
func (s *Session) Call(ctx context.Context, link string, value []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusal(); err != nil {
		return nil, err
	}
	if len(value) > int(s.theirs.MaxMessage) {
		return nil, &Failure{Code: CodeTooLarge, NotSent: true}
	}
	s.waiting++
	err := s.wait(ctx, func() bool { return s.closing || s.goneAway || len(s.calls) < int(s.theirs.MaxInFlight) })
	s.waiting--
	if err != nil || s.closing || s.goneAway {
		return nil, errors.Join(&Failure{Code: CodeGoingAway, NotSent: true}, err)
	}
	c := &call{id: s.newID(), s: s}
	s.calls[c.id] = c
	st := start{link: link}
	if end, ok := ctx.Deadline(); ok {
		st.timeout = uint32(min(max(time.Until(end).Milliseconds(), 0)+1, math.MaxUint32))
	}
	s.sendBody(ctx, typeRequest, c.id, st, value, func() bool { return c.over || ctx.Err() != nil })
	if err := s.wait(ctx, func() bool { return c.over }); err != nil && !c.over {
		c.finish(nil, err)
		s.post(typeCancel, 0, c.id, nil)
	}
	return c.value, c.err
}

// sendBody sends a body in frames, compressed if both sides can and it pays, and stops when gone. mu is held.
func (s *Session) sendBody(ctx context.Context, typ byte, id uint64, st start, b []byte, gone func() bool) {
	s.bodies++
	defer func() {
		s.bodies--
		s.changed.Broadcast()
	}()
	flags := byte(0)
	if s.caps&capZstd != 0 && len(b) >= 512 {
		if small, ok := compress(b); ok {
			flags, st.raw, b = flagCompressed, uint32(len(b)), small
		}
	}
	st.total = uint32(len(b))
	n := min(len(b), part)
	s.post(typ, flags, id, append(st.append(typ, flags), b[:n]...))
	for b = b[n:]; len(b) > 0; b = b[n:] {
		if s.wait(ctx, func() bool { return len(s.out) < 4*part || gone() }) != nil || gone() {
			return
		}
		n = min(len(b), part)
		s.post(typeContinue, 0, id, b[:n])
	}
}

// parse takes the first frame of a body, and reports one that is larger than this side takes. mu is held.
func (s *Session) parse(f frame) (b *body, rest []byte, large bool, err error) {
	if f.flags&flagCompressed != 0 && s.caps&capZstd == 0 {
		return nil, nil, false, breach("frame %#x is compressed", f.typ)
	}
	b, rest, err = parseStart(f)
	return b, rest, err == nil && max(b.total, b.raw) > s.cfg.Limits.MaxMessage, err
}

// onResponse takes the first part of an answer. mu is held.
func (s *Session) onResponse(f frame) error {
	b, rest, large, err := s.parse(f)
	c := s.calls[f.id]
	switch {
	case err != nil:
		return err
	case !s.ours(f.id), c != nil && c.reply != nil:
		return breach("RESPONSE to %d", f.id)
	case c == nil:
		return nil
	case large:
		c.finish(nil, &Failure{Code: CodeTooLarge})
		s.post(typeCancel, 0, f.id, nil)
		return nil
	}
	c.reply = b
	return c.add(rest)
}

// add takes a part of the answer.
func (c *call) add(p []byte) error {
	if err := c.reply.add(p); err != nil || !c.reply.whole() {
		return err
	}
	c.finish(c.reply.value())
	return nil
}

// onContinue takes a further part of something. mu is held.
func (s *Session) onContinue(f frame) error {
	if c := s.calls[f.id]; c != nil {
		if c.reply == nil {
			return breach("CONTINUE of %d, which has no answer", f.id)
		}
		return c.add(f.payload)
	}
	if r := s.serving[f.id]; r != nil && !r.whole() {
		return s.addRequest(r, f.payload)
	}
	if m := s.inbox.current; m != nil && m.id == f.id {
		return s.addMessage(f.payload)
	}
	return nil // of something that has ended
}

// onError takes the failure of a request or a one-way message. mu is held.
func (s *Session) onError(f frame) error {
	why, err := parseFailure(f.payload)
	if err != nil || !s.ours(f.id) {
		return errors.Join(err, breach("ERROR of %d", f.id))
	}
	if c := s.calls[f.id]; c != nil {
		c.finish(nil, why)
		return nil
	}
	for _, m := range s.outbox.sent {
		if m.id == f.id && !m.failed {
			s.tellFailure(m, why)
		}
	}
	return nil
}

// request is one of the other side's.
type request struct {
	*body
	id     uint64
	ctx    context.Context
	cancel context.CancelFunc
}

// onRequest takes the first part of a request. mu is held.
func (s *Session) onRequest(f frame) error {
	b, rest, large, err := s.parse(f)
	if err != nil {
		return err
	}
	if len(s.serving) >= int(s.cfg.Limits.MaxInFlight) {
		return breach("more than %d requests", s.cfg.Limits.MaxInFlight)
	}
	code := CodeOK
	switch {
	case s.draining || s.closing:
		code = CodeGoingAway
	case large:
		code = CodeTooLarge
	case s.cfg.OnCall == nil:
		code = CodeNotFound
	case s.handlers >= 2*int(s.cfg.Limits.MaxInFlight):
		code = CodeUnavailable
	}
	if code != CodeOK {
		s.postFailure(typeError, f.id, code, "")
		return nil
	}
	r := &request{body: b, id: f.id}
	if b.timeout == 0 {
		r.ctx, r.cancel = context.WithCancel(s.ctx)
	} else {
		r.ctx, r.cancel = context.WithTimeout(s.ctx, time.Duration(b.timeout)*time.Millisecond)
	}
	s.serving[f.id] = r
	return s.addRequest(r, rest)
}

// addRequest takes a part of a request, and starts its handler once it is whole. mu is held.
func (s *Session) addRequest(r *request, p []byte) error {
	if err := r.add(p); err != nil || !r.whole() {
		return err
	}
	s.handlers++
	s.running.Go(func() { s.serve(r) })
	return nil
}

// onCancel takes the word that the caller waits no more. mu is held.
func (s *Session) onCancel(f frame) error {
	if s.ours(f.id) {
		return breach("CANCEL of %d", f.id)
	}
	if r := s.serving[f.id]; r != nil {
		r.cancel()
		delete(s.serving, f.id)
	}
	return nil
}

// serve runs the handler of a request, and answers.
func (s *Session) serve(r *request) {
	defer r.cancel()
	value, err := r.value()
	if err == nil {
		err = recovered(func() (err error) {
			value, err = s.cfg.OnCall(r.ctx, r.link, value)
			return err
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Broadcast()
	s.handlers--
	if s.serving[r.id] != r {
		return
	}
	if err == nil && len(value) > int(s.theirs.MaxMessage) {
		err = &Failure{Code: CodeReplyTooLarge}
	}
	if err != nil {
		code, text := failureOf(err)
		s.postFailure(typeError, r.id, code, text)
	} else {
		s.sendBody(context.Background(), typeResponse, r.id, start{}, value, func() bool { return s.serving[r.id] != r })
	}
	delete(s.serving, r.id)
}

// recovered returns the error of fn, or that it has panicked.
func recovered(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Failure{Code: CodeInternal, Text: fmt.Sprint(v)}
		}
	}()
	return fn()
}

// failureOf returns what a handler's error is on the wire.
func failureOf(err error) (code uint32, text string) {
	var f *Failure
	if errors.As(err, &f) {
		return f.Code, f.Text
	}
	return CodeApplication, err.Error()
}
