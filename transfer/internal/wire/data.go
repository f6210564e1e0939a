package wire

import (
	"encoding/binary"
	"fmt"
)

// LaneHelloSize is how many bytes a data lane begins with (spec 4.1).
const LaneHelloSize = 24

// AppendLaneHello appends what a data lane of the transfer id begins with.
func AppendLaneHello(b []byte, id ID) []byte {
	b = binary.BigEndian.AppendUint32(b, magicLane)
	b = append(b, version, 0, 0, 0)
	return append(b, id[:]...)
}

// ConsumeLaneHello returns the id that the first LaneHelloSize bytes of a data lane say.
func ConsumeLaneHello(b []byte) (ID, error) {
	if binary.BigEndian.Uint32(b) != magicLane || b[4] != version || b[5]|b[6]|b[7] != 0 {
		return ID{}, Breachf("no data lane begins so")
	}
	return ID(b[8:LaneHelloSize]), nil
}

// DataKind says what a frame of a data lane is (spec 4.2).
type DataKind uint8

// The kinds.
const (
	Data  DataKind = 0x01
	Zeros DataKind = 0x02
	Pack  DataKind = 0x03
)

// String returns the name that the spec has.
func (k DataKind) String() string {
	switch k {
	case Data:
		return "DATA"
	case Zeros:
		return "ZEROS"
	case Pack:
		return "PACK"
	}
	return fmt.Sprintf("data frame 0x%02x", uint8(k))
}

// Sizes of data frames.
const (
	DataHeaderSize = 20 // kind 1, flags 1, zero 2, file 4, piece 4, count 4, length 4
	HashSize       = hashSize
	MaxPack        = 1 << 20
	PackedHead     = 8 // of a file in a PACK: file 4, length 4

	flagHash = 0x01
)

// DataHeader is what a frame of a data lane begins with.
type DataHeader struct {
	Kind   DataKind
	Hashed bool
	File   uint32
	Piece  uint32
	Count  uint32
	Length uint32 // of what comes after the hash
}

// Put writes the header to the first DataHeaderSize bytes of b.
func (h DataHeader) Put(b []byte) {
	b[0], b[1], b[2], b[3] = byte(h.Kind), 0, 0, 0
	if h.Hashed {
		b[1] = flagHash
	}
	binary.BigEndian.PutUint32(b[4:], h.File)
	binary.BigEndian.PutUint32(b[8:], h.Piece)
	binary.BigEndian.PutUint32(b[12:], h.Count)
	binary.BigEndian.PutUint32(b[16:], h.Length)
}

// ConsumeDataHeader returns the header that b, of DataHeaderSize bytes, is. Whether the piece is one, and how long it is, is for
// who knows the file; what is beside that is checked.
func ConsumeDataHeader(b []byte) (DataHeader, error) {
	h := DataHeader{
		Kind: DataKind(b[0]), Hashed: b[1]&flagHash != 0, File: binary.BigEndian.Uint32(b[4:]), Piece: binary.BigEndian.Uint32(b[8:]),
		Count: binary.BigEndian.Uint32(b[12:]), Length: binary.BigEndian.Uint32(b[16:]),
	}
	ok := b[1]&^flagHash == 0 && b[2]|b[3] == 0 && h.Count > 0
	switch h.Kind {
	case Data:
		ok = ok && h.Count == 1 && h.Length > 0
	case Zeros:
		ok = ok && h.Length == 0 && !h.Hashed
	case Pack:
		ok = ok && h.Piece == 0 && h.Length > 0 && h.Length <= MaxPack
	default:
		ok = false
	}
	if !ok {
		return h, Breachf("%v of file %d, piece %d, %d of them, %d bytes", h.Kind, h.File, h.Piece, h.Count, h.Length)
	}
	return h, nil
}

// Packed is one file of a PACK (spec 4.4).
type Packed struct {
	File uint32
	Hash []byte // 32 bytes, or nil
	Data []byte
}

// PutPackedHead writes what is before the hash and the bytes of a file in a PACK.
func PutPackedHead(b []byte, file uint32, length int) {
	binary.BigEndian.PutUint32(b, file)
	binary.BigEndian.PutUint32(b[4:], uint32(length))
}

// ConsumePacked returns the first file of the rest of a PACK's body, and what comes after it. What it returns is b's.
func ConsumePacked(b []byte, hashed bool) (p Packed, rest []byte, err error) {
	head := PackedHead
	if hashed {
		head += hashSize
	}
	if len(b) < head {
		return p, nil, Breachf("PACK that is cut off")
	}
	n := int64(binary.BigEndian.Uint32(b[4:]))
	if n > int64(len(b)-head) {
		return p, nil, Breachf("PACK with a file of %d bytes in %d", n, len(b)-head)
	}
	p = Packed{File: binary.BigEndian.Uint32(b), Data: b[head : head+int(n)]}
	if hashed {
		p.Hash = b[PackedHead:head]
	}
	return p, b[head+int(n):], nil
}
