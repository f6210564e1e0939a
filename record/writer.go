package record

import (
	"fmt"
	"time"

	"github.com/peerlane/peerlane/internal/hook"
)

// job is the writer's current work: first for the Store, then for the conn.
type job struct {
	before  []byte    // frames to send before the BATCH
	chunk   *outChunk // its records are sent; nil: none are
	buf     []byte    // its buffer at that time
	off     int       // where the records to send begin in buf
	from    uint64    // number of the first of them
	count   int       // without a chunk: records to store, not to send
	after   []byte    // frames to send behind the BATCH
	ack     uint64    // the position to store and acknowledge; 0: none
	riding  bool      // the acknowledgement is part of the BATCH
	closing bool      // the job contains the last frame
}

// writeLoop is the only goroutine that writes to the conn and reports to the Store: it sends records, acknowledgements and failures one
// after the other. It ends when the stream has ended. It ends the stream itself after the last frame of Close.
func (s *Stream) writeLoop() {
	hook.Run(s.writeJobs, func(why *hook.Failure) {
		if why != nil { // in the Store
			s.refuse(s.opError("carry", storeError(why)), CodeStore, "")
		}
		s.sayLastWords()
		why.Rethrow()
	})
}

// writeJobs is the loop of writeLoop.
func (s *Stream) writeJobs() {
	for {
		j, ok := s.nextJob()
		if !ok {
			return
		}
		if err := s.keep(&j); err != nil {
			s.refuse(s.opError("carry", err), CodeStore, "")
			continue
		}
		err := s.send(&j)
		s.finishJob(&j, err)
		if j.closing {
			s.left()
		}
	}
}

// nextJob waits for something to do. It reports false when the stream has ended.
func (s *Stream) nextJob() (job, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.err != nil {
			return job{}, false
		}
		if j, ok := s.takeJob(); ok {
			return j, true
		}
		s.wake.Wait()
	}
}

// takeJob returns the next work. mu is held.
func (s *Stream) takeJob() (job, bool) {
	o := &s.out
	var j job
	j.before = o.scratch[:0]
	if o.rewindTo > 0 {
		o.rewind(o.rewindTo)
		j.before = appendSeq(j.before, kindRewind, o.rewindTo)
		o.rewindTo = 0
	}
	j.chunk = s.dueChunk()
	s.takeAck(&j)
	if j.chunk != nil {
		s.takeChunk(&j)
	} else {
		s.takeHeld(&j)
	}
	o.scratch = j.before[:0]
	abandoned := o.failed != nil || o.gone != nil || o.closing != nil && o.closing != ErrClosed
	if o.ended && !o.saidEnd && o.unsent == nil && !abandoned {
		o.saidEnd = true
		j.after = appendSeq(j.after, kindEnd, o.next)
	}
	if o.closing != nil && s.broke == nil && (o.unsent == nil || abandoned) {
		j.closing, o.leaving = true, true
		j.after = s.appendLast(j.after)
	}
	return j, len(j.before)+len(j.after) > 0 || j.count > 0 || j.ack > 0
}

// appendLast appends the CLOSE of an end in order. mu is held.
func (s *Stream) appendLast(b []byte) []byte {
	if s.given {
		return appendDone(b, s.in.delivered)
	}
	return appendClose(b, codeDone, "")
}

// takeAck adds this side's applied position, and a failure, to j. mu is held.
func (s *Stream) takeAck(j *job) {
	in := &s.in
	now := in.ackNow || in.failure != nil || s.out.closing != nil
	if in.applied > in.told && (now || j.chunk != nil && s.batchAck) {
		j.ack = in.applied
		in.told, in.ackNow, in.readSince = in.applied, false, 0
		in.stopDelay()
		if j.riding = j.chunk != nil && s.batchAck; !j.riding {
			j.before = appendSeq(j.before, kindAck, j.ack)
		}
	}
	if in.failure != nil {
		in.failure.applied = in.applied // some records before the failed one may have been applied since
		j.before = in.failure.append(j.before)
		in.failure = nil
		s.stats.failuresOut++
	}
}

// dueChunk returns the first chunk with records that may be sent now, or nil. mu is held.
func (s *Stream) dueChunk() *outChunk {
	o := &s.out
	c := o.unsent
	switch {
	case c == nil || o.failed != nil || o.gone != nil || o.closing != nil && o.closing != ErrClosed:
		return nil
	case o.sentBytes > 0 && (o.sentBytes+len(c.buf)-c.off > o.windowBytes || c.last() > o.acked+uint64(o.window)):
		return nil // records from the Store may exceed a window that has become smaller
	case s.opts.Linger > 0 && o.lingers(c):
		s.startLinger()
		return nil
	}
	return c
}

// lingers reports whether the unsent records of c, the first chunk, may wait for more records.
func (o *outbound) lingers(c *outChunk) bool {
	if o.ended || o.waiting > 0 || c.first+uint64(c.sent) <= o.hurried {
		return false
	}
	return c.open && len(c.buf)-c.off < o.fill
}

