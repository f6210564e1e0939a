// Package oldrecord is a frozen record stream of protocol version 1 that knows no capability: it never puts an acknowledgement into a
// BATCH, and takes one there for a breach. It is written from record/SPEC.md alone and shares no code with package record, so that
// the tests of mixed versions do not test that package against itself.
//
// It is synchronous: it reads when its user asks for something that has not come. One goroutine uses it.
//
// Do not mend it: it stands for what is out there.
package oldrecord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// The kinds of spec 2.4 and 3.1.
const (
	batch, ack, fail, rewind, end, closed = 1, 2, 3, 4, 5, 6
	open, accept, refuse                  = 0x11, 0x12, 0x13
)

// ErrBreach is what the other side has done against the protocol.
var ErrBreach = errors.New("oldrecord: protocol error")

// A Closed is the code and text of a CLOSE or REFUSE.
type Closed struct {
	Code uint32
	Text string
}

// Error implements error.
func (c *Closed) Error() string {
	return fmt.Sprintf("oldrecord: closed with code %d: %q", c.Code, c.Text)
}

// A Failure is a FAIL that has come.
type Failure struct {
	Seq, Applied uint64
	Code         uint32
	Retryable    bool
	Message      string
}

// Error implements error.
func (f *Failure) Error() string {
	return fmt.Sprintf("oldrecord: record %d failed: %q", f.Seq, f.Message)
}

// A Peer is one side of a record stream.
type Peer struct {
	conn          net.Conn
	window, bytes uint32 // of the other side
	largest       uint32

	sent  [][]byte // every record, from 1
	Acked uint64   // the last that the other side has applied
	fail  *Failure // has come, and Resend has not been called

	got      [][]byte // have come and were not taken
	taken    uint64   // the last that was
	applied  uint64
	dropping uint64 // this record has failed, and has not come again; 0: none
	ended    bool
}

// The window that a Peer lets the other side have.
const (
	Window  = 16
	Bytes   = 8 << 10
	Largest = 1 << 10
)

// Open opens a stream.
func Open(conn net.Conn) (*Peer, error) {
	p := &Peer{conn: conn}
	if _, err := conn.Write(p.hello(open)); err != nil {
		return nil, err
	}
	return p, p.greeted(accept)
}

// Accept is the other side of Open.
func Accept(conn net.Conn) (*Peer, error) {
	p := &Peer{conn: conn}
	if err := p.greeted(open); err != nil {
		return nil, err
	}
	_, err := conn.Write(p.hello(accept))
	return p, err
}

// Refuse answers an OPEN with REFUSE.
func Refuse(conn net.Conn, code uint32, text string) error {
	if err := new(Peer).readHello(conn, open); err != nil {
		return err
	}
	b := append([]byte{0xF5, 0x70, 0x6C, 0x63, 1, refuse, 0, 0}, binary.BigEndian.AppendUint32(nil, code)...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	_, err := conn.Write(append(b, text...))
	return err
}

// hello is spec 3.1: no capability, no place in the other side's log, and a log that begins at 1.
func (p *Peer) hello(kind byte) []byte {
	b := []byte{0xF5, 0x70, 0x6C, 0x63, 1, kind, 0, 0, 0, 0, 0, 0}
	for _, v := range []uint32{Window, Bytes, Largest} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = append(b, "an old peer's id"...)
	b = binary.BigEndian.AppendUint64(b, 1)
	b = binary.BigEndian.AppendUint64(b, 1)
	return append(b, make([]byte, 24)...)
}

func (p *Peer) greeted(want byte) error { return p.readHello(p.conn, want) }

func (p *Peer) readHello(r io.Reader, want byte) error {
	b := make([]byte, 80)
	if _, err := io.ReadFull(r, b[:8]); err != nil {
		return err
	}
	if string(b[:4]) != "\xF5plc" || b[4] != 1 {
		return fmt.Errorf("%w: hello %x", ErrBreach, b[:8])
	}
	if b[5] == refuse && want == accept {
		if _, err := io.ReadFull(r, b[8:14]); err != nil {
			return err
		}
		text := make([]byte, binary.BigEndian.Uint16(b[12:]))
		_, _ = io.ReadFull(r, text)
		return &Closed{binary.BigEndian.Uint32(b[8:]), string(text)}
	}
	if b[5] != want || b[6] != 0 || b[7] != 0 {
		return fmt.Errorf("%w: hello %x", ErrBreach, b[:8])
	}
	if _, err := io.ReadFull(r, b[8:]); err != nil {
		return err
	}
	p.window, p.bytes, p.largest = binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])
	if binary.BigEndian.Uint64(b[40:]) != 1 || binary.BigEndian.Uint64(b[72:]) != 0 {
		return fmt.Errorf("%w: this peer keeps no places", ErrBreach)
	}
	return nil
}

