// Package cbor encodes the values of typed calls as CBOR (RFC 8949).
//
//	answer, err := peerlane.Call[Receipt](ctx, client, pid, "/orders/1.0.0", cbor.Codec{}, order)
//
// It uses github.com/fxamacker/cbor, which reads the struct tags cbor and json. What is encoded is deterministic (RFC 8949, 4.2), and times
// keep their nanoseconds. Fields that the receiver's type lacks are ignored, unless DisallowUnknownFields is set, and fields that the value
// lacks keep their zero values. A nil pointer, map or slice is null. A map with a key twice is refused, and so is text that is not
// valid UTF-8.
package cbor

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// Codec is a session.Codec. Its fields are limits for values that are decoded, and MaxBytes for those that are encoded too. They bound the
// memory and time that a peer can cost. A limit that is out of range is an error of each call. The zero Codec is useful.
type Codec struct {
	// MaxBytes limits the bytes of a value. If zero, 4 MiB.
	MaxBytes int
	// MaxDepth limits how deep arrays, maps and tags are nested. If zero, 32. 4 to 65535.
	MaxDepth int
	// MaxElements limits the elements of all arrays and maps of a value together: the shortest takes a byte, and many times that once it is
	// decoded. A pair of a map is two elements, and a tag and each chunk of a text without a length are one. If zero, 2^18. 16 to 2^31 - 1.
	MaxElements int
	// DisallowUnknownFields refuses maps with keys that the receiver's struct has no field for.
	DisallowUnknownFields bool
}

// Name returns "cbor".
func (Codec) Name() string { return "cbor" }

// plainMode is the mode of the zero Codec.
var plainMode = sync.OnceValues(func() (cbor.DecMode, error) { return Codec{}.decMode() })

var encMode = sync.OnceValues(func() (cbor.EncMode, error) {
	o := cbor.CoreDetEncOptions()
	o.Time, o.TimeTag = cbor.TimeRFC3339Nano, cbor.EncTagRequired
	return o.EncMode()
})

// Marshal encodes v. It fails for a value that CBOR has no form for, such as a channel, and for one over MaxBytes.
func (c Codec) Marshal(v any) ([]byte, error) {
	mode, err := encMode()
	if err != nil {
		return nil, err
	}
	data, err := mode.Marshal(v)
	if err != nil {
		return nil, err
	}
	return data, c.checkSize(len(data))
}

// Unmarshal decodes data into v, a pointer. It fails for anything but one CBOR value that fits v, and for a value over a limit.
func (c Codec) Unmarshal(data []byte, v any) error {
	if err := c.checkSize(len(data)); err != nil {
		return err
	}
	mode, err := plainMode()
	if c.MaxDepth != 0 || c.MaxElements != 0 || c.DisallowUnknownFields {
		mode, err = c.decMode()
	}
	if err != nil {
		return fmt.Errorf("cbor: codec: %w", err)
	}
	if err := checkElements(data, c.elements()); err != nil {
		return err
	}
	return mode.Unmarshal(data, v)
}

// elements returns the limit of elements.
func (c Codec) elements() int { return cmp.Or(c.MaxElements, 1<<18) }

// checkElements returns an error if data has more than most elements. It looks at the head of each, one after the other, and leaves data that is
// malformed to the decoder, which refuses all of it before it allocates anything.
func checkElements(data []byte, most int) error {
	const (
		ofBytes, ofText = 2, 3 // major types that bytes follow
		endless         = 31   // no length: a break ends it
		end             = 0xFF // that break
	)
	for n := -1; len(data) > 0; { // the value itself is no element
		head := data[0]
		data = data[1:]
		if head == end {
			continue
		}
		if n++; n > most {
			return fmt.Errorf("cbor: more than %d elements", most)
		}
		length := uint64(head & 31)
		if length >= 24 && length != endless {
			size := 1 << (length - 24)
			if size > 8 || size > len(data) {
				return nil
			}
			var b [8]byte
			copy(b[8-size:], data[:size])
			length, data = binary.BigEndian.Uint64(b[:]), data[size:]
		} else if length == endless {
			length = 0
		}
		if major := head >> 5; major == ofBytes || major == ofText {
			if length > uint64(len(data)) {
				return nil
			}
			data = data[length:]
		}
	}
	return nil
}

func (c Codec) checkSize(n int) error {
	most := c.MaxBytes
	switch {
	case most == 0:
		most = 4 << 20
	case most < 0:
		return fmt.Errorf("cbor: codec: MaxBytes is %d, want more than 0", most)
	}
	if n > most {
		return fmt.Errorf("cbor: %d bytes, at most %d", n, most)
	}
	return nil
}

// decMode returns the mode that has the limits. The library checks that they are in range.
func (c Codec) decMode() (cbor.DecMode, error) {
	o := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: c.MaxDepth, MaxArrayElements: c.elements(), MaxMapPairs: c.elements(),
		TimeTag: cbor.DecTagOptional,
	}
	if c.DisallowUnknownFields {
		o.ExtraReturnErrors = cbor.ExtraDecErrorUnknownField
	}
	return o.DecMode()
}
