package frame

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/peerlane/peerlane/codes"
)

// Caps of body fields.
const (
	MaxName  = 255     // bytes of a link, stream or codec name
	MaxText  = 1024    // bytes of an error's text
	MaxTotal = 1 << 30 // bytes of one request, response or message

	LeastCredit = 16 << 10 // of a session with streams, beside what each stream has (spec 5.12)
	StreamShare = 4 << 10  // bytes that each stream may have under way, whatever others have
)

// A Start is the head of a REQUEST, RESPONSE or MESSAGE payload (spec 5.1); the first part of the body follows it.
type Start struct {
	Total   int           // bytes of the body on the wire, all parts together
	Raw     int           // with FlagCompressed: bytes of the body once decompressed
	Timeout time.Duration // REQUEST: how long the caller waits, in whole milliseconds; 0 means no limit
	Link    string        // REQUEST and MESSAGE: who is to handle it; "" is the tag's own handler
	Codec   string        // with FlagObject: who made the body
}

// AppendStart appends s as a frame of type t with flags f lays it out. Names must be at most MaxName bytes.
func AppendStart(b []byte, t Type, f Flags, s Start) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(s.Total))
	if f&FlagCompressed != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(s.Raw))
	}
	if t == TypeRequest {
		b = binary.BigEndian.AppendUint32(b, millis(s.Timeout))
	}
	if t != TypeResponse {
		b = appendName(b, s.Link)
	}
	if f&FlagObject != 0 {
		b = appendName(b, s.Codec)
	}
	return b
}

// StartSize returns how many bytes AppendStart appends.
func StartSize(t Type, f Flags, s *Start) int {
	n := 4
	if f&FlagCompressed != 0 {
		n += 4
	}
	if t == TypeRequest {
		n += 4
	}
	if t != TypeResponse {
		n += 1 + len(s.Link)
	}
	if f&FlagObject != 0 {
		n += 1 + len(s.Codec)
	}
	return n
}

// ConsumeStart reads the head of a start frame's payload and returns it with the body bytes behind it. It fails when the
// payload is cut short, when Total or Raw is over MaxTotal, or when there are more bytes than Total. intern, if not nil,
// turns a name's bytes into a string and may share strings.
func ConsumeStart(p []byte, t Type, f Flags, intern func([]byte) string) (s Start, body []byte, err error) {
	c := cursor{p: p}
	s.Total = c.size()
	if f&FlagCompressed != 0 {
		s.Raw = c.size()
	}
	if t == TypeRequest {
		s.Timeout = time.Duration(c.uint32()) * time.Millisecond
	}
	if t != TypeResponse {
		s.Link = c.name(intern)
	}
	if f&FlagObject != 0 {
		s.Codec = c.name(intern)
	}
	if c.err != nil {
		return Start{}, nil, fmt.Errorf("%v head: %w", t, c.err)
	}
	if len(c.p) > s.Total {
		return Start{}, nil, fmt.Errorf("%v has %d bytes of %d: %w", t, len(c.p), s.Total, ErrMalformed)
	}
	return s, c.p, nil
}

// A Failure is the body of ERROR, STREAM_RESET, STREAM_STOP, GOAWAY, and of a REFUSE hello (spec 5.4).
type Failure struct {
	Code       codes.Code
	RetryAfter time.Duration // whole milliseconds; 0 means no hint
	Text       string        // at most MaxText bytes; longer text is cut
}

// AppendFailure appends f.
func AppendFailure(b []byte, f Failure) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(f.Code))
	b = binary.BigEndian.AppendUint32(b, millis(f.RetryAfter))
	return append(b, CutText(f.Text)...)
}

// FailureSize returns how many bytes AppendFailure appends.
func FailureSize(f Failure) int { return 4 + 4 + len(CutText(f.Text)) }

// CutText returns s cut to at most MaxText bytes, between characters.
func CutText(s string) string {
	if len(s) <= MaxText {
		return s
	}
	cut := MaxText
	for cut > MaxText-4 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut]
}

// ConsumeFailure reads a whole failure body. It fails when p is cut short or the text is over MaxText bytes.
func ConsumeFailure(p []byte) (Failure, error) {
	c := cursor{p: p}
	f := Failure{Code: codes.Code(c.uint32()), RetryAfter: time.Duration(c.uint32()) * time.Millisecond}
	if c.err != nil {
		return Failure{}, fmt.Errorf("failure body: %w", c.err)
	}
	if len(c.p) > MaxText {
		return Failure{}, fmt.Errorf("failure text of %d bytes: %w", len(c.p), ErrTooLong)
	}
	f.Text = string(c.p)
	return f, nil
}

// AppendCredit appends the body of STREAM_CREDIT, SESSION_CREDIT and SESSION_RETURN.
func AppendCredit(b []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(b, n) }

// ConsumeCredit reads the body of STREAM_CREDIT, SESSION_CREDIT and SESSION_RETURN. A credit of 0 is malformed.
func ConsumeCredit(p []byte) (uint32, error) {
	if len(p) != 4 {
		return 0, fmt.Errorf("credit of %d bytes: %w", len(p), ErrMalformed)
	}
	n := binary.BigEndian.Uint32(p)
	if n == 0 {
		return 0, fmt.Errorf("credit of 0: %w", ErrMalformed)
	}
	return n, nil
}

// AppendOffset appends the body of STREAM_TAKEN and STREAM_END: how many bytes.
func AppendOffset(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

// ConsumeOffset reads the body of STREAM_TAKEN or STREAM_END.
func ConsumeOffset(p []byte) (uint64, error) {
	if len(p) != 8 {
		return 0, fmt.Errorf("offset of %d bytes: %w", len(p), ErrMalformed)
	}
	return binary.BigEndian.Uint64(p), nil
}

// millis returns d in milliseconds, rounded up so that a short wait is never sent as none.
func millis(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(min((d-1)/time.Millisecond+1, math.MaxUint32))
}

func appendName(b []byte, s string) []byte {
	if len(s) > MaxName {
		panic(fmt.Sprintf("frame: BUG: name of %d bytes", len(s)))
	}
	return append(append(b, byte(len(s))), s...)
}

// cursor takes fields from the front of p; after the first error it returns zeros.
type cursor struct {
	p   []byte
	err error
}

func (c *cursor) take(n int) []byte {
	if c.err != nil || len(c.p) < n {
		if c.err == nil {
			c.err = fmt.Errorf("%d bytes where %d are due: %w", len(c.p), n, ErrMalformed)
		}
		return nil
	}
	b := c.p[:n]
	c.p = c.p[n:]
	return b
}

func (c *cursor) uint8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// size takes a u32 that is at most MaxTotal.
func (c *cursor) size() int {
	n := c.uint32()
	if c.err == nil && n > MaxTotal {
		c.err = fmt.Errorf("size %d: %w", n, ErrTooLong)
	}
	return int(n)
}

func (c *cursor) name(intern func([]byte) string) string {
	b := c.take(int(c.uint8()))
	if intern != nil {
		return intern(b)
	}
	return string(b)
}
