package packet_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codec/json"
	"github.com/peerlane/peerlane/codec/packet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// lines is a Format of lines, whose size is known once they are complete.
type lines struct{}

func (lines) Size(data []byte) (int, error) {
	if bytes.HasPrefix(data, []byte("!")) {
		return 0, errors.New("no line")
	}
	return bytes.IndexByte(data, '\n') + 1, nil
}

func (lines) Decode(data []byte) (string, error) {
	if data[0] == '?' {
		return "", errors.New("no answer")
	}
	return string(data[:len(data)-1]), nil
}

func (lines) Append(b []byte, p string) ([]byte, error) {
	if strings.Contains(p, "\n") {
		return b, errors.New("two lines")
	}
	return append(append(b, p...), '\n'), nil
}

// sized is a Format of bytes behind a length of four bytes, which may be anything.
type sized struct{}

func (sized) Size(data []byte) (int, error) {
	if len(data) < 4 {
		return 0, nil
	}
	return int(int32(binary.BigEndian.Uint32(data))), nil
}

func (sized) Decode(data []byte) (string, error) { return string(data[min(4, len(data)):]), nil }
func (sized) Append(b []byte, p string) ([]byte, error) {
	return append(binary.BigEndian.AppendUint32(b, uint32(4+len(p))), p...), nil
}

// readAll returns all packets, and why there are no more.
func readAll[P any](r *packet.Reader[P]) ([]P, error) {
	var all []P
	for {
		p, err := r.Next()
		if err != nil {
			if _, again := r.Next(); !errors.Is(again, err) && again.Error() != err.Error() {
				panic(fmt.Sprintf("%v, then %v", err, again))
			}
			return all, err
		}
		all = append(all, p)
	}
}

// However the bytes arrive, the packets are the same.
func TestPacketsAreCutWhereTheyEnd(t *testing.T) {
	var want []string
	for n := range 300 {
		want = append(want, strings.Repeat("x", n*n%2000))
	}
	var wire bytes.Buffer
	w := packet.NewWriter(&wire, sized{}, 3000)
	for _, p := range want {
		require.NoError(t, w.Write(p))
	}
	for name, by := range map[string]func(io.Reader) io.Reader{
		"as it comes": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader, "half": iotest.HalfReader, "with EOF": iotest.DataErrReader,
	} {
		got, err := readAll(packet.NewReader(by(bytes.NewReader(wire.Bytes())), sized{}, 3000))
		require.Equal(t, io.EOF, err, name)
		require.Equal(t, want, got, name)
	}
	large := packet.NewReader(io.MultiReader(strings.NewReader(strings.Repeat("x", 200_000)+"\n"), strings.NewReader("a\n")), lines{}, 1<<20)
	_, err := large.Next()
	require.ErrorIs(t, err, packet.ErrMalformed, "a header of more than MaxHeader")
	for _, cut := range []int{1, 3, 4, 6, 100, wire.Len() - 5} {
		_, err := readAll(packet.NewReader(bytes.NewReader(wire.Bytes()[4:][:cut]), sized{}, 3000)) // the first is empty
		require.Equal(t, io.ErrUnexpectedEOF, err, cut)
	}
}

// A large packet leaves no large buffer behind, and the packets after it are read.
func TestSmallPacketsAfterALargeOne(t *testing.T) {
	want := []string{"a", strings.Repeat("x", 500_000), "b", "c"}
	in, out := io.Pipe()
	go func() {
		w := packet.NewWriter(out, sized{}, 1<<20)
		for _, p := range want {
			if err := w.Write(p); err != nil {
				t.Error(err)
			}
		}
		_ = out.Close()
	}()
	got, err := readAll(packet.NewReader(in, sized{}, 1<<20))
	require.Equal(t, io.EOF, err)
	require.Equal(t, want, got)
}

// Claim: packet.MaxHeader, packet.ErrTooLarge, packet.ErrMalformed
func TestBadPacketsEndTheReader(t *testing.T) {
	size := func(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	for name, c := range map[string]struct {
		next func() error
		want error
	}{
		"too large": {func() error { _, err := packet.NewReader(bytes.NewReader(size(101)), sized{}, 100).Next(); return err }, packet.ErrTooLarge},
		"as large as allowed": {func() error {
			_, err := packet.NewReader(bytes.NewReader(append(size(100), make([]byte, 96)...)), sized{}, 100).Next()
			return err
		}, nil},
		"negative": {func() error { _, err := packet.NewReader(bytes.NewReader(size(-1)), sized{}, 100).Next(); return err }, packet.ErrMalformed},
		"no size": {func() error {
			_, err := packet.NewReader(bytes.NewReader(make([]byte, packet.MaxHeader)), sized{}, 1<<20).Next()
			return err
		}, packet.ErrMalformed},
		"no size within the limit": {func() error { _, err := packet.NewReader(strings.NewReader("abcdef"), lines{}, 5).Next(); return err }, packet.ErrMalformed},
		"refused by Size":          {func() error { _, err := packet.NewReader(strings.NewReader("!\n"), lines{}, 5).Next(); return err }, packet.ErrMalformed},
		"refused by Decode":        {func() error { _, err := packet.NewReader(strings.NewReader("?\n"), lines{}, 5).Next(); return err }, packet.ErrMalformed},
		"the stream's error": {func() error {
			_, err := packet.NewReader(iotest.ErrReader(net.ErrClosed), lines{}, 5).Next()
			return err
		}, net.ErrClosed},
		"nothing for long": {func() error { _, err := packet.NewReader(silent{}, lines{}, 5).Next(); return err }, io.ErrNoProgress},
		"a value of 4 GiB": {func() error {
			_, err := packet.NewReader(bytes.NewReader(size(-1)), packet.Values[int](json.Codec{}), 1<<30).Next()
			return err
		}, packet.ErrMalformed},
		"no value": {func() error {
			_, err := packet.NewReader(bytes.NewReader(size(0)), packet.Values[int](json.Codec{}), 1<<30).Next()
			return err
		}, packet.ErrMalformed},
	} {
		require.ErrorIs(t, c.next(), c.want, name)
	}
	got, err := readAll(packet.NewReader(strings.NewReader("a\nb\n?\nc\n"), lines{}, 10))
	require.Equal(t, []string{"a", "b"}, got, "all before it are read")
	require.ErrorIs(t, err, packet.ErrMalformed)
	require.Panics(t, func() { packet.NewReader(strings.NewReader(""), lines{}, 0) })
	require.Panics(t, func() { packet.NewWriter(io.Discard, lines{}, 0) })
}

// silent is a Reader that brings nothing.
type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

// declared is a stream that declares a large packet and then has some bytes of it.
type declared struct {
	head []byte
	left int
	most int // the largest room that it was asked to fill
}

func (d *declared) Read(b []byte) (int, error) {
	d.most = max(d.most, len(b))
	if len(d.head) > 0 {
		n := copy(b, d.head)
		d.head = d.head[n:]
		return n, nil
	}
	if d.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), d.left)
	d.left -= n
	return n, nil
}

