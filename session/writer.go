package session

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/resume"
)

// The writing side of a session:
//
//	callers ── queue a source ──> ready (round robin) ──┐
//	reader, callers ── control frames ──> urgent ───────┴─> writeLoop ── one Write per batch ──> flow ──> carrier
//
// A source sends at most one fragment a turn, so a large body leaves room for small ones. writeLoop is the only goroutine that writes
// frames. Where there is a flow below it, the flow serialises the Writes of the carrier.

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

// batches recycles the buffers that writeLoop fills, so that an idle session holds none.
var batches = sync.Pool{New: func() any {
	b := make([]byte, 0, batchTarget+fragment+4<<10)
	return &b
}}

// writeLoop owns the carrier's write side. It ends when the session has ended. An error of the flow, or without a flow one of the carrier,
// ends the session.
func (s *Session) writeLoop() {
	defer close(s.writerDone)
	for {
		more, company := s.waitOutbound()
		if !more {
			return
		}
		if company {
			runtime.Gosched() // lets callers that are ready add to the batch
		}
		if err := s.writeBatch(); err != nil {
			s.fail(s.carrierFailure("write", err))
			return
		}
		if s.parting.Load() && s.flow != nil {
			s.flow.AwaitSent() // another goroutine may be writing to the carrier; the end of the session ends this wait
		}
		s.outgoing.Store(false)
		if s.parting.Load() {
			s.mu.Lock()
			s.checkIdle()
			s.mu.Unlock()
		}
	}
}

// writeBatch writes the next batch.
func (s *Session) writeBatch() error {
	if s.flow != nil {
		b := resume.NewBatch()
		batch := s.fillBatch(b.Buffer())
		s.stats.bytesOut.Add(uint64(len(batch))) // before the peer can receive it
		_, err := s.flow.WriteBatch(b, batch)
		s.noteWritten(len(batch))
		return err
	}
	buf := batches.Get().(*[]byte)
	batch := s.fillBatch((*buf)[:0])
	err := s.write(batch)
	if cap(batch) <= 2*cap(*buf) {
		*buf = batch[:0]
	}
	batches.Put(buf)
	if err == nil && s.valuable {
		s.written.Add(1)
	}
	return err
}

// noteWritten records that the flow has n more bytes, and whether they are worth waiting for.
func (s *Session) noteWritten(n int) {
	if s.flowEnd += uint64(n); s.valuable {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.valueEnd = s.flowEnd
	}
}

// heartbeatSize is more than the bytes of a heartbeat in a segment and a sealed record, and less than any other data worth waiting for.
const heartbeatSize = 96

// write writes a batch to a carrier without a flow, in pieces. Each piece has WriteTimeout: a slow carrier must take at least that much in
// this time.
func (s *Session) write(batch []byte) error {
	defer s.writeBegan.Store(0)
	for len(batch) > 0 {
		began := s.elapsed()
		s.writeBegan.Store(max(1, int64(began)))
		n, err := s.conn.Write(batch[:min(len(batch), s.cut.piece())])
		took := s.elapsed() - began
		if n > 0 && took >= roomWait {
			s.hear()
		}
		s.cut.took(n, took)
		s.stats.bytesOut.Add(uint64(n))
		if err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// roomWait is the least duration of a Write that had to wait for room, which means that earlier bytes have left.
const roomWait = 100 * time.Millisecond

// setPart sets how much of a body goes into one frame: the amount that the carrier takes at once. s.mu is held.
func (s *Session) setPart() {
	piece := 0
	if s.flow != nil {
		piece = s.flow.Piece()
	} else {
		piece = s.cut.piece()
	}
	s.part = min(fragment, piece-frame.HeaderSize)
}

// waitOutbound waits until there is something to write. It reports whether the writer continues, and whether callers other than the one
// that woke it are likely to add to the batch.
func (s *Session) waitOutbound() (more, company bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.err != nil:
			return false, false
		case s.hasOutbound():
			return true, int(s.inFlight)+len(s.serving) > 1
		default:
			s.wake.Wait()
		}
	}
}

