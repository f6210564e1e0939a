package record

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// goldenFrames are one frame of each kind, by field: kind, flags, zero, length, body.
var goldenFrames = []struct {
	name string
	hex  string
	b    []byte
}{
	{"BATCH", // first, count, length, record, length, record
		"01 00 0000 00000010 0000000000000007 00000002 02 6869 00",
		rawBatch(7, "hi", "")},
	{"BATCH with ack", // first, count, ack, length, record
		"01 01 0000 00000017 0000000000012345 00000001 00000000000000ff 02 6869",
		rawBatchAck(batch{first: 0x12345, acked: true, ack: 0xff}, "hi")},
	{"ACK", "02 00 0000 00000008 0000000000000009", appendSeq(nil, kindAck, 9)},
	{"FAIL", // seq, applied, code, retryable, message
		"03 00 0000 00000019 0000000000000005 0000000000000004 00000107 01 66756c6c",
		failure{seq: 5, applied: 4, code: 0x107, retryable: true, message: "full"}.append(nil)},
	{"FAIL for good", "03 00 0000 00000015 0000000000000005 0000000000000000 00000001 00", failure{seq: 5, code: 1}.append(nil)},
	{"REWIND", "04 00 0000 00000008 0000000000000005", appendSeq(nil, kindRewind, 5)},
	{"END", "05 00 0000 00000008 000000000000000a", appendSeq(nil, kindEnd, 10)},
	{"CLOSE", "06 00 0000 00000007 00000100 627965", appendClose(nil, CodeApplication, "bye")}, // code, text
}

// decoded returns what the frame b says, written again.
func decoded(b []byte, window, largest int) ([]byte, error) {
	if len(b) < headerSize {
		return nil, errRecord
	}
	h, err := consumeHeader(b[:headerSize], window)
	if err != nil {
		return nil, err
	}
	body := b[headerSize:]
	if len(body) < h.length {
		return nil, errRecord
	}
	body = body[:h.length]
	switch h.kind {
	case kindBatch:
		head, n, err := consumeBatch(h, body)
		if err != nil {
			return nil, err
		}
		if err := checkRecords(body[n:], head.count, largest); err != nil {
			return nil, err
		}
		var payloads []string
		for p := range recordsOf(body[n:], 1, 1) {
			payloads = append(payloads, string(p))
		}
		head.count = 0
		return rawBatchAck(head, payloads...), nil
	case kindFail:
		f, err := consumeFail(body)
		return f.append(nil), err
	case kindClose:
		code, text := consumeClose(body)
		return appendClose(nil, code, text), nil
	}
	return appendSeq(nil, h.kind, binary.BigEndian.Uint64(body)), nil
}

func TestFramesGolden(t *testing.T) {
	for _, test := range goldenFrames {
		wire := unhex(t, test.hex)
		require.Equal(t, wire, test.b, test.name)
		again, err := decoded(wire, 100, 10)
		require.NoError(t, err, test.name)
		require.Equal(t, wire, again, test.name)
	}
}

// The header says how long a frame is, and no kind's body is a beginning of another: what is cut, or says that it is shorter,
// is refused.
func TestFramesRefuseEveryTruncation(t *testing.T) {
	for _, test := range goldenFrames {
		wire := unhex(t, test.hex)
		for n := range wire {
			_, err := decoded(wire[:n], 100, 10)
			require.Error(t, err, "%s, %d bytes", test.name, n)
		}
		if k := kind(wire[0]); k != kindBatch {
			continue
		}
		for n := range len(wire) - headerSize {
			short := bytes.Clone(wire)
			binary.BigEndian.PutUint32(short[4:], uint32(n))
			_, err := decoded(short, 100, 10)
			require.ErrorIs(t, err, ErrProtocol, "%s that says %d bytes", test.name, n)
		}
	}
}

