package main

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The framing of the two hand-written libp2p contenders: four bytes of
// big-endian length, then the body.
const (
	lengthSize = 4
	maxBody    = 32 << 20
)

// appendFrame appends the frame of body to b. Header and body leave in one
// Write, as a careful program would send them.
func appendFrame(b, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

// readFrame returns the body of the next frame of r, in buf if it fits. It
// returns io.EOF only at the start of a frame.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	var header [lengthSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if n > maxBody {
		return nil, fmt.Errorf("frame of %d bytes: the limit is %d", n, maxBody)
	}
	if int(n) > cap(buf) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, fmt.Errorf("frame body: %w", err)
	}
	return buf, nil
}
