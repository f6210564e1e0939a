package psk

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/deadline"
)

// Row: N2
func TestConnIsAReader(t *testing.T) {
	chunks := []string{"a", "bc", strings.Repeat("d", 100), strings.Repeat("e", smallBuffer), strings.Repeat("f", maxChunk)}
	content := []byte(strings.Join(chunks, ""))
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole":           func(r io.Reader) io.Reader { return r },
		"one":             iotest.OneByteReader,
		"half":            iotest.HalfReader,
		"data with error": iotest.DataErrReader,
	} {
		c := reading(wrap(bytes.NewReader(wireOf(chunks...))).Read)
		require.NoError(t, iotest.TestReader(c, content), name)
		require.Nil(t, c.buf, "%s: a drained conn holds no buffer", name)
	}
}

// Row: N2
// Claim: psk.ErrTampered
func TestEveryFlippedByteIsFound(t *testing.T) {
	chunks := []string{"first", "second", strings.Repeat("third", 20)}
	wire := wireOf(chunks...)
	ends := []int{23, 47, len(wire) - 18, len(wire)} // of the four records
	for at := range wire {
		for bit := range 8 {
			c := reading(bytes.NewReader(flip(wire, 8*at+bit)).Read)
			got, err := io.ReadAll(c)
			whole := 0
			for whole < 3 && ends[whole] <= at {
				whole++
			}
			require.Equal(t, strings.Join(chunks[:whole], ""), string(got), "byte %d bit %d", at, bit)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				start := append([]int{0}, ends...)[whole]
				require.Less(t, at-start, headerSize, "only a longer length can look like a cut")
				continue
			}
			require.ErrorIs(t, err, ErrTampered, "byte %d bit %d", at, bit)
			requireDead(t, c, ErrTampered)
			_, err = c.Write([]byte("x"))
			require.ErrorIs(t, err, ErrTampered, "dead for writes as well")
		}
	}
}

// Row: N2
func TestEveryTruncationIsFound(t *testing.T) {
	chunks := []string{"first", "second", strings.Repeat("third", 20)}
	wire := wireOf(chunks...)
	whole := strings.Join(chunks, "")
	for n := range wire {
		c := reading(bytes.NewReader(wire[:n]).Read)
		got, err := io.ReadAll(c)
		require.Same(t, io.ErrUnexpectedEOF, err, "%d of %d bytes", n, len(wire))
		require.True(t, strings.HasPrefix(whole, string(got)), "%d bytes gave %q", n, got)
		requireDead(t, c, io.ErrUnexpectedEOF)
	}
	c := reading(bytes.NewReader(wire).Read)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, whole, string(got))
	requireDead(t, c, io.EOF)
}

// requireDead checks that Read gives exactly err, again and again.
func requireDead(t *testing.T, c *sealedConn, want error) {
	t.Helper()
	for range 3 {
		n, err := c.Read(make([]byte, 100))
		require.Zero(t, n)
		require.Same(t, want, err)
	}
	require.Nil(t, c.buf, "a conn that is done holds no buffer")
}

// Row: N2
func TestReorderedRepeatedAndMissingRecordsAreFound(t *testing.T) {
	wire := wireOf("one", "two")
	one, two, end := wire[:21], wire[21:42], wire[42:]
	for _, test := range []struct {
		name string
		wire [][]byte
		read string
		want error
	}{
		{"in order", [][]byte{one, two, end}, "onetwo", io.EOF},
		{"reordered", [][]byte{two, one, end}, "", ErrTampered},
		{"repeated", [][]byte{one, one, two, end}, "one", ErrTampered},
		{"missing", [][]byte{one, end}, "one", ErrTampered},
		{"early end", [][]byte{end, one, two}, "", ErrTampered},
		{"length under a tag", [][]byte{one, {0, tagSize - 1}, two}, "one", ErrTampered},
		{"length zero", [][]byte{one, {0, 0}, two}, "one", ErrTampered},
		{"forged end", [][]byte{one, {0, tagSize}, make([]byte, tagSize), two, end}, "one", ErrTampered},
		{"bytes after the end", [][]byte{one, two, end, one, []byte("anything")}, "onetwo", io.EOF},
	} {
		c := reading(bytes.NewReader(bytes.Join(test.wire, nil)).Read)
		var got bytes.Buffer
		_, err := got.ReadFrom(c)
		if err == nil {
			err = io.EOF
		}
		require.Equal(t, test.read, got.String(), test.name)
		require.ErrorIs(t, err, test.want, test.name)
		requireDead(t, c, test.want)
	}
}