func TestHeaderKeepsTheSizesOfItsKind(t *testing.T) {
	for name, test := range map[string]struct {
		kind        kind
		flags       byte
		least, most uint32
	}{
		"BATCH":          {kindBatch, 0, batchHead + 1, 20 + 1000},
		"BATCH with ack": {kindBatch, flagAck, batchHead + ackSize + 1, 20 + 1000},
		"ACK":            {kindAck, 0, 8, 8},
		"FAIL":           {kindFail, 0, 21, 1045},
		"REWIND":         {kindRewind, 0, 8, 8},
		"END":            {kindEnd, 0, 8, 8},
		"CLOSE":          {kindClose, 0, 4, 1028},
	} {
		for length, ok := range map[uint32]bool{
			0: false, test.least - 1: false, test.least: true, test.most: true, test.most + 1: false,
			math.MaxInt32: false, math.MaxInt32 + 1: false, math.MaxUint32: false,
		} {
			wire := binary.BigEndian.AppendUint32([]byte{byte(test.kind), test.flags, 0, 0}, length)
			h, err := consumeHeader(wire, 1000)
			if !ok {
				require.ErrorIs(t, err, ErrProtocol, "%s of %d bytes", name, length)
				continue
			}
			require.NoError(t, err, "%s of %d bytes", name, length)
			require.Equal(t, header{test.kind, test.flags, int(length)}, h)
			require.Equal(t, wire, h.append(nil))
		}
	}
}

func TestHeaderRefusesKindsAndFlagsThatItDoesNotKnow(t *testing.T) {
	for k := range 256 {
		for flags := range 256 {
			length := uint32(ackSize)
			if kind(k) == kindBatch || kind(k) == kindFail {
				length = 24
			}
			_, err := consumeHeader(binary.BigEndian.AppendUint32([]byte{byte(k), byte(flags), 0, 0}, length), 100)
			if k >= 1 && k <= 6 && (flags == 0 || k == 1 && flags == flagAck) {
				require.NoError(t, err, "kind %d, flags %d", k, flags)
				continue
			}
			require.ErrorIs(t, err, ErrProtocol, "kind %d, flags %d", k, flags)
		}
	}
	for i := range 2 {
		wire := appendSeq(nil, kindAck, 1)
		wire[2+i] = 1
		_, err := consumeHeader(wire[:headerSize], 100)
		require.ErrorIs(t, err, ErrProtocol, "byte %d is not zero", 2+i)
	}
}

func TestKindsHaveNames(t *testing.T) {
	var names []string
	for k := kindBatch; k <= kindClose+1; k++ {
		names = append(names, k.String())
	}
	require.Equal(t, "BATCH ACK FAIL REWIND END CLOSE frame 0x07", strings.Join(names, " "))
}

func TestRecordLengthsRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 0x7e, 0x7f, 0x80, 0x81, 0x3fff, 0x4000, 0x4001, 1<<21 - 1, 1 << 21, 1<<21 + 1} {
		payload := bytes.Repeat([]byte{0xff}, n)
		wire := appendRecord(nil, payload)
		require.Len(t, wire, recordSize(n), "%d", n)
		got, rest, err := nextRecord(append(wire, "rest"...))
		require.NoError(t, err, "%d", n)
		require.Equal(t, payload, got, "%d", n)
		require.Equal(t, n, cap(got), "an append to it leaves the next alone")
		require.Equal(t, "rest", string(rest))
		require.NoError(t, checkRecords(wire, 1, n))
		if n > 0 {
			require.ErrorIs(t, checkRecords(wire, 1, n-1), ErrProtocol, "%d over the largest", n)
			_, _, err = nextRecord(wire[:len(wire)-1])
			require.Error(t, err, "%d, cut", n)
		}
	}
	require.Equal(t, maxLengthSize, recordSize(maxBytes-1)-(maxBytes-1))
}

