package session

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/peerlane/peerlane/frame"
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

type jsonCodec struct{}

func (jsonCodec) Name() string                       { return "json" }
func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// RegisterCodec makes c known, for sending and for what arrives. It returns an error for a name that is empty, longer
// than 255 bytes, or taken.
func (x *Mux) RegisterCodec(c Codec) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	name := c.Name()
	if name == "" || len(name) > frame.MaxName {
		return fmt.Errorf("session: codec name of %d bytes, want 1 to %d", len(name), frame.MaxName)
	}
	if _, taken := x.codecs[name]; taken {
		return fmt.Errorf("session: codec %q is already registered", name)
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
	return nil, &Error{Op: "codec", Link: name, Code: frame.CodeUnsupported, Outcome: NotSent,
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

// SendWaitObj sends v to link as SendObj does, waits for the reply and, unless reply is nil, takes it apart into reply.
// It is SendWait otherwise.
func (s *Session) SendWaitObj(ctx context.Context, link, name string, v, reply any) error {
	head, value, err := s.object(link, name, v)
	if err != nil {
		return err
	}
	a, err := s.call(ctx, "send", head, value)
	if err != nil || reply == nil {
		return err
	}
	return s.decode(a.codec, a.value, reply)
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
	return outgoing{flags: frame.FlagObject, start: frame.Start{Link: link, Codec: c.Name()}}, value, nil
}

// decode takes value, made by the named codec, apart into v.
func (s *Session) decode(name string, value []byte, v any) error {
	c, err := s.cfg.Mux.codec(name)
	if err != nil {
		return err
	}
	if err := c.Unmarshal(value, v); err != nil {
		return fmt.Errorf("decode %s object of %d bytes: %w", c.Name(), len(value), err)
	}
	return nil
}
