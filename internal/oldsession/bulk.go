package oldsession

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// The numbers of bulk/SPEC.md.
const (
	bulkOpen, bulkAccept, bulkRefuse = 0x21, 0x22, 0x23
	blockRaw, blockZstd, blockEnd    = 0x01, 0x02, 0x03
	maxBlock                         = 256 << 10
	maxStrands                       = 16
)

// strandHello is what a strand begins with (bulk/SPEC.md, 2.1).
type strandHello struct {
	Magic                       [4]byte
	Version, Kind, Zstd, Strand byte
	ID                          [16]byte
	Count, Code                 uint16
}

func (h strandHello) write(w io.Writer) error {
	h.Magic, h.Version = [4]byte{0xF5, 'p', 'l', 'b'}, 1
	b, err := binary.Append(nil, binary.BigEndian, h)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func readStrandHello(r io.Reader) (h strandHello, err error) {
	if err := binary.Read(r, binary.BigEndian, &h); err != nil {
		return h, lossOf(err)
	}
	ok := h.Count >= 1 && h.Count <= maxStrands && int(h.Strand) < int(h.Count) && h.Code == 0 && h.ID != [16]byte{}
	switch h.Kind {
	case bulkOpen:
	case bulkAccept:
		ok = ok && h.Strand == 0
	case bulkRefuse:
		ok = h.Count == 0 && h.Strand == 0 && h.Code != 0 && h.ID == [16]byte{}
	default:
		ok = false
	}
	if h.Magic != [4]byte{0xF5, 'p', 'l', 'b'} || h.Version != 1 || !ok {
		return h, breach("strand begins with %+v", h)
	}
	h.Zstd &= 1
	return h, nil
}

// A Lane is a bulk lane in blocks, over several strands. A plain one is its Stream.
//
// Each strand has a goroutine that reads and one that writes, which end with it.
type Lane struct {
	zstd    bool
	blocks  chan []byte   // for the strands to send
	ending  chan struct{} // closed by CloseWrite
	over    chan struct{} // closed when the lane has ended otherwise than in order
	running sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond // anything below
	err     error
	strands []*Stream
	sent    uint64 // number of the next block to send
	sending int
	saidEnd bool
	ended   bool // CloseWrite
	in      []byte
	next    uint64 // number of the block that is due
	fin     bool   // END has come
}

func newLane(zstd bool) *Lane {
	l := &Lane{zstd: zstd, blocks: make(chan []byte), ending: make(chan struct{}), over: make(chan struct{})}
	l.changed.L = &l.mu
	return l
}

// OpenLane opens a lane of strands, each a stream that open opens. The second value is the lane's stream when it is plain.
func OpenLane(ctx context.Context, strands int, zstd bool, open func(context.Context) (*Stream, error)) (*Lane, *Stream, error) {
	st, err := open(ctx)
	if err != nil {
		return nil, nil, err
	}
	h := strandHello{Kind: bulkOpen, ID: newID(), Count: uint16(strands)}
	if zstd {
		h.Zstd = 1
	}
	if err := h.write(st); err != nil {
		return nil, nil, err
	}
	answer, err := readStrandHello(st)
	switch {
	case err != nil:
		return nil, nil, err
	case answer.Kind == bulkRefuse:
		return nil, nil, &Failure{Code: uint32(answer.Code), Remote: true, Refused: true}
	case answer.Kind != bulkAccept || answer.Zstd > h.Zstd || answer.Count > h.Count || answer.ID != h.ID:
		return nil, nil, breach("%+v does not answer %+v", answer, h)
	case answer.Zstd == 0 && answer.Count == 1:
		return nil, st, nil
	}
	l := newLane(answer.Zstd == 1)
	l.join(st)
	for h.Strand = 1; int(h.Strand) < int(answer.Count); h.Strand++ {
		st, err := open(ctx)
		if err == nil {
			err = h.write(st)
		}
		if err != nil {
			l.fail(err)
			return nil, nil, err
		}
		l.join(st)
	}
	return l, nil, nil
}

// Lanes takes the strands that the other side opens.
type Lanes struct {
	mu    sync.Mutex
	lanes map[[16]byte]*Lane
}

// Serve takes a strand. It calls serve with each new lane, or its stream when it is plain, and returns when that does, or when
// a further strand has ended.
func (ls *Lanes) Serve(st *Stream, serve func(*Lane, *Stream)) error {
	h, err := readStrandHello(st)
	if err == nil && h.Kind != bulkOpen {
		err = breach("strand begins with %+v", h)
	}
	if err != nil {
		return errors.Join(err, strandHello{Kind: bulkRefuse, Code: 1}.write(st))
	}
	ls.mu.Lock()
	l := ls.lanes[h.ID]
	framed := h.Zstd == 1 || h.Count > 1
	if l == nil && h.Strand == 0 && framed {
		l = newLane(h.Zstd == 1)
		if ls.lanes == nil {
			ls.lanes = map[[16]byte]*Lane{}
		}
		ls.lanes[h.ID] = l
	}
	ls.mu.Unlock()
	if h.Strand > 0 {
		if l != nil {
			l.join(st)
			l.running.Wait()
		}
		return nil
	}
	h.Kind = bulkAccept
	if err := h.write(st); err != nil {
		return err
	}
	if !framed {
		serve(nil, st)
		return nil
	}
	l.join(st)
	serve(l, nil)
	_ = l.CloseWrite() // of a lane that has ended
	l.running.Wait()
	return nil
}

// join adds a strand.
func (l *Lane) join(st *Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strands = append(l.strands, st)
	l.running.Go(func() { l.send(st) })
	l.running.Go(func() { l.receive(st) })
}

// fail ends the lane.
func (l *Lane) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.over)
		for _, st := range l.strands {
			_ = st.Reset(CodeCancelled) // err is what counts
		}
		l.changed.Broadcast()
	}
}

