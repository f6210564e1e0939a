package session

import (
	"context"
	"fmt"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// A LinkRegistrar has handlers for the links of peers: a peerlane.Server, a peerlane.Client, a Mux.
type LinkRegistrar interface {
	SetLink(name string, fn func(*Message))
}

// CallTyped sends req to the handler of link at the peer and returns its answer. It is Session.SendWait with values in place of bytes: c encodes
// the request and decodes the answer. The peer has set HandleTyped with the same codec, or a handler that knows it.
//
// The errors are those of SendWait, and an *Error that matches
//   - ErrInvalid, with outcome NotSent, if req cannot be encoded,
//   - ErrUndecodable, with Remote, codes.Undecodable and outcome Rejected, if the peer cannot decode the request,
//   - ErrUndecodable, without Remote and with outcome Delivered, if this side cannot decode the answer,
//   - ErrUnsupported if the peer takes another codec.
func CallTyped[Resp, Req any](ctx context.Context, s *Session, link string, c Codec, req Req) (Resp, error) {
	var none Resp
	if s == nil || c == nil {
		return none, fmt.Errorf("session: %w: the session or the codec is nil", ErrInvalid)
	}
	value, err := c.Marshal(req)
	if name := c.Name(); err == nil && len(name) > frame.MaxName {
		err = fmt.Errorf("codec name of %d bytes, at most %d", len(name), frame.MaxName)
	}
	if err != nil {
		return none, &Error{Op: "encode", Peer: s.peer, Link: link, Outcome: NotSent, Err: fmt.Errorf("%w: %w", ErrInvalid, err)}
	}
	a, err := s.call(ctx, "send", outgoing{flags: frame.FlagObject, start: frame.Start{Link: link, Codec: c.Name()}}, value)
	if err != nil {
		return none, err
	}
	var resp Resp
	if err := c.Unmarshal(a.value, &resp); err != nil {
		return none, &Error{Op: "decode", Peer: s.peer, Link: link, Outcome: Delivered, Err: fmt.Errorf("answer %w: %w", ErrUndecodable, err)}
	}
	return resp, nil
}

// HandleTyped is SetLink with values in place of bytes, for callers that use CallTyped with the same codec. fn's error is the answer as with
// Message.Refuse. A request that cannot be decoded is refused with codes.Undecodable, and one that another codec has made with
// codes.Unsupported. If the answer cannot be encoded, the caller gets codes.Internal. fn is called with one-way messages too: its error, or that
// of decoding, is the sender's failure to deliver, and its answer is dropped. HandleTyped returns an error that matches ErrInvalid if r, c or fn
// is nil.
func HandleTyped[Req, Resp any](r LinkRegistrar, link string, c Codec, fn func(m *Message, req Req) (Resp, error)) error {
	if r == nil || c == nil || fn == nil {
		return fmt.Errorf("session: %w: the registrar, the codec or the function is nil", ErrInvalid)
	}
	r.SetLink(link, func(m *Message) {
		value, err := answerTyped(m, c, fn)
		switch {
		case !m.WantsReply():
			if err != nil {
				m.failDelivery(err)
			}
		case err != nil:
			_ = m.Refuse(err) // the caller has given up if that fails, and is told nothing
		default:
			_ = m.reply(outgoing{flags: frame.FlagObject, start: frame.Start{Codec: c.Name()}}, value) // likewise, or it has been refused
		}
	})
	return nil
}

// answerTyped returns the encoded answer to m, or why there is none.
func answerTyped[Req, Resp any](m *Message, c Codec, fn func(m *Message, req Req) (Resp, error)) ([]byte, error) {
	if m.codec != "" && m.codec != c.Name() {
		return nil, &Error{Op: "decode", Link: m.Link, Code: codes.Unsupported, Text: fmt.Sprintf("codec %q, and the link takes %q", m.codec, c.Name())}
	}
	var req Req
	if err := c.Unmarshal(m.Value, &req); err != nil {
		return nil, &Error{Op: "decode", Link: m.Link, Code: codes.Undecodable, Text: err.Error()}
	}
	resp, err := fn(m, req)
	if err != nil || !m.WantsReply() {
		return nil, err
	}
	value, err := c.Marshal(resp)
	if err != nil {
		return nil, &Error{Op: "encode", Link: m.Link, Code: codes.Internal, Text: "the answer cannot be encoded: " + err.Error()}
	}
	return value, nil
}

// failDelivery reports to the sender of a one-way message that its handler has failed with err.
func (m *Message) failDelivery(err error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.controlFailureLocked(frame.TypeError, m.id, failureOf(err))
}
