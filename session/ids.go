package session

import (
	"fmt"

	"github.com/peerlane/peerlane/internal/frame"
)

// ids are the ids and names that the two sides use on the wire. The ids of one side only grow, and those of the dialing side are odd.
type ids struct {
	ours   uint64            // of the last thing that this side opened
	theirs uint64            // of the last thing that the peer opened
	names  map[string]string // link and codec names that the peer has used
}

// newIDLocked returns the next id of something this side opens; ids on the wire only grow.
func (s *Session) newIDLocked() uint64 {
	switch {
	case s.ids.ours > 0:
		s.ids.ours += 2
	case s.dialer:
		s.ids.ours = 1
	default:
		s.ids.ours = 2
	}
	return s.ids.ours
}

// ours reports whether this side opened id.
func (s *Session) ours(id uint64) bool { return id%2 == 1 == s.dialer }

// acceptIDLocked checks the id of something that the peer opens: the peer's parity, and greater than all before.
func (s *Session) acceptIDLocked(t frame.Type, id uint64) error {
	if s.ours(id) || id <= s.ids.theirs {
		return fmt.Errorf("%v opens id %d after %d: %w", t, id, s.ids.theirs, frame.ErrMalformed)
	}
	s.ids.theirs = id
	return nil
}

// maxInterned bounds the names a session remembers.
const maxInterned = 256

// internLocked returns b as a string, and the same string for the same bytes while there is room to remember it.
func (s *Session) internLocked(b []byte) string {
	if name, ok := s.ids.names[string(b)]; ok || len(b) == 0 {
		return name
	}
	name := string(b)
	if len(s.ids.names) < maxInterned {
		if s.ids.names == nil {
			s.ids.names = make(map[string]string)
		}
		s.ids.names[name] = name
	}
	return name
}

// consumeStartLocked parses the payload of a start frame. Compression must have been agreed on.
func (s *Session) consumeStartLocked(h frame.Header, p []byte) (frame.Start, []byte, error) {
	if h.Flags&frame.FlagCompressed != 0 && s.caps&frame.CapZstd == 0 {
		return frame.Start{}, nil, fmt.Errorf("compressed %v, which was not agreed on: %w", h.Type, frame.ErrMalformed)
	}
	return frame.ConsumeStart(p, h.Type, h.Flags, s.internLocked)
}

// checkOursLocked refuses an answer to something this side never opened.
func (s *Session) checkOursLocked(h frame.Header) error {
	if !s.ours(h.ID) || h.ID > s.ids.ours {
		return fmt.Errorf("%v for id %d, which was never opened: %w", h.Type, h.ID, frame.ErrMalformed)
	}
	return nil
}
