package flow

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// goldenSegments are headers by field: kind, length, number.
var goldenSegments = []struct {
	hex string
	h   header
}{
	{"01 000000 0000000000000400", header{kindStart, 0, 1024}},
	{"02 000003 0102030405060708", header{kindData, 3, 0x0102030405060708}},
	{"02 000000 0000000000000000", header{kindData, 0, 0}},
	{"03 ffffff ffffffffffffffff", header{kindAsk, maxLength, 1<<64 - 1}},
	{"04 000000 0000000000000005", header{kindEnd, 0, 5}},
	{"05 000000 0000000000000006", header{kindFin, 0, 6}},
	{"06 000000 0000000000000007", header{kindStop, 0, 7}},
}

// Row: S3
func TestSegmentGolden(t *testing.T) {
	for _, test := range goldenSegments {
		wire := unhex(t, test.hex)
		require.Equal(t, wire, test.h.append(nil), "%v", test.h)
		require.Equal(t, test.h, headerOf(wire), "%v", test.h)
		require.NoError(t, test.h.check(), "%v", test.h)
	}
}

// Row: S-e
func TestSegmentRefusesKindsAndLengths(t *testing.T) {
	for _, h := range []header{
		{kind: 0}, {kind: 7}, {kind: 0xff, length: maxLength}, {kind: kindStart, length: 1}, {kind: kindEnd, length: 1},
		{kind: kindFin, length: maxLength}, {kind: kindStop, length: 1},
	} {
		require.ErrorIs(t, h.check(), ErrProtocol, "%v", h)
	}
	var names strings.Builder
	for k := kindStart; k <= kindStop+1; k++ {
		names.WriteString(k.String() + " ")
	}
	require.Equal(t, "START DATA ASK END FIN STOP SEGMENT 0x07 ", names.String())
}

func TestSegmentTakesOffsets(t *testing.T) {
	require.EqualValues(t, 1, header{kind: kindFin}.takes())
	require.EqualValues(t, 0, header{kind: kindStop}.takes())
	require.EqualValues(t, 9, header{kind: kindAsk, length: 9}.takes())
}

// What is read is written the same, and what passes the check is one of the six kinds.
//
// Row: S-e
func FuzzSegment(f *testing.F) {
	for _, test := range goldenSegments {
		f.Add(test.h.append(nil))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		if len(wire) < headerSize {
			return
		}
		h := headerOf(wire)
		require.Equal(t, wire[:headerSize], h.append(nil))
		if h.check() == nil {
			require.True(t, h.kind >= kindStart && h.kind <= kindStop)
			require.True(t, h.length == 0 || h.kind == kindData || h.kind == kindAsk)
		}
	})
}
