package peerlane

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
	"github.com/stretchr/testify/require"
)

// A closable is a peer that sends so much, and takes whatever is written.
type closable struct{ io.Reader }

func (closable) Write(p []byte) (int, error) { return len(p), nil }
func (closable) Close() error                { return nil }

// Whatever a peer answers, and however it is cut, selectOneOf finds what multistream.SelectOneOf finds. It reads not a byte
// behind the acceptance of the first tag. (A peer that answers another one before it was offered loses what it sends behind that.)
func FuzzSelectOneOf(f *testing.F) {
	tags := []protocol.ID{"/chat/1.0.0/peerlane/1", "/chat/1.0.0"}
	header := appendToken(nil, multistream.ProtocolID)
	f.Add(append(appendToken(bytes.Clone(header), string(tags[0])), "data"...))
	f.Add(append(appendToken(appendToken(bytes.Clone(header), "na"), string(tags[1])), "data"...))
	f.Add(appendToken(appendToken(bytes.Clone(header), "na"), "na"))
	f.Add(appendToken(bytes.Clone(header), "/other"))
	f.Add(append(bytes.Clone(header), 0xff, 0xff, 0xff, 0x7f))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		theirs := bytes.NewReader(answer)
		want, wantErr := multistream.SelectOneOf(tags, closable{theirs})
		for name, slow := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader,
		} {
			ours := bytes.NewReader(answer)
			got, err := selectOneOf(tags, &splitStream{Reader: slow(ours), Writer: io.Discard})
			require.Equal(t, wantErr == nil, err == nil, "%s: %v, want %v", name, err, wantErr)
			require.Equal(t, want, got, name)
			if got == tags[0] {
				require.Equal(t, theirs.Len(), ours.Len(), "%s: bytes that are left", name)
			}
		}
	})
}
