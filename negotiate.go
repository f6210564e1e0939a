package peerlane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// selectOneOf negotiates the first of tags that the peer serves, as multistream.SelectOneOf does, at less cost: one Write
// carries the header and the first tag, no goroutine is started, and an acceptance, whose bytes are known beforehand, is
// read as it comes instead of byte by byte. Not a byte behind the answer is read. It fails with multistream.ErrNotSupported
// if the peer serves none of tags.
func selectOneOf(tags []protocol.ID, s io.ReadWriter) (protocol.ID, error) {
	hello := make([]byte, 0, 2*binary.MaxVarintLen16+len(multistream.ProtocolID)+len(tags[0])+2)
	hello = appendToken(hello, multistream.ProtocolID)
	hello = appendToken(hello, string(tags[0]))
	if _, err := s.Write(hello); err != nil {
		return "", err
	}
	rest, err := readAcceptance(s, hello)
	if err != nil {
		return "", err
	}
	if rest == nil {
		return tags[0], nil
	}
	switch header, err := multistream.ReadNextToken[string](rest); {
	case err != nil:
		return "", err
	case header != multistream.ProtocolID:
		return "", fmt.Errorf("the peer negotiates in %q, not in %s", header, multistream.ProtocolID)
	}
	for i, tag := range tags {
		if i > 0 {
			if _, err := s.Write(appendToken(nil, string(tag))); err != nil {
				return "", err
			}
		}
		switch answer, err := multistream.ReadNextToken[protocol.ID](rest); {
		case err != nil:
			return "", err
		case answer == tag:
			return tag, nil
		case answer != "na":
			return "", multistream.ErrUnrecognizedResponse[protocol.ID]{Actual: answer, Expected: tag}
		}
	}
	return "", multistream.ErrNotSupported[protocol.ID]{Protos: tags}
}

// appendToken appends a token as multistream frames it: its length, itself, a newline.
func appendToken(b []byte, token string) []byte {
	b = binary.AppendUvarint(b, uint64(len(token)+1))
	return append(append(b, token...), '\n')
}

// readAcceptance reads the peer's answer while it is want, which a peer that accepts sends back. It returns nil after the
// whole of want, or else a reader of the whole answer, the bytes already read included.
func readAcceptance(r io.Reader, want []byte) (io.Reader, error) {
	got := make([]byte, len(want))
	for n := 0; n < len(want); {
		m, err := r.Read(got[n:])
		n += m
		switch {
		case !bytes.Equal(got[:n], want[:n]):
			return io.MultiReader(bytes.NewReader(got[:n]), r), nil
		case n == len(want):
			return nil, nil
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
	}
	return nil, nil
}
