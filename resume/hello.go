package resume

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/peerlane/peerlane/internal/flow"
)

// message is the kind of a hello (spec 3.2).
type message uint8

const (
	messageNew    message = 0x01 // the dialing side wants a new connection
	messageResume message = 0x02 // the dialing side has a new carrier for one it has
	messageAccept message = 0x03 // the accepting side agrees
	messageRefuse message = 0x04 // the accepting side does not, and closes
)

// String returns the message's name in the specification, or "HELLO 0xNN".
func (m message) String() string {
	switch m {
	case messageNew:
		return "NEW"
	case messageResume:
		return "RESUME"
	case messageAccept:
		return "ACCEPT"
	case messageRefuse:
		return "REFUSE"
	}
	return fmt.Sprintf("HELLO 0x%02x", uint8(m))
}

// refusal is why a REFUSE was sent (spec 3.7).
type refusal uint8

const (
	refuseProtocol refusal = 0x01
	refuseVersion  refusal = 0x02
	refuseUnknown  refusal = 0x03
	refuseStale    refusal = 0x04
	refuseBusy     refusal = 0x05
)

// err returns what the dialing side makes of a REFUSE.
func (r refusal) err() error {
	switch r {
	case refuseProtocol:
		return flow.ProtocolErrorf("the other side refuses the hello")
	case refuseVersion:
		return ErrVersion
	case refuseUnknown:
		return ErrUnknown
	case refuseStale:
		return errStale
	case refuseBusy:
		return ErrBusy
	}
	return fmt.Errorf("refused by the other side with code %d", uint8(r))
}

const (
	helloVersion = 1
	helloLive    = 0x01 // the only flag
	helloPrefix  = 8    // magic 4, version 1, kind 1, flags 1, code 1: the same in every version
	helloSize    = 44   // helloPrefix, id 16, attempt 4, resume window 4, buffer 4, received 8
)

// helloMagic is not the beginning of any text, nor of TLS, HTTP/2, SSH or multistream.
var helloMagic = [4]byte{0xf5, 'p', 'l', 'r'}

// connID names a connection on the accepting side, which makes it of random bytes.
type connID [16]byte

// hello is what either side says first on a carrier (spec 3.1).
type hello struct {
	kind         message
	live         bool    // the carrier before is alive
	code         refusal // of a REFUSE
	id           connID
	attempt      uint32
	resumeWindow uint32 // in milliseconds
	buffer       uint32 // bytes that are kept unread
	received     uint64 // offset of the next byte of the other side
}

// append appends h to b.
func (h hello) append(b []byte) []byte {
	flags := byte(0)
	if h.live {
		flags = helloLive
	}
	b = append(b, helloMagic[:]...)
	b = append(b, helloVersion, byte(h.kind), flags, byte(h.code))
	b = append(b, h.id[:]...)
	b = binary.BigEndian.AppendUint32(b, h.attempt)
	b = binary.BigEndian.AppendUint32(b, h.resumeWindow)
	b = binary.BigEndian.AppendUint32(b, h.buffer)
	return binary.BigEndian.AppendUint64(b, h.received)
}

// checkPrefix reports a beginning that is not that of a hello of this version.
func checkPrefix(b []byte) error {
	switch {
	case [4]byte(b) != helloMagic:
		return fmt.Errorf("%w: it begins with %q", ErrStranger, b[:helloPrefix])
	case b[4] != helloVersion && message(b[5]) == messageRefuse && refusal(b[7]) == refuseVersion:
		return fmt.Errorf("%w: it speaks version %d", ErrVersion, b[4])
	case b[4] != helloVersion:
		return fmt.Errorf("%w: it begins with version %d", ErrVersion, b[4])
	}
	return nil
}

// parseHello returns the hello that is in the helloSize bytes of b.
func parseHello(b []byte) (hello, error) {
	if len(b) != helloSize {
		return hello{}, flow.ProtocolErrorf("a hello of %d bytes", len(b))
	}
	if err := checkPrefix(b); err != nil {
		return hello{}, err
	}
	h := hello{
		kind:         message(b[5]),
		live:         b[6] == helloLive,
		code:         refusal(b[7]),
		id:           connID(b[8:]),
		attempt:      binary.BigEndian.Uint32(b[24:]),
		resumeWindow: binary.BigEndian.Uint32(b[28:]),
		buffer:       binary.BigEndian.Uint32(b[32:]),
		received:     binary.BigEndian.Uint64(b[36:]),
	}
	if b[6]&^helloLive != 0 {
		return hello{}, flow.ProtocolErrorf("%v with flags 0x%02x", h.kind, b[6])
	}
	return h, h.check()
}

// check reports fields that do not fit the kind (spec 3.3 to 3.7).
func (h hello) check() error {
	begins := h.attempt == 0 // NEW, or the ACCEPT of one
	blank := h
	blank.kind, blank.code = 0, 0
	ok := false
	switch h.kind {
	case messageNew:
		ok = h.begins() && h.id == connID{}
	case messageResume:
		ok = !begins && h.resumes()
	case messageAccept:
		ok = h.id != connID{} && (begins && h.begins() || !begins && h.resumes())
	case messageRefuse:
		return must(h.code != 0 && blank == hello{}, h)
	}
	return must(ok && h.code == 0, h)
}

// begins reports whether the fields are those of the first carrier.
func (h hello) begins() bool {
	return h.attempt == 0 && h.buffer >= minWindow && h.received == 0 && !h.live
}

// resumes reports whether the fields are those of a later carrier.
func (h hello) resumes() bool { return h.buffer == 0 && h.resumeWindow == 0 }

func must(ok bool, h hello) error {
	if !ok {
		return flow.ProtocolErrorf("%v with fields out of range", h.kind)
	}
	return nil
}

// readHello reads a hello from r.
func readHello(r io.Reader) (hello, error) {
	var b [helloSize]byte
	if _, err := io.ReadFull(r, b[:helloPrefix]); err != nil {
		return hello{}, cutShort(err)
	}
	if err := checkPrefix(b[:helloPrefix]); err != nil {
		return hello{}, err
	}
	if _, err := io.ReadFull(r, b[helloPrefix:]); err != nil {
		return hello{}, cutShort(err)
	}
	return parseHello(b[:])
}

// cutShort returns the error of a hello that has not come whole: never io.EOF, which would be an end in order.
func cutShort(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("no whole hello: %w", err)
}

// writeHello writes h to w in one Write.
func writeHello(w io.Writer, h hello) error {
	_, err := w.Write(h.append(make([]byte, 0, helloSize)))
	return err
}

// agreed returns the resume window that holds on both sides, one of which has said ms (spec 3.4).
func agreed(o *Options, ms uint32) time.Duration {
	d := time.Duration(min(ms, o.resumeWindow())) * time.Millisecond
	if d == 0 {
		return -1 // of a flow.Config: none
	}
	return d
}
