package pointsub

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

func always(int) bool { return true }

func none(time.Time) error { return nil }

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, n := range []int{0, 1, Chunk - 1, Chunk, Chunk + 1, 3*Chunk + 7} {
		value := bytes.Repeat([]byte{7}, n)
		var b bytes.Buffer
		require.NoError(t, Write(&b, value, Deadline{Set: none}))
		require.Equal(t, Header+n, b.Len())
		r := iotest.HalfReader(&b)
		size, err := ReadSize(r, n)
		require.NoError(t, err)
		require.Equal(t, n, size)
		got, err := ReadBody(r, size, always)
		require.NoError(t, err)
		require.True(t, bytes.Equal(value, got))
	}
}

func TestWhatEndsTooEarlyIsAnUnexpectedEnd(t *testing.T) {
	for _, b := range []string{"", "\x00\x00\x00"} {
		_, err := ReadSize(bytes.NewBufferString(b), 10)
		require.Equal(t, io.ErrUnexpectedEOF, err)
	}
	_, err := ReadBody(bytes.NewBufferString("abc"), 4, always)
	require.Equal(t, io.ErrUnexpectedEOF, err)
	_, err = ReadBody(new(bytes.Buffer), 4, always)
	require.Equal(t, io.ErrUnexpectedEOF, err)
}

// Nothing is held for bytes that are announced and do not come.
func TestABodyHoldsWhatHasComeAndAChunk(t *testing.T) {
	held := 0
	_, err := ReadBody(bytes.NewReader(make([]byte, 3*Chunk)), 1<<30, func(n int) bool { held += n; return true })
	require.Equal(t, io.ErrUnexpectedEOF, err)
	require.Equal(t, 4*Chunk, held)
	_, err = ReadBody(bytes.NewReader(make([]byte, 3*Chunk)), 3*Chunk, func(int) bool { return false })
	requireCode(t, err, codes.Unavailable)
	_, err = ReadSize(bytes.NewReader([]byte{0, 0, 0, 11}), 10)
	requireCode(t, err, codes.TooLarge)
}

func requireCode(t *testing.T, err error, code codes.Code) {
	t.Helper()
	e, ok := errors.AsType[*session.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, e.Code)
	require.Equal(t, session.Rejected, e.Outcome)
}

func TestTheDeadlineMovesWithTheBytes(t *testing.T) {
	var set []time.Time
	d := Deadline{Set: func(at time.Time) error { set = append(set, at); return nil }, Each: time.Minute}
	require.NoError(t, Write(io.Discard, make([]byte, 2*Chunk+1), d))
	require.Len(t, set, 3)
	require.WithinDuration(t, time.Now().Add(time.Minute), set[2], 30*time.Second)
	until := time.Now().Add(time.Second)
	_, _ = Reader{bytes.NewReader(nil), Deadline{Set: d.Set, Each: time.Minute, Until: until}}.Read(nil)
	_, _ = Reader{bytes.NewReader(nil), Deadline{Set: func(at time.Time) error {
		require.Equal(t, until, at)
		return nil
	}, Each: time.Minute, Until: until}}.Read(nil)
}