// Write gives the bytes to the strands, in blocks.
func (l *Lane) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		k := min(len(p)-n, maxBlock)
		l.count(1)
		select {
		case l.blocks <- append([]byte{}, p[n:n+k]...):
			n += k
		case <-l.ending:
			l.count(-1)
			return n, net.ErrClosed
		case <-l.over:
			return n, l.err
		}
	}
	return len(p), nil
}

// CloseWrite ends this side's direction.
func (l *Lane) CloseWrite() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		close(l.ending)
	}
	return nil
}

// Reset drops the lane.
func (l *Lane) Reset() { l.fail(net.ErrClosed) }

// send owns the way out of a strand.
func (l *Lane) send(st *Stream) {
	for {
		var b []byte
		select {
		case b = <-l.blocks:
		case <-l.ending:
			if l.lastOut() {
				_, _ = st.Write(block(blockEnd, 0, l.number(), nil)) // the reader misses it
			}
			_ = st.CloseWrite() // likewise
			return
		case <-l.over:
			return
		}
		n, kind, wire := l.number(), byte(blockRaw), b
		if small, ok := compress(b); l.zstd && ok {
			kind, wire = blockZstd, small
		}
		_, err := st.Write(block(kind, len(b), n, wire))
		l.count(-1)
		if err != nil {
			l.fail(err)
		}
	}
}

// count counts the blocks that are on their way.
func (l *Lane) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending += n
	l.changed.Broadcast()
}

// number takes the number of a block.
func (l *Lane) number() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	return l.sent - 1
}

// lastOut waits until all blocks are sent, and reports whether the caller is to send END.
func (l *Lane) lastOut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.saidEnd {
		return false
	}
	l.saidEnd = true
	for l.sending > 0 && l.err == nil {
		l.changed.Wait()
	}
	return l.err == nil
}

func block(kind byte, raw int, number uint64, wire []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(len(wire)))
	b = binary.BigEndian.AppendUint32(b, uint32(raw))
	return append(binary.BigEndian.AppendUint64(b, number), wire...)
}

// receive owns the way in of a strand.
func (l *Lane) receive(st *Stream) {
	for {
		kind, b, number, err := l.readBlock(st)
		if err == nil {
			err = l.deliver(kind, b, number)
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

// readBlock reads a block. The error is io.EOF at the end of the strand.
func (l *Lane) readBlock(r io.Reader) (kind byte, b []byte, number uint64, err error) {
	var h [20]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, 0, err
	}
	kind = h[0]
	n, raw := binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	number = binary.BigEndian.Uint64(h[12:])
	ok := h[1]|h[2]|h[3] == 0
	switch kind {
	case blockRaw:
		ok = ok && n == raw
	case blockZstd:
		ok = ok && n >= 1 && n <= raw && l.zstd
	case blockEnd:
		ok = ok && n == 0 && raw == 0
	default:
		ok = false
	}
	if !ok || raw > maxBlock || raw == 0 && kind != blockEnd {
		return 0, nil, 0, breach("block % x", h)
	}
	b = make([]byte, n)
	if _, err = io.ReadFull(r, b); err != nil {
		return 0, nil, 0, lossOf(err)
	}
	if kind == blockZstd {
		b, err = decompress(b, int(raw))
	}
	return kind, b, number, err
}

// deliver waits until a block is due, and those before have been read.
func (l *Lane) deliver(kind byte, b []byte, number uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && !l.fin && (number > l.next || number == l.next && len(l.in) > 0) {
		l.changed.Wait()
	}
	switch {
	case l.err != nil:
		return l.err
	case l.fin || number < l.next:
		return breach("block %d after %d", number, l.next)
	case kind == blockEnd:
		l.fin = true
	default:
		l.in = b
		l.next++
	}
	l.changed.Broadcast()
	return nil
}

// Read returns what has come.
func (l *Lane) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case len(l.in) > 0 && l.err == nil:
			n := copy(p, l.in)
			l.in = l.in[n:]
			l.changed.Broadcast()
			return n, nil
		case l.fin:
			return 0, io.EOF
		case l.err != nil:
			return 0, l.err
		}
		l.changed.Wait()
	}
}
