package resume

import (
	"bytes"
	"encoding/hex"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

var testID = connID{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf}

// goldenHellos are one hello of each kind, by field: magic, version, kind, flags, code, id, attempt, patience, buffer,
// received.
var goldenHellos = []struct {
	name string
	hex  string
	h    hello
}{
	{"NEW", "f5706c72 01 01 00 00 00000000000000000000000000000000 00000000 0000ea60 00100000 0000000000000000",
		hello{kind: messageNew, resumeWindow: 60000, buffer: 1 << 20}},
	{"RESUME", "f5706c72 01 02 01 00 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 00000007 00000000 00000000 0000000000012345",
		hello{kind: messageResume, live: true, id: testID, attempt: 7, received: 0x12345}},
	{"ACCEPT of NEW", "f5706c72 01 03 00 00 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 00000000 00007530 00001000 0000000000000000",
		hello{kind: messageAccept, id: testID, resumeWindow: 30000, buffer: 4096}},
	{"ACCEPT of RESUME", "f5706c72 01 03 00 00 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 00000007 00000000 00000000 0000000000000001",
		hello{kind: messageAccept, id: testID, attempt: 7, received: 1}},
	{"REFUSE", "f5706c72 01 04 00 03 00000000000000000000000000000000 00000000 00000000 00000000 0000000000000000",
		hello{kind: messageRefuse, code: refuseUnknown}},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// Row: S2, S3
func TestHelloGolden(t *testing.T) {
	for _, test := range goldenHellos {
		wire := unhex(t, test.hex)
		require.Equal(t, wire, test.h.append(nil), test.name)
		got, err := readHello(iotest.OneByteReader(bytes.NewReader(wire)))
		require.NoError(t, err, test.name)
		require.Equal(t, test.h, got, test.name)
	}
}

// Row: S2, S3
func TestHelloRefusesEveryTruncation(t *testing.T) {
	for _, test := range goldenHellos {
		wire := unhex(t, test.hex)
		for n := range wire {
			_, err := readHello(bytes.NewReader(wire[:n]))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%s, %d bytes", test.name, n)
			_, err = parseHello(wire[:n])
			require.ErrorIs(t, err, ErrProtocol, "%s, %d bytes", test.name, n)
		}
	}
}

// Row: S-e
func TestHelloRefusesFieldsOutOfRange(t *testing.T) {
	for name, h := range map[string]hello{
		"NEW with an id":             {kind: messageNew, id: testID, buffer: minWindow},
		"NEW with an attempt":        {kind: messageNew, attempt: 1, buffer: minWindow},
		"NEW with bytes":             {kind: messageNew, buffer: minWindow, received: 1 << 62},
		"NEW that is live":           {kind: messageNew, buffer: minWindow, live: true},
		"NEW with too small a room":  {kind: messageNew, buffer: minWindow - 1},
		"NEW with a code":            {kind: messageNew, buffer: minWindow, code: 1},
		"RESUME without attempt":     {kind: messageResume, id: testID},
		"RESUME with a buffer":       {kind: messageResume, id: testID, attempt: 1, buffer: minWindow},
		"RESUME with patience":       {kind: messageResume, id: testID, attempt: 1, resumeWindow: 1},
		"ACCEPT without id":          {kind: messageAccept, buffer: minWindow},
		"ACCEPT of NEW, live":        {kind: messageAccept, id: testID, buffer: minWindow, live: true},
		"ACCEPT of NEW, with bytes":  {kind: messageAccept, id: testID, buffer: minWindow, received: 1 << 62},
		"ACCEPT of RESUME, patience": {kind: messageAccept, id: testID, attempt: 1, resumeWindow: 1},
		"REFUSE without code":        {kind: messageRefuse},
		"REFUSE with an id":          {kind: messageRefuse, code: 1, id: testID},
		"kind 0":                     {},
		"kind 5":                     {kind: 5, buffer: minWindow},
	} {
		_, err := parseHello(h.append(nil))
		require.ErrorIs(t, err, ErrProtocol, name)
	}
	wire := goldenHellos[0].h.append(nil)
	wire[6] = 0x02
	_, err := parseHello(wire)
	require.ErrorIs(t, err, ErrProtocol, "an unknown flag")
}

// Row: S2
// Claim: resume.ErrStranger, resume.ErrVersion
func TestHelloTellsStrangersAndVersions(t *testing.T) {
	_, err := readHello(strings.NewReader("HTTP/1.1 400 Bad Request\r\n"))
	require.ErrorIs(t, err, ErrStranger)
	require.ErrorIs(t, err, ErrProtocol)
	require.ErrorContains(t, err, `"HTTP/1.1"`)

	wire := goldenHellos[0].h.append(nil)
	wire[4] = 2
	_, err = readHello(bytes.NewReader(wire[:helloPrefix])) // what follows may have another size
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "version 2")

	refuse := hello{kind: messageRefuse, code: refuseVersion}.append(nil)
	refuse[4] = 9
	_, err = readHello(bytes.NewReader(refuse))
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "it speaks version 9")
}

// Claim: resume.ErrUnknown
func TestRefusalsHaveAnErrorEach(t *testing.T) {
	for code, want := range map[refusal]error{
		refuseProtocol: ErrProtocol, refuseVersion: ErrVersion, refuseUnknown: ErrUnknown,
		refuseStale: errStale, refuseBusy: ErrBusy,
	} {
		require.ErrorIs(t, code.err(), want)
	}
	require.ErrorContains(t, refusal(77).err(), "code 77")
	require.Equal(t, "NEW RESUME ACCEPT REFUSE HELLO 0x05", strings.Join([]string{messageNew.String(),
		messageResume.String(), messageAccept.String(), messageRefuse.String(), message(5).String()}, " "))
}

// What is read is written the same.
//
// Row: S-e
func FuzzHello(f *testing.F) {
	for _, test := range goldenHellos {
		f.Add(test.h.append(nil))
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		h, err := readHello(bytes.NewReader(wire))
		if err == nil {
			require.Equal(t, wire[:helloSize], h.append(nil))
		}
	})
}
