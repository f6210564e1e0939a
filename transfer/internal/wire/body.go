package wire

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

const (
	magic     = 0xF5706C78
	magicLane = 0xF5706C79
	version   = 1
)

// Role is the role of a side.
type Role uint8

// The roles.
const (
	Sender   Role = 1
	Receiver Role = 2
)

// ID identifies a running transfer to its two sides.
type ID [16]byte

// Caps are the optional capabilities of a side (spec 3.1).
type Caps uint32

// The capabilities.
const (
	CapLeftOut Caps = 1 << 0 // it takes LEFT_OUT
	CapAnyRoot Caps = 1 << 1 // it answers WANT_ROOT of any file
)

// OurCaps are the capabilities of this version.
const OurCaps = CapLeftOut | CapAnyRoot

// Has reports whether c has all of what.
func (c Caps) Has(what Caps) bool { return c&what == what }

// Hello is the body of HELLO (spec 3.1).
type Hello struct {
	Role  Role
	Lanes int
	Caps  Caps
	ID    ID
}

// Append appends the body.
func (h Hello) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, version, byte(h.Role))
	b = binary.BigEndian.AppendUint16(b, uint16(h.Lanes))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Caps))
	return append(b, h.ID[:]...)
}

// ConsumeHello returns the Hello that a body of HELLO is.
func ConsumeHello(b []byte) (Hello, error) {
	h := Hello{Role: Role(b[5]), Lanes: int(binary.BigEndian.Uint16(b[6:])), Caps: Caps(binary.BigEndian.Uint32(b[8:]))}
	copy(h.ID[:], b[12:])
	switch {
	case binary.BigEndian.Uint32(b) != magic:
		return h, Breachf("the peer speaks something else")
	case b[4] != version:
		return h, Breachf("the peer speaks version %d of the transfer protocol, and this side 1: update the older one", b[4])
	case h.Role != Sender && h.Role != Receiver:
		return h, Breachf("role %d", h.Role)
	case h.Lanes < 1 || h.Lanes > MaxLanes:
		return h, Breachf("%d lanes", h.Lanes)
	}
	return h, nil
}

// MaxLanes is how many data lanes there are at most.
const MaxLanes = 16

// Get is the body of GET (spec 3.2).
type Get struct {
	Root  [32]byte
	Token []byte
}

// Append appends the body.
func (g Get) Append(b []byte) []byte { return append(append(b, g.Root[:]...), g.Token...) }

// ConsumeGet returns the Get that a body of GET is. Its Token is b's.
func ConsumeGet(b []byte) Get {
	return Get{Root: [32]byte(b), Token: b[hashSize:]}
}

// CutName shortens a transfer's name to the length that OFFER allows.
func CutName(name string) string { return cut(name, maxName) }

// cut shortens UTF-8 text to at most n bytes.
func cut(text string, n int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// Listed is the body of LISTED.
type Listed struct {
	Root    [32]byte
	Entries uint32
	Bytes   uint64
}

// Append appends the body.
func (l Listed) Append(b []byte) []byte {
	b = append(b, l.Root[:]...)
	b = binary.BigEndian.AppendUint32(b, l.Entries)
	return binary.BigEndian.AppendUint64(b, l.Bytes)
}

// ConsumeListed returns the Listed that a body is.
func ConsumeListed(b []byte) Listed {
	return Listed{[32]byte(b), binary.BigEndian.Uint32(b[32:]), binary.BigEndian.Uint64(b[36:])}
}

// LeftOut is the body of LEFT_OUT (spec 3.5).
type LeftOut struct {
	Count uint32
	Text  string // for a person
}

// Append appends the body, and of a long text the beginning.
func (l LeftOut) Append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, l.Count), cut(l.Text, maxText)...)
}

// ConsumeLeftOut returns the LeftOut that a body is.
func ConsumeLeftOut(b []byte) (LeftOut, error) {
	l := LeftOut{binary.BigEndian.Uint32(b), strings.ToValidUTF8(string(b[4:]), "\uFFFD")}
	if l.Count == 0 {
		return l, Breachf("LEFT_OUT of nothing")
	}
	return l, nil
}

// Want is an item of WANT (spec 5.1).
type Want struct {
	File, Files   uint32
	Piece, Pieces uint32
}

// AppendWants appends a body.
func AppendWants(b []byte, wants []Want) []byte {
	for _, w := range wants {
		b = binary.BigEndian.AppendUint32(b, w.File)
		b = binary.BigEndian.AppendUint32(b, w.Files)
		b = binary.BigEndian.AppendUint32(b, w.Piece)
		b = binary.BigEndian.AppendUint32(b, w.Pieces)
	}
	return b
}

