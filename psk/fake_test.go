package psk

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// A fakeConn is a net.Conn of optional funcs; what is nil does nothing and succeeds, but Read, which is at its end.
type fakeConn struct {
	net.Conn
	read, write      func([]byte) (int, error)
	close            func() error
	setReadDeadline  func(time.Time) error
	setWriteDeadline func(time.Time) error
}

func (f *fakeConn) Read(p []byte) (int, error) {
	if f.read == nil {
		return 0, io.EOF
	}
	return f.read(p)
}

func (f *fakeConn) Write(p []byte) (int, error) {
	if f.write == nil {
		return len(p), nil
	}
	return f.write(p)
}

func (f *fakeConn) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close()
}

func (f *fakeConn) SetReadDeadline(t time.Time) error {
	if f.setReadDeadline == nil {
		return nil
	}
	return f.setReadDeadline(t)
}

func (f *fakeConn) SetWriteDeadline(t time.Time) error {
	if f.setWriteDeadline == nil {
		return nil
	}
	return f.setWriteDeadline(t)
}

// A halfConn is a fakeConn that can be half closed.
type halfConn struct {
	fakeConn
	closeRead, closeWrite func() error
}

func (h *halfConn) CloseRead() error  { return h.closeRead() }
func (h *halfConn) CloseWrite() error { return h.closeWrite() }

var errWire = errors.New("the wire was cut")

// wireOf returns what a conn under the first fixed key sends for the chunks, one record each, and the end record after
// them.
func wireOf(chunks ...string) []byte {
	keys, _ := fixedKeys()
	d := newDirection(keys.send, rekeyInterval)
	var wire []byte
	for _, chunk := range chunks {
		wire = d.appendRecord(wire, []byte(chunk))
	}
	return d.appendRecord(wire, nil)
}

// reading returns the conn that reads what wireOf made.
func reading(read func([]byte) (int, error)) *sealedConn {
	_, keys := fixedKeys()
	return newConn(&fakeConn{read: read}, keys, rekeyInterval)
}

// stutter returns a Read that gives the bytes of wire up to each cut, a deadline error, and so on.
func stutter(wire []byte, cuts ...int) func([]byte) (int, error) {
	at := 0
	return func(p []byte) (int, error) {
		end := len(wire)
		if len(cuts) > 0 {
			end = cuts[0]
		}
		if at == end && len(cuts) > 0 {
			cuts = cuts[1:]
			return 0, os.ErrDeadlineExceeded
		}
		if at == len(wire) {
			return 0, io.EOF
		}
		n := copy(p, wire[at:end])
		at += n
		return n, nil
	}
}

// memoryPair returns two conns, the second of which reads what the first has written. Nothing between them allocates.
func memoryPair() (w, r *sealedConn) {
	ka, kb := fixedKeys()
	wire := make([]byte, 0, 2*batchBuffer)
	at := 0
	w = newConn(&fakeConn{write: func(p []byte) (int, error) {
		if at == len(wire) {
			wire, at = wire[:0], 0
		}
		wire = append(wire, p...)
		return len(p), nil
	}}, ka, rekeyInterval)
	r = newConn(&fakeConn{read: func(p []byte) (int, error) {
		n := copy(p, wire[at:])
		at += n
		return n, nil
	}}, kb, rekeyInterval)
	return w, r
}
