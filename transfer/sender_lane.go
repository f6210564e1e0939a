package transfer

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/transfer/internal/files"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// headRoom is what stands before the bytes of a piece: header and hash.
const headRoom = wire.DataHeaderSize + wire.HashSize

// laneBuffers is how many frames of a lane are read ahead of the one that is written.
const laneBuffers = 2

// outLane is one data lane of a sender: one goroutine reads and hashes, and another one writes.
type outLane struct {
	*sender
	full  chan outFrame // frames to be written
	empty chan outFrame // memory for further ones
	over  atomic.Bool   // the lane can take nothing more
	ends  atomic.Bool   // another lane takes over, and this one ends in order
	turn  int           // of the queue
	held  lane.Held     // counts the frames' memory; the reading goroutine's

	file files.File // the one that was read last, or nil
	id   uint32     // its number
}

// lane serves a data lane until it is lost, ctx ends, the transfer is over, or the lane is to end: because leave is closed, or because the
// receiver has ended its direction (spec 4.6).
func (s *sender) lane(ctx context.Context, lane *bulk.Lane, leave <-chan struct{}) {
	s.t.meter.lanes.Add(1)
	defer s.t.meter.lanes.Add(-1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &outLane{sender: s, full: make(chan outFrame, laneBuffers), empty: make(chan outFrame, laneBuffers+1), turn: s.wants.begin()}
	l.held = keptBy(s.ctl.st)
	defer l.held.End()
	for range laneBuffers + 1 {
		l.empty <- outFrame{}
	}
	lost := func() {
		l.over.Store(true)
		cancel()
		s.wants.wake()
	}
	leaves := func() {
		l.ends.Store(true)
		s.wants.wake()
	}
	defer onClose(leave, leaves)()
	watched, written := make(chan struct{}), make(chan struct{})
	go func() { // ends with the lane: a receiver sends nothing on it
		defer close(watched)
		if n, err := lane.Read(make([]byte, 1)); n == 0 && errors.Is(err, io.EOF) {
			leaves()
			return
		}
		lost()
	}()
	go func() { // ends with full, or with the lane
		defer close(written)
		l.write(ctx, lane, lost)
	}()
	err := l.readJobs(ctx)
	close(l.full)
	<-written
	if l.file != nil {
		_ = l.file.Close() // opened for reading
	}
	if err != nil || l.over.Load() {
		_ = lane.Abort(codes.Cancelled) // the receiver wants again what it misses
	} else {
		_ = lane.Close() // all has left
	}
	<-watched
	if err != nil && !errors.Is(err, errLaneLost) {
		s.ctl.interrupt(err)
	}
}

var errLaneLost = errors.New("the lane is lost")

// readJobs reads what is wanted, as long as the lane takes it. Its error is one that ends the transfer.
func (l *outLane) readJobs(ctx context.Context) error {
	for {
		j, ok := l.wants.next(l.turn, func() bool { return l.over.Load() || l.ends.Load() })
		if !ok {
			return nil
		}
		var err error
		if len(j.pack) > 0 {
			err = l.packFiles(ctx, j.pack)
		} else {
			err = l.pieces(ctx, j)
		}
		if err != nil {
			return err
		}
	}
}

// write owns the lane's direction out. It ends when full is closed, or calls lost when the lane takes no more.
func (l *outLane) write(ctx context.Context, lane *bulk.Lane, lost func()) {
	failed := false
	for f := range l.full {
		if !failed {
			if err := l.writeFrame(ctx, lane, f.b); err != nil {
				failed = true
				lost()
			}
		}
		l.empty <- f
	}
}

// writeFrame writes a frame, at the rate that is allowed.
func (l *outLane) writeFrame(ctx context.Context, lane *bulk.Lane, b []byte) error {
	most := len(b)
	if l.limit != nil {
		most = slice(l.t.o.Rate)
	}
	for len(b) > 0 {
		n := min(len(b), most)
		if err := pace(ctx, l.limit, n); err != nil {
			return err
		}
		if _, err := lane.Write(b[:n]); err != nil {
			return err
		}
		l.t.meter.crossed.Add(int64(n))
		b = b[n:]
	}
	return nil
}

// outFrame is a frame, in memory that is used again.
type outFrame struct {
	mem []byte
	b   []byte // the frame, somewhere in mem
}

// pageSize is where in memory the bytes of a piece begin, behind the header: a read to an address that fits no page takes half as long
// again (BenchmarkLarge).
const pageSize = 4096

// frame returns room for a frame of head bytes and a body, whose address fits a page, when there is some. The error is errLaneLost.
func (l *outLane) frame(ctx context.Context, head, body int) (outFrame, error) {
	f := <-l.empty
	if size := pageSize + body; len(f.mem) < size {
		more := size - len(f.mem)
		if awaitRoom(ctx, ctx, func() bool { return l.held.Take(more) }) != nil {
			l.unused(f)
			return f, errLaneLost
		}
		f.mem = make([]byte, size) // large ones begin at a page
	}
	f.b = f.mem[pageSize-head : pageSize+body]
	return f, nil
}

// push has a frame written.
func (l *outLane) push(f outFrame) error {
	l.full <- f // there is room: there are no more than that and the one being written
	if l.over.Load() {
		return errLaneLost
	}
	return nil
}

// unused gives a frame back.
func (l *outLane) unused(f outFrame) { l.empty <- f }

// pieces reads some pieces of a file.
func (l *outLane) pieces(ctx context.Context, j job) error {
	if l.isGone(j.file) {
		return nil
	}
	e := &l.entries[j.file]
	shape, err := b3tree.ShapeOf(e.Size)
	if err == nil {
		err = l.open(j.file)
	}
	if err != nil {
		return l.ourFailure(j.file, err)
	}
	for i := j.first; i < j.first+j.pieces; {
		if l.ends.Load() {
			l.wants.giveBack(l.turn, job{file: j.file, first: i, pieces: j.first + j.pieces - i})
			return nil
		}
		n, err := l.zeros(ctx, e, shape, j, i)
		if err == nil && n == 0 {
			n = 1
			err = l.piece(ctx, j.file, shape, i)
		}
		if errors.Is(err, errLaneLost) || ctx.Err() != nil {
			return errLaneLost
		}
		if err != nil {
			return l.ourFailure(j.file, err)
		}
		i += n
	}
	return nil
}

// open has l.file be the file.
func (l *outLane) open(id uint32) error {
	if l.file != nil && l.id == id {
		return nil
	}
	if l.file != nil {
		_ = l.file.Close() // opened for reading
		l.file = nil
	}
	f, err := l.files.Open(id)
	if err != nil {
		return err
	}
	l.file, l.id = f, id
	return nil
}

// zeros sends how many pieces from i on are in a hole, if there are any, and returns that.
func (l *outLane) zeros(ctx context.Context, e *manifest.Entry, shape b3tree.Shape, j job, i int) (int, error) {
	if e.Flags&manifest.FlagSparse == 0 || shape.Pieces() == 1 {
		return 0, nil
	}
	off, _ := shape.Span(i)
	end, hole := l.file.Hole(off)
	if !hole {
		return 0, nil
	}
	n := 0
	for ; i+n < j.first+j.pieces; n++ {
		if from, size := shape.Span(i + n); from+int64(size) > end {
			break
		}
	}
	if n == 0 {
		return 0, nil
	}
	if err := l.file.Check(); err != nil {
		return 0, err
	}
	f, err := l.frame(ctx, wire.DataHeaderSize, 0)
	if err != nil {
		return 0, err
	}
	wire.DataHeader{Kind: wire.Zeros, File: j.file, Piece: uint32(i), Count: uint32(n)}.Put(f.b)
	return n, l.push(f)
}

// piece reads one piece, hashes it if the receiver has no other hash of it, and sends it.
func (l *outLane) piece(ctx context.Context, id uint32, shape b3tree.Shape, i int) error {
	off, n := shape.Span(i)
	head := wire.DataHeaderSize
	if !l.hashed {
		head = headRoom
	}
	f, err := l.frame(ctx, head, n)
	if err != nil {
		return err
	}
	_, err = l.file.ReadAt(f.b[head:], off)
	if err == nil {
		err = l.file.Check() // or the receiver would take us for one that sends what is wrong
	}
	if err == nil && !l.hashed {
		err = l.hash(id, shape, i, f.b[wire.DataHeaderSize:headRoom], f.b[headRoom:])
	}
	if err != nil {
		l.unused(f)
		return err
	}
	wire.DataHeader{Kind: wire.Data, Hashed: !l.hashed, File: id, Piece: uint32(i), Count: 1, Length: uint32(n)}.Put(f.b)
	return l.push(f)
}

// hash writes the hash of a piece to dst, and notes it for the root.
func (l *outLane) hash(id uint32, shape b3tree.Shape, i int, dst, data []byte) error {
	if shape.Pieces() == 1 {
		root := b3tree.Sum(data)
		copy(dst, root[:])
		return nil
	}
	cv, err := shape.PieceCV(i, data)
	if err != nil {
		return err
	}
	copy(dst, cv[:])
	l.book.note(id, shape, i, cv)
	return nil
}

// packFiles reads whole small files into one frame.
func (l *outLane) packFiles(ctx context.Context, ids []uint32) error {
	head := wire.PackedHead
	if !l.hashed {
		head += wire.HashSize
	}
	size := 0
	for _, id := range ids {
		size += head + int(l.entries[id].Size)
	}
	f, err := l.frame(ctx, wire.DataHeaderSize, size)
	if err != nil {
		return nil // as when ctx has ended
	}
	b := f.b[:wire.DataHeaderSize]
	h := wire.DataHeader{Kind: wire.Pack, Hashed: !l.hashed}
	for _, id := range ids {
		if l.isGone(id) {
			continue
		}
		room := b[len(b) : len(b)+head+int(l.entries[id].Size)]
		data, err := l.files.ReadFile(id, room[head:head:len(room)])
		if err != nil {
			if err := l.ourFailure(id, err); err != nil {
				l.unused(f)
				return err
			}
			continue
		}
		wire.PutPackedHead(room, id, len(data))
		if !l.hashed {
			root := b3tree.Sum(data)
			copy(room[wire.PackedHead:], root[:])
		}
		if h.Count == 0 {
			h.File = id
		}
		h.Count++
		b = b[:len(b)+len(room)]
	}
	if h.Count == 0 || ctx.Err() != nil {
		l.unused(f)
		return nil
	}
	h.Length = uint32(len(b) - wire.DataHeaderSize)
	h.Put(b)
	f.b = b
	return l.push(f)
}
