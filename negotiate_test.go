package peerlane

import (
	"io"
	"testing"
	"testing/iotest"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/pipe"
)

// A stream whose reads and writes are apart, and that counts the writes.
type splitStream struct {
	io.Reader
	io.Writer

	writes int
}

func (s *splitStream) Write(p []byte) (int, error) { s.writes++; return s.Writer.Write(p) }

func TestSelectOneOfTakesTheFirstTagThatIsServed(t *testing.T) {
	mux := multistream.NewMultistreamMuxer[protocol.ID]()
	for _, tag := range []protocol.ID{"/b", "/c"} {
		mux.AddHandler(tag, nil)
	}
	for _, test := range []struct {
		tags   []protocol.ID
		want   protocol.ID
		writes int
	}{
		{[]protocol.ID{"/b"}, "/b", 1},
		{[]protocol.ID{"/b", "/c"}, "/b", 1},
		{[]protocol.ID{"/a", "/c"}, "/c", 2},
		{[]protocol.ID{"/a", "/aa", "/b"}, "/b", 3},
		{[]protocol.ID{"/a"}, "", 1},
		{[]protocol.ID{"/a", "/aa"}, "", 2},
	} {
		for name, slow := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader,
		} {
			near, far := pipe.New()
			served := make(chan protocol.ID, 1)
			go func() {
				tag, _, err := mux.Negotiate(far)
				if err == nil {
					_, _ = far.Write([]byte("and data at once"))
				}
				served <- tag
				_ = far.CloseWrite()
			}()
			s := &splitStream{Reader: slow(near), Writer: near}
			got, err := selectOneOf(test.tags, s)
			require.Equal(t, test.want, got, "%s %v", name, test.tags)
			require.Equal(t, test.writes, s.writes, "%s %v", name, test.tags)
			if test.want == "" {
				require.ErrorIs(t, err, multistream.ErrNotSupported[protocol.ID]{}, name)
				require.NoError(t, near.CloseWrite())
				<-served
				continue
			}
			require.NoError(t, err, "%s %v", name, test.tags)
			require.Equal(t, test.want, <-served)
			rest, err := io.ReadAll(near)
			require.NoError(t, err)
			require.Equal(t, "and data at once", string(rest), "%s %v", name, test.tags)
		}
	}
}

func TestSelectOneOfRefusesAPeerThatDoesNotNegotiate(t *testing.T) {
	accepted := string(appendToken(appendToken(nil, multistream.ProtocolID), "/a"))
	for answer, want := range map[string]string{
		"HTTP/1.1 400 Bad Request\r\n\r\n":                                                "", // a length of 72: the end comes first
		string(appendToken(nil, "/multistream/9.0.0")) + "\x03/a\n":                       "/multistream/9.0.0",
		string(appendToken(nil, multistream.ProtocolID)) + string(appendToken(nil, "/x")): "unrecognized response",
	} {
		_, err := selectOneOf([]protocol.ID{"/a"}, &splitStream{Reader: iotest.OneByteReader(&oneAnswer{answer}), Writer: io.Discard})
		require.ErrorContains(t, err, want, "%q", answer)
	}
	for n := range len(accepted) {
		_, err := selectOneOf([]protocol.ID{"/a"}, &splitStream{Reader: &oneAnswer{accepted[:n]}, Writer: io.Discard})
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%d bytes", n)
	}
	_, err := selectOneOf([]protocol.ID{"/a"}, &splitStream{Reader: &oneAnswer{}, Writer: iotest.TruncateWriter(failingWriter{}, 1)})
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

// oneAnswer is a peer that sends so much and ends.
type oneAnswer struct{ left string }

func (a *oneAnswer) Read(p []byte) (int, error) {
	if a.left == "" {
		return 0, io.EOF
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	return n, nil
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
