// Package json encodes the values of typed calls as JSON.
//
//	answer, err := peerlane.Call[Receipt](ctx, client, pid, "/orders/1.0.0", json.Codec{}, order)
//
// It uses encoding/json, so struct tags and Marshaler work as there. Fields that the receiver's type lacks are ignored, unless
// DisallowUnknownFields is set, and fields that the value lacks keep their zero values. A nil pointer, map or slice is null. If an object has a
// key twice, the last one counts. Text that is not valid UTF-8 is refused.
package json

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Codec is a session.Codec. Its fields are limits for values that are decoded, and MaxBytes for those that are encoded too. They bound the
// memory and time that a peer can cost. A negative limit is an error of each call. The zero Codec is useful.
type Codec struct {
	// MaxBytes limits the bytes of a value. If zero, 4 MiB.
	MaxBytes int
	// MaxDepth limits how deep arrays and objects are nested. If zero, 64. At most 10000.
	MaxDepth int
	// MaxElements limits the elements of all arrays and objects of a value together: the shortest takes two bytes, and many times that once it
	// is decoded. If zero, 2^18.
	MaxElements int
	// DisallowUnknownFields refuses objects with keys that the receiver's struct has no field for.
	DisallowUnknownFields bool
}

// Name returns "json".
func (Codec) Name() string { return "json" }

// Marshal encodes v. It fails for a value that JSON has no form for, such as a channel or NaN, and for one over MaxBytes.
func (c Codec) Marshal(v any) ([]byte, error) {
	limits, err := c.limits()
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return data, limits.checkSize(len(data))
}

// Unmarshal decodes data into v, a pointer. It fails for anything but one JSON value that fits v, and for a value over a limit.
func (c Codec) Unmarshal(data []byte, v any) error {
	limits, err := c.limits()
	if err != nil {
		return err
	}
	if err := limits.check(data); err != nil {
		return err
	}
	if !c.DisallowUnknownFields {
		return json.Unmarshal(data, v)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("json: more than one value")
	}
	return nil
}

// limits returns c with each limit set.
func (c Codec) limits() (Codec, error) {
	for _, l := range []struct {
		name     string
		v        *int
		def, max int
	}{{"MaxBytes", &c.MaxBytes, 4 << 20, 1 << 30}, {"MaxDepth", &c.MaxDepth, 64, 10000}, {"MaxElements", &c.MaxElements, 1 << 18, 1 << 30}} {
		if *l.v == 0 {
			*l.v = l.def
		}
		if *l.v < 0 || *l.v > l.max {
			return c, fmt.Errorf("json: codec: %s is %d, want 1 to %d", l.name, *l.v, l.max)
		}
	}
	return c, nil
}

func (c Codec) checkSize(n int) error {
	if n > c.MaxBytes {
		return fmt.Errorf("json: %d bytes, at most %d", n, c.MaxBytes)
	}
	return nil
}

// check returns which limit data is over. It allocates nothing.
func (c Codec) check(data []byte) error {
	if err := c.checkSize(len(data)); err != nil {
		return err
	}
	if !utf8.Valid(data) {
		return errors.New("json: invalid UTF-8")
	}
	depth, elements, inText, escaped := 0, 0, false, false
	for _, b := range data {
		switch {
		case escaped:
			escaped = false
		case inText:
			inText, escaped = b != '"', b == '\\'
		case b == '"':
			inText = true
		case b == '[' || b == '{':
			depth++
			elements++
		case b == ']' || b == '}':
			depth--
		case b == ',':
			elements++
		}
		if depth > c.MaxDepth {
			return fmt.Errorf("json: nested deeper than %d", c.MaxDepth)
		}
		if elements > c.MaxElements {
			return fmt.Errorf("json: more than %d elements", c.MaxElements)
		}
	}
	return nil
}
