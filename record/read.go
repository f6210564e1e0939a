package record

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"
)

// A Record is one item of a log.
type Record struct {
	Seq     uint64 // from 1
	Payload []byte
}

// ReadRecord returns the next record, in order and once each. It waits for one. Its Payload is the caller's. Reading does not notify the
// peer: AckRecord does.
//
// The error is exactly io.EOF when all of the peer's records have been read. Otherwise it is an *Error that matches ctx's error, ErrClosed,
// or the reason why the stream has ended. A lost stream does not deliver received, unread records.
func (s *Stream) ReadRecord(ctx context.Context) (Record, error) {
	var one [1]Record
	if _, err := s.read(ctx, one[:], true); err != nil {
		return Record{}, err
	}
	return one[0], nil
}

// ReadBatch puts at least one record, and at most len(dst), into dst, and returns how many. It is otherwise like ReadRecord, except that
// the payloads are valid until the next ReadRecord or ReadBatch. It allocates nothing.
func (s *Stream) ReadBatch(ctx context.Context, dst []Record) (n int, err error) {
	if len(dst) == 0 {
		return 0, s.opError("read", fmt.Errorf("%w: no place for a record", ErrRange))
	}
	return s.read(ctx, dst, false)
}

// Records returns an iterator over arriving records. It ends after the last one, and after an error, which it yields with a zero record. A
// payload is valid until the next record is requested.
func (s *Stream) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var one [1]Record
		for {
			_, err := s.read(ctx, one[:], false)
			switch {
			case err == io.EOF:
				return
			case err != nil:
				yield(Record{}, err)
				return
			case !yield(one[0], nil):
				return
			}
		}
	}
}

// read moves records into dst: as copies, or valid until the next read.
func (s *Stream) read(ctx context.Context, dst []Record, copies bool) (int, error) {
	for {
		n, err := s.tryRead(dst, copies)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-s.readable:
		case <-s.ended:
		case <-ctx.Done():
			return 0, s.opError("read", ctx.Err())
		}
	}
}

// tryRead is read without waiting: it may return 0 and nil.
func (s *Stream) tryRead(dst []Record, copies bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &s.in
	in.giveBack()
	c, ok := in.first()
	if !ok {
		err := s.readFailure()
		if err != nil {
			s.signal(s.readable) // for another reader
		}
		return 0, err
	}
	n := 0
	for ; n < len(dst) && c.count > 0; n++ {
		dst[n] = in.take(c)
		if copies {
			dst[n].Payload = slices.Clone(dst[n].Payload)
		}
	}
	if !copies {
		in.lent = c
	}
	if _, more := in.first(); more {
		s.signal(s.readable) // for another reader
	}
	return n, nil
}

// readFailure returns why there is nothing more to read, or nil. mu is held.
func (s *Stream) readFailure() error {
	switch {
	case s.err != nil:
		return s.endedLocked("read")
	case s.out.closing != nil:
		return s.opError("read", s.out.closing)
	case s.in.ended && s.in.failed == 0:
		return io.EOF
	case s.out.gone != nil:
		return s.opError("read", s.out.gone)
	}
	return nil
}

// AckRecord declares that the record seq and all before it are applied, which ends the peer's barriers up to it. With a Store, the position
// is stored before the peer is notified. Records that have not been read, and a number below an earlier one, are ErrRange; the same number
// again changes nothing. Otherwise the error is why the stream has ended.
func (s *Stream) AckRecord(seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &s.in
	switch {
	case s.err != nil:
		return s.endedLocked("ack")
	case s.out.closing != nil:
		return s.opError("ack", s.out.closing)
	case seq > in.delivered || seq < in.applied:
		return s.opError("ack", fmt.Errorf("%w: record %d, and %d to %d may be acknowledged", ErrRange, seq, in.applied, in.delivered))
	}
	in.applied = seq
	if seq > in.told {
		s.planAck()
	}
	return nil
}

// planAck makes the peer be notified of applied records: at once when all received records are applied, or much of the window (spec 4.4),
// and otherwise soon. mu is held.
func (s *Stream) planAck() {
	in := &s.in
	soon := in.applied == in.next-1 || in.applied-in.told >= uint64(max(1, s.out.window/4)) ||
		in.readSince >= s.out.windowBytes/4 // the window of both directions is the lower of the two sides'
	switch {
	case in.ackNow:
	case soon || s.opts.AckDelay < 0:
		in.ackNow = true
		s.wake.Signal()
	case in.delaying:
	case in.delay == nil:
		in.delaying = true
		in.delay = time.AfterFunc(s.opts.AckDelay, s.ackDue)
	default:
		in.delaying = true
		in.delay.Reset(s.opts.AckDelay)
	}
}

// ackDue is called by delay.
func (s *Stream) ackDue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &s.in
	in.delaying = false
	if in.applied > in.told {
		in.ackNow = true
		s.wake.Signal()
	}
}

// Fail declares that the record seq cannot be applied. code and message, of which the first 1024 bytes count, are the application's, and
// end the peer's barriers from seq on.
//
// If it is retryable, the record and all after it are dropped, read or not, until the peer's application calls Resend. They are then sent
// again, with the same numbers. Otherwise the stream ends on both sides, once the peer has been notified.
//
// A seq that is acknowledged, or has not been read, is ErrRange. Otherwise the error is why the stream has ended.
func (s *Stream) Fail(seq uint64, code uint32, retryable bool, message string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &s.in
	switch {
	case s.err != nil:
		return s.endedLocked("fail")
	case s.out.closing != nil:
		return s.opError("fail", s.out.closing)
	case seq > in.delivered || seq <= in.applied:
		return s.opError("fail", fmt.Errorf("%w: record %d, and %d to %d may fail", ErrRange, seq, in.applied+1, in.delivered))
	}
	in.failure = &failure{seq: seq, applied: in.applied, code: code, retryable: retryable, message: cut(message)}
	if retryable {
		in.failed, in.delivered = seq, seq-1
		in.clear()
		s.wake.Signal()
		return nil
	}
	s.closeLocked(s.opError("apply", &RecordFailure{FailedSeq: seq, Applied: in.applied, Code: code, Message: message}))
	return nil
}

// applied and delivered return the last record that is acknowledged here, and the last one that has been read.
func (s *Stream) applied() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.applied
}

func (s *Stream) delivered() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.delivered
}
