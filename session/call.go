package session

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/internal/zstd"
)

// calls are the requests of this side. The peer has limits.MaxInFlight places for them.
type calls struct {
	pending  map[uint64]*call // begun and not answered
	inFlight uint32           // calls that hold one of the peer's places
	waiting  line[*call]      // calls that wait for a place
	free     []*call          // finished, for reuse
}

// A call is one request of this side, from Call to its answer. It occupies a place in the peer's MaxInFlight from the moment it is queued
// until it is finished.
type call struct {
	s     *Session
	out   outgoing
	reply assembly
	done  chan struct{} // one token: finished
	timer *time.Timer   // replaces the deadline of a ctx without one

	// Guarded by s.mu.
	placed   bool // holds one of the peer's places
	sent     bool // the whole request has been handed to the carrier
	finished bool
	failure  *Error
	held     int // bytes of the reply that are taken from the quota
}

// maxFreeCalls bounds the finished calls that a session keeps for reuse.
const maxFreeCalls = 128

// newCall returns a new call or a recycled one. Calls are pooled per session and not per process, because a channel belongs to the synctest
// bubble that made it.
func (s *Session) newCall() *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.calls.free); n > 0 {
		c := s.calls.free[n-1]
		s.calls.free = s.calls.free[:n-1]
		return c
	}
	return &call{s: s, done: make(chan struct{}, 1)}
}

// Call sends value to the handler of link at the peer and returns its answer, which belongs to the caller. The link ""
// is the tag's own handler. value must not change before Call returns.
//
// The error is an *Error whose Outcome says what may have happened. It matches the ctx's error when the ctx ended, os.ErrDeadlineExceeded
// when RequestTimeout passed, ErrTooLarge at once when value exceeds either side's MaxMessage, ErrNotFound when the peer has no handler for
// link, ErrUnavailable when the peer is over a limit, or the Quota of this side has no room for the reply on a session that the peer has
// opened, and ErrSessionLost, ErrClosed or ErrGoingAway when the session ended. If the handler answered with an error, Text is its message.
func (s *Session) Call(ctx context.Context, link string, value []byte) ([]byte, error) {
	reply, err := s.call(ctx, "call", outgoing{start: frame.Start{Link: link}}, value)
	if err != nil {
		return nil, err
	}
	return reply.value, nil
}

// SendWait sends value to the handler of link at the peer and waits for its Reply. It is otherwise like Call: concurrent SendWaits are
// handled concurrently, and are not ordered with Send.
func (s *Session) SendWait(ctx context.Context, link string, value []byte) (*Message, error) {
	a, err := s.call(ctx, "send", outgoing{start: frame.Start{Link: link}}, value)
	if err != nil {
		return nil, err
	}
	return &Message{s: s, Value: a.value, codec: a.codec, oneWay: true}, nil
}

// answer is the result of a call.
type answer struct {
	value []byte
	codec string
}

// call makes one call, behind the interceptors.
func (s *Session) call(ctx context.Context, op string, head outgoing, value []byte) (answer, error) {
	if chain := s.cfg.Mux.interceptors(); chain != nil {
		return s.callThrough(ctx, chain, op, head, value)
	}
	return s.callPeer(ctx, op, head, value)
}

// callThrough is call with interceptors.
func (s *Session) callThrough(ctx context.Context, chain []Interceptor, op string, head outgoing, value []byte) (a answer, err error) {
	x := &Exchange{Link: head.start.Link, Value: value}
	err = s.sendThrough(ctx, op, x, chain, func(ctx context.Context) error {
		a, err = s.callPeer(ctx, op, head, x.Value)
		x.Reply = a.value
		return err
	})
	if err != nil {
		return answer{}, err
	}
	a.value = x.Reply
	return a, nil
}

func (s *Session) callPeer(ctx context.Context, op string, head outgoing, value []byte) (answer, error) {
	link := head.start.Link
	fail := func(outcome Outcome, err error) *Error {
		return &Error{Op: op, Peer: s.peer, Link: link, Outcome: outcome, Err: err}
	}
	if err := s.checkSize(op, link, len(value)); err != nil {
		return answer{}, err
	}
	if err := ctx.Err(); err != nil {
		return answer{}, fail(NotSent, err)
	}
	began := s.touchCall()
	wait, byCtx := s.callWait(ctx, began)

	c := s.newCall()
	c.out = head
	c.out.s, c.out.owner, c.out.typ = s, c, frame.TypeRequest
	c.out.start.Timeout = wait
	c.out.fill(value)
	if err := c.begin(op); err != nil {
		return answer{}, err
	}

	var timeout <-chan time.Time
	if !byCtx && wait > 0 {
		timeout = c.startTimer(wait)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.giveUp(fail(Unknown, ctx.Err()))
	case <-timeout:
		c.giveUp(fail(Unknown, fmt.Errorf("no answer in %v: %w", wait, os.ErrDeadlineExceeded)))
	}
	a, err := c.result(op, link)
	s.observeCall(began, err)
	return a, err
}

