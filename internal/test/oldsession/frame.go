package oldsession

import (
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"
)

// The types of PROTOCOL.md, 4.2, and the flags of 4.3.
const (
	typeRequest  = 0x01
	typeResponse = 0x02
	typeMessage  = 0x03
	typeContinue = 0x04
	typeError    = 0x05
	typeCancel   = 0x06
	typeAck      = 0x07
	typeOpen     = 0x10
	typeAccept   = 0x11
	typeData     = 0x12
	typeCredit   = 0x13
	typeReset    = 0x14
	typeStop     = 0x15
	typePing     = 0x20
	typePong     = 0x21
	typeGoAway   = 0x22

	flagCompressed = 0x01
	flagObject     = 0x02
	flagFin        = 0x01
)

// types says of each type its flags, and the bounds of its payload.
var types = map[byte]struct {
	flags       byte
	least, most int
}{
	typeRequest:  {flagCompressed | flagObject, 9, maxPayload},
	typeResponse: {flagCompressed | flagObject, 4, maxPayload},
	typeMessage:  {flagCompressed | flagObject, 5, maxPayload},
	typeContinue: {0, 1, maxPayload},
	typeError:    {0, 8, 1032},
	typeCancel:   {0, 0, 0},
	typeAck:      {0, 0, 0},
	typeOpen:     {0, 1, 255},
	typeAccept:   {0, 0, 0},
	typeData:     {flagFin, 0, maxPayload},
	typeCredit:   {0, 4, 4},
	typeReset:    {0, 8, 1032},
	typeStop:     {0, 8, 1032},
	typePing:     {0, 0, 0},
	typePong:     {0, 0, 0},
	typeGoAway:   {0, 8, 1032},
}

const (
	frameHeader = 13
	maxPayload  = 66560
	part        = 16 << 10 // bytes of a body or stream that this side puts into a frame
)

type frame struct {
	typ, flags byte
	id         uint64
	payload    []byte
}

func (f frame) append(b []byte) []byte {
	n := len(f.payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), f.typ, f.flags)
	return append(binary.BigEndian.AppendUint64(b, f.id), f.payload...)
}

// readFrame reads a frame of a known type. The error is that of r, or a *Failure.
func readFrame(r io.Reader) (frame, error) {
	for {
		var h [frameHeader]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return frame{}, err
		}
		n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		f := frame{typ: h[3], flags: h[4], id: binary.BigEndian.Uint64(h[5:])}
		known, ok := types[f.typ]
		switch {
		case n > maxPayload:
			return f, breach("frame %#x of %d bytes", f.typ, n)
		case !ok && f.typ < 0x80, ok && f.flags&^known.flags != 0:
			return f, &Failure{Code: CodeUnsupported, Text: "critical frame"}
		case ok && (n < known.least || n > known.most):
			return f, breach("frame %#x of %d bytes", f.typ, n)
		}
		f.payload = make([]byte, n)
		if _, err := io.ReadFull(r, f.payload); err != nil {
			return frame{}, err
		}
		if ok {
			return f, nil
		}
	}
}

// start is the head of a body (PROTOCOL.md, 5.1).
type start struct {
	total, raw, timeout uint32
	link, codec         string
}

func (s *start) append(typ, flags byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, s.total)
	if flags&flagCompressed != 0 {
		b = binary.BigEndian.AppendUint32(b, s.raw)
	}
	if typ == typeRequest {
		b = binary.BigEndian.AppendUint32(b, s.timeout)
	}
	if typ != typeResponse {
		b = append(append(b, byte(len(s.link))), s.link...)
	}
	if flags&flagObject != 0 {
		b = append(append(b, byte(len(s.codec))), s.codec...)
	}
	return b
}

// A body is what gathers the parts of one.
type body struct {
	start
	typ, flags byte
	got        []byte
}

// parseStart takes the first frame of a body.
func parseStart(f frame) (*body, []byte, error) {
	b, p, short := &body{typ: f.typ, flags: f.flags}, f.payload, false
	number := func(v *uint32) {
		if short = short || len(p) < 4; !short {
			*v, p = binary.BigEndian.Uint32(p), p[4:]
		}
	}
	name := func(v *string) {
		if short = short || len(p) < 1 || len(p)-1 < int(p[0]); !short {
			*v, p = string(p[1:1+p[0]]), p[1+p[0]:]
		}
	}
	number(&b.total)
	if b.raw = b.total; f.flags&flagCompressed != 0 {
		number(&b.raw)
	}
	if f.typ == typeRequest {
		number(&b.timeout)
	}
	if f.typ != typeResponse {
		name(&b.link)
	}
	if f.flags&flagObject != 0 {
		name(&b.codec)
	}
	if short || b.total > 1<<30 || b.raw > 1<<30 {
		return nil, nil, breach("start of %d bytes in frame %#x", len(f.payload), f.typ)
	}
	return b, p, nil
}

// add takes a part.
func (b *body) add(p []byte) error {
	if b.got = append(b.got, p...); len(b.got) > int(b.total) {
		return breach("body of %d bytes goes past its %d", len(b.got), b.total)
	}
	return nil
}

func (b *body) whole() bool { return len(b.got) == int(b.total) }

// value returns the body, decompressed.
func (b *body) value() ([]byte, error) {
	if b.flags&flagCompressed == 0 {
		return append([]byte{}, b.got...), nil
	}
	return decompress(b.got, int(b.raw))
}

// The coders are made outside any bubble of synctest, down to their last channel.
var (
	encoder, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	decoder, _ = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(1<<30), zstd.WithDecoderConcurrency(0))
	_          = encoder.EncodeAll([]byte{0}, nil)
)

// compress returns b as a zstd frame if that is smaller.
func compress(b []byte) ([]byte, bool) {
	small := encoder.EncodeAll(b, nil)
	return small, len(small) < len(b)
}

func decompress(b []byte, raw int) ([]byte, error) {
	out, err := decoder.DecodeAll(b, make([]byte, 0, raw))
	if err != nil || len(out) != raw {
		return nil, breach("zstd frame of %d bytes, %d declared: %v", len(out), raw, err)
	}
	return out, nil
}

func (f *Failure) append() []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, f.Code), 0, 0, 0, 0), f.Text...)
}

func parseFailure(b []byte) (*Failure, error) {
	if len(b) < 8 || len(b) > 8+1024 {
		return nil, breach("failure of %d bytes", len(b))
	}
	return &Failure{Code: binary.BigEndian.Uint32(b), Text: string(b[8:]), Remote: true}, nil
}