// startLinger starts the timer for which records wait for more, unless it is running. mu is held.
func (s *Stream) startLinger() {
	o := &s.out
	if o.linger != nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(s.opts.Linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if o.linger == timer {
			o.hurried = o.next - 1
			s.wake.Signal()
		}
	})
	o.linger = timer
}

// takeChunk adds the unsent records of j's chunk to j. mu is held.
func (s *Stream) takeChunk(j *job) {
	o, c := &s.out, j.chunk
	j.buf, j.off = c.buf, c.off
	j.from, j.count = c.first+uint64(c.sent), c.count-c.sent
	o.sentBytes += len(c.buf) - c.off
	c.sent, c.off, c.busy = c.count, len(c.buf), true
	if c.size() >= o.fill/2 {
		c.open = false // later records are sent without a copy
	}
	o.unsent = c.next
	o.reached = j.from + uint64(j.count) - 1
	if o.linger != nil {
		o.linger.Stop()
		o.linger = nil
	}
	s.stats.batchesOut++
}

// takeHeld adds records to j that cannot be sent now and that the Store does not have: their writers wait for the Store. mu is held.
func (s *Stream) takeHeld(j *job) {
	o := &s.out
	if s.store == nil || o.failed == nil && o.gone == nil || o.closing != nil {
		return
	}
	for c := o.unsent; c != nil; c = c.next {
		if c.last() > o.durable {
			j.buf, j.off, j.from, j.count = c.buf, batchRoomAck, c.first, c.count
			return
		}
	}
}

// keep passes j's changes to the Store, before the peer learns of them.
func (s *Stream) keep(j *job) error {
	if s.store == nil {
		return nil
	}
	if j.ack > 0 {
		if err := s.store.Applied(s.peerLog, j.ack); err != nil {
			return storeError(err)
		}
	}
	if j.count == 0 {
		return nil
	}
	s.mu.Lock()
	from, acked := s.out.durable+1, s.out.acked
	s.mu.Unlock()
	acked = s.lease.settled(acked)
	last := j.from + uint64(j.count) - 1
	if from > last {
		return nil // these are sent again
	}
	if err := s.store.Append(max(from, j.from), recordsOf(j.buf[j.off:], j.from, from), acked); err != nil {
		return storeError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.durable = last
	s.out.settleBarriers(func(b *barrier) bool { return b.durable && b.seq <= last }, nil)
	return nil
}

// send writes the frames of j, unless the conn accepts no more.
func (s *Stream) send(j *job) error {
	s.mu.Lock()
	mute := s.mute
	s.mu.Unlock()
	if mute {
		return nil
	}
	if len(j.before) > 0 {
		if err := s.put(j.before); err != nil {
			return err
		}
	}
	if j.chunk != nil {
		if err := s.put(s.batchOf(j)); err != nil {
			return err
		}
	}
	if len(j.after) > 0 {
		return s.put(j.after)
	}
	return nil
}

// batchOf returns the BATCH of j: the chunk's own bytes if it is the chunk's first BATCH, otherwise a copy.
func (s *Stream) batchOf(j *job) []byte {
	buf, off := j.buf, j.off
	if off > batchRoomAck {
		s.copied = append(append(s.copied[:0], make([]byte, batchRoomAck)...), buf[off:]...)
		buf, off = s.copied, batchRoomAck
		if cap(s.copied) > pooledSize {
			s.copied = nil
		}
	}
	size := putBatch(buf[:off], batch{first: j.from, count: j.count, acked: j.riding, ack: j.ack}, len(buf)-off)
	return buf[off-size:]
}

// finishJob records that j is done.
func (s *Stream) finishJob(j *job, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.ack > 0 && err == nil {
		s.stats.ackSent(j.riding)
	}
	if err != nil {
		s.fallMute(err)
	}
	c := j.chunk
	if c == nil {
		return
	}
	if c.busy = false; c.gone {
		c.free()
		s.out.spent = 0
		s.out.hold(s.out.bytes)
	}
	if err == nil {
		s.out.written = max(s.out.written, j.from+uint64(j.count)-1)
		s.out.flushed()
	}
}

// lastWords is how long a stream is still read after its conn has stopped accepting data. Frames that the peer sent before it ended the
// stream have arrived, and count.
const lastWords = 100 * time.Millisecond

// fallMute stops writing to the conn. mu is held.
func (s *Stream) fallMute(err error) {
	if s.mute {
		return
	}
	s.mute, s.broke = true, err
	s.grace = time.AfterFunc(lastWords, func() { s.fail(s.broken(err)) })
}

// sayLastWords reports to the peer why this side has ended the stream, if there is something to report.
func (s *Stream) sayLastWords() {
	s.mu.Lock()
	words := s.lastWords
	if s.mute {
		words = nil
	}
	s.mu.Unlock()
	if words != nil {
		_, _ = s.conn.Write(words) // the peer may be gone
	}
	s.wakeReader()
}

// left ends the stream after its last frame has been sent. If the conn did not accept that frame, it first waits for the peer's last
// frames: the peer may have closed the stream too.
func (s *Stream) left() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broke == nil {
		s.failLocked(s.out.closing)
	}
}

func storeError(err error) error { return fmt.Errorf("%w: %w", ErrStore, err) }
