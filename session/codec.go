package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// A Codec turns values into bytes and back, for SendObj and Message.Object. Its name travels with what it made. It must
// be safe for concurrent use.
type Codec interface {
	Name() string
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// JSON is the codec that every Mux has.
var JSON Codec = jsonCodec{}

const jsonName = "json"

type jsonCodec struct{}

func (jsonCodec) Name() string                       { return jsonName }
func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// RegisterCodec makes c known, for sending and for what arrives. It returns an error for a nil codec, and for a name that
// is empty, longer than 255 bytes, or taken.
func (x *Mux) RegisterCodec(c Codec) error {
	if c == nil {
		return errors.New("session: codec is nil")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	name := c.Name()
	if name == "" || len(name) > frame.MaxName {
		return fmt.Errorf("session: codec name of %d bytes, want 1 to %d", len(name), frame.MaxName)
	}
	if _, taken := x.codecs[name]; taken || name == jsonName && x.parent == nil {
		return fmt.Errorf("session: codec %q is already registered", name)
	}
	if x.codecs == nil {
		x.codecs = make(map[string]Codec)
	}
	x.codecs[name] = c
	return nil
}

// codec returns the codec called name, JSON for "", or an error that matches ErrUnsupported.
func (x *Mux) codec(name string) (Codec, error) {
	if name == "" {
		return JSON, nil
	}
	for ; x != nil; x = x.parent {
		x.mu.RLock()
		c := x.codecs[name]
		x.mu.RUnlock()
		if c != nil {
			return c, nil
		}
	}
	if name == jsonName {
		return JSON, nil
	}
	return nil, &Error{Op: "codec", Link: name, Code: codes.Unsupported, Outcome: NotSent,
		Text: "no such codec on this side: RegisterCodec it"}
}

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