// A length that no record has is refused on sight, not after as many bytes have come.
func TestImpossibleLengthIsRefusedAtOnce(t *testing.T) {
	for length := range tagSize {
		c := reading(stutter([]byte{0, byte(length)}, headerSize))
		_, err := c.Read(make([]byte, 100))
		require.ErrorIs(t, err, ErrTampered, "length %d", length)
	}
}

// An empty data record would be the end record: the end is not to be had by accident, and nothing follows it.
func TestEmptyDataRecordIsTheEnd(t *testing.T) {
	keys, _ := fixedKeys()
	d := newDirection(keys.send, rekeyInterval)
	wire := d.appendRecord(d.appendRecord(nil, nil), []byte("never read"))
	c := reading(bytes.NewReader(wire).Read)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestReadOwnReflectionFails(t *testing.T) {
	var wire bytes.Buffer
	keys, _ := fixedKeys()
	c := newConn(&fakeConn{write: wire.Write, read: wire.Read}, keys, rekeyInterval)
	_, err := c.Write([]byte("to the peer"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 100))
	require.ErrorIs(t, err, ErrTampered)
}

// Row: N2
func TestDeadlineInsideARecordLosesNothing(t *testing.T) {
	big := strings.Repeat("x", smallBuffer)
	wire := wireOf("one", big, "three")
	cuts := make([]int, len(wire))
	for i := range cuts {
		cuts[i] = i
	}
	for _, size := range []int{1, 5, 4096} {
		c := reading(stutter(wire, cuts...))
		var got []byte
		timeouts := 0
		for p := make([]byte, size); ; {
			n, err := c.Read(p)
			got = append(got, p[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				require.Zero(t, n)
				timeouts++
				continue
			}
			if err != nil {
				require.Same(t, io.EOF, err)
				break
			}
		}
		require.Equal(t, "one"+big+"three", string(got), "%d-byte reads", size)
		require.Equal(t, len(cuts), timeouts, "%d-byte reads", size)
	}
}

func TestReadGivesTheDeadlineBeforeWhatItHolds(t *testing.T) {
	c := reading(bytes.NewReader(wireOf("held back")).Read)
	n, err := c.Read(make([]byte, 4))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	n, err = c.Read(make([]byte, 4))
	require.Same(t, os.ErrDeadlineExceeded, err)
	require.Zero(t, n)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	rest, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, " back", string(rest))
}

func TestReadErrorsOfTheConnBelowComeThrough(t *testing.T) {
	c := reading(func([]byte) (int, error) { return 0, errWire })
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, errWire)
	c = reading(func([]byte) (int, error) { return 0, nil })
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.ErrNoProgress)
	n, err := c.Read(nil)
	require.NoError(t, err)
	require.Zero(t, n)
}

// The figure of the package doc: a header that claims the most, and then silence.
//
// Row: N2
func TestStalledRecordCostsOneBuffer(t *testing.T) {
	for _, wire := range [][]byte{{}, {0xff}, {0xff, 0xff}, append([]byte{0xff, 0xff}, make([]byte, 60000)...)} {
		c := reading(stutter(wire, len(wire)))
		_, err := c.Read(make([]byte, 1<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		switch {
		case len(wire) == 0:
			require.Nil(t, c.buf)
		case len(wire) < headerSize:
			require.Len(t, c.buf.b, smallBuffer)
		default:
			require.Len(t, c.buf.b, recordBuffer)
		}
	}
}

func TestCloseReadEndsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sealedPipe(t)
		done := make(chan error, 1)
		go func() {
			_, err := a.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, a.CloseRead())
		require.ErrorIs(t, <-done, net.ErrClosed)
		require.NoError(t, a.SetReadDeadline(time.Time{}))
		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)

		go func() { _, _ = a.Write([]byte("still writes")) }()
		got := make([]byte, 12)
		_, err = io.ReadFull(b, got)
		require.NoError(t, err)
		require.Equal(t, "still writes", string(got))
	})
}

// A Read on its way to the conn below finds the past deadline of CloseRead, whatever is set after it.
func TestDeadlineAfterCloseReadStaysHere(t *testing.T) {
	var set []time.Time
	c := seal(&fakeConn{setReadDeadline: func(at time.Time) error { set = append(set, at); return nil }}, nil)
	require.NoError(t, c.CloseRead())
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	require.Equal(t, []time.Time{deadline.Past}, set)
}
