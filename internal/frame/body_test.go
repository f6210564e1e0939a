package frame

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// startFlags are the four flag sets of a start frame.
var startFlags = []Flags{0, FlagCompressed, FlagObject, FlagCompressed | FlagObject}

// goldenStarts calls fn with the payload of every start frame of testdata/frames.hex.
func goldenStarts(t *testing.T, fn func(name string, want parsed, payload []byte)) {
	t.Helper()
	called := 0
	for name, b := range vectors(t, "frames.hex") {
		if want := goldenFrames[name]; want.Start != nil {
			called++
			fn(name, want, b[HeaderSize:])
		}
	}
	require.GreaterOrEqual(t, called, 3*len(startFlags))
}

func TestEveryTruncatedStartHeadIsMalformed(t *testing.T) {
	goldenStarts(t, func(name string, want parsed, payload []byte) {
		head := StartSize(want.Type, want.Flags, want.Start)
		for cut := range head {
			s, body, err := ConsumeStart(payload[:cut], want.Type, want.Flags, nil)
			require.ErrorIs(t, err, ErrMalformed, "%s cut at %d", name, cut)
			require.Zero(t, s)
			require.Nil(t, body)
		}
		for cut := head; cut <= len(payload); cut++ {
			s, body, err := ConsumeStart(payload[:cut], want.Type, want.Flags, nil)
			require.NoError(t, err, "%s cut at %d: a first part may be short", name, cut)
			require.Equal(t, *want.Start, s)
			require.Equal(t, string(payload[head:cut]), string(body))
		}
	})
}

func TestStartSizeIsWhatAppendStartAppends(t *testing.T) {
	for _, typ := range []Type{TypeRequest, TypeResponse, TypeMessage} {
		for _, f := range startFlags {
			for _, n := range []int{0, 1, MaxName - 1, MaxName} {
				link, codec := strings.Repeat("l", n), strings.Repeat("c", n)
				s := Start{Total: MaxTotal, Raw: MaxTotal, Timeout: time.Hour, Link: link, Codec: codec}
				b := AppendStart(nil, typ, f, s)
				require.Len(t, b, StartSize(typ, f, &s), "%v flags %d names of %d bytes", typ, f, n)

				got, rest, err := ConsumeStart(b, typ, f, nil)
				require.NoError(t, err)
				require.Empty(t, rest)
				require.Equal(t, b, AppendStart(nil, typ, f, got), "%v flags %d names of %d bytes", typ, f, n)
			}
		}
	}
}

func TestAppendStartPanicsOnANameThatCannotBeSent(t *testing.T) {
	long := strings.Repeat("n", MaxName+1)
	require.PanicsWithValue(t, "frame: BUG: name of 256 bytes", func() {
		AppendStart(nil, TypeMessage, 0, Start{Link: long})
	})
	require.PanicsWithValue(t, "frame: BUG: name of 256 bytes", func() {
		AppendStart(nil, TypeResponse, FlagObject, Start{Codec: long})
	})
}

func TestConsumeStartInternsEveryNameAndCopiesNoBody(t *testing.T) {
	goldenStarts(t, func(name string, want parsed, payload []byte) {
		var asked []string
		intern := func(b []byte) string {
			asked = append(asked, string(b))
			return "<" + string(b) + ">"
		}
		s, body, err := ConsumeStart(payload, want.Type, want.Flags, intern)
		require.NoError(t, err, name)
		var wantAsked []string
		if want.Type != TypeResponse {
			wantAsked = append(wantAsked, want.Start.Link)
			require.Equal(t, "<"+want.Start.Link+">", s.Link, name)
		}
		if want.Flags&FlagObject != 0 {
			wantAsked = append(wantAsked, want.Start.Codec)
			require.Equal(t, "<"+want.Start.Codec+">", s.Codec, name)
		}
		require.Equal(t, wantAsked, asked, name)
		if len(body) > 0 {
			require.Same(t, &payload[len(payload)-len(body)], &body[0], name)
		}
	})
}

func TestBodyMayFillTotalAndNotPassIt(t *testing.T) {
	for _, total := range []int{0, 1, 511, 512, 513, MaxPayload - 64} {
		head := AppendStart(nil, TypeMessage, 0, Start{Total: total})
		body := bytes.Repeat([]byte{1}, total+1)
		_, got, err := ConsumeStart(append(head, body[:total]...), TypeMessage, 0, nil)
		require.NoError(t, err, "total %d", total)
		require.Len(t, got, total)
		_, _, err = ConsumeStart(append(head, body...), TypeMessage, 0, nil)
		require.ErrorIs(t, err, ErrMalformed, "total %d", total)
	}
}

