package session

import (
	"sync"
	"sync/atomic"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/zstd"
)

// outbound holds what is to be sent, until the writer takes it:
//
//	callers ── queue a source ──> ready (round robin) ──┐
//	reader, callers ── control frames ──> urgent ───────┴─> writer
//
// A source sends at most one fragment a turn, so a large body leaves room for small ones.
type outbound struct {
	wake     sync.Cond     // the writer waits on it
	urgent   []byte        // whole control frames that go before anything else
	counted  int           // bytes of them that are taken from the quota
	overrun  bool          // urgent was full and a control frame was dropped: the session cannot continue
	ready    queue[source] // sources with frames to send, in turn
	dropped  int           // at most this many of them have been dropped
	later    queue[source] // streams, on a scarce carrier
	held     queue[source] // bulk streams, until the carrier is not scarce
	scarce   bool          // the carrier is limited in what it lets through
	pong     uint64        // the PING to answer; 0: none
	lastPing uint64        // the last one that was sent
	part     int           // payload bytes of the frames of a batch; see setPartLocked
	fit      int           // the most of them that its buffer has room for
	inBatch  atomic.Bool   // a batch is on its way into the flow, or to the carrier

	urgentValue bool   // something in urgent is worth waiting for
	valuable    bool   // something in the batch is; owned by the writer
	flowEnd     uint64 // offset in the flow behind the last batch; owned by the writer
	valueEnd    uint64 // offset in the flow behind the last thing worth waiting for
}

const (
	fragment    = frame.MaxPayload                    // most payload bytes a source sends in one turn
	batchTarget = 64 << 10                            // a batch of this length takes no further source
	maxPart     = frame.HeaderSize + frame.MaxPayload // bytes of one Write: the largest frame fits whole
	maxUrgent   = 1 << 20                             // bytes of control frames that may wait; a peer that makes us queue more does not read
)

// A source has frames to send. Its methods are called with the session's mu held.
type source interface {
	// next appends frames of about one fragment to b and reports whether it has more to send now.
	next(b []byte) (out []byte, more bool)
	// abort ends the source: the session has ended with err.
	abort(err *Error)
}

// A streamSource is the source of a stream's data. On a scarce carrier it comes after all others, and does not send while it is held.
type streamSource interface {
	source
	// hold reports whether the data waits for a carrier that is not scarce.
	hold() bool
}

// nextSourceLocked returns the source whose turn it is, or nil. On a scarce carrier, streams come after everything else, and bulk streams
// do not send.
func (s *Session) nextSourceLocked() source {
	for s.out.ready.len() > 0 {
		src := s.out.ready.pop()
		st, isStream := src.(streamSource)
		switch {
		case !s.out.scarce || !isStream:
			return src
		case st.hold():
			s.out.held.push(src)
		default:
			s.out.later.push(src)
		}
	}
	if s.out.later.len() > 0 {
		return s.out.later.pop()
	}
	return nil
}

// setScarceLocked sets whether the carrier is limited in what it lets through.
func (s *Session) setScarceLocked(scarce bool) {
	s.out.scarce = scarce
	for s.out.held.len() > 0 && !scarce {
		s.out.ready.push(s.out.held.pop())
	}
	s.out.wake.Signal()
}

// releaseHeldLocked removes a stream from the held ones, and reports whether it was among them.
func (s *Session) releaseHeldLocked(st source) (held bool) {
	for range s.out.held.len() {
		if src := s.out.held.pop(); src != st {
			s.out.held.push(src)
		} else {
			held = true
		}
	}
	return held
}

// enqueueLocked adds a source to the ready queue.
func (s *Session) enqueueLocked(src source) {
	s.out.ready.push(src)
	s.out.wake.Signal()
}

// controlLocked queues a whole control frame before all other frames.
func (s *Session) controlLocked(h frame.Header, payload []byte) {
	if s.end.ours >= phaseOver && !s.exchangesEnds() {
		return // GOAWAY is the last frame
	}
	if s.err != nil {
		return
	}
	if s.out.overrun = s.out.overrun || len(s.out.urgent) > maxUrgent || !s.holdUrgentLocked(); s.out.overrun {
		return // an answer is missing from now on: the reader or the heartbeat ends the session
	}
	switch h.Type {
	case frame.TypePing, frame.TypePong, frame.TypeGoAway, frame.TypeEnd, frame.TypeMessageAck, frame.TypeStreamCredit, frame.TypeStreamTaken,
		frame.TypeSessionReturn, frame.TypeSessionAsk:
	default:
		s.out.urgentValue = true
	}
	h.Length = len(payload)
	s.out.urgent = frame.AppendHeader(s.out.urgent, h)
	s.out.urgent = append(s.out.urgent, payload...)
	s.out.wake.Signal()
}

// urgentStep is how much room for control frames is taken from the quota at a time. Fewer bytes count nothing.
const urgentStep = 16 << 10

