package bulk

import (
	"encoding/binary"
	"fmt"
	"io"
)

// helloKind says what a strand begins with (spec 2.1).
type helloKind uint8

const (
	helloOpen   helloKind = 0x21
	helloAccept helloKind = 0x22
	helloRefuse helloKind = 0x23
)

const (
	helloVersion = 1
	helloSize    = 28   // magic 4, version 1, kind 1, caps 1, strand 1, id 16, count 2, code 2
	capZstd      = 0x01 // spec 2.1
	maxStrands   = 16
)

var helloMagic = [4]byte{0xF5, 'p', 'l', 'b'}

// A refusal says why a lane is not taken (spec 2.1).
type refusal uint16

const (
	refuseProtocol    refusal = 1
	refuseVersion     refusal = 2
	refuseNotAccepted refusal = 3
	refuseBusy        refusal = 4
)

type laneID [16]byte

// String returns the hello's name.
func (k helloKind) String() string {
	switch k {
	case helloOpen:
		return "OPEN"
	case helloAccept:
		return "ACCEPT"
	case helloRefuse:
		return "REFUSE"
	}
	return fmt.Sprintf("hello 0x%02x", uint8(k))
}

// hello is the OPEN, ACCEPT or REFUSE of a strand.
type hello struct {
	kind   helloKind
	zstd   bool
	strand int
	id     laneID
	count  int
	code   refusal
}

func (h hello) append(b []byte) []byte {
	caps := byte(0)
	if h.zstd {
		caps = capZstd
	}
	b = append(b, helloMagic[:]...)
	b = append(b, helloVersion, byte(h.kind), caps, byte(h.strand))
	b = append(b, h.id[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(h.count))
	return binary.BigEndian.AppendUint16(b, uint16(h.code))
}

// parseHello takes a hello of helloSize bytes.
func parseHello(b []byte) (hello, error) {
	switch {
	case [4]byte(b) != helloMagic:
		return hello{}, fmt.Errorf("%w: this is no bulk lane: it begins with %q", errProtocol, b[:8])
	case b[4] != helloVersion:
		return hello{}, fmt.Errorf("%w: the other side speaks version %d of bulk lanes, this one %d", errVersion, b[4], helloVersion)
	}
	h := hello{
		kind: helloKind(b[5]), zstd: b[6]&capZstd != 0, strand: int(b[7]), id: laneID(b[8:]),
		count: int(binary.BigEndian.Uint16(b[24:])), code: refusal(binary.BigEndian.Uint16(b[26:])),
	}
	ok := false
	switch h.kind {
	case helloOpen:
		ok = h.code == 0 && h.count >= 1 && h.count <= maxStrands && h.strand < h.count && h.id != laneID{}
	case helloAccept:
		ok = h.code == 0 && h.count >= 1 && h.count <= maxStrands && h.strand == 0 && h.id != laneID{}
	case helloRefuse:
		ok = h.code != 0 && h.count == 0 && h.strand == 0 && h.id == laneID{}
	}
	if !ok {
		return h, protocolErrorf("hello % x", b)
	}
	return h, nil
}

func readHello(r io.Reader) (hello, error) {
	var b [helloSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return hello{}, fmt.Errorf("no whole hello: %w", err)
	}
	return parseHello(b[:])
}

// A blockKind says what a block is (spec 4.1).
type blockKind uint8

const (
	blockRaw  blockKind = 0x01
	blockZstd blockKind = 0x02
	blockEnd  blockKind = 0x03
)

// String returns the block's name.
func (k blockKind) String() string {
	switch k {
	case blockRaw:
		return "RAW"
	case blockZstd:
		return "ZSTD"
	case blockEnd:
		return "END"
	}
	return fmt.Sprintf("block 0x%02x", uint8(k))
}

const (
	blockHead = 20        // kind 1, zero 3, length 4, raw 4, number 8
	maxBlock  = 256 << 10 // raw bytes of a block
)

// block is the header of one.
type block struct {
	kind   blockKind
	length int
	raw    int
	number uint64
}

// put writes the header into the first blockHead bytes of b.
func (k block) put(b []byte) {
	b[0], b[1], b[2], b[3] = byte(k.kind), 0, 0, 0
	binary.BigEndian.PutUint32(b[4:], uint32(k.length))
	binary.BigEndian.PutUint32(b[8:], uint32(k.raw))
	binary.BigEndian.PutUint64(b[12:], k.number)
}

// parseBlock takes a header of blockHead bytes.
func parseBlock(b []byte) (block, error) {
	k := block{kind: blockKind(b[0]), number: binary.BigEndian.Uint64(b[12:])}
	length, raw := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	ok := false
	switch k.kind {
	case blockRaw:
		ok = raw >= 1 && raw <= maxBlock && length == raw
	case blockZstd:
		ok = raw >= 1 && raw <= maxBlock && length >= 1 && length <= raw
	case blockEnd:
		ok = raw == 0 && length == 0
	}
	if !ok || b[1]|b[2]|b[3] != 0 {
		return k, protocolErrorf("block % x", b[:blockHead])
	}
	k.length, k.raw = int(length), int(raw)
	return k, nil
}