func (p *Peer) write(kind byte, body []byte) error {
	b := binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(len(body)))
	_, err := p.conn.Write(append(b, body...))
	return err
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// Send sends records together, when the other side has room for them. A failure that has come ends it: Resend is next.
func (p *Peer) Send(payloads ...[]byte) error {
	for p.outstanding()+len(payloads) > int(p.window) || p.size(p.Acked)+sizeOf(payloads) > int(p.bytes) {
		if err := p.step(); err != nil {
			return err
		}
	}
	if p.fail != nil {
		return p.fail
	}
	first := uint64(len(p.sent)) + 1
	p.sent = append(p.sent, payloads...)
	return p.batch(first)
}

func (p *Peer) outstanding() int { return len(p.sent) - int(p.Acked) }

func (p *Peer) size(after uint64) int { return sizeOf(p.sent[after:]) }

func sizeOf(payloads [][]byte) int {
	n := 0
	for _, b := range payloads {
		n += len(binary.AppendUvarint(nil, uint64(len(b)))) + len(b)
	}
	return n
}

// batch sends all records from first on as one BATCH.
func (p *Peer) batch(first uint64) error {
	body := binary.BigEndian.AppendUint32(number(first), uint32(uint64(len(p.sent))-first+1))
	for _, b := range p.sent[first-1:] {
		body = append(binary.AppendUvarint(body, uint64(len(b))), b...)
	}
	return p.write(batch, body)
}

// Await waits until the other side has applied record seq.
func (p *Peer) Await(seq uint64) error {
	for p.Acked < seq {
		if err := p.step(); err != nil {
			return err
		}
	}
	return nil
}

// Resend sends what has failed, and all after it, again.
func (p *Peer) Resend() error {
	f := p.fail
	p.fail = nil
	if err := p.write(rewind, number(f.Seq)); err != nil {
		return err
	}
	return p.batch(f.Seq)
}

// Receive returns the next record, or io.EOF behind the last.
func (p *Peer) Receive() (uint64, []byte, error) {
	for len(p.got) == 0 {
		if p.ended {
			return 0, nil, io.EOF
		}
		if err := p.step(); err != nil {
			return 0, nil, err
		}
	}
	b := p.got[0]
	p.got = p.got[1:]
	p.taken++
	return p.taken, b, nil
}

// Ack says that all records up to seq are applied.
func (p *Peer) Ack(seq uint64) error {
	p.applied = seq
	return p.write(ack, number(seq))
}

// Fail says that record seq cannot be applied.
func (p *Peer) Fail(f Failure) error {
	body := append(number(f.Seq), number(p.applied)...)
	body = append(binary.BigEndian.AppendUint32(body, f.Code), 0)
	if f.Retryable {
		body[20] = 1
	}
	p.got, p.taken, p.dropping = nil, f.Seq-1, f.Seq
	return p.write(fail, append(body, f.Message...))
}

// End says that nothing more is sent.
func (p *Peer) End() error { return p.write(end, number(uint64(len(p.sent))+1)) }

