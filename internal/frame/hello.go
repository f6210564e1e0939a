package frame

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Version is the protocol version of this package (spec 3.1).
const Version = 1

// MaxHello caps the bytes of a hello behind its two length bytes.
const MaxHello = 4096

// A Kind is the first byte of a hello (spec 3.1).
type Kind uint8

// The kinds of hello.
const (
	KindHello  Kind = 1 // the dialing side opens
	KindAck    Kind = 2 // the accepting side agrees
	KindRefuse Kind = 3 // the accepting side refuses, with a Failure
)

// String returns the kind's name in the specification, or "KIND 0xNN".
func (k Kind) String() string {
	switch k {
	case KindHello:
		return "HELLO"
	case KindAck:
		return "ACK"
	case KindRefuse:
		return "REFUSE"
	}
	return fmt.Sprintf("KIND 0x%02x", uint8(k))
}

// A Role says what the carrier is for (spec 3.2).
type Role uint8

// The roles.
const (
	RoleSession Role = 1 // a new session
	RoleStream  Role = 2 // a dedicated stream of the session named by SessionID
	RoleResume  Role = 3 // a further carrier of the session named by SessionID (spec 7)
)

// Caps are capability bits; a session uses those that both sides offer (spec 3.3).
type Caps uint64

// The capabilities of version 1.
const (
	CapZstd     Caps = 1 << 0 // start frames may carry FlagCompressed
	CapBatchAck Caps = 1 << 1 // record streams: cumulative acks ride in batch headers
	CapResume   Caps = 1 << 2 // the session outlives its carrier (spec 7)

	CapResumeStreams Caps = 1 << 3 // and a dedicated stream may outlive its own (spec 5.11)
	CapEnds          Caps = 1 << 4 // ends are exchanged: of the session (spec 5.9) and of dedicated streams (spec 5.10)
	CapCredit        Caps = 1 << 5 // data of shared streams counts against a credit of the session too (spec 5.12)
)

// Limits are what the sender of a hello is ready to receive (spec 3.4). Zero means none of it.
type Limits struct {
	MaxMessage    uint32 // bytes of one request, response or message, decompressed
	MaxInFlight   uint32 // requests that have not been answered
	MessageWindow uint32 // bytes of one-way messages that have not been handled
	MaxStreams    uint32 // shared streams opened by the other side
	StreamWindow  uint32 // bytes of one shared stream that have not been read
}

// Resume is what one side of a session says of itself when the session is to go on over another carrier (spec 7.2).
type Resume struct {
	Received uint64 // the offset of the next byte it expects
	Attempt  uint32 // HELLO: counts the dialing side's attempts, from 1; ACK: that of the HELLO
	Live     bool   // the carrier before is alive on this side
}

// A Resumable says what a carrier is to a dedicated stream that outlives its carriers (spec 5.11).
type Resumable uint8

// What a carrier is to such a stream.
const (
	ResumableNew   Resumable = 1 // its first
	ResumableAgain Resumable = 2 // a further one
)

// Hello is the first thing each side says on a carrier (spec 3).
type Hello struct {
	Kind         Kind
	Version      uint8
	Role         Role      // HELLO
	Caps         Caps      // HELLO and ACK
	Limits       *Limits   // HELLO and ACK of a session
	SessionID    [16]byte  // ACK of a session; HELLO of a stream or of a resumption
	Name         string    // HELLO of a stream: its name
	Failure      *Failure  // REFUSE
	Agent        string    // optional: the software, for diagnostics
	ResumeWindow uint32    // HELLO and ACK of a session: milliseconds that it may be without a carrier; 0: it says nothing
	Resume       *Resume   // HELLO and ACK of a resumption
	Resumable    Resumable // HELLO of a stream that outlives its carriers
	Number       uint64    // HELLO of a stream whose end is exchanged: its number in the session; 0: it has none
	Noise        []byte    // key id and Noise message, when a pre-shared key is in force; always the last field
}

