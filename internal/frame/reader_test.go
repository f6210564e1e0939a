package frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// sizeGrid returns the sizes 0..most at which codecs break: around every power of two, the caps and the buffer sizes.
func sizeGrid(most int) []int {
	centres := []int{MaxPayload, minBuffer - HeaderSize, minBuffer, MaxPayload - HeaderSize, MaxPayload + HeaderSize,
		maxBuffer / 2, maxBuffer - HeaderSize, maxBuffer}
	for n := 1; n <= most; n *= 2 {
		centres = append(centres, n)
	}
	var grid []int
	for _, c := range centres {
		grid = append(grid, c-1, c, c+1)
	}
	grid = append(grid, 0, most)
	slices.Sort(grid)
	grid = slices.Compact(grid)
	return slices.DeleteFunc(grid, func(n int) bool { return n < 0 || n > most })
}

// pattern returns n bytes in which no two neighbourhoods look alike, so that a shifted or repeated byte shows.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(uint32(i) * 2654435761 >> 13)
	}
	return b
}

// chunkings are the ways in which a source may cut what it gives.
var chunkings = map[string]func(io.Reader) io.Reader{
	"whole":         func(r io.Reader) io.Reader { return r },
	"one byte":      iotest.OneByteReader,
	"half":          iotest.HalfReader,
	"data with EOF": iotest.DataErrReader,
	"thirteen":      func(r io.Reader) io.Reader { return &upTo{r, HeaderSize} },
	"4097":          func(r io.Reader) io.Reader { return &upTo{r, 4097} },
}

// upTo gives at most n bytes per Read.
type upTo struct {
	r io.Reader
	n int
}

func (u *upTo) Read(p []byte) (int, error) { return u.r.Read(p[:min(len(p), u.n)]) }

// parts appends body as frames of at most MaxPayload bytes: STREAM_DATA, the last with FIN.
func parts(b, body []byte) []byte {
	for {
		n := min(len(body), MaxPayload)
		h := Header{Length: n, Type: TypeStreamData, ID: 1}
		if n == len(body) {
			h.Flags = FlagFin
		}
		b = append(AppendHeader(b, h), body[:n]...)
		body = body[n:]
		if h.Flags == FlagFin {
			return b
		}
	}
}

// pointsub HEAD lost 128 of the 256 sizes 65536..65791 (features.md 5.1): a grid is what nobody ran. Row: U8.
func TestReaderKeepsEveryByteAtEverySizeAndChunking(t *testing.T) {
	data := pattern(2 * MaxPayload)
	ping := AppendHeader(nil, Header{Type: TypePing, ID: 7})
	for chunking, cut := range chunkings {
		t.Run(chunking, func(t *testing.T) {
			for _, n := range sizeGrid(len(data)) {
				src := append(parts(slices.Clone(ping), data[:n]), ping...)
				got, pings := drain(t, NewReader(cut(bytes.NewReader(src)), nil), n)
				require.True(t, bytes.Equal(data[:n], got), "%d bytes came back as %d others", n, len(got))
				require.Equal(t, 2, pings, "%d bytes", n)
			}
		})
	}
}

// drain reads all frames: the bytes of STREAM_DATA, and how many others there were.
func drain(t *testing.T, r *Reader, n int) (data []byte, others int) {
	t.Helper()
	for {
		h, payload, err := r.Next()
		if err == io.EOF {
			return data, others
		}
		require.NoError(t, err, "%d bytes", n)
		require.Len(t, payload, h.Length)
		if h.Type != TypeStreamData {
			others++
			continue
		}
		data = append(data, payload...)
	}
}

func TestReaderEndsTheSameWayWhereverTheInputStops(t *testing.T) {
	frames := parts(AppendHeader(nil, Header{Type: TypePing}), pattern(100))
	edges := []int{0, HeaderSize, len(frames)}
	for chunking, cut := range chunkings {
		for stop := range len(frames) + 1 {
			r := NewReader(cut(bytes.NewReader(frames[:stop])), nil)
			var err error
			for err == nil {
				_, _, err = r.Next()
			}
			want := io.ErrUnexpectedEOF
			if slices.Contains(edges, stop) {
				want = io.EOF
			}
			require.Equal(t, want, err, "%s, stopped at %d", chunking, stop)
			_, _, again := r.Next()
			require.Equal(t, want, again, "%s, stopped at %d: the end does not stay", chunking, stop)
		}
	}
}