// Close says that this side is done, and why, and closes the conn.
func (p *Peer) Close(code uint32, text string) error {
	err := p.write(closed, append(binary.BigEndian.AppendUint32(nil, code), text...))
	return errors.Join(err, p.conn.Close())
}

// step takes one frame. A FAIL and a CLOSE are errors.
func (p *Peer) step() error {
	var h [8]byte
	if _, err := io.ReadFull(p.conn, h[:]); err != nil {
		return err
	}
	if h[1] != 0 || h[2] != 0 || h[3] != 0 {
		return fmt.Errorf("%w: frame %d with flags %x", ErrBreach, h[0], h[1:4])
	}
	n := binary.BigEndian.Uint32(h[4:])
	if n > 20+Bytes {
		return fmt.Errorf("%w: frame of %d bytes", ErrBreach, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return err
	}
	least := map[byte]int{batch: 13, ack: 8, fail: 21, rewind: 8, end: 8, closed: 4}[h[0]]
	if least == 0 || len(b) < least || least == 8 && len(b) != 8 {
		return fmt.Errorf("%w: frame %d of %d bytes", ErrBreach, h[0], n)
	}
	if h[0] == closed {
		return &Closed{binary.BigEndian.Uint32(b), string(b[4:])}
	}
	return p.take(h[0], binary.BigEndian.Uint64(b), b[8:])
}

// take takes a frame whose body is a number and more.
func (p *Peer) take(kind byte, n uint64, rest []byte) error {
	due := p.taken + uint64(len(p.got)) + 1
	switch kind {
	case batch:
		return p.records(n, due, rest)
	case ack:
		return p.acked(n)
	case rewind:
		if p.dropping == 0 || n < p.dropping {
			return fmt.Errorf("%w: REWIND to %d", ErrBreach, n)
		}
		if n == p.dropping {
			p.dropping, p.ended = 0, false
		}
	case end:
		if p.dropping == 0 && (p.ended || n != due) {
			return fmt.Errorf("%w: END at %d, and %d is due", ErrBreach, n, due)
		}
		p.ended = p.dropping == 0
	case fail:
		f := &Failure{Seq: n, Applied: binary.BigEndian.Uint64(rest), Code: binary.BigEndian.Uint32(rest[8:]), Retryable: rest[12] == 1, Message: string(rest[13:])}
		if err := p.acked(f.Applied); err != nil {
			return err
		}
		if f.Seq <= f.Applied || f.Seq > uint64(len(p.sent)) {
			return fmt.Errorf("%w: FAIL of %d", ErrBreach, n)
		}
		p.fail = f
		return f
	}
	return nil
}

func (p *Peer) acked(n uint64) error {
	if n < p.Acked || n > uint64(len(p.sent)) || p.fail != nil && n >= p.fail.Seq {
		return fmt.Errorf("%w: ACK of %d after %d, and %d were sent", ErrBreach, n, p.Acked, len(p.sent))
	}
	p.Acked = n
	return nil
}

// records takes those of a BATCH.
func (p *Peer) records(first, due uint64, b []byte) error {
	if p.dropping > 0 {
		return nil
	}
	count := binary.BigEndian.Uint32(b)
	if first != due || p.ended || count == 0 || due-1-p.applied+uint64(count) > Window {
		return fmt.Errorf("%w: BATCH of %d from %d, and %d is due", ErrBreach, count, first, due)
	}
	for b = b[4:]; count > 0; count-- {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > Largest || n > uint64(len(b)-size) {
			return fmt.Errorf("%w: record of %d bytes", ErrBreach, n)
		}
		p.got = append(p.got, b[size:size+int(n)])
		b = b[size+int(n):]
	}
	if len(b) > 0 {
		return fmt.Errorf("%w: %d bytes behind a BATCH", ErrBreach, len(b))
	}
	return nil
}