// The hello fields (spec 3.2). Odd ids are optional.
const (
	fieldRole         = 0x02
	fieldCaps         = 0x04
	fieldLimits       = 0x06
	fieldSessionID    = 0x08
	fieldName         = 0x0A
	fieldFailure      = 0x0C
	fieldAgent        = 0x0D
	fieldResumeWindow = 0x0F
	fieldResume       = 0x10
	fieldResumable    = 0x12
	fieldNumber       = 0x13
	fieldNoise        = 0xFE
)

// AppendHello appends h without its length bytes. The fields stand in ascending order, and Noise is the last, so that
// the bytes before it are what the Noise prologue covers.
func AppendHello(b []byte, h *Hello) []byte {
	b = append(b, byte(h.Kind), h.Version)
	if h.Role != 0 {
		b = appendField(b, fieldRole, []byte{byte(h.Role)})
	}
	if h.Caps != 0 {
		b = appendField(b, fieldCaps, binary.BigEndian.AppendUint64(nil, uint64(h.Caps)))
	}
	if h.Limits != nil {
		b = appendField(b, fieldLimits, appendLimits(nil, h.Limits))
	}
	if h.SessionID != ([16]byte{}) {
		b = appendField(b, fieldSessionID, h.SessionID[:])
	}
	if h.Name != "" {
		b = appendField(b, fieldName, []byte(h.Name))
	}
	if h.Failure != nil {
		b = appendField(b, fieldFailure, AppendFailure(nil, *h.Failure))
	}
	if h.Agent != "" {
		b = appendField(b, fieldAgent, []byte(h.Agent))
	}
	if h.ResumeWindow != 0 {
		b = appendField(b, fieldResumeWindow, binary.BigEndian.AppendUint32(nil, h.ResumeWindow))
	}
	if h.Resume != nil {
		b = appendField(b, fieldResume, appendResume(nil, h.Resume))
	}
	if h.Resumable != 0 {
		b = appendField(b, fieldResumable, []byte{byte(h.Resumable)})
	}
	if h.Number != 0 {
		b = appendField(b, fieldNumber, binary.BigEndian.AppendUint64(nil, h.Number))
	}
	if h.Noise != nil {
		b = appendField(b, fieldNoise, h.Noise)
	}
	return b
}

