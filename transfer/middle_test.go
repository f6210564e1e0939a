package transfer_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/mangle"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// The frames of control, and of a data lane.
var (
	controlShape = &mangle.Shape{
		Head: 8, Max: 1 << 17, Fields: [][2]int{{0, 1}, {1, 1}, {4, 4}, {7, 1}},
		Length: func(h []byte) int { return int(binary.BigEndian.Uint32(h[4:])) },
		Set:    func(h []byte, n int) { binary.BigEndian.PutUint32(h[4:], uint32(n)) },
	}
	dataShape = &mangle.Shape{
		Head: wire.DataHeaderSize, Max: 17 << 20, Fields: [][2]int{{4, 4}, {8, 4}, {12, 4}, {0, 1}, {1, 1}, {16, 4}},
		Length: func(h []byte) int { return int(binary.BigEndian.Uint32(h[16:])) + hashOf(h) },
		Set:    func(h []byte, n int) { binary.BigEndian.PutUint32(h[16:], uint32(max(0, n-hashOf(h)))) },
	}
)

// hashOf returns how many bytes of hash follow the head of a data frame.
func hashOf(head []byte) int {
	if head[0] == byte(wire.Data) && head[1]&1 != 0 {
		return wire.HashSize
	}
	return 0
}

// A middle is between the two sides of a transfer, and has a session with each. It makes one of them hostile to the other: the
// control stream and the data lanes of that are changed by scripts.
type middle struct {
	near, far *peerlanetest.Sessions // the opener is near's Alice, the service far's Bob
	toOpener  bool                   // the honest side is the opener
	control   *mangle.Script
	data      *mangle.Script
}

// newMiddle serves what near's Alice opens.
func newMiddle(t *testing.T, toOpener bool, control, data []byte) *middle {
	m := &middle{near: newPair(t), far: newPair(t), toOpener: toOpener}
	m.control, m.data = mangle.New(control, controlShape), mangle.New(data, dataShape)
	m.near.ToBob.SetStream("transfer", func(st *session.Stream) {
		on, err := m.far.Alice.OpenStream(t.Context(), "transfer", nil)
		if err != nil {
			_ = st.Reset(codes.Unavailable)
			return
		}
		m.join(st, on, controlShape, m.control, 0, func() {
			_, _ = st.Reset(codes.Cancelled), on.Reset(codes.Cancelled)
		})
	})
	bulk.Handle(m.near.ToBob, "transfer-data", nil, func(l *bulk.Lane) {
		on, err := bulk.Open(t.Context(), m.far.Alice, "transfer-data", &bulk.Options{Mode: bulk.Dedicated})
		if err != nil {
			_ = l.Abort(codes.Unavailable)
			return
		}
		m.join(l, on, dataShape, m.data, wire.LaneHelloSize, func() { _, _ = l.Abort(codes.Cancelled), on.Abort(codes.Cancelled) })
	})
	return m
}

// A way is a control stream, or a data lane.
type way interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// join copies between two ways until both have ended. The first bytes of the opener's, as many as hello, are none that are changed.
func (m *middle) join(opener, service way, shape *mangle.Shape, script *mangle.Script, hello int, drop func()) {
	var both sync.WaitGroup
	both.Go(func() {
		b := make([]byte, hello)
		if _, err := io.ReadFull(opener, b); err != nil {
			drop()
			return
		}
		if _, err := service.Write(b); err != nil {
			drop()
			return
		}
		m.carry(service, opener, !m.toOpener, shape, script, drop)
	})
	both.Go(func() { m.carry(opener, service, m.toOpener, shape, script, drop) })
	both.Wait()
	_, _ = opener.Close(), service.Close()
}

// carry copies one direction.
func (m *middle) carry(to, from way, changed bool, shape *mangle.Shape, script *mangle.Script, drop func()) {
	if !changed {
		if _, err := io.Copy(to, from); err != nil {
			drop()
		}
		_ = to.CloseWrite()
		return
	}
	for {
		unit, err := shape.Read(from)
		if err == io.EOF {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			drop()
			return
		}
		r := script.Next(unit)
		time.Sleep(time.Duration(r.Pause) * 10 * time.Millisecond)
		if _, err := to.Write(bytes.Join(r.Units, nil)); err != nil || r.Cut {
			drop()
			return
		}
	}
}