// observeCall reports how long a call took that began then, if there is an observer.
func (s *Session) observeCall(began time.Duration, err error) {
	w := s.watch.Load()
	switch {
	case !w.On():
	case err != nil:
		w.Observe(registry.CallFailed, s.elapsed()-began)
	default:
		w.Observe(registry.CallAnswered, s.elapsed()-began)
	}
}

// callWait returns how long a call that begins now waits, 0 meaning forever, and whether the ctx enforces that.
func (s *Session) callWait(ctx context.Context, now time.Duration) (wait time.Duration, byCtx bool) {
	wait = max(s.cfg.RequestTimeout, 0)
	deadline, ok := ctx.Deadline()
	if !ok {
		return wait, false
	}
	left := max(deadline.Sub(s.started)-now, time.Millisecond)
	if wait > 0 && wait < left {
		return wait, false
	}
	return left, true
}

// mostOut returns the size limit of a request, response or message that this side sends, and whether the limit is this side's MaxMessage
// rather than the peer's.
func (s *Session) mostOut() (n int, ours bool) {
	if theirs := int(s.limits.MaxMessage); theirs <= s.cfg.MaxMessage {
		return theirs, false
	}
	return s.cfg.MaxMessage, true
}

// checkSize refuses a value that exceeds either side's MaxMessage, and a link name that is too long.
func (s *Session) checkSize(op, link string, n int) error {
	if len(link) > frame.MaxName {
		return &Error{Op: op, Peer: s.peer, Link: link[:frame.MaxName], Outcome: NotSent, Code: codes.TooLarge,
			Text: fmt.Sprintf("link name of %d bytes, at most %d", len(link), frame.MaxName)}
	}
	if most, ours := s.mostOut(); n > most {
		text := fmt.Sprintf("%d bytes, the peer takes at most %d", n, most)
		if ours {
			text = fmt.Sprintf("%d bytes, MaxMessage of this side is %d", n, most)
		}
		return &Error{Op: op, Peer: s.peer, Link: link, Outcome: NotSent, Code: codes.TooLarge, Text: text}
	}
	return nil
}

func (c *call) startTimer(d time.Duration) <-chan time.Time {
	if c.timer == nil {
		c.timer = time.NewTimer(d)
	} else {
		c.timer.Reset(d)
	}
	return c.timer.C
}

// begin queues the request now, or once the peer has a place for it.
func (c *call) begin(op string) error {
	s := c.s
	s.mu.Lock()
	if err := s.refusalLocked(op, c.out.start.Link); err != nil {
		s.mu.Unlock()
		return err
	}
	if s.calls.inFlight >= s.limits.MaxInFlight {
		s.calls.waiting.push(c)
		s.mu.Unlock()
		return nil
	}
	c.placeLocked()
	s.mu.Unlock()
	return nil
}

// placeLocked takes a place at the peer and queues the request.
func (c *call) placeLocked() {
	c.placed = true
	c.s.calls.inFlight++
	c.s.enqueueLocked(&c.out)
}

func (c *call) onBegun() {
	c.s.calls.pending[c.out.id] = c
	c.s.stats.requestsOut.Add(1)
}

func (c *call) onSent() { c.sent = true }

// abort ends the call because the session has ended.
func (c *call) abort(err *Error) {
	c.finishLocked(&Error{Outcome: c.s.outcomeOfLocked(&c.out), Code: err.Code, Err: err.cause()})
}

// finishLocked ends the call, once, and gives its place to the next.
func (c *call) finishLocked(failure *Error) {
	if c.finished {
		return
	}
	s := c.s
	s.end.moved++
	c.finished, c.failure = true, failure
	c.out.dropLocked()
	if c.out.id != 0 {
		delete(s.calls.pending, c.out.id)
	}
	if c.placed {
		s.calls.inFlight--
		s.placeNextLocked()
	}
	if failure != nil {
		c.reply.drop()
		c.releaseReply()
	}
	s.checkIdleLocked()
	c.done <- struct{}{}
}

// placeNextLocked gives free places to waiting calls.
func (s *Session) placeNextLocked() {
	for s.err == nil && s.calls.inFlight < s.limits.MaxInFlight && s.calls.waiting.len() > 0 {
		s.calls.waiting.pop().placeLocked()
	}
}

// gaveUp reports whether the call no longer waits for a place.
func (c *call) gaveUp() bool { return c.finished }

// abortQueuedLocked ends the calls and openings that have not begun to leave.
func (s *Session) abortQueuedLocked(err *Error) {
	for s.calls.waiting.len() > 0 {
		s.calls.waiting.pop().abort(err)
	}
	for i := range s.out.ready.len() {
		switch src := s.out.ready.at(i).(type) {
		case *outgoing:
			if src.typ == frame.TypeRequest && !src.begun {
				src.abort(err)
			}
		case *opening:
			src.abort(err)
		}
	}
}

// giveUp ends the call with err unless it has just been answered. It cancels the request at the peer if any of it has been sent.
func (c *call) giveUp(err *Error) {
	c.s.mu.Lock()
	if !c.finished {
		if !c.sent {
			err.Outcome = NotSent
		}
		if c.out.begun {
			c.s.controlLocked(frame.Header{Type: frame.TypeCancel, ID: c.out.id}, nil)
		}
		placed := c.placed
		c.finishLocked(err)
		if !placed {
			c.s.calls.waiting.leave()
			c.s.checkIdleLocked()
		}
	}
	c.s.mu.Unlock()
	<-c.done
}

