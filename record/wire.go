package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A kind is the kind of a frame (spec 2.4).
type kind uint8

const (
	kindBatch  kind = 0x01 // records
	kindAck    kind = 0x02 // everything up to a record is applied
	kindFail   kind = 0x03 // a record cannot be applied
	kindRewind kind = 0x04 // records are sent again from here on
	kindEnd    kind = 0x05 // the direction has ended
	kindClose  kind = 0x06 // the last frame
)

func (k kind) String() string {
	switch k {
	case kindBatch:
		return "BATCH"
	case kindAck:
		return "ACK"
	case kindFail:
		return "FAIL"
	case kindRewind:
		return "REWIND"
	case kindEnd:
		return "END"
	case kindClose:
		return "CLOSE"
	}
	return fmt.Sprintf("frame 0x%02x", uint8(k))
}

const (
	flagAck = 0x01 // of a BATCH: it has an acknowledgement (spec 2.4)

	headerSize    = 8                      // kind 1, flags 1, zero 2, length 4
	batchHead     = 12                     // of a BATCH's body: first 8, count 4
	ackSize       = 8                      // of an ACK, and of a BATCH's ack
	batchRoom     = headerSize + batchHead // head of a BATCH without ack, before its records
	batchRoomAck  = batchRoom + ackSize    // and with one
	maxLengthSize = 5                      // of the uvarint before a record: a record has less than 2^30 bytes
	maxText       = 1024                   // spec 2.5
	failHead      = 21                     // seq 8, applied 8, code 4, retryable 1
	closeHead     = 4                      // code
)

// header is the header of every frame (spec 2.1).
type header struct {
	kind   kind
	flags  byte
	length int
}

func (h header) append(b []byte) []byte {
	b = append(b, byte(h.kind), h.flags, 0, 0)
	return binary.BigEndian.AppendUint32(b, uint32(h.length))
}

// consumeHeader parses the header in b, which has headerSize bytes. The size limit of a BATCH is derived from window (spec 2.4).
func consumeHeader(b []byte, window int) (header, error) {
	h := header{kind: kind(b[0]), flags: b[1]}
	length := binary.BigEndian.Uint32(b[4:])
	least, most := ackSize, ackSize
	switch h.kind {
	case kindBatch:
		least, most = batchHead+1, batchHead+ackSize+window
		if h.flags&flagAck != 0 {
			least += ackSize
		}
	case kindAck, kindRewind, kindEnd:
	case kindFail:
		least, most = failHead, failHead+maxText
	case kindClose:
		least, most = closeHead, closeHead+maxText
	default:
		return h, protocolErrorf("unknown kind 0x%02x", uint8(h.kind))
	}
	if h.flags&^flagAck != 0 || h.flags != 0 && h.kind != kindBatch || b[2] != 0 || b[3] != 0 {
		return h, protocolErrorf("%v with flags 0x%02x%02x%02x", h.kind, b[1], b[2], b[3])
	}
	if int64(length) < int64(least) || int64(length) > int64(most) {
		return h, protocolErrorf("%v of %d bytes, want %d to %d", h.kind, length, least, most)
	}
	h.length = int(length)
	return h, nil
}

// appendSeq appends a frame whose body is one number: ACK, REWIND or END.
func appendSeq(b []byte, k kind, seq uint64) []byte {
	b = header{kind: k, length: ackSize}.append(b)
	return binary.BigEndian.AppendUint64(b, seq)
}

// failure is the body of a FAIL.
type failure struct {
	seq       uint64
	applied   uint64
	code      uint32
	retryable bool
	message   string
}

