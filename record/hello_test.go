package record

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// goldenHellos are by field: magic, version, kind, zero, capabilities, records, bytes, largest, log, first, next, known, applied.
var goldenHellos = []struct {
	name string
	hex  string
	h    hello
}{
	{"OPEN without a place",
		"f5706c63 01 11 0000 00000001 00010000 00400000 00100000 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0000000000000001 0000000000000001 " +
			"00000000000000000000000000000000 0000000000000000",
		hello{kind: helloOpen, caps: 1, records: 1 << 16, bytes: 4 << 20, largest: 1 << 20, log: testLog, first: 1, next: 1}},
	{"ACCEPT that goes on",
		"f5706c63 01 12 0000 80000000 00000001 00000006 00000001 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0000000000000102 0000000000000203 " +
			"b0b1b2b3b4b5b6b7b8b9babbbcbdbebf 0000000000012345",
		hello{kind: helloAccept, caps: 1 << 31, records: 1, bytes: 6, largest: 1, log: testLog, first: 0x102, next: 0x203,
			known: testKnown, applied: 0x12345}},
}

func TestHelloGolden(t *testing.T) {
	for _, test := range goldenHellos {
		wire := unhex(t, test.hex)
		require.Equal(t, wire, test.h.append(nil), test.name)
		require.Len(t, wire, helloSize)
		got, err := readHello(iotest.OneByteReader(bytes.NewReader(wire)), test.h.kind)
		require.NoError(t, err, test.name)
		require.Equal(t, test.h, got, test.name)
	}
	refusal := unhex(t, "f5706c63 01 13 0000 00000107 0004 66756c6c") // code, length, text
	require.Equal(t, refusal, appendRefusal(nil, 0x107, "full"))
	_, err := readHello(iotest.OneByteReader(bytes.NewReader(refusal)), helloAccept)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, Error{Op: "open", Remote: true, Code: 0x107, Text: "full"}, *e)
}

func TestHelloRefusesEveryTruncation(t *testing.T) {
	wires := map[string][]byte{"REFUSE": appendRefusal(nil, codeBusy, "not now")}
	for _, test := range goldenHellos {
		wires[test.name] = test.h.append(nil)
	}
	for name, wire := range wires {
		want := helloAccept
		if helloKind(wire[5]) == helloOpen {
			want = helloOpen
		}
		for n := range wire {
			_, err := readHello(bytes.NewReader(wire[:n]), want)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%s, %d bytes", name, n)
			_, err = readHello(io.MultiReader(bytes.NewReader(wire[:n]), iotest.ErrReader(io.ErrClosedPipe)), want)
			require.ErrorIs(t, err, io.ErrClosedPipe, "%s, %d bytes", name, n)
		}
	}
}

func TestHelloKeepsTheRangesOfItsFields(t *testing.T) {
	set := func(change func(*hello)) hello {
		h := rawHello(helloOpen)
		change(&h)
		return h
	}
	for name, h := range map[string]hello{
		"records 1":            set(func(h *hello) { h.records = 1 }),
		"records 2^24":         set(func(h *hello) { h.records = 1 << 24 }),
		"largest 1":            set(func(h *hello) { h.largest = 1 }),
		"largest as much":      set(func(h *hello) { h.largest = h.bytes - 5 }),
		"bytes 2^30":           set(func(h *hello) { h.bytes = 1 << 30 }),
		"bytes 6":              set(func(h *hello) { h.bytes, h.largest = 6, 1 }),
		"first is next":        set(func(h *hello) { h.first, h.next = 9, 9 }),
		"first the very last":  set(func(h *hello) { h.first, h.next = math.MaxUint64, math.MaxUint64 }),
		"unknown capabilities": set(func(h *hello) { h.caps = math.MaxUint32 }),
		"a place at 0":         set(func(h *hello) { h.known = testKnown }),
	} {
		got, err := readHello(bytes.NewReader(h.append(nil)), helloOpen)
		require.NoError(t, err, name)
		require.Equal(t, h, got, name)
	}
	for name, h := range map[string]hello{
		"records 0":           set(func(h *hello) { h.records = 0 }),
		"records 2^24+1":      set(func(h *hello) { h.records = 1<<24 + 1 }),
		"records 2^32-1":      set(func(h *hello) { h.records = math.MaxUint32 }),
		"largest 0":           set(func(h *hello) { h.largest = 0 }),
		"largest over bytes":  set(func(h *hello) { h.largest = h.bytes - 4 }),
		"largest 2^32-1":      set(func(h *hello) { h.largest = math.MaxUint32 }),
		"bytes 2^30+1":        set(func(h *hello) { h.bytes = 1<<30 + 1 }),
		"bytes 5":             set(func(h *hello) { h.bytes, h.largest = 5, 1 }),
		"bytes 0":             set(func(h *hello) { h.bytes = 0 }),
		"no log":              set(func(h *hello) { h.log = LogID{} }),
		"first 0":             set(func(h *hello) { h.first = 0 }),
		"first after next":    set(func(h *hello) { h.first = 2 }),
		"a place in no log":   set(func(h *hello) { h.applied = 1 }),
		"the last place in 0": set(func(h *hello) { h.applied = math.MaxUint64 }),
	} {
		_, err := readHello(bytes.NewReader(h.append(nil)), helloOpen)
		require.ErrorIs(t, err, ErrProtocol, name)
	}
}

