package session

import (
	"cmp"
	"context"
	"fmt"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// SendObj sends v one-way to link, made by the codec called name ("" is JSON). It is Send otherwise.
func (s *Session) SendObj(ctx context.Context, link, name string, v any) error {
	head, value, err := s.object(link, name, v)
	if err != nil {
		return err
	}
	return s.send(ctx, head, value)
}

// SendWaitObj sends v to link as SendObj does, waits for the reply and, unless reply is nil, decodes it into reply. It is
// SendWait otherwise. A reply that cannot be decoded is an *Error with outcome Delivered, which matches ErrUnsupported when
// its codec is not registered on this side.
func (s *Session) SendWaitObj(ctx context.Context, link, name string, v, reply any) error {
	head, value, err := s.object(link, name, v)
	if err != nil {
		return err
	}
	a, err := s.call(ctx, "send", head, value)
	if err != nil || reply == nil {
		return err
	}
	return s.decode(link, a.codec, a.value, reply)
}

// object makes the head and body that carry v.
func (s *Session) object(link, name string, v any) (outgoing, []byte, error) {
	c, err := s.cfg.Mux.codec(name)
	if err != nil {
		return outgoing{}, nil, err
	}
	value, err := c.Marshal(v)
	if err != nil {
		return outgoing{}, nil, &Error{Op: "encode", Peer: s.peer, Link: link, Outcome: NotSent, Err: err}
	}
	if name == "" {
		name = jsonName
	}
	return outgoing{flags: frame.FlagObject, start: frame.Start{Link: link, Codec: name}}, value, nil
}

// decode decodes value, made by the named codec, into v. The error is an *Error with outcome Delivered: whoever made the
// value has run.
func (s *Session) decode(link, name string, value []byte, v any) error {
	failed := &Error{Op: "decode", Peer: s.peer, Link: link, Outcome: Delivered}
	c, err := s.cfg.Mux.codec(name)
	if err != nil {
		failed.Code, failed.Text = codes.Unsupported, fmt.Sprintf("no codec %q on this side: RegisterCodec it", name)
		return failed
	}
	if err := c.Unmarshal(value, v); err != nil {
		failed.Err = fmt.Errorf("%s object of %d bytes: %w", cmp.Or(name, jsonName), len(value), err)
		return failed
	}
	return nil
}
