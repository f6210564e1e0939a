package frame

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// Invariant 2: no more is reserved than twice what has arrived, or the smallest buffer. Row: D11. Row: G10. Row: S-e.
func requireBounded(t *testing.T, r *Reader, arrived int, about string) {
	t.Helper()
	require.LessOrEqual(t, len(r.buf), max(minBuffer, 2*arrived), "%s: %d bytes arrived", about, arrived)
	require.LessOrEqual(t, len(r.buf), maxBuffer, "%s: %d bytes arrived", about, arrived)
}

func TestReaderReservesNothingForAHeaderThatOnlyClaimsTheMaximum(t *testing.T) {
	claim := AppendHeader(nil, Header{Length: MaxPayload, Type: TypeStreamData, ID: 1})
	r := NewReader(bytes.NewReader(claim), nil)
	_, _, err := r.Next()
	require.Equal(t, io.ErrUnexpectedEOF, err)
	require.Len(t, r.buf, 4<<10)
}

func TestReaderReservesNothingBeforeTheFirstFrameIsAskedFor(t *testing.T) {
	r := NewReader(bytes.NewReader(nil), nil)
	require.False(t, r.Buffered())
	require.Nil(t, r.buf)
}

func TestReaderGrowsWithWhatArrives(t *testing.T) {
	frame := parts(nil, pattern(MaxPayload))
	for stop := 0; stop <= len(frame); stop += 4099 {
		arrived := 0
		r := NewReader(iotest.OneByteReader(bytes.NewReader(frame[:stop])), func(n int) { arrived += n })
		_, _, _ = r.Next()
		require.Equal(t, stop, arrived)
		requireBounded(t, r, stop, "one frame")
	}
}

func TestReaderBufferStaysUnderItsCapWhateverComes(t *testing.T) {
	var stream []byte
	for _, n := range sizeGrid(MaxPayload) {
		stream = parts(stream, pattern(n))
	}
	for chunking, cut := range chunkings {
		arrived := 0
		r := NewReader(cut(bytes.NewReader(stream)), func(n int) { arrived += n })
		for {
			_, _, err := r.Next()
			requireBounded(t, r, arrived, chunking)
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
		require.Equal(t, len(stream), arrived)
	}
}

// An idle session holds a Reader each: pings alone must not grow one.
func TestReaderOfSmallFramesKeepsTheSmallestBuffer(t *testing.T) {
	ping := AppendHeader(nil, Header{Type: TypePing})
	r := NewReader(&upTo{bytes.NewReader(bytes.Repeat(ping, 10_000)), len(ping)}, nil)
	_, pings := drain(t, r, 0)
	require.Equal(t, 10_000, pings)
	require.Len(t, r.buf, minBuffer)
}