func TestBatchRefusesRecordsThatAreNone(t *testing.T) {
	for name, test := range map[string]struct {
		hex   string
		count int
	}{
		"no record":                     {"", 1},
		"fewer than it says":            {"0161", 2},
		"more than it says":             {"0161 0162", 1},
		"cut in a record":               {"0261", 1},
		"cut in a length":               {"80", 1},
		"a length in two bytes for 1":   {"8100 61", 1},
		"a length in three for 1":       {"818000 61", 1},
		"a zero in two bytes":           {"8000", 1},
		"a length of 2^63":              {"80808080808080808001 61", 1},
		"a length of 2^64-1":            {"ffffffffffffffffff01 61", 1},
		"a length over 64 bits":         {"ffffffffffffffffff02 61", 1},
		"a length that never ends":      {"ffffffffffffffffffffffff", 1},
		"a record of 11, at most 10":    {"0b 6161616161616161616161", 1},
		"the second one is too long":    {"00 0b 6161616161616161616161", 2},
		"a length that just overshoots": {"05 61616161", 1},
	} {
		require.ErrorIs(t, checkRecords(unhex(t, test.hex), test.count, 10), ErrProtocol, name)
	}
	require.NoError(t, checkRecords(unhex(t, "00 00 0161 0a 61616161616161616161"), 4, 10))
}

func TestBatchRefusesCountsThatItCannotHold(t *testing.T) {
	for count, ok := range map[uint32]bool{0: false, 1: true, 5: true, 6: false, math.MaxInt32: false, math.MaxUint32: false} {
		for _, acked := range []bool{false, true} {
			h := header{kind: kindBatch, length: batchHead + 5}
			body := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, 3), count)
			if acked {
				h.flags, h.length = flagAck, h.length+ackSize
				body = binary.BigEndian.AppendUint64(body, 77)
			}
			b, n, err := consumeBatch(h, body)
			if !ok {
				require.ErrorIs(t, err, ErrProtocol, "%d in 5 bytes", count)
				continue
			}
			require.NoError(t, err, "%d in 5 bytes", count)
			require.Equal(t, len(body), n)
			want := batch{first: 3, count: int(count), acked: acked}
			if acked {
				want.ack = 77
			}
			require.Equal(t, want, b)
		}
	}
}

func TestFailRefusesWhatItCannotMean(t *testing.T) {
	for name, f := range map[string]failure{
		"a record that is applied": {seq: 5, applied: 5},
		"one far below":            {seq: 1, applied: math.MaxUint64},
		"no record":                {},
	} {
		_, err := consumeFail(f.append(nil)[headerSize:])
		require.ErrorIs(t, err, ErrProtocol, name)
	}
	body := failure{seq: 1}.append(nil)[headerSize:]
	for b := 2; b < 256; b++ {
		body[20] = byte(b)
		_, err := consumeFail(body)
		require.ErrorIs(t, err, ErrProtocol, "retryable is %d", b)
	}
	long := failure{seq: math.MaxUint64, applied: math.MaxUint64 - 1, code: math.MaxUint32, message: strings.Repeat("m", maxText)}
	got, err := consumeFail(long.append(nil)[headerSize:])
	require.NoError(t, err)
	require.Equal(t, long, got)
}

// Every part of a chunk is what the writer says it is, wherever the part begins.
func TestChunkRewindsToEveryRecord(t *testing.T) {
	sizes := []int{0, 1, 127, 128, 300, 0, 5}
	c := newOutChunk(10, 1000)
	defer c.free()
	for _, n := range sizes {
		c.buf = appendRecord(c.buf, make([]byte, n))
		c.count++
	}
	require.Equal(t, uint64(16), c.last())
	for i := range sizes {
		c.rewind(10 + uint64(i))
		require.Equal(t, i, c.sent)
		var left []int
		for p := range recordsOf(c.buf[c.off:], 10+uint64(i), 0) {
			left = append(left, len(p))
		}
		require.Equal(t, sizes[i:], left, "from %d on", i)
		require.Equal(t, c.size()-c.sentSize(), len(c.buf)-c.off)
	}
	var from []int
	for p := range recordsOf(c.buf[batchRoomAck:], 10, 15) {
		from = append(from, len(p))
	}
	require.Equal(t, []int{0, 5}, from, "those from 15 on")
}