// hasOutbound reports whether there is anything to write. s.mu is held.
func (s *Session) hasOutbound() bool {
	return len(s.urgent) > 0 || s.pong != 0 || s.phase < phaseOver && (s.ready.len() > 0 || s.later.len() > 0 || len(s.unasked) > 0)
}

// fillBatch appends the next frames to b.
func (s *Session) fillBatch(b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outgoing.Store(true)
	s.setPart()
	b = append(b, s.urgent...)
	if s.urgent = s.urgent[:0]; cap(s.urgent) > batchTarget {
		s.urgent = nil
	}
	if s.pong != 0 { // behind the answers to frames that came before the PING
		b = frame.AppendHeader(b, frame.Header{Type: frame.TypePong, ID: s.pong})
		s.pong = 0
	}
	s.valuable, s.urgentValue = s.urgentValue, false
	control := len(b)
	for len(b) < min(batchTarget, s.part) && s.phase < phaseOver {
		src := s.nextSource()
		if src == nil {
			break
		}
		var more bool
		if b, more = src.next(b); more {
			s.ready.push(src)
		}
	}
	s.valuable = s.valuable || len(b) > control
	if len(s.unasked) > 0 {
		b = s.askReceipt(b)
	}
	s.sayFarewell()
	return b
}

// A receipt is a PING sent behind the end of a stream's data. Its PONG means that the peer's session has all of that data.
type receipt struct {
	ping uint64
	st   *muxed
}

// askReceipt appends a PING for the streams whose data ends in this batch. s.mu is held.
func (s *Session) askReceipt(b []byte) []byte {
	s.heartbeat.lastPing++
	id := s.heartbeat.lastPing
	for _, st := range s.unasked {
		s.receipts = append(s.receipts, receipt{id, st})
	}
	s.unasked = s.unasked[:0]
	return frame.AppendHeader(b, frame.Header{Type: frame.TypePing, ID: id})
}

// onReceipts handles the answer to the PING id and to all before it. s.mu is held.
func (s *Session) onReceipts(id uint64) {
	n := 0
	for n < len(s.receipts) && s.receipts[n].ping <= id {
		s.receipts[n].st.onReceived()
		n++
	}
	if n > 0 {
		s.moved++
		s.receipts = append(s.receipts[:0], s.receipts[n:]...)
		s.checkIdle()
		s.stirLocked()
	}
}

// forgetReceipts forgets the receipts of a stream that has ended in another way. s.mu is held.
func (s *Session) forgetReceipts(st *muxed) {
	if st.received || !st.finSent {
		return
	}
	s.unasked = slices.DeleteFunc(s.unasked, func(other *muxed) bool { return other == st })
	s.receipts = slices.DeleteFunc(s.receipts, func(r receipt) bool { return r.st == st })
}

// nextSource returns the source whose turn it is, or nil. On a scarce carrier, streams come after everything else, and bulk streams do not
// send. s.mu is held.
func (s *Session) nextSource() source {
	for s.ready.len() > 0 {
		src := s.ready.pop()
		st, isStream := src.(*writing)
		switch {
		case !s.scarce || !isStream:
			return src
		case st.bulk && len(st.out) > 0:
			s.held.push(src)
		default:
			s.later.push(src)
		}
	}
	if s.later.len() > 0 {
		return s.later.pop()
	}
	return nil
}

// setScarce sets whether the carrier is limited in what it lets through. s.mu is held.
func (s *Session) setScarce(scarce bool) {
	s.scarce = scarce
	for s.held.len() > 0 && !scarce {
		s.ready.push(s.held.pop())
	}
	s.wake.Signal()
}

// releaseHeld removes a stream from the held ones, and reports whether it was among them. s.mu is held.
func (s *Session) releaseHeld(st *writing) (held bool) {
	for range s.held.len() {
		if src := s.held.pop(); src != source(st) {
			s.held.push(src)
		} else {
			held = true
		}
	}
	return held
}

// isScarce reports whether a carrier says that it is limited in what it lets through.
func isScarce(conn net.Conn) bool {
	c, ok := conn.(interface{ Limited() bool })
	return ok && c.Limited()
}

// enqueue adds a source to the ready queue. s.mu is held.
func (s *Session) enqueue(src source) {
	s.ready.push(src)
	s.wake.Signal()
}

