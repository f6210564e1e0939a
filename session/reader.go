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
	r := frame.NewReader(s.carriers.conn, func(n int) {
		now := s.elapsed()
		s.hear(now)
		s.activity.received.Store(int64(now))
		if n > heartbeatSize {
			s.end.arrived.Add(1)
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
	if s.isPartedLocked() || s.end.leaving != nil && s.end.ours < phaseClosing && (s.end.isIdle() || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)) {
		return s.end.leaving
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
	if err := s.dispatchLocked(h, p); err != nil {
		return err
	}
	if s.out.overrun {
		return fmt.Errorf("more than %d bytes of answers wait to be read: %w", maxUrgent, frame.ErrTooLong)
	}
	return nil
}

// dispatchLocked passes one frame to the handler of its type.
func (s *Session) dispatchLocked(h frame.Header, p []byte) error {
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
		return s.messages.out.onAck(h.ID)
	case frame.TypePing:
		s.bare.probesIn++
		s.out.pong = h.ID
		s.out.wake.Signal()
		return nil
	case frame.TypePong:
		s.bare.probesIn++
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
	case frame.TypeSessionCredit, frame.TypeSessionReturn, frame.TypeSessionAsk:
		return s.onSessionFrame(h, p)
	}
	return s.handleStreamLocked(h, p)
}

// handleStreamLocked handles one frame of a shared stream.
func (s *Session) handleStreamLocked(h frame.Header, p []byte) error {
	if h.Type == frame.TypeStreamOpen {
		return s.onOpen(h, p)
	}
	st := s.shared.open[h.ID]
	if st == nil && (s.ours(h.ID) && h.ID > s.ids.ours || !s.ours(h.ID) && h.ID > s.ids.theirs) {
		return fmt.Errorf("%v of id %d, which was never opened: %w", h.Type, h.ID, frame.ErrMalformed)
	}
	if h.Type == frame.TypeStreamData {
		if err := s.countDataLocked(len(p)); err != nil {
			return err
		}
	}
	if st == nil { // it has ended here, and the peer did not know that yet
		if h.Type == frame.TypeStreamData {
			s.dropDataLocked(len(p))
		}
		return nil
	}
	switch h.Type {
	case frame.TypeStreamAccept:
		return st.onAccept()
	case frame.TypeStreamData:
		err := st.onData(h, p)
		if err != nil {
			s.dropDataLocked(len(p)) // no stream has it, and the session ends
		}
		return err
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
