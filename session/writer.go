package session

import (
	"runtime"
	"sync"

	"github.com/peerlane/peerlane/internal/frame"
)

// writeLoop is the only goroutine that writes frames: it takes them from outbound and hands them on, with one Write per batch, to the flow or
// the carrier. Where there is a flow, the flow serialises the Writes of the carrier.

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
		if s.end.parting.Load() && s.carriers.flow != nil {
			s.carriers.flow.AwaitSent() // another goroutine may be writing to the carrier; the end of the session ends this wait
		}
		s.out.inBatch.Store(false)
		if s.end.parting.Load() {
			s.mu.Lock()
			s.checkIdleLocked()
			s.mu.Unlock()
		}
	}
}

// writeBatch writes the next batch.
func (s *Session) writeBatch() error {
	if s.carriers.flow != nil {
		b := s.carriers.flow.NewBatch()
		batch := s.fillBatch(b.Buffer())
		s.stats.bytesOut.Add(uint64(len(batch))) // before the peer can receive it
		_, err := s.carriers.flow.WriteBatch(b, batch)
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
	if err == nil && s.out.valuable {
		s.bare.written.Add(1)
	}
	return err
}

// noteWritten records that the flow has n more bytes, and whether they are worth waiting for.
func (s *Session) noteWritten(n int) {
	if s.out.flowEnd += uint64(n); s.out.valuable {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.out.valueEnd = s.out.flowEnd
	}
}

// heartbeatSize is more than the bytes of a heartbeat in a segment and a sealed record, and less than any other data worth waiting for.
const heartbeatSize = 96

// write writes a batch to a carrier without a flow, in pieces. Each piece has WriteTimeout: a slow carrier must take at least that much in
// this time.
func (s *Session) write(batch []byte) error {
	defer s.bare.writeBegan.Store(0)
	for len(batch) > 0 {
		began := s.elapsed()
		s.bare.writeBegan.Store(max(1, int64(began)))
		n, err := s.carriers.conn.Write(batch[:min(len(batch), s.bare.cut.piece())])
		took := s.elapsed() - began
		if n > 0 && took >= roomWait {
			s.hear(s.elapsed())
		}
		s.bare.cut.took(n, took)
		s.stats.bytesOut.Add(uint64(n))
		if err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// setPartLocked sets how much of a body goes into one frame: the amount that the carrier takes at once, and at most half of a batch with
// room for so many bytes, as all data of a frame.
func (s *Session) setPartLocked(room int) {
	s.out.fit = min(fragment, room/2-frame.HeaderSize)
	piece := 0
	if s.carriers.flow != nil {
		piece = s.carriers.flow.Piece()
	} else {
		piece = s.bare.cut.piece()
	}
	s.out.part = min(s.out.fit, piece-frame.HeaderSize)
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
		case s.hasOutboundLocked():
			return true, int(s.calls.inFlight)+len(s.requests.open) > 1
		default:
			s.out.wake.Wait()
		}
	}
}

// fillBatch appends the next frames to b.
func (s *Session) fillBatch(b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.inBatch.Store(true)
	s.setPartLocked(cap(b))
	b = append(b, s.out.urgent...)
	if s.out.urgent = s.out.urgent[:0]; cap(s.out.urgent) > batchTarget {
		s.out.urgent = nil
	}
	s.releaseUrgentLocked()
	b = s.appendCreditLocked(b) // behind STREAM_CREDIT for the same bytes: the stream keeps its share of it
	if s.out.pong != 0 {        // behind the answers to frames that came before the PING
		b = frame.AppendHeader(b, frame.Header{Type: frame.TypePong, ID: s.out.pong})
		s.out.pong = 0
	}
	s.out.valuable, s.out.urgentValue = s.out.urgentValue, false
	control := len(b)
	for len(b) < min(batchTarget, s.out.part) && s.end.ours < phaseOver {
		src := s.nextSourceLocked()
		if src == nil {
			break
		}
		var more bool
		if b, more = src.next(b); more {
			s.out.ready.push(src)
		}
	}
	s.out.valuable = s.out.valuable || len(b) > control
	if len(s.shared.unasked) > 0 {
		b = s.askReceiptLocked(b)
	}
	s.sayFarewellLocked()
	return b
}

// hasOutboundLocked reports whether there is anything to write.
func (s *Session) hasOutboundLocked() bool {
	return len(s.out.urgent) > 0 || s.out.pong != 0 || s.creditDueLocked() > 0 || s.end.ours < phaseOver && (s.out.ready.len() > 0 || s.out.later.len() > 0 || len(s.shared.unasked) > 0)
}
