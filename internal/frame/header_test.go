package frame

import (
	"bytes"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// packedA is 600 times 'a' as one hand-made zstd frame with one run-length block.
var packedA = []byte("\x28\xb5\x2f\xfd\x60\x58\x01\xc3\x12\x00a")

// start returns a start frame as testdata/frames.hex has it.
func start(t Type, f Flags, id uint64, s Start, body string) parsed {
	return parsed{Header: Header{Type: t, Flags: f, ID: id}, Start: &s, Rest: []byte(body)}
}

// plain returns a frame whose body is just bytes.
func plain(t Type, f Flags, id uint64, body string) parsed {
	return parsed{Header: Header{Type: t, Flags: f, ID: id}, Rest: []byte(body)}
}

func failure(t Type, id uint64, f Failure) parsed {
	return parsed{Header: Header{Type: t, ID: id}, Failure: &f}
}

func taken(t Type, f Flags, number, bytes uint64) parsed {
	return plain(t, f, number, string(AppendOffset(nil, bytes)))
}

// Row: U8.
var goldenFrames = map[string]parsed{
	"request":            start(TypeRequest, 0, 1, Start{Total: 5, Timeout: 1500e6, Link: "echo"}, "hello"),
	"request compressed": start(TypeRequest, FlagCompressed, 3, Start{Total: 11, Raw: 600, Link: "echo"}, string(packedA)),
	"request object":     start(TypeRequest, FlagObject, 5, Start{Total: 2, Timeout: 1e6, Codec: "json"}, "{}"),
	"request compressed object": start(TypeRequest, FlagCompressed|FlagObject, 7,
		Start{Total: 11, Raw: 600, Timeout: math.MaxUint32 * 1e6, Link: "a/b", Codec: "json"}, string(packedA)),
	"response":            start(TypeResponse, 0, 1, Start{Total: 5}, "hello"),
	"response compressed": start(TypeResponse, FlagCompressed, 3, Start{Total: 11, Raw: 600}, string(packedA)),
	"response object":     start(TypeResponse, FlagObject, 5, Start{Total: 2, Codec: "json"}, "{}"),
	"response compressed object": start(TypeResponse, FlagCompressed|FlagObject, 7,
		Start{Total: 11, Raw: 600, Codec: "json"}, string(packedA)),
	"message":            start(TypeMessage, 0, 2, Start{Total: 5, Link: "echo"}, "hello"),
	"message compressed": start(TypeMessage, FlagCompressed, 4, Start{Total: 11, Raw: 600, Link: "echo"}, string(packedA)),
	"message object":     start(TypeMessage, FlagObject, 6, Start{Total: 2, Codec: "json"}, "{}"),
	"message compressed object": start(TypeMessage, FlagCompressed|FlagObject, 8,
		Start{Total: 11, Raw: 600, Link: "a/b", Codec: "json"}, string(packedA)),
	"request, first part of many": start(TypeRequest, 0, 9, Start{Total: MaxTotal}, "part"),
	"response, empty":             start(TypeResponse, 0, 9, Start{}, ""),
	"continue":                    plain(TypeContinue, 0, 9, "more"),
	"error":                       failure(TypeError, 9, Failure{Code: codes.NotFound, Text: `no link "x"`}),
	"error, nothing but a code":   failure(TypeError, 9, Failure{Code: codes.Internal}),
	"cancel":                      plain(TypeCancel, 0, 9, ""),
	"message ack":                 plain(TypeMessageAck, 0, 8, ""),
	"stream open":                 plain(TypeStreamOpen, 0, 11, "video"),
	"stream accept":               plain(TypeStreamAccept, 0, 11, ""),
	"stream data":                 plain(TypeStreamData, 0, 11, "bytes"),
	"stream data, fin":            plain(TypeStreamData, FlagFin, 11, "end"),
	"stream data, fin alone":      plain(TypeStreamData, FlagFin, 11, ""),
	"stream credit":               {Header: Header{Type: TypeStreamCredit, ID: 11}, Credit: 65536},
	"stream reset":                failure(TypeStreamReset, 11, Failure{Code: codes.FlowControl, Text: "70 bytes of 64"}),
	"stream stop":                 failure(TypeStreamStop, 11, Failure{Code: codes.ReadClosed}),
	"ping":                        plain(TypePing, 0, 7, ""),
	"pong, highest id":            plain(TypePong, 0, math.MaxUint64, ""),
	"goaway":                      failure(TypeGoAway, 9, Failure{Code: codes.GoingAway, RetryAfter: 250e6, Text: "restart"}),
	"stream taken":                taken(TypeStreamTaken, 0, 3, 1<<32),
	"stream taken, the last":      taken(TypeStreamTaken, FlagFin, 3, 5<<20),
	"session credit":              {Header: Header{Type: TypeSessionCredit}, Credit: 86016},
	"session return":              {Header: Header{Type: TypeSessionReturn}, Credit: 65536},
	"session ask":                 plain(TypeSessionAsk, 0, 0, ""),
	"stream end":                  taken(TypeStreamEnd, 0, 3, 5<<20),
	"end":                         failure(TypeEnd, 0, Failure{Code: codes.Closed}),
	"error with a code that version 1 does not know": failure(TypeError, 9, Failure{Code: math.MaxUint32}),
}

func TestGoldenFramesBothWays(t *testing.T) {
	golden := vectors(t, "frames.hex")
	require.Equal(t, names(goldenFrames), names(golden), "table and testdata/frames.hex differ")
	seen := map[Type]bool{}
	for name, want := range goldenFrames {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, golden[name], want.append(nil))

			all, err := parseAll(bytes.NewReader(golden[name]))
			require.NoError(t, err)
			require.Len(t, all, 1)
			want.Length = len(golden[name]) - HeaderSize
			if len(want.Rest) == 0 {
				want.Rest = nil
			}
			require.Equal(t, want, all[0])
		})
		seen[want.Type] = true
	}
	for n := range 256 {
		require.Equal(t, Type(n).Known(), seen[Type(n)], "golden vectors of %v", Type(n))
	}
}