// ConsumeWants appends the items of a body to dst.
func ConsumeWants(dst []Want, b []byte) ([]Want, error) {
	if len(b)%wantSize != 0 {
		return dst, Breachf("WANT of %d bytes", len(b))
	}
	for ; len(b) > 0; b = b[wantSize:] {
		w := Want{
			File: binary.BigEndian.Uint32(b), Files: binary.BigEndian.Uint32(b[4:]),
			Piece: binary.BigEndian.Uint32(b[8:]), Pieces: binary.BigEndian.Uint32(b[12:]),
		}
		if w.Files == 0 || w.Files > 1 && (w.Piece != 0 || w.Pieces != 0) {
			return dst, Breachf("WANT of %d files from %d, pieces %d from %d", w.Files, w.File, w.Pieces, w.Piece)
		}
		dst = append(dst, w)
	}
	return dst, nil
}

// Layer is the body of LAYER: CVs is a number of 32 bytes each.
type Layer struct {
	File, First uint32
	CVs         []byte
}

// Append appends the body.
func (l Layer) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, l.File)
	b = binary.BigEndian.AppendUint32(b, l.First)
	return append(b, l.CVs...)
}

// ConsumeLayer returns the Layer that a body is. Its CVs are b's.
func ConsumeLayer(b []byte) (Layer, error) {
	l := Layer{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), b[layerHead:]}
	if len(l.CVs)%hashSize != 0 {
		return l, Breachf("LAYER of %d bytes", len(b))
	}
	return l, nil
}

// AppendFile appends the body of WANT_LAYER and WANT_ROOT.
func AppendFile(b []byte, file uint32) []byte { return binary.BigEndian.AppendUint32(b, file) }

// ConsumeFile returns the file that a body of WANT_LAYER or WANT_ROOT, or the beginning of FAILED, is of.
func ConsumeFile(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// Root is the body of ROOT.
type Root struct {
	File uint32
	Root [32]byte
}

// Append appends the body.
func (r Root) Append(b []byte) []byte { return append(AppendFile(b, r.File), r.Root[:]...) }

// ConsumeRoot returns the Root that a body is.
func ConsumeRoot(b []byte) Root { return Root{ConsumeFile(b), [32]byte(b[fileSize:])} }

// Why is a code and a text (spec 2.4).
type Why struct{ Code, Text string }

// Append appends it, and of a long text the beginning.
func (w Why) Append(b []byte) []byte {
	b = append(b, byte(len(w.Code)))
	b = append(b, w.Code...)
	return append(b, cut(w.Text, maxText)...)
}

// ConsumeWhy returns the Why that b is.
func ConsumeWhy(b []byte) (Why, error) {
	n := int(b[0])
	if n == 0 || n > maxCode || 1+n > len(b) || len(b)-1-n > maxText {
		return Why{}, Breachf("a code of %d bytes in %d", n, len(b))
	}
	w := Why{string(b[1 : 1+n]), strings.ToValidUTF8(string(b[1+n:]), "\uFFFD")}
	for _, c := range w.Code {
		if (c < 'a' || c > 'z') && c != '_' {
			return Why{}, Breachf("code %q", w.Code)
		}
	}
	return w, nil
}

// AppendFailed appends the body of FAILED.
func AppendFailed(b []byte, file uint32, w Why) []byte { return w.Append(AppendFile(b, file)) }

// ConsumeFailed returns the contents of a body of FAILED.
func ConsumeFailed(b []byte) (uint32, Why, error) {
	w, err := ConsumeWhy(b[fileSize:])
	return ConsumeFile(b), w, err
}

// Ack is the body of ACK.
type Ack struct {
	Durable, Verified uint64
	Published         uint32
}

// Append appends the body.
func (a Ack) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, a.Durable)
	b = binary.BigEndian.AppendUint64(b, a.Verified)
	return binary.BigEndian.AppendUint32(b, a.Published)
}

// ConsumeAck returns the Ack that a body is.
func ConsumeAck(b []byte) Ack {
	return Ack{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])}
}

// Summary is the body of a receiver's COMPLETE.
type Summary struct {
	Bytes         uint64
	Files, Failed uint32
	Durable       bool
}

// Append appends the body.
func (s Summary) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, s.Bytes)
	b = binary.BigEndian.AppendUint32(b, s.Files)
	b = binary.BigEndian.AppendUint32(b, s.Failed)
	if s.Durable {
		return append(b, 1)
	}
	return append(b, 0)
}

// ConsumeSummary returns the Summary that a body is.
func ConsumeSummary(b []byte) (Summary, error) {
	if len(b) != summarySize || b[16] > 1 {
		return Summary{}, Breachf("COMPLETE of %d bytes", len(b))
	}
	return Summary{
		binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]), b[16] == 1,
	}, nil
}
