package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of a frame (spec 4.1).
const (
	HeaderSize = 13       // 3 length + 1 type + 1 flags + 8 id
	MaxPayload = 65 << 10 // most payload bytes of one frame: 64 KiB of a body and its head
)

// Errors of decoding. They wrap into an error of the session: ErrCritical with codes.Unsupported, the others with codes.Protocol.
var (
	ErrMalformed = errors.New("malformed")                   // the bytes break the format
	ErrTooLong   = errors.New("longer than the cap")         // a length is over its cap
	ErrCritical  = errors.New("critical and not understood") // an unknown critical frame type, flag or hello field
)

// A Type is the kind of a frame (spec 4.2). Types with the high bit set are optional.
type Type uint8

// The frame types of version 1.
const (
	TypeRequest       Type = 0x01 // first part of a request: start body (spec 5.1)
	TypeResponse      Type = 0x02 // first part of a response: start body
	TypeMessage       Type = 0x03 // first part of a one-way message: start body
	TypeContinue      Type = 0x04 // a further part of the request, response or message with this id
	TypeError         Type = 0x05 // a request's or message's failure: error body (spec 5.4)
	TypeCancel        Type = 0x06 // the caller gave up on the request with this id; no body
	TypeMessageAck    Type = 0x07 // every one-way message up to this id has been handled; no body
	TypeStreamOpen    Type = 0x10 // opens a shared stream: its name is the body
	TypeStreamAccept  Type = 0x11 // the stream is served; no body
	TypeStreamData    Type = 0x12 // bytes of a stream
	TypeStreamCredit  Type = 0x13 // u32: this many more bytes may be sent
	TypeStreamReset   Type = 0x14 // ends both directions: error body
	TypeStreamStop    Type = 0x15 // the reader has closed its side: error body
	TypeStreamTaken   Type = 0x16 // u64: the reader of a dedicated stream has taken this many bytes
	TypeStreamEnd     Type = 0x17 // u64: the writer of a dedicated stream has ended after this many bytes
	TypeSessionCredit Type = 0x18 // u32: this many more bytes may be sent on all streams together
	TypeSessionReturn Type = 0x19 // u32: this many bytes of that credit will not be used
	TypeSessionAsk    Type = 0x1A // give back what is not needed; no body
	TypePing          Type = 0x20 // answer with PONG of the same id; no body
	TypePong          Type = 0x21 // answers PING; no body
	TypeGoAway        Type = 0x22 // no new work: id is the last one that will be served, error body
	TypeEnd           Type = 0x23 // the sender's last frame but PONG: error body

	// TypeOptional is the bit of types that a reader skips when it does not know them.
	TypeOptional Type = 0x80
)

var typeNames = [256]string{
	TypeRequest: "REQUEST", TypeResponse: "RESPONSE", TypeMessage: "MESSAGE", TypeContinue: "CONTINUE",
	TypeError: "ERROR", TypeCancel: "CANCEL", TypeMessageAck: "MESSAGE_ACK",
	TypeStreamOpen: "STREAM_OPEN", TypeStreamAccept: "STREAM_ACCEPT", TypeStreamData: "STREAM_DATA",
	TypeStreamCredit: "STREAM_CREDIT", TypeStreamReset: "STREAM_RESET", TypeStreamStop: "STREAM_STOP",
	TypeStreamTaken: "STREAM_TAKEN", TypeStreamEnd: "STREAM_END",
	TypeSessionCredit: "SESSION_CREDIT", TypeSessionReturn: "SESSION_RETURN", TypeSessionAsk: "SESSION_ASK",
	TypePing: "PING", TypePong: "PONG", TypeGoAway: "GOAWAY", TypeEnd: "END",
}

// String returns the type's name in the specification, or "TYPE 0xNN".
func (t Type) String() string {
	if name := typeNames[t]; name != "" {
		return name
	}
	return fmt.Sprintf("TYPE 0x%02x", uint8(t))
}

// Known reports whether version 1 defines the type.
func (t Type) Known() bool { return typeNames[t] != "" }

// Optional reports whether a reader that does not know the type skips it.
func (t Type) Optional() bool { return t&TypeOptional != 0 }

// Flags qualify a frame (spec 4.3). A flag that the type does not define is an error.
type Flags uint8

// The flags of version 1.
const (
	FlagCompressed Flags = 0x01 // start frames: the body is one zstd frame
	FlagObject     Flags = 0x02 // start frames: the body was made by the named codec
	FlagFin        Flags = 0x01 // STREAM_DATA: the last bytes of this direction; STREAM_TAKEN: nothing more will be taken
)

// allowed returns the flags that type t defines; an optional type may use any.
func (t Type) allowed() Flags {
	switch t {
	case TypeRequest, TypeResponse, TypeMessage:
		return FlagCompressed | FlagObject
	case TypeStreamData, TypeStreamTaken:
		return FlagFin
	}
	if t.Optional() {
		return 0xff
	}
	return 0
}

// bodyless reports whether frames of type t have no payload.
func (t Type) bodyless() bool {
	switch t {
	case TypeCancel, TypeMessageAck, TypeStreamAccept, TypeSessionAsk, TypePing, TypePong:
		return true
	}
	return false
}

// A Header stands before every frame's payload (spec 4.1).
type Header struct {
	Length int    // payload bytes, 0..MaxPayload
	Type   Type   // kind of the frame
	Flags  Flags  // depends on Type
	ID     uint64 // request, message, stream or ping; meaning depends on Type
}

// AppendHeader appends h to b. It panics on a length out of range, which is a bug of the caller.
func AppendHeader(b []byte, h Header) []byte {
	if h.Length < 0 || h.Length > MaxPayload {
		panic(fmt.Sprintf("frame: BUG: payload of %d bytes", h.Length))
	}
	b = append(b, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length), byte(h.Type), byte(h.Flags))
	return binary.BigEndian.AppendUint64(b, h.ID)
}

// ConsumeHeader reads a header from the front of b and returns it with its size. n is 0 when b is too short.
// The error matches ErrTooLong when the length is over MaxPayload, ErrCritical when the type or a flag is not known and
// not optional, and ErrMalformed when a type without a body has one.
func ConsumeHeader(b []byte) (h Header, n int, err error) {
	if len(b) < HeaderSize {
		return Header{}, 0, nil
	}
	h = Header{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Type:   Type(b[3]),
		Flags:  Flags(b[4]),
		ID:     binary.BigEndian.Uint64(b[5:]),
	}
	if h.Length > MaxPayload {
		return h, HeaderSize, fmt.Errorf("frame %v of %d bytes: %w", h.Type, h.Length, ErrTooLong)
	}
	if !h.Type.Known() && !h.Type.Optional() {
		return h, HeaderSize, fmt.Errorf("frame %v: %w", h.Type, ErrCritical)
	}
	if h.Flags&^h.Type.allowed() != 0 {
		return h, HeaderSize, fmt.Errorf("frame %v with flags 0x%02x: %w", h.Type, uint8(h.Flags), ErrCritical)
	}
	if h.Length > 0 && h.Type.bodyless() {
		return h, HeaderSize, fmt.Errorf("frame %v of %d bytes: %w", h.Type, h.Length, ErrMalformed)
	}
	return h, HeaderSize, nil
}