func appendResume(b []byte, r *Resume) []byte {
	b = binary.BigEndian.AppendUint64(b, r.Received)
	b = binary.BigEndian.AppendUint32(b, r.Attempt)
	if r.Live {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendField(b []byte, id byte, v []byte) []byte {
	b = append(b, id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
	return append(b, v...)
}

func appendLimits(b []byte, l *Limits) []byte {
	for _, v := range [...]uint32{l.MaxMessage, l.MaxInFlight, l.MessageWindow, l.MaxStreams, l.StreamWindow} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// ConsumeHello reads a whole hello body. covered is the part before the Noise field, which the Noise prologue covers.
// Fields out of order, repeated, or of a wrong size are ErrMalformed; an unknown field with an even id is ErrCritical.
func ConsumeHello(p []byte) (h *Hello, covered []byte, err error) {
	c := cursor{p: p}
	h = &Hello{Kind: Kind(c.uint8()), Version: c.uint8()}
	covered = p
	last := 0
	for c.err == nil && len(c.p) > 0 {
		before := len(p) - len(c.p)
		id := c.uint8()
		v := c.take(int(c.uint16()))
		if c.err != nil {
			break
		}
		if int(id) <= last || last == fieldNoise {
			return nil, nil, fmt.Errorf("hello field 0x%02x after 0x%02x: %w", id, last, ErrMalformed)
		}
		last = int(id)
		if id == fieldNoise {
			covered = p[:before]
		}
		if err := h.setField(id, v); err != nil {
			return nil, nil, err
		}
	}
	if c.err != nil {
		return nil, nil, fmt.Errorf("hello: %w", c.err)
	}
	return h, covered, h.check()
}

// setField takes the value of one field.
func (h *Hello) setField(id byte, v []byte) error {
	c := cursor{p: v}
	switch id {
	case fieldRole:
		h.Role = Role(c.uint8())
	case fieldCaps:
		h.Caps = Caps(c.uint64())
	case fieldLimits:
		h.Limits = &Limits{c.uint32(), c.uint32(), c.uint32(), c.uint32(), c.uint32()}
	case fieldSessionID:
		copy(h.SessionID[:], c.take(len(h.SessionID)))
	case fieldName:
		h.Name = string(c.take(min(len(v), MaxName)))
	case fieldFailure:
		f, err := ConsumeFailure(v)
		h.Failure, c.p = &f, nil
		c.err = err
	case fieldAgent:
		h.Agent = string(c.take(min(len(v), MaxName)))
	case fieldResumeWindow:
		h.ResumeWindow = c.uint32()
	case fieldResume:
		h.Resume = &Resume{Received: c.uint64(), Attempt: c.uint32()}
		switch c.uint8() {
		case 0:
		case 1:
			h.Resume.Live = true
		default:
			return fmt.Errorf("hello field 0x%02x: %w", id, ErrMalformed)
		}
	case fieldResumable:
		if h.Resumable = Resumable(c.uint8()); h.Resumable < ResumableNew || h.Resumable > ResumableAgain {
			return fmt.Errorf("hello field 0x%02x: %w", id, ErrMalformed)
		}
	case fieldNumber:
		h.Number = c.uint64()
	case fieldNoise:
		h.Noise = c.take(len(v))
	default:
		if id%2 == 0 {
			return fmt.Errorf("hello field 0x%02x: %w", id, ErrCritical)
		}
		return nil
	}
	if c.err != nil || len(c.p) > 0 || len(v) == 0 {
		return fmt.Errorf("hello field 0x%02x of %d bytes: %w", id, len(v), ErrMalformed)
	}
	return nil
}

// check reports what a hello of its kind must and must not have.
func (h *Hello) check() error {
	ok := true
	switch h.Kind {
	case KindHello:
		switch h.Role {
		case RoleSession:
			ok = h.Limits != nil && h.SessionID == [16]byte{} && h.Name == ""
		case RoleStream:
			ok = h.Limits == nil && h.SessionID != [16]byte{} && h.Name != "" && h.ResumeWindow == 0
		case RoleResume:
			ok = h.Limits == nil && h.SessionID != [16]byte{} && h.Name == "" && h.ResumeWindow == 0 && h.Resume != nil
		}
		ok = ok && h.Role != 0 && h.Failure == nil && (h.Role == RoleResume || h.Resume == nil) &&
			(h.Role == RoleStream || h.Resumable == 0 && h.Number == 0)
	case KindAck:
		ok = h.Role == 0 && h.Name == "" && h.Failure == nil && (h.Limits != nil) == (h.SessionID != [16]byte{}) &&
			(h.Limits != nil || h.ResumeWindow == 0) && (h.Limits == nil || h.Resume == nil) && h.Resumable == 0 && h.Number == 0
	case KindRefuse:
		ok = h.Failure != nil && h.Role == 0 && h.Caps == 0 && h.Limits == nil && h.SessionID == [16]byte{} &&
			h.Name == "" && h.Noise == nil && h.ResumeWindow == 0 && h.Resume == nil && h.Resumable == 0 &&
			h.Number == 0
	default:
		return fmt.Errorf("hello of kind %v: %w", h.Kind, ErrMalformed)
	}
	if !ok {
		return fmt.Errorf("hello of kind %v with fields that do not fit: %w", h.Kind, ErrMalformed)
	}
	return nil
}

// WriteHello writes the length and body of a hello in one Write. body is what AppendHello made.
func WriteHello(w io.Writer, body []byte) error {
	if len(body) > MaxHello {
		return fmt.Errorf("hello of %d bytes: %w", len(body), ErrTooLong)
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(body)), uint16(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

// ReadHello reads one hello body, and not a byte more than it. The length is checked against MaxHello before a byte is
// reserved; an end of input in the middle is io.ErrUnexpectedEOF.
func ReadHello(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > MaxHello {
		return nil, fmt.Errorf("hello of %d bytes: %w", n, ErrTooLong)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return body, nil
}