func (f failure) append(b []byte) []byte {
	b = header{kind: kindFail, length: failHead + len(f.message)}.append(b)
	b = binary.BigEndian.AppendUint64(b, f.seq)
	b = binary.BigEndian.AppendUint64(b, f.applied)
	b = binary.BigEndian.AppendUint32(b, f.code)
	if f.retryable {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return append(b, f.message...)
}

// consumeFail parses the body of a FAIL, of at least failHead bytes.
func consumeFail(b []byte) (failure, error) {
	f := failure{
		seq:       binary.BigEndian.Uint64(b),
		applied:   binary.BigEndian.Uint64(b[8:]),
		code:      binary.BigEndian.Uint32(b[16:]),
		retryable: b[20] == 1,
		message:   string(b[failHead:]),
	}
	if b[20] > 1 || f.seq <= f.applied {
		return f, protocolErrorf("FAIL of record %d, after %d", f.seq, f.applied)
	}
	return f, nil
}

func appendClose(b []byte, code Code, text string) []byte {
	b = header{kind: kindClose, length: closeHead + len(text)}.append(b)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, text...)
}

// givenSize is the size of the number behind the code of a CLOSE in order, when both sides know capGiven.
const givenSize = 8

// appendDone appends a CLOSE in order with the number of the last record given to the application.
func appendDone(b []byte, given uint64) []byte {
	b = header{kind: kindClose, length: closeHead + givenSize}.append(b)
	b = binary.BigEndian.AppendUint32(b, uint32(codeDone))
	return binary.BigEndian.AppendUint64(b, given)
}

// consumeClose parses the body of a CLOSE, of at least closeHead bytes.
func consumeClose(b []byte) (Code, string) {
	return Code(binary.BigEndian.Uint32(b)), string(b[closeHead:])
}

// batch is the head of a BATCH, before its records.
type batch struct {
	first uint64
	count int
	acked bool
	ack   uint64
}

// putBatch writes the header of a BATCH with n bytes of records in front of the records, at the end of room, and returns its size.
func putBatch(room []byte, b batch, n int) int {
	size := batchRoom
	h := header{kind: kindBatch, length: batchHead + n}
	if b.acked {
		size, h.flags, h.length = batchRoomAck, flagAck, h.length+ackSize
		binary.BigEndian.PutUint64(room[len(room)-ackSize:], b.ack)
	}
	out := room[len(room)-size:]
	h.append(out[:0])
	binary.BigEndian.PutUint64(out[headerSize:], b.first)
	binary.BigEndian.PutUint32(out[headerSize+8:], uint32(b.count))
	return size
}

// consumeBatch parses the head of a BATCH, and returns its size.
func consumeBatch(h header, b []byte) (batch, int, error) {
	out := batch{first: binary.BigEndian.Uint64(b), acked: h.flags&flagAck != 0}
	size := batchHead
	if out.acked {
		out.ack = binary.BigEndian.Uint64(b[batchHead:])
		size += ackSize
	}
	count := binary.BigEndian.Uint32(b[8:])
	if count == 0 || int64(count) > int64(h.length-size) {
		return out, 0, protocolErrorf("BATCH of %d records in %d bytes", count, h.length-size)
	}
	out.count = int(count)
	return out, size, nil
}

// appendRecord appends one record of a BATCH.
func appendRecord(b, payload []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(payload)))
	return append(b, payload...)
}

// recordSize returns the size of a record of n bytes in a BATCH.
func recordSize(n int) int {
	size := n + 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

var errRecord = errors.New("a record's length is none")

// nextRecord returns the first record of b, which has been checked or is this side's own, and the bytes after it.
func nextRecord(b []byte) (payload, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 && len(b) > int(b[0]) {
		n := 1 + int(b[0])
		return b[1:n:n], b[n:], nil
	}
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) || size > 1 && b[size-1] == 0 {
		return nil, nil, errRecord
	}
	end := size + int(n)
	return b[size:end:end], b[end:], nil
}

// checkRecords rejects a BATCH whose records are not exactly count, each of at most largest bytes.
func checkRecords(b []byte, count, largest int) error {
	for range count {
		p, rest, err := nextRecord(b)
		if err != nil {
			return protocolErrorf("BATCH: %v", err)
		}
		if len(p) > largest {
			return protocolErrorf("record of %d bytes, at most %d", len(p), largest)
		}
		b = rest
	}
	if len(b) > 0 {
		return protocolErrorf("BATCH with %d bytes behind its records", len(b))
	}
	return nil
}
