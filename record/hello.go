package record

import (
	"encoding/binary"
	"fmt"
	"io"
)

// helloKind is the kind of a side's first message (spec 3.1).
type helloKind uint8

const (
	helloOpen   helloKind = 0x11
	helloAccept helloKind = 0x12
	helloRefuse helloKind = 0x13
)

const (
	helloVersion  = 1
	helloPrefix   = 8                                              // magic 4, version 1, kind 1, zero 2: the same in every version
	helloSize     = helloPrefix + 4*4 + logSize + 16 + logSize + 8 // capabilities, window, log, first, next, known, applied
	logSize       = 16
	capBatchAck   = 1 << 0 // spec 3.3
	capConfirm    = 1 << 1 // of OPEN: a frame follows ACCEPT; of ACCEPT: it is waited for
	capMoving     = 1 << 2 // of OPEN: another stream continues, and moves the positions
	capGiven      = 1 << 3 // a CLOSE in order reports the last record given to the application (spec 6.1)
	maxWindow     = 1 << 24
	maxBytes      = 1 << 30
	leastWindow   = 1
	maxRefuseText = maxText
)

var helloMagic = [4]byte{0xF5, 'p', 'l', 'c'}

// A LogID names a log: all the records that one side has written under it, over one stream or several. The zero LogID names none.
type LogID [logSize]byte

// hello is an OPEN or ACCEPT.
type hello struct {
	kind    helloKind
	caps    uint32
	records uint32
	bytes   uint32
	largest uint32
	log     LogID
	first   uint64
	next    uint64
	known   LogID
	applied uint64
}

func (h hello) append(b []byte) []byte {
	b = append(b, helloMagic[:]...)
	b = append(b, helloVersion, byte(h.kind), 0, 0)
	b = binary.BigEndian.AppendUint32(b, h.caps)
	b = binary.BigEndian.AppendUint32(b, h.records)
	b = binary.BigEndian.AppendUint32(b, h.bytes)
	b = binary.BigEndian.AppendUint32(b, h.largest)
	b = append(b, h.log[:]...)
	b = binary.BigEndian.AppendUint64(b, h.first)
	b = binary.BigEndian.AppendUint64(b, h.next)
	b = append(b, h.known[:]...)
	return binary.BigEndian.AppendUint64(b, h.applied)
}

// consumeHello parses an OPEN or ACCEPT of helloSize bytes whose prefix has been checked.
func consumeHello(b []byte) (hello, error) {
	h := hello{
		kind:    helloKind(b[5]),
		caps:    binary.BigEndian.Uint32(b[8:]),
		records: binary.BigEndian.Uint32(b[12:]),
		bytes:   binary.BigEndian.Uint32(b[16:]),
		largest: binary.BigEndian.Uint32(b[20:]),
		log:     LogID(b[24:]),
		first:   binary.BigEndian.Uint64(b[40:]),
		next:    binary.BigEndian.Uint64(b[48:]),
		known:   LogID(b[56:]),
		applied: binary.BigEndian.Uint64(b[72:]),
	}
	switch {
	case h.records < leastWindow || h.records > maxWindow, h.largest < 1, h.bytes > maxBytes,
		uint64(h.largest)+maxLengthSize > uint64(h.bytes):
		return h, protocolErrorf("window of %d records, %d bytes, at most %d each", h.records, h.bytes, h.largest)
	case h.log == LogID{}, h.first < 1, h.first > h.next:
		return h, protocolErrorf("log %x from record %d to %d", h.log, h.first, h.next)
	case h.known == LogID{} && h.applied > 0:
		return h, protocolErrorf("a place, %d, in no log", h.applied)
	}
	return h, nil
}

// checkPrefix checks the first bytes of a side.
func checkPrefix(b []byte, want helloKind) error {
	switch {
	case [4]byte(b) != helloMagic:
		return fmt.Errorf("%w: this is no record stream: it begins with %q", ErrProtocol, b[:helloPrefix])
	case helloKind(b[5]) == helloRefuse && want == helloAccept:
		return nil
	case b[4] != helloVersion:
		return fmt.Errorf("%w: the other side speaks version %d of record streams, this one %d", ErrVersion, b[4], helloVersion)
	case helloKind(b[5]) != want || b[6] != 0 || b[7] != 0:
		return protocolErrorf("hello of kind 0x%02x, want 0x%02x", b[5], byte(want))
	}
	return nil
}

// readHello reads the other side's first message. A REFUSE is an *Error.
func readHello(r io.Reader, want helloKind) (hello, error) {
	var b [helloSize]byte
	if _, err := io.ReadFull(r, b[:helloPrefix]); err != nil {
		return hello{}, cutShort(err)
	}
	if err := checkPrefix(b[:], want); err != nil {
		return hello{}, err
	}
	if helloKind(b[5]) == helloRefuse {
		return hello{}, readRefusal(r)
	}
	if _, err := io.ReadFull(r, b[helloPrefix:]); err != nil {
		return hello{}, cutShort(err)
	}
	return consumeHello(b[:])
}

// readRefusal reads the rest of a REFUSE.
func readRefusal(r io.Reader) error {
	var b [6]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return cutShort(err)
	}
	n := binary.BigEndian.Uint16(b[4:])
	if n > maxRefuseText {
		return protocolErrorf("REFUSE with %d bytes of text", n)
	}
	code := Code(binary.BigEndian.Uint32(b[:]))
	if code == codeDone {
		return protocolErrorf("REFUSE with code %d: that is no refusal", code)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return cutShort(err)
	}
	return &Error{Op: "open", Remote: true, Code: code, Text: string(text)}
}

// appendRefusal appends a REFUSE.
func appendRefusal(b []byte, code Code, text string) []byte {
	b = append(b, helloMagic[:]...)
	b = append(b, helloVersion, byte(helloRefuse), 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

func cutShort(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("no whole hello: %w", err)
}

// moves reports whether the positions of h may have moved since: those of an opener whose Store serves another stream.
func (h hello) moves() bool { return h.kind == helloOpen && h.caps&capMoving != 0 }

// begin returns the first record of a direction (spec 3.5): from the log of writer, for reader.
func begin(writer, reader hello) (uint64, error) {
	switch {
	case reader.known == LogID{}, reader.known != writer.log && reader.applied == 0: // it has no position that could be lost
		return writer.first, nil
	case reader.known != writer.log:
		return 0, fmt.Errorf("%w: the reader is at record %d of log %x, and the writer has log %x: one of them has begun anew; "+
			"drop the place, or the log, that is not to count", ErrHistory, reader.applied, reader.known[:4], writer.log[:4])
	case reader.applied+1 < writer.first && reader.moves(): // spec 3.8: the opener decides
		return writer.first, nil
	case reader.applied+1 < writer.first, reader.applied+1 > writer.next && !writer.moves():
		return 0, fmt.Errorf("%w: the reader goes on with record %d, and the writer has %d up to %d: one of them has gone back in time",
			ErrHistory, reader.applied+1, writer.first, writer.next-1)
	}
	return reader.applied + 1, nil
}
