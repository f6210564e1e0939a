// Package protobuf encodes the values of typed calls as protocol buffers.
//
//	answer, err := peerlane.Call[*structpb.Struct](ctx, client, pid, "/orders/1.0.0", protobuf.Codec{}, order)
//
// The values are pointers to generated messages. Fields that the receiver's message lacks are kept with it, and encoded again, as protocol
// buffers do everywhere, unless DiscardUnknown is set. Fields that the value lacks keep their defaults; a required one that is missing is an
// error. A nil pointer is encoded as an empty message, and is an empty message at the receiver. What is encoded is deterministic for one
// version of the library.
package protobuf

import (
	"cmp"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// Codec is a session.Codec. Its fields are limits for values that are decoded, and MaxBytes for those that are encoded too. They bound the
// memory and time that a peer can cost. A negative limit is an error of each call. The zero Codec is useful.
type Codec struct {
	// MaxBytes limits the bytes of a value. If zero, 4 MiB.
	MaxBytes int
	// MaxDepth limits how deep messages are nested. If zero, 100.
	MaxDepth int
	// MaxElements limits the messages within a value, at all depths together, and the entries of its maps: the shortest takes two bytes, and
	// hundreds once it is decoded. If zero, 2^18.
	MaxElements int
	// DiscardUnknown drops fields that the receiver's message lacks.
	DiscardUnknown bool
}

// Name returns "protobuf".
func (Codec) Name() string { return "protobuf" }

// Marshal encodes v, a proto.Message. It fails for any other value, for a message that lacks a required field, and for one over MaxBytes.
func (c Codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("protobuf: %T is no proto.Message", v)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	return data, c.checkSize(len(data))
}

// Unmarshal decodes data into v: a proto.Message, or a pointer to one that is nil. It fails for any other v, for anything but a message of
// that type, and for a value over a limit.
func (c Codec) Unmarshal(data []byte, v any) error {
	if err := c.checkSize(len(data)); err != nil {
		return err
	}
	m, err := messageOf(v)
	if err != nil {
		return err
	}
	if c.MaxDepth < 0 || c.MaxElements < 0 {
		return fmt.Errorf("protobuf: codec: MaxDepth is %d and MaxElements is %d, want more than 0", c.MaxDepth, c.MaxElements)
	}
	depth := cmp.Or(c.MaxDepth, 100)
	e := elements{most: cmp.Or(c.MaxElements, 1<<18)}
	if e.count(data, m.ProtoReflect().Descriptor(), 0, depth); e.n > e.most {
		return fmt.Errorf("protobuf: more than %d messages in one", e.most)
	}
	return proto.UnmarshalOptions{RecursionLimit: depth, DiscardUnknown: c.DiscardUnknown}.Unmarshal(data, m)
}

// messageOf returns the message that v is or points to, which it makes if need be.
func messageOf(v any) (proto.Message, error) {
	if m, ok := v.(proto.Message); ok {
		if reflect.ValueOf(m).IsNil() {
			return nil, fmt.Errorf("protobuf: nil %T", v)
		}
		return m, nil
	}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() || p.Type().Elem().Kind() != reflect.Pointer {
		return nil, fmt.Errorf("protobuf: %T is no proto.Message, nor a pointer to one", v)
	}
	at := p.Elem()
	if at.IsNil() {
		at.Set(reflect.New(at.Type().Elem()))
	}
	m, ok := at.Interface().(proto.Message)
	if !ok {
		return nil, fmt.Errorf("protobuf: %T is no pointer to a proto.Message", v)
	}
	return m, nil
}

func (c Codec) checkSize(n int) error {
	most := c.MaxBytes
	switch {
	case most == 0:
		most = 4 << 20
	case most < 0:
		return fmt.Errorf("protobuf: codec: MaxBytes is %d, want more than 0", most)
	}
	if n > most {
		return fmt.Errorf("protobuf: %d bytes, at most %d", n, most)
	}
	return nil
}