// Claim: record.ErrVersion
func TestHelloTellsStrangersAndVersions(t *testing.T) {
	_, err := readHello(strings.NewReader("HTTP/1.1 400 Bad Request\r\n"), helloAccept)
	require.ErrorIs(t, err, ErrProtocol)
	require.ErrorContains(t, err, `"HTTP/1.1"`)

	for i := range 4 {
		wire := rawHello(helloOpen).append(nil)
		wire[i] ^= 0x20
		_, err = readHello(bytes.NewReader(wire), helloOpen)
		require.ErrorIs(t, err, ErrProtocol, "magic, byte %d", i)
	}
	for _, version := range []byte{0, 2, 255} {
		wire := rawHello(helloOpen).append(nil)
		wire[4] = version
		wire[6], wire[7] = 7, 7                                            // may mean something there
		_, err = readHello(bytes.NewReader(wire[:helloPrefix]), helloOpen) // what follows may have another size
		require.ErrorIs(t, err, ErrVersion)
		require.NotErrorIs(t, err, ErrProtocol)
	}
	for i := range 2 {
		wire := rawHello(helloOpen).append(nil)
		wire[6+i] = 1
		_, err = readHello(bytes.NewReader(wire), helloOpen)
		require.ErrorIs(t, err, ErrProtocol, "byte %d is not zero", 6+i)
	}
	for _, want := range []helloKind{helloOpen, helloAccept} {
		for k := range 256 {
			if helloKind(k) == want || helloKind(k) == helloRefuse && want == helloAccept {
				continue
			}
			_, err = readHello(bytes.NewReader(rawHello(helloKind(k)).append(nil)), want)
			require.ErrorIs(t, err, ErrProtocol, "0x%02x where 0x%02x is due", k, byte(want))
		}
	}
}

// A refusal of another version can be read too: how else would one learn of it.
func TestRefusalsAreReadOfEveryVersion(t *testing.T) {
	wire := appendRefusal(nil, codeVersion, "we speak 7")
	wire[4] = 7
	_, err := readHello(bytes.NewReader(wire), helloAccept)
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, `"we speak 7"`)
}

// Claim: record.ErrBusy
func TestRefusalsOfEveryCodeAreTold(t *testing.T) {
	for code, want := range map[Code]error{
		codeProtocol: ErrProtocol, codeVersion: ErrVersion, codeNotAccepted: ErrNotTaken, codeHistory: ErrHistory, codeBusy: ErrBusy,
		CodeStore: nil, CodeSuperseded: nil, CodeInternal: nil, 77: nil, CodeApplication: nil, math.MaxUint32: nil,
	} {
		_, err := readHello(bytes.NewReader(appendRefusal(nil, code, "\xff\x00\n")), helloAccept)
		var e *Error
		require.ErrorAs(t, err, &e, "%v", code)
		require.True(t, e.Remote)
		require.Equal(t, code, e.Code)
		require.ErrorContains(t, err, `"\xff\x00\n"`, "what the peer says is quoted")
		if want != nil {
			require.ErrorIs(t, err, want)
		}
	}
	long := appendRefusal(nil, codeBusy, strings.Repeat("x", maxText))
	_, err := readHello(bytes.NewReader(long), helloAccept)
	require.ErrorIs(t, err, ErrBusy)
	for _, n := range []uint16{maxText + 1, math.MaxUint16} {
		binary.BigEndian.PutUint16(long[12:], n)
		_, err = readHello(bytes.NewReader(long), helloAccept)
		require.ErrorIs(t, err, ErrProtocol, "%d bytes of text", n)
	}
}

// spec 3.5
func TestDirectionsBeginWhereThePlacesSay(t *testing.T) {
	other := LogID{1}
	for name, test := range map[string]struct {
		first, next uint64 // of the writer's log, which is testLog
		known       LogID
		applied     uint64
		want        uint64 // 0: there is no common history
	}{
		"both new":                       {1, 1, LogID{}, 0, 1},
		"a new reader, an old log":       {7, 9, LogID{}, 0, 7},
		"a reader that has read nothing": {1, 1, testLog, 0, 1},
		"a reader that knows the first":  {7, 9, testLog, 6, 7},
		"one in between":                 {7, 9, testLog, 7, 8},
		"one that knows all":             {7, 9, testLog, 8, 9},
		"one that is behind":             {7, 9, testLog, 5, 0},
		"one that is ahead":              {7, 9, testLog, 9, 0},
		"one that is far ahead":          {7, 9, testLog, math.MaxUint64 - 1, 0},
		"one that is at the end of all":  {7, 9, testLog, math.MaxUint64, 0},
		"one that has begun anew":        {7, 9, testLog, 0, 0},
		"another log":                    {7, 9, other, 7, 0},
		"another log, nothing of it":     {1, 1, other, 0, 1},
		"an old one, nothing of another": {7, 9, other, 0, 7},
		"the last number":                {1, math.MaxUint64, testLog, math.MaxUint64 - 1, math.MaxUint64},
	} {
		writer := hello{log: testLog, first: test.first, next: test.next}
		got, err := begin(writer, hello{known: test.known, applied: test.applied})
		if test.want == 0 {
			require.ErrorIs(t, err, ErrHistory, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, test.want, got, name)
	}
}

func TestLogIDsAreRandom(t *testing.T) {
	seen := map[LogID]bool{{}: true}
	for range 100 {
		id := NewLogID()
		require.False(t, seen[id])
		seen[id] = true
	}
}