func TestReaderHandsOutWholeFramesBeforeTheSourcesError(t *testing.T) {
	broken := errors.New("broken")
	two := append(AppendHeader(nil, Header{Type: TypePing, ID: 1}), AppendHeader(nil, Header{Type: TypePing, ID: 2})...)
	r := NewReader(iotest.DataErrReader(io.MultiReader(bytes.NewReader(append(two, 0, 0)), iotest.ErrReader(broken))), nil)
	for id := range uint64(2) {
		h, _, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, id+1, h.ID)
	}
	_, _, err := r.Next()
	require.Equal(t, broken, err, "a source's error is not an unexpected end")
}

func TestReaderStaysAtAnErrorOfDecoding(t *testing.T) {
	bad := []byte{0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	r := NewReader(bytes.NewReader(append(bad, AppendHeader(nil, Header{Type: TypePing})...)), nil)
	for range 3 {
		_, payload, err := r.Next()
		require.ErrorIs(t, err, ErrCritical)
		require.Nil(t, payload)
	}
}

func TestReaderReportsEveryReadThatBroughtBytes(t *testing.T) {
	src := parts(nil, pattern(100))
	var reads []int
	r := NewReader(&upTo{bytes.NewReader(src), 50}, func(n int) { reads = append(reads, n) })
	_, _, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, []int{50, 50, 13}, reads)
	_, _, err = r.Next()
	require.Equal(t, io.EOF, err)
	require.Len(t, reads, 3, "a Read without bytes was reported")
}

// Whoever asks Buffered flushes before waiting: an unknown optional frame that Next skips must not hide the wait.
func TestBufferedSaysWhetherNextWouldWait(t *testing.T) {
	ping := AppendHeader(nil, Header{Type: TypePing})
	unknown := append(AppendHeader(nil, Header{Length: 3, Type: 0x80}), "any"...)
	critical := []byte{0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		rest []byte
		want bool
	}{
		{"nothing", nil, false},
		{"half a header", ping[:6], false},
		{"a header without its payload", parts(nil, []byte("ab"))[:HeaderSize+1], false},
		{"a frame", ping, true},
		{"an error", critical, true},
		{"a skipped frame", unknown, false},
		{"a skipped frame and half a header", append(slices.Clone(unknown), ping[:6]...), false},
		{"two skipped frames and a frame", slices.Concat(unknown, unknown, ping), true},
		{"a skipped frame and an error", slices.Concat(unknown, critical), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &askOnce{t, slices.Concat(ping, c.rest)}
			r := NewReader(src, nil)
			require.False(t, r.Buffered(), "before the first Read")
			_, _, err := r.Next()
			require.NoError(t, err)
			require.Equal(t, c.want, r.Buffered())
			if c.want {
				_, _, _ = r.Next() // askOnce fails the test if this waits for more
			}
		})
	}
}

func TestPayloadCannotBeAppendedIntoTheNextFrame(t *testing.T) {
	src := parts(parts(nil, []byte("one")), []byte("two"))
	r := NewReader(bytes.NewReader(src), nil)
	_, one, err := r.Next()
	require.NoError(t, err)
	_ = append(one, make([]byte, 64)...)
	_, two, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, "two", string(two))
}

func TestAnyFramesSurviveAnyChunking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var src []byte
		var want []string
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 64), rapid.IntRange(0, MaxPayload)), 0, 8).Draw(t, "sizes")
		for i, n := range sizes {
			src = append(AppendHeader(src, Header{Length: n, Type: TypeStreamData, ID: uint64(i)}), pattern(n)...)
			want = append(want, fmt.Sprint(i, n))
		}
		chunks := rapid.SliceOfN(rapid.IntRange(1, 8192), 1, 16).Draw(t, "chunks")
		r := NewReader(&inChunks{src: src, sizes: chunks}, nil)
		var got []string
		for {
			h, payload, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil || !bytes.Equal(payload, pattern(h.Length)) {
				t.Fatalf("frame %d of %d bytes: %v", h.ID, h.Length, err)
			}
			got = append(got, fmt.Sprint(h.ID, h.Length))
		}
		if !slices.Equal(want, got) {
			t.Fatalf("want %v, got %v", want, got)
		}
	})
}

// inChunks gives src in Reads of the given sizes, over and over.
type inChunks struct {
	src   []byte
	sizes []int
	turn  int
}

func (c *inChunks) Read(p []byte) (int, error) {
	if len(c.src) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.sizes[c.turn%len(c.sizes)])], c.src)
	c.src = c.src[n:]
	c.turn++
	return n, nil
}
