package oldsession

import (
	"bytes"
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
	blocks  chan block    // for the strands to send
	ending  chan struct{} // closed by CloseWrite
	over    chan struct{} // closed when the lane has ended otherwise than in order
	running sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond // anything below
	err     error
	strands []*Stream
	number  uint64 // of the next block to send
	sending int
	saidEnd bool
	ended   bool // CloseWrite
	in      []byte
	next    uint64 // number of the block that is due
	fin     bool   // END has come
}

func newLane(zstd bool) *Lane {
	l := &Lane{zstd: zstd, blocks: make(chan block), ending: make(chan struct{}), over: make(chan struct{})}
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
		b := block{kind: blockRaw, number: l.count(1), raw: k, body: bytes.Clone(p[n : n+k])}
		select {
		case l.blocks <- b:
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
		var b block
		select {
		case b = <-l.blocks:
		case <-l.ending:
			if l.lastOut() {
				_, _ = st.Write(block{kind: blockEnd, number: l.count(0)}.append()) // the reader misses it
			}
			_ = st.CloseWrite() // likewise
			return
		case <-l.over:
			return
		}
		if l.zstd {
			if small, ok := compress(b.body); ok {
				b.kind, b.body = blockZstd, small
			}
		}
		_, err := st.Write(b.append())
		l.count(-1)
		if err != nil {
			l.fail(err)
		}
	}
}

// count counts the blocks that are on their way, and returns the number of the next.
func (l *Lane) count(n int) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sending += n
	l.changed.Broadcast()
	next := l.number
	if n > 0 {
		l.number++
	}
	return next
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

// block is one of bulk/SPEC.md, 4.1.
type block struct {
	kind   byte
	raw    int
	number uint64
	body   []byte
}

func (k block) append() []byte {
	b := binary.BigEndian.AppendUint32([]byte{k.kind, 0, 0, 0}, uint32(len(k.body)))
	b = binary.BigEndian.AppendUint32(b, uint32(k.raw))
	return append(binary.BigEndian.AppendUint64(b, k.number), k.body...)
}

// receive owns the way in of a strand.
func (l *Lane) receive(st *Stream) {
	for {
		k, err := l.readBlock(st)
		if err == nil {
			err = l.deliver(k)
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
func (l *Lane) readBlock(r io.Reader) (k block, err error) {
	var h [20]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return k, err
	}
	n, raw := binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	k.kind, k.raw, k.number = h[0], int(raw), binary.BigEndian.Uint64(h[12:])
	ok := h[1]|h[2]|h[3] == 0
	switch k.kind {
	case blockRaw:
		ok = ok && n == raw
	case blockZstd:
		ok = ok && n >= 1 && n <= raw && l.zstd
	case blockEnd:
		ok = ok && n == 0 && raw == 0
	default:
		ok = false
	}
	if !ok || raw > maxBlock || raw == 0 && k.kind != blockEnd {
		return k, breach("block % x", h)
	}
	k.body = make([]byte, n)
	if _, err = io.ReadFull(r, k.body); err != nil {
		return k, lossOf(err)
	}
	if k.kind == blockZstd {
		k.body, err = decompress(k.body, k.raw)
	}
	return k, err
}

// deliver waits until a block is due, and those before have been read.
func (l *Lane) deliver(k block) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && !l.fin && (k.number > l.next || k.number == l.next && len(l.in) > 0) {
		l.changed.Wait()
	}
	switch {
	case l.err != nil:
		return l.err
	case l.fin || k.number < l.next:
		return breach("block %d after %d", k.number, l.next)
	case k.kind == blockEnd:
		l.fin = true
	default:
		l.in = k.body
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
