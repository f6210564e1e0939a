package oldsession

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/peerlane/peerlane/psk"
)

// The numbers of PROTOCOL.md, 3.
const (
	kindHello, kindAck, kindRefuse      = 1, 2, 3
	roleSession, roleStream, roleResume = 1, 2, 3
	capZstd, capBatchAck                = 1, 2
	capResume, capResumeStreams         = 4, 8
	resumableNew, resumableAgain        = 1, 2

	version  = 1
	maxHello = 4096
)

const (
	fieldRole      = 0x02
	fieldCaps      = 0x04
	fieldLimits    = 0x06
	fieldSession   = 0x08
	fieldName      = 0x0A
	fieldFailure   = 0x0C
	fieldAgent     = 0x0D
	fieldPatience  = 0x0F
	fieldResume    = 0x10
	fieldResumable = 0x12
	fieldNoise     = 0xFE
)

// fields says of each field its sizes, and whether it is in HELLO and ACK of a session, stream and resumption, and in REFUSE:
// m must, o may, - must not.
var fields = map[byte]struct {
	least, most int
	where       string
}{
	fieldRole:      {1, 1, "mmm" + "---" + "-"},
	fieldCaps:      {8, 8, "ooo" + "ooo" + "-"},
	fieldLimits:    {20, 20, "m--" + "m--" + "-"},
	fieldSession:   {16, 16, "-mm" + "m--" + "-"},
	fieldName:      {1, 255, "-m-" + "---" + "-"},
	fieldFailure:   {8, 1032, "---" + "---" + "m"},
	fieldAgent:     {1, 255, "ooo" + "ooo" + "o"},
	fieldPatience:  {4, 4, "o--" + "o--" + "-"},
	fieldResume:    {13, 13, "--m" + "--m" + "-"},
	fieldResumable: {1, 1, "-o-" + "---" + "-"},
	fieldNoise:     {1, maxHello, "ooo" + "ooo" + "-"},
}

// hello is a HELLO, ACK or REFUSE.
type hello struct {
	kind, version byte
	field         map[byte][]byte
}

func (h *hello) append() []byte {
	b := []byte{h.kind, h.version}
	for _, id := range slices.Sorted(maps.Keys(h.field)) {
		v := h.field[id]
		b = append(binary.BigEndian.AppendUint16(append(b, id), uint16(len(v))), v...)
	}
	return b
}

// parseHello takes the body of a hello, which is about a carrier of the role; 0: the hello says. covered is the part that the
// Noise messages are bound to.
func parseHello(b []byte, role byte) (h *hello, covered []byte, err error) {
	if len(b) < 2 {
		return nil, nil, breach("hello of %d bytes", len(b))
	}
	h, covered = &hello{kind: b[0], version: b[1], field: map[byte][]byte{}}, b
	last := byte(0)
	for rest := b[2:]; len(rest) > 0; {
		if len(rest) < 3 || len(rest)-3 < int(binary.BigEndian.Uint16(rest[1:])) {
			return h, nil, breach("hello ends within a field")
		}
		id, v := rest[0], rest[3:3+binary.BigEndian.Uint16(rest[1:])]
		if id <= last || last == fieldNoise {
			return h, nil, breach("hello field %#x after %#x", id, last)
		}
		if last = id; id == fieldNoise {
			covered = b[:len(b)-len(rest)]
		}
		rest = rest[3+len(v):]
		known, ok := fields[id]
		switch {
		case !ok && id%2 == 0:
			return h, nil, &Failure{Code: CodeUnsupported, Text: "critical hello field"}
		case !ok:
		case len(v) < known.least || len(v) > known.most:
			return h, nil, breach("hello field %#x of %d bytes", id, len(v))
		case id <= fieldSession && id != fieldLimits || id == fieldPatience:
			if !bytes.Equal(v, make([]byte, len(v))) { // zero is as good as none
				h.field[id] = v
			}
		default:
			h.field[id] = v
		}
	}
	return h, covered, h.check(role)
}

