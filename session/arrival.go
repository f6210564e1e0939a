package session

import (
	"errors"
	"net"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/resume"
)

// An arrival is a resumable stream that the peer opens under a number. When its opening is cut, the peer does not know whether the stream
// exists, and sends HELLO and NEW again. The number identifies the stream, so that no second handler runs for it (spec 5.11).
type arrival struct {
	s      *Session
	number uint64 // 0: the peer sends none, and does not retry the opening

	// The rest is guarded by s.mu.
	raw     net.Conn      // the carrier that the opening is in progress on
	settled chan struct{} // closed when the opening is over
	conn    *resume.Conn  // nil until the opening is over
	over    bool          // the stream has ended, with code
	code    codes.Code
}

// arrive returns the stream with the given number: the existing one, or a new one, for which the caller must call opened. It abandons an
// opening still in progress on an earlier carrier, as the peer has.
func (s *Session) arrive(number uint64, raw net.Conn) (*arrival, error) {
	at := &arrival{s: s, number: number, raw: raw, settled: make(chan struct{})}
	if number == 0 || !s.exchangesEnds() {
		at.number = 0
		return at, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		was := s.dedicated.arrivals[number]
		switch {
		case s.dedicated.numbered[number] != nil:
			return nil, &Error{Code: codes.Protocol, Text: "the number of this stream is another one's"}
		case was == nil:
			if s.dedicated.arrivals == nil {
				s.dedicated.arrivals = make(map[uint64]*arrival)
			}
			s.dedicated.arrivals[number] = at
			return at, nil
		case was.conn != nil:
			return was, nil
		}
		raw := was.raw
		s.mu.Unlock()
		drop(raw, codes.Cancelled)
		<-was.settled // immediate, because its carrier has ended
		s.mu.Lock()
	}
}

// opened ends an opening. conn is the stream's, or nil if the opening failed.
func (s *Session) opened(at *arrival, conn *resume.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at.raw, at.conn = nil, conn
	if conn == nil {
		delete(s.dedicated.arrivals, at.number)
	}
	close(at.settled)
}

// departLocked forgets an arrival whose stream has ended. If nothing was ever received from the peer on it, the peer may still open the
// stream and must then learn how it ended. At most MaxStreams of these are kept.
func (s *Session) departLocked(at *arrival) {
	if at == nil || at.number == 0 || s.dedicated.arrivals[at.number] != at {
		return
	}
	if at.conn.ForSession().Heard() {
		delete(s.dedicated.arrivals, at.number)
		return
	}
	at.over, at.code = true, codes.Cancelled
	var reset *streamReset
	if errors.As(at.conn.Err(), &reset) {
		at.code = reset.code
	}
	s.dedicated.unheard = append(s.dedicated.unheard, at.number)
	if len(s.dedicated.unheard) > s.cfg.MaxStreams {
		delete(s.dedicated.arrivals, s.dedicated.unheard[0])
		s.dedicated.unheard = s.dedicated.unheard[1:]
	}
}