func TestTotalAndRawPassAtTheCapAndNotAboveIt(t *testing.T) {
	for _, n := range []uint32{0, 1, MaxTotal - 1, MaxTotal, MaxTotal + 1, 1 << 31, math.MaxUint32} {
		b := []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		asTotal, _, errTotal := ConsumeStart(append(b, 0, 0, 0, 9), TypeResponse, FlagCompressed, nil)
		asRaw, _, errRaw := ConsumeStart(append([]byte{0, 0, 0, 9}, b...), TypeResponse, FlagCompressed, nil)
		if n > MaxTotal {
			require.ErrorIs(t, errTotal, ErrTooLong, "total %d", n)
			require.ErrorIs(t, errRaw, ErrTooLong, "raw %d", n)
			continue
		}
		require.NoError(t, errTotal, "total %d", n)
		require.NoError(t, errRaw, "raw %d", n)
		require.Equal(t, Start{Total: int(n), Raw: 9}, asTotal)
		require.Equal(t, Start{Total: 9, Raw: int(n)}, asRaw)
	}
}

func TestTimesAreRoundedUpAndNeverSentAsNone(t *testing.T) {
	const most = math.MaxUint32 * time.Millisecond
	for _, c := range []struct{ in, want time.Duration }{
		{math.MinInt64, 0}, {-1, 0}, {0, 0},
		{1, time.Millisecond}, {time.Millisecond - 1, time.Millisecond}, {time.Millisecond, time.Millisecond},
		{time.Millisecond + 1, 2 * time.Millisecond}, {1500 * time.Microsecond, 2 * time.Millisecond},
		{most - 1, most}, {most, most}, {most + 1, most},
		{math.MaxInt64 - 1e6, most}, {math.MaxInt64 - 1, most}, {math.MaxInt64, most},
	} {
		s, _, err := ConsumeStart(AppendStart(nil, TypeRequest, 0, Start{Timeout: c.in}), TypeRequest, 0, nil)
		require.NoError(t, err)
		require.Equal(t, c.want, s.Timeout, "timeout %d ns", int64(c.in))
		f, err := ConsumeFailure(AppendFailure(nil, Failure{RetryAfter: c.in}))
		require.NoError(t, err)
		require.Equal(t, c.want, f.RetryAfter, "hint %d ns", int64(c.in))
	}
}

func TestEveryFailureCutInItsHeadIsMalformed(t *testing.T) {
	b := AppendFailure(nil, Failure{Code: codes.Unavailable, RetryAfter: time.Second, Text: "full"})
	for cut := range b {
		f, err := ConsumeFailure(b[:cut])
		if cut < 8 {
			require.ErrorIs(t, err, ErrMalformed, "cut at %d", cut)
			continue
		}
		require.NoError(t, err, "cut at %d", cut)
		require.Equal(t, "full"[:cut-8], f.Text)
	}
}

func TestFailureTextPassesAtTheCapAndNotAboveIt(t *testing.T) {
	for _, n := range []int{0, 1, MaxText - 1, MaxText, MaxText + 1, 2 * MaxText} {
		f := Failure{Code: codes.Application, Text: strings.Repeat("t", n)}
		b := AppendFailure(nil, f)
		require.Len(t, b, FailureSize(f), "text of %d bytes", n)
		require.Len(t, b, 8+min(n, MaxText))
		got, err := ConsumeFailure(b)
		require.NoError(t, err)
		require.Equal(t, CutText(f.Text), got.Text)
	}
	_, err := ConsumeFailure(make([]byte, 8+MaxText+1))
	require.ErrorIs(t, err, ErrTooLong)
}

func TestCutTextCutsBetweenCharacters(t *testing.T) {
	for _, char := range []string{"a", "é", "語", "😀"} {
		for lead := range 5 {
			for _, n := range []int{MaxText - 5, MaxText, MaxText + 1, 3 * MaxText} {
				s := strings.Repeat("a", lead) + strings.Repeat(char, n/len(char)+1)
				got := CutText(s)
				about := fmt.Sprintf("%q after %d, %d bytes", char, lead, len(s))
				require.True(t, strings.HasPrefix(s, got), about)
				require.True(t, utf8.ValidString(got), about)
				require.LessOrEqual(t, len(got), MaxText, about)
				if len(s) <= MaxText {
					require.Equal(t, s, got, about)
					continue
				}
				require.Greater(t, len(got), MaxText-len(char), "%s: a whole character was dropped", about)
			}
		}
	}
}

func TestCutTextOfBytesThatAreNoTextStaysUnderTheCap(t *testing.T) {
	for _, c := range []string{"\x80", "\xbf", "\xff", "\xf0", "\xc3"} {
		got := CutText(strings.Repeat(c, 2*MaxText))
		require.LessOrEqual(t, len(got), MaxText, "%q", c)
		require.GreaterOrEqual(t, len(got), MaxText-4, "%q", c)
	}
}

func TestCreditIsFourBytesAndNotZero(t *testing.T) {
	for _, n := range []uint32{1, 255, 1 << 16, math.MaxUint32} {
		b := AppendCredit(nil, n)
		got, err := ConsumeCredit(b)
		require.NoError(t, err)
		require.Equal(t, n, got)
		for cut := range b {
			_, err := ConsumeCredit(b[:cut])
			require.ErrorIs(t, err, ErrMalformed, "credit %d cut at %d", n, cut)
		}
		_, err = ConsumeCredit(append(b, 0))
		require.ErrorIs(t, err, ErrMalformed)
	}
	_, err := ConsumeCredit(make([]byte, 4))
	require.ErrorIs(t, err, ErrMalformed)
}