// check reports fields that do not fit.
func (h *hello) check(role byte) error {
	if role == 0 && len(h.field[fieldRole]) == 1 {
		role = h.field[fieldRole][0]
	}
	column := 6
	switch {
	case h.kind < kindHello || h.kind > kindRefuse:
		return breach("hello of kind %d", h.kind)
	case h.kind == kindRefuse:
	case role == 0:
		return breach("hello without a role")
	case role > roleResume:
		return &Failure{Code: CodeUnsupported, Text: "role"}
	default:
		column = int(h.kind-kindHello)*3 + int(role-roleSession)
	}
	for id, f := range fields {
		if _, has := h.field[id]; has && f.where[column] == '-' || !has && f.where[column] == 'm' {
			return breach("field %#x in a hello of kind %d, role %d: %v", id, h.kind, role, has)
		}
	}
	if r := h.field[fieldResume]; r != nil && r[12] > 1 {
		return breach("live is %d", r[12])
	}
	if r := h.field[fieldResumable]; r != nil && r[0] != resumableNew && r[0] != resumableAgain {
		return breach("resumable is %d", r[0])
	}
	return nil
}

func (h *hello) caps() uint64 {
	if b := h.field[fieldCaps]; b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// limits returns what the sender is ready to receive.
func (h *hello) limits() Limits {
	b := h.field[fieldLimits]
	at := func(i int) uint32 { return min(binary.BigEndian.Uint32(b[4*i:]), 1<<30) }
	return Limits{at(0), at(1), at(2), at(3), at(4)}
}

// patience returns the shorter one of both sides'.
func (h *hello) patience(ours time.Duration) time.Duration {
	if b := h.field[fieldPatience]; b != nil {
		return min(ours, time.Duration(binary.BigEndian.Uint32(b))*time.Millisecond)
	}
	return ours
}

// sessionFields returns the fields that HELLO and ACK of a session have.
func (c *Config) sessionFields() map[byte][]byte {
	l := c.Limits
	var b []byte
	for _, v := range []uint32{l.MaxMessage, l.MaxInFlight, l.MessageWindow, l.MaxStreams, l.StreamWindow} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	m := map[byte][]byte{fieldLimits: b}
	if c.Patience > 0 {
		m[fieldPatience] = binary.BigEndian.AppendUint32(nil, uint32(c.Patience.Milliseconds()))
	}
	return m
}

// position is the field resume.
type position struct {
	received uint64
	attempt  uint32
	live     bool
}

func (p position) append() []byte {
	b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, p.received), p.attempt)
	if p.live {
		return append(b, 1)
	}
	return append(b, 0)
}

func (h *hello) position() position {
	b := h.field[fieldResume]
	return position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), b[12] == 1}
}

func writeHello(w io.Writer, body []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...))
	return err
}

