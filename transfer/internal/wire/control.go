package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// ErrProtocol is wrapped by every error about bytes that a correct peer does not send.
var ErrProtocol = errors.New("protocol error")

// Breachf returns the error of a peer that breaks the protocol, a *fault.Error that matches ErrProtocol.
func Breachf(format string, args ...any) error {
	return &fault.Error{Area: fault.AreaProtocol, Code: fault.CodeProtocol, Err: fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...))}
}

// Kind is the kind of a control frame (spec 2.2).
type Kind uint8

// The kinds.
const (
	KindHello     Kind = 0x01
	KindGet       Kind = 0x02
	KindOffer     Kind = 0x03
	KindManifest  Kind = 0x04
	KindListed    Kind = 0x05
	KindAccept    Kind = 0x06
	KindWant      Kind = 0x07
	KindWantLayer Kind = 0x08
	KindLayer     Kind = 0x09
	KindWantRoot  Kind = 0x0A
	KindRoot      Kind = 0x0B
	KindFailed    Kind = 0x0C
	KindAck       Kind = 0x0D
	KindPause     Kind = 0x0E
	KindResume    Kind = 0x0F
	KindAbort     Kind = 0x10
	KindComplete  Kind = 0x11
	KindLeftOut   Kind = 0x12
)

// kindInfo is the information about a kind that is needed before its body is read.
type kindInfo struct {
	name        string
	flags       byte // those that it may have
	least, most int  // bytes of the body
}

// Sizes of bodies and of their parts.
const (
	MaxBody = 1 << 16

	helloSize   = 28 // magic 4, version 1, role 1, lanes 2, caps 4, id 16
	hashSize    = 32
	MaxToken    = 64
	maxName     = 255
	listedSize  = 44 // root 32, entries 4, bytes 8
	wantSize    = 16 // of an item: file 4, files 4, piece 4, pieces 4
	MaxWants    = 4096
	layerHead   = 8 // file 4, first 4
	MaxCVs      = 2000
	fileSize    = 4
	rootSize    = fileSize + hashSize
	ackSize     = 20 // durable 8, verified 8, published 4
	maxCode     = 32
	maxText     = 1024
	leastWhy    = 2 // length 1, code 1
	mostWhy     = 1 + maxCode + maxText
	summarySize = 17 // bytes 8, files 4, failed 4, durable 1
	leftOutHead = 4  // count 4
)

var kinds = map[Kind]kindInfo{
	KindHello:     {"HELLO", 0, helloSize, helloSize},
	KindGet:       {"GET", FlagKnown, hashSize, hashSize + MaxToken},
	KindOffer:     {"OFFER", FlagHashed, 0, maxName},
	KindManifest:  {"MANIFEST", 0, 2, MaxBody},
	KindListed:    {"LISTED", 0, listedSize, listedSize},
	KindAccept:    {"ACCEPT", 0, 0, 0},
	KindWant:      {"WANT", FlagFresh, wantSize, MaxWants * wantSize},
	KindWantLayer: {"WANT_LAYER", 0, fileSize, fileSize},
	KindLayer:     {"LAYER", 0, layerHead + hashSize, layerHead + MaxCVs*hashSize},
	KindWantRoot:  {"WANT_ROOT", 0, fileSize, fileSize},
	KindRoot:      {"ROOT", 0, rootSize, rootSize},
	KindFailed:    {"FAILED", 0, fileSize + leastWhy, fileSize + mostWhy},
	KindAck:       {"ACK", 0, ackSize, ackSize},
	KindPause:     {"PAUSE", 0, leastWhy, mostWhy},
	KindResume:    {"RESUME", 0, 0, 0},
	KindAbort:     {"ABORT", 0, leastWhy, mostWhy},
	KindComplete:  {"COMPLETE", 0, 0, summarySize},
	KindLeftOut:   {"LEFT_OUT", 0, leftOutHead, leftOutHead + maxText},
}

// Flags of frames, each of the kind in brackets.
const (
	FlagKnown  = 0x01 // the manifest is known already (GET)
	FlagHashed = 0x01 // the files have hashes (OFFER)
	FlagFresh  = 0x01 // forget earlier items (WANT)
)

// String returns the name that the spec has.
func (k Kind) String() string {
	if info, ok := kinds[k]; ok {
		return info.name
	}
	return fmt.Sprintf("frame 0x%02x", uint8(k))
}

// Frame is one control frame. Its Body is the reader's buffer, valid until the next Read.
type Frame struct {
	Kind Kind
	Flag bool
	Body []byte
}

const headerSize = 8

// Reader reads control frames. After a Read that fails temporarily, as at a deadline, the next one continues without loss.
type Reader struct {
	r    io.Reader
	head [headerSize]byte
	buf  []byte
	got  int // received bytes of the frame, header included
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Read returns the next frame. It returns io.EOF at an end between frames, io.ErrUnexpectedEOF at an end within a frame, and an error that
// matches ErrProtocol for a frame that spec 2.2 does not allow.
func (r *Reader) Read() (Frame, error) {
	if err := r.fill(r.head[:], 0); err != nil {
		return Frame{}, err
	}
	// kind u8, flags u8, zero u16, length u32
	f := Frame{Kind: Kind(r.head[0])}
	flags, length := r.head[1], binary.BigEndian.Uint32(r.head[4:])
	info, ok := kinds[f.Kind]
	var err error
	switch {
	case !ok:
		err = Breachf("%v is not known", f.Kind)
	case r.head[2] != 0 || r.head[3] != 0 || flags&^info.flags != 0:
		err = Breachf("%v with bits that mean nothing", f.Kind)
	case int64(length) < int64(info.least) || int64(length) > int64(info.most):
		err = Breachf("%v of %d bytes", f.Kind, length)
	}
	if err != nil {
		r.got = 0
		return f, err
	}
	f.Flag = flags != 0
	if cap(r.buf) < int(length) {
		r.buf = make([]byte, length)
	}
	f.Body = r.buf[:length]
	if err := r.fill(f.Body, headerSize); err != nil {
		return f, err
	}
	r.got = 0
	return f, nil
}

// fill reads the missing bytes of a part of the frame. The part begins after from bytes of the frame.
func (r *Reader) fill(part []byte, from int) error {
	for end := from + len(part); r.got < end; {
		n, err := r.r.Read(part[r.got-from:])
		r.got += n
		switch {
		case err == nil || r.got == end:
		case errors.Is(err, io.EOF) && r.got > 0:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	return nil
}

// AppendFrame appends a frame whose body is appended by body. It is a bug if the body is too long or too short.
func AppendFrame(b []byte, kind Kind, flag bool, body func([]byte) []byte) []byte {
	start := len(b)
	var flags byte
	if flag {
		flags = 1
	}
	b = append(b, byte(kind), flags, 0, 0, 0, 0, 0, 0)
	if body != nil {
		b = body(b)
	}
	n := len(b) - start - headerSize
	if info := kinds[kind]; n < info.least || n > info.most {
		panic(fmt.Sprintf("BUG: %v of %d bytes", kind, n))
	}
	binary.BigEndian.PutUint32(b[start+4:], uint32(n))
	return b
}
