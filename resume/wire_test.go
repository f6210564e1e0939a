package resume

import "encoding/binary"

// kind is that of a segment (spec 4.1).
type kind uint8

const (
	kindStart kind = 1 + iota
	kindData
	kindAsk
	kindEnd
	kindFin
	kindStop
)

const (
	headerSize = 12
	maxLength  = 1<<24 - 1
)

// header is that of a segment, by hand.
type header struct {
	kind   kind
	length int
	number uint64
}

// append appends h to b.
func (h header) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(h.kind)<<24|uint32(h.length))
	return binary.BigEndian.AppendUint64(b, h.number)
}

// headerOf returns the header that b begins with.
func headerOf(b []byte) header {
	v := binary.BigEndian.Uint32(b)
	return header{kind: kind(v >> 24), length: int(v & maxLength), number: binary.BigEndian.Uint64(b[4:])}
}