func readHello(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(size[:])
	if n < 2 || n > maxHello {
		return nil, breach("hello of %d bytes", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// A carrier is a conn whose hello is done: sealed under a key if there is one.
type carrier struct {
	net.Conn
	raw net.Conn
}

// drop ends the carrier at once.
func (c *carrier) drop(code uint32) {
	if r, ok := c.raw.(interface{ Reset(code uint32) error }); ok && code != CodeOK && code != CodeClosed {
		_ = r.Reset(code) // it is given up
		return
	}
	_ = c.raw.Close() // likewise
}

// CloseWrite ends this side's direction.
func (c *carrier) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// prologue is what a handshake is bound to (PROTOCOL.md, 3.6).
func prologue(dialer, acceptor, tag string, covered []byte) []byte {
	b := []byte("peerlane psk v1\x00")
	for _, name := range []string{dialer, acceptor, tag} {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
	}
	return append(b, covered...)
}

// greet does the dialing side's hello. It owns conn.
func (c *Config) greet(conn net.Conn, peer string, h *hello) (*carrier, *hello, error) {
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout)) // a closed conn fails in the exchange
	k, ack, err := c.exchange(conn, peer, h)
	if err != nil {
		(&carrier{raw: conn}).drop(CodeCancelled)
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{}) // likewise
	return k, ack, nil
}

func (c *Config) exchange(conn net.Conn, peer string, h *hello) (*carrier, *hello, error) {
	h.kind, h.version = kindHello, version
	h.field[fieldCaps] = binary.BigEndian.AppendUint64(nil, c.caps())
	body := h.append()
	bound := prologue(c.Local, peer, c.Tag, body)
	var noise *psk.Initiator
	if c.Keys != nil {
		var err error
		if noise, err = c.Keys.Initiate(bound); err != nil {
			return nil, nil, err
		}
		id := noise.KeyID()
		h.field[fieldNoise] = append(id[:], noise.Message()...)
		body = h.append()
	}
	if err := writeHello(conn, body); err != nil {
		return nil, nil, err
	}
	answer, err := readHello(conn)
	if err != nil {
		return nil, nil, err
	}
	ack, covered, err := parseHello(answer, h.field[fieldRole][0])
	switch {
	case err != nil:
		return nil, nil, err
	case ack.kind == kindRefuse:
		f, err := parseFailure(ack.field[fieldFailure])
		if err != nil {
			return nil, nil, err
		}
		f.Refused, f.NotSent = true, true
		return nil, nil, f
	case ack.kind != kindAck || ack.version != version:
		return nil, nil, &Failure{Code: CodeVersion, Text: "no ACK of version 1"}
	case noise == nil && ack.field[fieldNoise] != nil:
		return nil, nil, &Failure{Code: CodePSKUnexpected}
	case noise == nil:
		return &carrier{conn, conn}, ack, nil
	case ack.field[fieldNoise] == nil:
		return nil, nil, &Failure{Code: CodePSKRequired}
	}
	id, message := noise.KeyID(), ack.field[fieldNoise]
	if !bytes.HasPrefix(message, id[:]) {
		return nil, nil, &Failure{Code: CodePSKTampered}
	}
	proof, secrets, err := noise.Finish(message[len(id):])
	if want := sha256.Sum256(append(bound, covered...)); err != nil || !bytes.Equal(proof, want[:]) {
		return nil, nil, &Failure{Code: CodePSKTampered}
	}
	return &carrier{psk.Seal(conn, secrets), conn}, ack, nil
}

// hear takes the HELLO on conn. ack sends the answer.
func (c *Config) hear(conn net.Conn, peer string) (h *hello, ack func(field map[byte][]byte) (*carrier, error), err error) {
	body, err := readHello(conn)
	if err != nil {
		return nil, nil, err
	}
	h, covered, err := parseHello(body, 0)
	switch {
	case h != nil && (h.version == 0 || err != nil && h.version != version):
		return nil, nil, &Failure{Code: CodeVersion}
	case err == nil && h.kind != kindHello:
		err = breach("hello of kind %d", h.kind)
	}
	if err != nil {
		return nil, nil, err
	}
	bound := prologue(peer, c.Local, c.Tag, covered)
	noise, err := c.prove(h.field[fieldNoise], bound)
	if err != nil {
		return nil, nil, err
	}
	return h, func(field map[byte][]byte) (*carrier, error) {
		a := &hello{kind: kindAck, version: version, field: field}
		field[fieldCaps] = binary.BigEndian.AppendUint64(nil, c.caps())
		k := &carrier{conn, conn}
		if noise != nil {
			proof := sha256.Sum256(append(bound, a.append()...))
			message, secrets, err := noise.Finish(proof[:])
			if err != nil {
				return nil, err
			}
			id := secrets.KeyID()
			field[fieldNoise] = append(id[:], message...)
			k.Conn = psk.Seal(conn, secrets)
		}
		return k, writeHello(conn, a.append())
	}, nil
}

// prove checks the Noise field of a HELLO.
func (c *Config) prove(noise, bound []byte) (*psk.Responder, error) {
	switch {
	case c.Keys == nil && noise == nil:
		return nil, nil
	case c.Keys == nil:
		return nil, &Failure{Code: CodePSKUnexpected}
	case noise == nil:
		return nil, &Failure{Code: CodePSKRequired}
	}
	var id psk.KeyID
	n := copy(id[:], noise)
	r, err := c.Keys.Respond(bound, id, noise[n:])
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, psk.ErrReplayed):
		return nil, &Failure{Code: CodePSKReplayed}
	case slices.Contains(c.Keys.IDs(), id):
		return nil, &Failure{Code: CodePSKTampered}
	}
	return nil, &Failure{Code: CodePSKMismatch}
}
