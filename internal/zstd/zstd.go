// Package zstd has the process's zstd coders (RFC 8878), and shares them between peers. They hold megabytes, so there is one of each.
package zstd

import "github.com/klauspost/compress/zstd"

// maxMemory bounds what a frame may declare: 1 GiB, the largest body of a session (spec 5.1).
const maxMemory = 1 << 30

// The coders are safe for concurrent use, and keep nothing between calls. They are made, to their last channel, when the process starts: a
// channel that is made inside a synctest bubble could not be used outside it.
var (
	encoder = newEncoder()
	decoder = newDecoder()
)

func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		panic("zstd: BUG: encoder: " + err.Error())
	}
	e.EncodeAll([]byte{0}, nil) // makes what NewWriter leaves for the first use
	return e
}

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(maxMemory), zstd.WithDecoderConcurrency(0))
	if err != nil {
		panic("zstd: BUG: decoder: " + err.Error())
	}
	return d
}

// Append appends src to dst, compressed as one frame.
func Append(dst, src []byte) []byte { return encoder.EncodeAll(src, dst) }

// Decode appends what the frames in src unpack to to dst, within its capacity: dst is never reallocated, and more is an error.
func Decode(dst, src []byte) ([]byte, error) { return decoder.DecodeAll(src, dst) }