func TestEveryTruncatedFrameIsAnUnexpectedEnd(t *testing.T) {
	for name, b := range vectors(t, "frames.hex") {
		for cut := 1; cut < len(b); cut++ {
			all, err := parseAll(bytes.NewReader(b[:cut]))
			require.Equal(t, io.ErrUnexpectedEOF, err, "%s cut at %d", name, cut)
			require.Empty(t, all, "%s cut at %d", name, cut)
		}
	}
}

func TestShortHeaderIsNoHeaderAndNoError(t *testing.T) {
	for name, b := range vectors(t, "frames.hex") {
		for cut := range HeaderSize {
			h, n, err := ConsumeHeader(b[:cut])
			require.NoError(t, err, "%s cut at %d", name, cut)
			require.Zero(t, n)
			require.Zero(t, h)
		}
	}
}

func TestHeaderSurvivesEveryLengthAtTheEdges(t *testing.T) {
	for _, n := range sizeGrid(MaxPayload) {
		want := Header{Length: n, Type: TypeStreamData, Flags: FlagFin, ID: 1<<63 | uint64(n)}
		b := AppendHeader([]byte("before"), want)
		require.Equal(t, "before", string(b[:6]))
		got, size, err := ConsumeHeader(append(b[6:], "after"...))
		require.NoError(t, err, "length %d", n)
		require.Equal(t, HeaderSize, size)
		require.Equal(t, want, got)
	}
}

// Row: U16.
func TestHeaderOverMaxPayloadIsTooLongWhateverItsType(t *testing.T) {
	for _, typ := range []byte{byte(TypeStreamData), byte(TypePing), 0x7f, 0x80} {
		for _, n := range []int{MaxPayload + 1, 2 * MaxPayload, 1<<24 - 1} {
			b := []byte{byte(n >> 16), byte(n >> 8), byte(n), typ, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			_, _, err := ConsumeHeader(b)
			require.ErrorIs(t, err, ErrTooLong, "type 0x%02x length %d", typ, n)
		}
	}
}

func TestAppendHeaderPanicsOnALengthThatCannotBeSent(t *testing.T) {
	for _, n := range []int{-1, MaxPayload + 1} {
		require.PanicsWithValue(t, "frame: BUG: payload of "+strconv.Itoa(n)+" bytes", func() {
			AppendHeader(nil, Header{Length: n, Type: TypePing})
		})
	}
}

// All 256 flag bytes of all 256 types: only what spec 4.3 lists passes, and unknown optional types may use any.
func TestFlagsThatATypeDoesNotDefineAreCritical(t *testing.T) {
	defined := map[Type]Flags{TypeRequest: 3, TypeResponse: 3, TypeMessage: 3, TypeStreamData: 1,
		TypeStreamTaken: 1}
	for typ := range 256 {
		if typ < 0x80 && !Type(typ).Known() {
			continue
		}
		for flags := range 256 {
			_, _, err := ConsumeHeader([]byte{0, 0, 0, byte(typ), byte(flags), 0, 0, 0, 0, 0, 0, 0, 0})
			if typ >= 0x80 || Flags(flags)&^defined[Type(typ)] == 0 {
				require.NoError(t, err, "type %v flags 0x%02x", Type(typ), flags)
				continue
			}
			require.ErrorIs(t, err, ErrCritical, "type %v flags 0x%02x", Type(typ), flags)
		}
	}
}

func TestTypeNamesAreDistinctAndUnknownTypesShowTheirNumber(t *testing.T) {
	seen := map[string]Type{}
	for n := range 256 {
		typ := Type(n)
		name := typ.String()
		require.NotContains(t, seen, name, "type 0x%02x", n)
		seen[name] = typ
		require.Equal(t, !typ.Known(), strings.HasPrefix(name, "TYPE 0x"), name)
	}
	require.Equal(t, "STREAM_DATA", TypeStreamData.String())
	require.Equal(t, "TYPE 0x80", TypeOptional.String())
	require.Equal(t, "TYPE 0x00", Type(0).String())
}
