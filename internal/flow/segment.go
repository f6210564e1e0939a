package flow

import (
	"encoding/binary"
	"fmt"
)

// kind is the first byte of a segment (spec 4.1).
type kind uint8

const (
	kindStart kind = 0x01 // number: the offset of the first byte that follows on this carrier
	kindData  kind = 0x02 // number: how many bytes of the other direction have been taken
	kindAsk   kind = 0x03 // kindData, and the other side is to answer with its number soon
	kindEnd   kind = 0x04 // number: the offset at which the direction goes on, on the next carrier
	kindFin   kind = 0x05 // number as kindData; the direction ends here, and this counts as one byte
	kindStop  kind = 0x06 // number as kindData; the sender takes no more bytes
)

// String returns the kind's name in the specification, or "SEGMENT 0xNN".
func (k kind) String() string {
	switch k {
	case kindStart:
		return "START"
	case kindData:
		return "DATA"
	case kindAsk:
		return "ASK"
	case kindEnd:
		return "END"
	case kindFin:
		return "FIN"
	case kindStop:
		return "STOP"
	}
	return fmt.Sprintf("SEGMENT 0x%02x", uint8(k))
}

const (
	headerSize = 12        // kind 1, length 3, number 8 (spec 4.1)
	maxLength  = 1<<24 - 1 // bytes of one segment
)

// header is what a segment begins with.
type header struct {
	kind   kind
	length int
	number uint64
}

// put writes h to the first headerSize bytes of b.
func (h header) put(b []byte) {
	_ = b[headerSize-1]
	binary.BigEndian.PutUint32(b, uint32(h.kind)<<24|uint32(h.length))
	binary.BigEndian.PutUint64(b[4:], h.number)
}

// append appends h to b.
func (h header) append(b []byte) []byte {
	b = append(b, make([]byte, headerSize)...)
	h.put(b[len(b)-headerSize:])
	return b
}

// takes returns how many offsets the segment covers (spec 5.1).
func (h header) takes() uint64 {
	if h.kind == kindFin {
		return 1
	}
	return uint64(h.length)
}

// headerOf returns the header that b begins with, which has at least headerSize bytes. It does not check it.
func headerOf(b []byte) header {
	v := binary.BigEndian.Uint32(b)
	return header{kind: kind(v >> 24), length: int(v & maxLength), number: binary.BigEndian.Uint64(b[4:])}
}

// check reports a header that no peer may send (spec 4.4).
func (h header) check() error {
	switch h.kind {
	case kindData, kindAsk:
		return nil
	case kindStart, kindEnd, kindFin, kindStop:
		if h.length == 0 {
			return nil
		}
	}
	return fmt.Errorf("%v of %d bytes: %w", h.kind, h.length, ErrProtocol)
}