// control queues a whole control frame before all other frames. s.mu is held.
func (s *Session) control(h frame.Header, payload []byte) {
	if s.phase == phaseOver && !s.exchangesEnds() {
		return // GOAWAY is the last frame
	}
	if s.overrun = s.overrun || len(s.urgent) > maxUrgent; s.overrun || s.err != nil {
		return // an answer is missing from now on: the reader or the heartbeat ends the session
	}
	switch h.Type {
	case frame.TypePing, frame.TypePong, frame.TypeGoAway, frame.TypeEnd, frame.TypeMessageAck, frame.TypeStreamCredit, frame.TypeStreamTaken:
	default:
		s.urgentValue = true
	}
	h.Length = len(payload)
	s.urgent = frame.AppendHeader(s.urgent, h)
	s.urgent = append(s.urgent, payload...)
	s.wake.Signal()
}

// controlFailure queues a control frame whose body is f. s.mu is held.
func (s *Session) controlFailure(t frame.Type, id uint64, f frame.Failure) {
	s.control(frame.Header{Type: t, ID: id}, frame.AppendFailure(nil, f))
}

// refuse queues the refusal of something that the peer has opened. The frame is not worth waiting for: otherwise a peer could hold up the
// end of the session by opening things. s.mu is held.
func (s *Session) refuse(t frame.Type, id uint64, f frame.Failure) {
	value := s.urgentValue
	s.controlFailure(t, id, f)
	s.urgentValue = value
}

// newID returns the next id of something this side opens; ids on the wire only grow. s.mu is held.
func (s *Session) newID() uint64 {
	switch {
	case s.lastID > 0:
		s.lastID += 2
	case s.dialer:
		s.lastID = 1
	default:
		s.lastID = 2
	}
	return s.lastID
}

// ours reports whether this side opened id.
func (s *Session) ours(id uint64) bool { return id%2 == 1 == s.dialer }

// acceptID checks the id of something that the peer opens: the peer's parity, and greater than all before. s.mu is held.
func (s *Session) acceptID(t frame.Type, id uint64) error {
	if s.ours(id) || id <= s.lastPeerID {
		return fmt.Errorf("%v opens id %d after %d: %w", t, id, s.lastPeerID, frame.ErrMalformed)
	}
	s.lastPeerID = id
	return nil
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

// drop makes the writer skip the unsent part. s.mu is held.
func (o *outgoing) drop() {
	if o.gone || o.s == nil { // sent completely, or never queued
		o.gone, o.body = true, nil
		return
	}
	o.gone, o.body = true, nil
	o.s.dropped++
	if o.s.dropped > 64 && 2*o.s.dropped > o.s.ready.len() {
		o.s.compactReady()
	}
}

// compactReady removes dropped sources from the ready queue, where they would stay while the writer waits. s.mu is held.
func (s *Session) compactReady() {
	for range s.ready.len() {
		src := s.ready.pop()
		if o, ok := src.(*outgoing); !ok || !o.gone {
			s.ready.push(src)
		}
	}
	s.dropped = 0
}

func (o *outgoing) next(b []byte) ([]byte, bool) {
	if o.gone {
		return b, false
	}
	n := len(o.body)
	if o.begun {
		n = min(n, o.s.part)
		b = frame.AppendHeader(b, frame.Header{Length: n, Type: frame.TypeContinue, ID: o.id})
	} else {
		if o.id == 0 {
			o.id = o.s.newID()
		}
		head := frame.StartSize(o.typ, o.flags, &o.start)
		n = min(n, o.s.part-head)
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
	o.whole, o.endAt = true, o.s.flowEnd+uint64(len(b))
	o.owner.onSent()
	return b, false
}

// outcomeOf returns the outcome of a request or message that was not answered when the session ends. One that was never handed completely
// to a carrier has not run. s.mu is held.
func (s *Session) outcomeOf(o *outgoing) Outcome {
	if !o.whole || s.flow != nil && o.endAt > s.flow.Reached() {
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
	if small, ok := o.s.dull.compress(body); ok {
		o.flags |= frame.FlagCompressed
		o.start.Raw, o.start.Total, o.body = len(body), len(small), small
	}
}