// A size alone reserves no memory.
func TestMemoryGrowsWithWhatArrives(t *testing.T) {
	for _, arrives := range []int{0, 100, 10_000, 1_000_000} {
		d := &declared{head: binary.BigEndian.AppendUint32(nil, 1<<30), left: arrives}
		_, err := packet.NewReader(d, sized{}, 1<<30).Next()
		require.Equal(t, io.ErrUnexpectedEOF, err)
		require.LessOrEqual(t, d.most, arrives+512, "the room is no more than what has arrived")
	}
}

func TestWhatIsNotWritten(t *testing.T) {
	var wire bytes.Buffer
	w := packet.NewWriter(&wire, lines{}, 5)
	require.ErrorIs(t, w.Write("12345"), packet.ErrTooLarge)
	require.ErrorContains(t, w.Write("1\n2"), "two lines")
	require.Zero(t, wire.Len())
	require.NoError(t, w.Write("1234"))
	require.Equal(t, "1234\n", wire.String())
	v := packet.NewWriter(&wire, packet.Values[any](json.Codec{}), 100)
	require.ErrorContains(t, v.Write(make(chan int)), "unsupported type")
	require.NoError(t, packet.NewWriter(&wire, packet.Values[any](json.Codec{}), 1<<20).Write(strings.Repeat("x", 100_000)), "a large buffer is not kept")
}

type order struct {
	Item  string
	Count int
}

// Values cross a session's stream, from several writers at once.
func TestValuesOverAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		const writers, each = 4, 50
		got := make(chan map[string]int, 1)
		p.ToBob.SetStream("orders", func(st *session.Stream) {
			all, err := readAll(packet.NewReader(st, packet.Values[order](json.Codec{}), 1000))
			sums := make(map[string]int)
			for _, o := range all {
				sums[o.Item] += o.Count
			}
			if err != io.EOF {
				sums[err.Error()]++
			}
			got <- sums
		})
		st, err := p.Alice.OpenStream(t.Context(), "orders", nil)
		require.NoError(t, err)
		w := packet.NewWriter(st, packet.Values[order](json.Codec{}), 1000)
		var all sync.WaitGroup
		for n := range writers {
			all.Go(func() {
				for range each {
					if err := w.Write(order{fmt.Sprint("item ", n), 2}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.NoError(t, st.Close())
		require.Equal(t, map[string]int{"item 0": 100, "item 1": 100, "item 2": 100, "item 3": 100}, <-got)
	})
}

// FuzzReader compares the packets with those of a reader that has all bytes at once.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x05a\x00\x00\x00\x04"), uint8(1))
	f.Add([]byte("\x00\x00\x00\x01a"), uint8(3))
	f.Add([]byte("\xff\xff\xff\xff"), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var want []string
		rest := b
		for {
			n, _ := sized{}.Size(rest)
			if n <= 0 || n > 600 || n > len(rest) {
				break
			}
			p, _ := sized{}.Decode(rest[:n])
			want, rest = append(want, p), rest[n:]
		}
		got, err := readAll(packet.NewReader(&chunks{b, int(step) + 1}, sized{}, 600))
		if fmt.Sprint(want) != fmt.Sprint(got) || (err == io.EOF) != (len(rest) == 0) {
			t.Fatalf("%q and %q left, got %q: %v", want, rest, got, err)
		}
	})
}

// chunks is a Reader of pieces.
type chunks struct {
	b    []byte
	step int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.step)], c.b)
	c.b = c.b[n:]
	return n, nil
}

func BenchmarkReader(b *testing.B) {
	wire, err := sized{}.Append(nil, strings.Repeat("x", 96))
	require.NoError(b, err)
	wire = bytes.Repeat(wire, 1000)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		if all, err := readAll(packet.NewReader(bytes.NewReader(wire), sized{}, 1000)); len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
}
