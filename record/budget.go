package record

import (
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/session"
)

// On a session that the peer has opened, what a stream keeps and holds is in the peer's share of memory. Where there is no room, a writer waits as
// for the window, and what comes is left unread, so that the peer waits; see Stream.awaitSpace.

// holdBuffers takes room for the stream's own buffers from the budget of its peer, or returns why there is none.
func (s *Stream) holdBuffers() error {
	st, ok := s.conn.(*session.Stream)
	if !ok {
		return nil
	}
	kept, arrived := st.ForLane().Budgets()
	s.out.held, s.in.held, s.buffers = lane.In(kept), lane.In(arrived), lane.In(arrived)
	if !s.buffers.Take(readBuffer + pooledSize) {
		return errNoRoom
	}
	return nil
}

// letGo releases all memory of a stream whose loops do not run.
func (s *Stream) letGo() {
	s.out.drop()
	s.in.held.End()
	s.buffers.End()
}

// holdStep is what is taken from the budget at a time.
const holdStep = 64 << 10

// hold reserves memory for chunks with so many bytes of records, or returns false. Two chunks in a row are half full together.
func (o *outbound) hold(bytes int) bool {
	if bytes == 0 {
		return o.held.UpTo(0)
	}
	return o.held.UpTo((pooledSize + 2*bytes + holdStep - 1) / holdStep * holdStep)
}

// spacePatience is how long a stream waits for room in the budget for what has come.
const spacePatience = defaults.Read

// awaitSpace returns the chunk for the next n bytes. It waits while the budget has no room for one, and the conn is not read: the peer has to
// wait, too. When the application has not made room by reading for spacePatience, nor others, it returns an error. It reports that the records
// must be skipped when nobody reads them any more. mu is held, and released while it waits.
func (s *Stream) awaitSpace(n int) (c *inChunk, skip bool, err error) {
	var retry lane.Retry
	began := time.Now()
	for {
		if c := s.in.space(n); c != nil {
			return c, false, nil
		}
		if time.Since(began) >= spacePatience {
			return nil, false, errNoRoom
		}
		s.mu.Unlock()
		select {
		case <-s.in.freed:
		case <-time.After(retry.Next()):
		case <-s.ended:
		}
		s.mu.Lock()
		if s.in.failed > 0 || s.closedFor() {
			return nil, true, nil
		}
	}
}
