package bulk

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/zstd"
	"github.com/peerlane/peerlane/session"
)

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// rawBlock returns a block that is not compressed.
func rawBlock(number uint64, body string) []byte {
	b := make([]byte, blockHead, blockHead+len(body))
	block{kind: blockRaw, length: len(body), raw: len(body), number: number}.put(b)
	return append(b, body...)
}

func rawEnd(number uint64) []byte {
	b := make([]byte, blockHead)
	block{kind: blockEnd, number: number}.put(b)
	return b
}

// rawZstd returns a block that says it holds raw bytes.
func rawZstd(number uint64, packed []byte, raw int) []byte {
	b := make([]byte, blockHead, blockHead+len(packed))
	block{kind: blockZstd, length: len(packed), raw: raw, number: number}.put(b)
	return append(b, packed...)
}

func pack(body []byte) []byte { return zstd.Append(nil, body) }

// rawStrand is one end of a link as a strand.
type rawStrand struct{ *faultnet.Conn }

func (s rawStrand) CloseRead() error { return s.SetReadDeadline(time.Unix(1, 0)) }

func (s rawStrand) Reset(codes.Code) error {
	s.Link().Cut()
	return nil
}

// rawLane is a lane in blocks, and the other ends of its strands.
func rawLane(zstd bool, strands int, opts faultnet.LinkOptions) (*framed, []rawStrand) {
	f := newFramed(zstd, strands)
	far := make([]rawStrand, strands)
	for i := range far {
		here, there := faultnet.NewLink(opts).Ends()
		far[i] = rawStrand{there}
		if !f.join(i, rawStrand{here}) {
			panic("a strand does not join")
		}
	}
	return f, far
}

// rawOpen says OPEN on a stream of its own.
func rawOpen(t *testing.T, s *session.Session, h hello, opts *session.StreamOptions) *session.Stream {
	st, err := s.OpenStream(t.Context(), "lane", opts)
	require.NoError(t, err)
	_, err = st.Write(h.append(nil))
	require.NoError(t, err)
	return st
}

func theBytes(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n] }