// result returns the result of the finished call, and recycles the call.
func (c *call) result(op, link string) (answer, error) {
	if c.timer != nil {
		c.timer.Stop()
	}
	defer c.recycle()
	s := c.s
	if f := c.failure; f != nil {
		f.Op, f.Peer, f.Link = op, s.peer, link
		return answer{}, f
	}
	s.touch()
	defer c.releaseReply()
	var turn *zstd.Turn
	if c.reply.packed() {
		turn, _ = zstd.Await(s.coder, s, c.reply.size(), false) // without one, the answer is unpacked all the same: the caller has it
		defer turn.Done()
		if err := c.holdReply(c.reply.size()); err != nil {
			c.reply.drop()
			err.Op, err.Peer, err.Link = op, s.peer, link
			return answer{}, err
		}
	}
	value, err := c.reply.value()
	if err != nil {
		return answer{}, &Error{Op: op, Peer: s.peer, Link: link, Code: codes.Protocol, Outcome: Delivered, Err: err}
	}
	return answer{value: value, codec: c.reply.start.Codec}, nil
}

// holdReply takes n more bytes for the reply from the peer's part of the quota, or returns why there is no room. What comes on a session that
// this side has opened counts nowhere.
func (c *call) holdReply(n int) *Error {
	if c.s.dialer {
		return nil
	}
	if f := c.s.part.take(fair.Bytes, n); f.Code != codes.OK {
		return &Error{Code: f.Code, RetryAfter: f.RetryAfter, Outcome: Delivered, Text: "no room for the reply: " + f.Text}
	}
	c.held += n
	return nil
}

// releaseReply ends what holdReply has begun.
func (c *call) releaseReply() {
	c.s.part.release(fair.Bytes, c.held)
	c.held = 0
}

// recycle returns the call to the pool, unless a queue may still hold it.
func (c *call) recycle() {
	if !c.sent {
		return
	}
	*c = call{s: c.s, done: c.done, timer: c.timer}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if len(c.s.calls.free) < maxFreeCalls {
		c.s.calls.free = append(c.s.calls.free, c)
	}
}

// onResponse handles the first part of an answer. s.mu is held.
func (s *Session) onResponse(h frame.Header, p []byte) error {
	start, body, err := s.consumeStartLocked(h, p)
	if err != nil {
		return err
	}
	c := s.calls.pending[h.ID]
	if c == nil {
		s.stats.late.Add(1)
		return s.checkOursLocked(h)
	}
	if c.reply.got > 0 || c.reply.start.Total > 0 {
		return fmt.Errorf("second RESPONSE to %d: %w", h.ID, frame.ErrMalformed)
	}
	if !c.sent {
		return fmt.Errorf("RESPONSE to %d before the whole request: %w", h.ID, frame.ErrMalformed)
	}
	c.reply.begin(start, h.Flags)
	if f := c.reply.refusal(s.cfg.MaxMessage); f.Code != codes.OK {
		s.controlLocked(frame.Header{Type: frame.TypeCancel, ID: h.ID}, nil)
		c.finishLocked(&Error{Code: codes.ReplyTooLarge, Outcome: Delivered, Text: "reply of " + f.Text})
		return nil
	}
	return c.addReplyLocked(body)
}

// addReplyLocked handles a part of the answer.
func (c *call) addReplyLocked(p []byte) error {
	if failure := c.holdReply(len(p)); failure != nil {
		c.s.controlLocked(frame.Header{Type: frame.TypeCancel, ID: c.out.id}, nil)
		c.finishLocked(failure)
		return nil
	}
	if err := c.reply.add(p); err != nil {
		return err
	}
	if len(p) > 0 {
		c.s.end.moved++
	}
	if c.reply.complete() {
		c.finishLocked(nil)
	}
	return nil
}

// onError handles the failure of a request or one-way message of this side, or the end of a RESPONSE that its sender abandoned.
func (s *Session) onError(h frame.Header, p []byte) error {
	f, err := frame.ConsumeFailure(p)
	if err != nil {
		return err
	}
	if err := s.checkOursLocked(h); err != nil {
		return err
	}
	if f.Code == codes.GoingAway { // GOAWAY itself may wait behind the peer's own backlog
		s.end.theirs = max(s.end.theirs, phaseDraining)
	}
	switch c := s.calls.pending[h.ID]; {
	case c != nil:
		refused := remote(f)
		if f.Code == codes.Closed && s.end.theirs >= phaseDraining { // the request's own handler has closed the session
			refused.Err = ErrSessionLost
		}
		if !c.sent && refused.Outcome == Unknown {
			refused.Outcome = NotSent // a handler starts only with the whole request
		}
		c.finishLocked(refused)
	case !s.messages.out.undelivered(h.ID, remote(f)):
		s.stats.late.Add(1)
	}
	return nil
}