// holdUrgentLocked takes room for further control frames from the quota, once many wait, and reports false if there is none.
func (s *Session) holdUrgentLocked() bool {
	if len(s.out.urgent) < s.out.counted+urgentStep || s.dialer {
		return true
	}
	if f := s.part.take(fair.Bytes, urgentStep); f.Code != codes.OK {
		return false
	}
	s.out.counted += urgentStep
	return true
}

// releaseUrgentLocked ends what holdUrgentLocked has begun.
func (s *Session) releaseUrgentLocked() {
	s.part.release(fair.Bytes, s.out.counted)
	s.out.counted = 0
}

// controlFailureLocked queues a control frame whose body is f.
func (s *Session) controlFailureLocked(t frame.Type, id uint64, f frame.Failure) {
	s.controlLocked(frame.Header{Type: t, ID: id}, frame.AppendFailure(nil, f))
}

// refuseLocked queues the refusal of something that the peer has opened. The frame is not worth waiting for: otherwise a peer could hold up
// the end of the session by opening things.
func (s *Session) refuseLocked(t frame.Type, id uint64, f frame.Failure) {
	value := s.out.urgentValue
	s.controlFailureLocked(t, id, f)
	s.out.urgentValue = value
}

// An outgoing is one request, response or one-way message being sent in fragments. It is a source.
type outgoing struct {
	s     *Session
	owner owner
	typ   frame.Type
	flags frame.Flags
	start frame.Start
	id    uint64 // 0 until begun, except for responses
	body  []byte // the rest to send; belongs to the owner until sent or dropped
	whole bool   // all of it has been handed to the flow or the carrier
	endAt uint64 // with whole: the offset in the flow behind its last byte
	begun bool   // the first fragment has left
	gone  bool   // sent whole, or dropped
}

// An owner is notified of the progress of its outgoing. s.mu is held.
type owner interface {
	onBegun()
	onSent()
	abort(err *Error)
}

func (o *outgoing) abort(err *Error) {
	if !o.gone {
		o.gone, o.body = true, nil
		o.owner.abort(err)
	}
}

// dropLocked makes the writer skip the unsent part.
func (o *outgoing) dropLocked() {
	if o.gone || o.s == nil { // sent completely, or never queued
		o.gone, o.body = true, nil
		return
	}
	o.gone, o.body = true, nil
	o.s.out.dropped++
	if o.s.out.dropped > 64 && 2*o.s.out.dropped > o.s.out.ready.len() {
		o.s.compactReadyLocked()
	}
}

// compactReadyLocked removes dropped sources from the ready queue, where they would stay while the writer waits.
func (s *Session) compactReadyLocked() {
	for range s.out.ready.len() {
		src := s.out.ready.pop()
		if o, ok := src.(*outgoing); !ok || !o.gone {
			s.out.ready.push(src)
		}
	}
	s.out.dropped = 0
}

func (o *outgoing) next(b []byte) ([]byte, bool) {
	if o.gone {
		return b, false
	}
	n := len(o.body)
	if o.begun {
		n = min(n, o.s.out.part)
		b = frame.AppendHeader(b, frame.Header{Length: n, Type: frame.TypeContinue, ID: o.id})
	} else {
		if o.id == 0 {
			o.id = o.s.newIDLocked()
		}
		head := frame.StartSize(o.typ, o.flags, &o.start)
		n = min(n, o.s.out.part-head)
		b = frame.AppendHeader(b, frame.Header{Length: head + n, Type: o.typ, Flags: o.flags, ID: o.id})
		b = frame.AppendStart(b, o.typ, o.flags, o.start)
		o.begun = true
		o.owner.onBegun()
	}
	b = append(b, o.body[:n]...)
	o.body = o.body[n:]
	if len(o.body) > 0 {
		return b, true
	}
	o.gone, o.body = true, nil
	o.whole, o.endAt = true, o.s.out.flowEnd+uint64(len(b))
	o.owner.onSent()
	return b, false
}

// outcomeOfLocked returns the outcome of a request or message that was not answered when the session ends. One that was never handed
// completely to a carrier has not run.
func (s *Session) outcomeOfLocked(o *outgoing) Outcome {
	if !o.whole || s.carriers.flow != nil && o.endAt > s.carriers.flow.Reached() {
		return NotSent
	}
	return Unknown
}

// fill sets the body. It compresses the body if both sides support it and it pays.
func (o *outgoing) fill(body []byte) {
	o.start.Total = len(body)
	o.body = body
	if o.s.caps&frame.CapZstd == 0 {
		return
	}
	var turns turns // for what a peer has asked for
	if o.typ == frame.TypeResponse {
		turns = o.s
	}
	if small, ok := o.s.dull.compress(body, turns); ok {
		o.flags |= frame.FlagCompressed
		o.start.Raw, o.start.Total, o.body = len(body), len(small), small
	}
}

// replyTurn waits until a reply of n bytes may be compressed. Without a turn, because the session has ended, it is nobody's loss.
func (s *Session) replyTurn(n int) *zstd.Turn {
	turn, _ := zstd.Await(s.coder, s, n, true)
	return turn
}
