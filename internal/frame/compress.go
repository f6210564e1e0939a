package frame

import (
	"errors"
	"fmt"

	kzstd "github.com/klauspost/compress/zstd"

	"github.com/peerlane/peerlane/internal/zstd"
)

// MinCompress is the smallest body, in bytes, that Compress tries, and sampleSize what the attempt looks at first.
const (
	MinCompress = 512
	sampleSize  = 4 << 10
)

// maxBlock is the most that one zstd block unpacks to (RFC 8878, 3.1.1.2.4).
const maxBlock = 128 << 10

// How much a body may expand: to FreeExpansion, and MaxRatio times its size beyond that (spec 5.1). The encoder of this module makes zeros
// 5040 times smaller, a line that is repeated 4630 times, and a log with times and numbers 17 times. Run lengths alone are 32,768 times
// smaller.
const (
	FreeExpansion = 1 << 20
	MaxRatio      = 8192
)

// Expands reports whether raw bytes are more than a compressed body of total bytes may expand to.
func Expands(total, raw int) bool { return raw-FreeExpansion > MaxRatio*total }

// Promising reports whether compressing body may pay: a sample of a few KiB shrinks.
func Promising(body []byte) bool {
	if len(body) <= 2*sampleSize {
		return len(body) >= MinCompress
	}
	middle := body[len(body)/2:]
	_, ok := Compress(middle[:min(sampleSize, len(middle))])
	return ok
}

// Compress returns body as one zstd frame (RFC 8878) when that saves at least an eighth, and false otherwise. body is not changed. It does
// not expand too much (Expands).
func Compress(body []byte) ([]byte, bool) {
	if len(body) < MinCompress {
		return nil, false
	}
	out := zstd.Append(make([]byte, 0, len(body)/2), body)
	return out, len(out) <= len(body)-len(body)/8
}

// Decompress returns the raw bytes of a compressed body. body must be one zstd frame that declares raw bytes of content,
// and nothing more; anything else is ErrMalformed. It reserves raw bytes, which the caller has checked against its limits,
// and, when the body lies, under 1 MiB above them.
func Decompress(body []byte, raw int) ([]byte, error) {
	if err := checkZstd(body, raw); err != nil {
		return nil, fmt.Errorf("compressed body: %w: %w", err, ErrMalformed)
	}
	reserve := raw
	if raw > 4*maxBlock {
		reserve += maxBlock // a body that lies is caught inside this block, before append would add a quarter of raw
	}
	out, err := zstd.Decode(make([]byte, 0, reserve), body)
	if err != nil {
		return nil, fmt.Errorf("compressed body: %w: %w", err, ErrMalformed)
	}
	if len(out) != raw {
		return nil, fmt.Errorf("compressed body of %d bytes, %d declared: %w", len(out), raw, ErrMalformed)
	}
	return out[:raw:raw], nil
}

var (
	errContent = errors.New("zstd frame does not hold the declared size")
	errBlocks  = errors.New("zstd frame does not end where the body does")
)

// checkZstd walks the block headers of body, and fails unless they make one zstd frame that declares raw bytes and ends
// with body. The decoder alone would also take several frames, skippable ones, and frames of unknown size.
func checkZstd(body []byte, raw int) error {
	var h kzstd.Header
	if err := h.Decode(body); err != nil {
		return err
	}
	if !h.HasFCS || h.FrameContentSize != uint64(raw) {
		return errContent
	}
	rest := body[h.HeaderSize:]
	for last := false; !last; {
		if len(rest) < 3 {
			return errBlocks
		}
		head := uint32(rest[0]) | uint32(rest[1])<<8 | uint32(rest[2])<<16
		size, kind := int(head>>3), head>>1&3
		if kind < 2 { // stored bytes, or one byte repeated: unpacks to size bytes
			raw -= size
		}
		if kind == 1 {
			size = 1
		}
		if raw < 0 {
			return errContent
		}
		if size > len(rest)-3 {
			return errBlocks
		}
		last, rest = head&1 != 0, rest[3+size:]
	}
	if h.HasCheckSum && len(rest) == 4 || !h.HasCheckSum && len(rest) == 0 {
		return nil
	}
	return errBlocks
}
