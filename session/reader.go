package session

import (
	"errors"
	"fmt"
	"io"

	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/resume"
)

// readLoop owns the carrier's read side: it handles every frame and never waits for a handler, a reader of a stream, or the writer. It ends
// when the session has ended. An error of the carrier or of the peer ends the session.
func (s *Session) readLoop() {
	defer close(s.readerDone)
	r := frame.NewReader(s.conn, func(n int) {
		s.hear()
		if n > heartbeatSize {
			s.arrived.Add(1)
		}
		s.stats.bytesIn.Add(uint64(n))
	})
	for {
		h, p, err := r.Next()
		if err != nil {
			s.fail(s.carrierFailure("read", err))
			return
		}
		if err := s.handle(h, p); err != nil {
			s.fail(s.violated(err))
			return
		}
	}
}

// carrierFailure returns why the session ends when its carrier failed with err. The end of a carrier is no loss once both sides are
// parting.
func (s *Session) carrierFailure(op string, err error) *Error {
	if errors.Is(err, frame.ErrTooLong) || errors.Is(err, frame.ErrCritical) || errors.Is(err, frame.ErrMalformed) ||
		errors.Is(err, resume.ErrProtocol) {
		return s.violated(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isParted() || s.leaving != nil && s.phase < phaseClosing && (s.idleShut || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)) {
		return s.leaving
	}
	return s.lost(op, err)
}

// handle handles one frame. An error means that the peer broke the protocol. p is valid until handle returns.
func (s *Session) handle(h frame.Header, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil
	}
	if err := s.dispatch(h, p); err != nil {
		return err
	}
	if s.overrun {
		return fmt.Errorf("more than %d bytes of answers wait to be read: %w", maxUrgent, frame.ErrTooLong)
	}
	return nil
}

// dispatch passes one frame to the handler of its type. s.mu is held.
func (s *Session) dispatch(h frame.Header, p []byte) error {
	switch h.Type {
	case frame.TypeRequest:
		return s.onRequest(h, p)
	case frame.TypeResponse:
		return s.onResponse(h, p)
	case frame.TypeMessage:
		return s.onMessage(h, p)
	case frame.TypeContinue:
		return s.onContinue(h, p)
	case frame.TypeError:
		return s.onError(h, p)
	case frame.TypeCancel:
		return s.onCancel(h)
	case frame.TypeMessageAck:
		return s.lane.onAck(h.ID)
	case frame.TypePing:
		s.probesIn++
		s.pong = h.ID
		s.wake.Signal()
		return nil
	case frame.TypePong:
		s.probesIn++
		s.heartbeat.onPong(h.ID)
		return nil
	case frame.TypeGoAway:
		return s.onGoAway(h, p)
	case frame.TypeEnd:
		return s.onPeerEnd(p)
	case frame.TypeStreamTaken:
		return s.onTaken(h, p)
	case frame.TypeStreamEnd:
		return s.onStreamEnd(h, p)
	}
	return s.handleStream(h, p)
}

// handleStream handles one frame of a shared stream. s.mu is held.
func (s *Session) handleStream(h frame.Header, p []byte) error {
	if h.Type == frame.TypeStreamOpen {
		return s.onOpen(h, p)
	}
	st := s.streams[h.ID]
	if st == nil { // it has ended here, and the peer did not know that yet
		if s.ours(h.ID) && h.ID > s.lastID || !s.ours(h.ID) && h.ID > s.lastPeerID {
			return fmt.Errorf("%v of id %d, which was never opened: %w", h.Type, h.ID, frame.ErrMalformed)
		}
		return nil
	}
	switch h.Type {
	case frame.TypeStreamAccept:
		return st.onAccept()
	case frame.TypeStreamData:
		return st.onData(h, p)
	case frame.TypeStreamCredit:
		n, err := frame.ConsumeCredit(p)
		if err != nil {
			return err
		}
		return st.onCredit(n)
	case frame.TypeStreamReset, frame.TypeStreamStop:
		f, err := frame.ConsumeFailure(p)
		if err != nil {
			return err
		}
		if h.Type == frame.TypeStreamReset {
			st.onReset(f)
		} else {
			st.onStop(f)
		}
		return nil
	}
	return fmt.Errorf("%v: %w", h.Type, frame.ErrCritical)
}

// consumeStart parses the payload of a start frame. Compression must have been agreed on. s.mu is held.
func (s *Session) consumeStart(h frame.Header, p []byte) (frame.Start, []byte, error) {
	if h.Flags&frame.FlagCompressed != 0 && s.caps&frame.CapZstd == 0 {
		return frame.Start{}, nil, fmt.Errorf("compressed %v, which was not agreed on: %w", h.Type, frame.ErrMalformed)
	}
	return frame.ConsumeStart(p, h.Type, h.Flags, s.intern)
}

// maxInterned bounds the names a session remembers.
const maxInterned = 256

// intern returns b as a string, and the same string for the same bytes while there is room to remember it. s.mu is held.
func (s *Session) intern(b []byte) string {
	if name, ok := s.names[string(b)]; ok || len(b) == 0 {
		return name
	}
	name := string(b)
	if len(s.names) < maxInterned {
		if s.names == nil {
			s.names = make(map[string]string)
		}
		s.names[name] = name
	}
	return name
}
