package transfer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// delivery is one frame of a data lane, to be verified and written.
type delivery struct {
	o      *origin
	h      wire.DataHeader
	hash   [wire.HashSize]byte // if h.Hashed and no PACK
	data   []byte
	pooled *[]byte     // data's memory, if it is to be given back
	in     lane.Budget // counts held bytes; nil: none
	held   int
	ended  bool // its origin is given up: nothing more is taken of it
}

// pieces of the usual size, and PACKs, are read to memory from here.
var buffers = sync.Pool{New: func() any { b := make([]byte, pooledPiece); return &b }}

func (d *delivery) free() {
	if d.pooled != nil {
		buffers.Put(d.pooled)
		d.pooled, d.data = nil, nil
	}
	d.release()
}

// room gives the delivery memory for n bytes.
func (d *delivery) room(n int) {
	b := buffers.Get().(*[]byte)
	if n > len(*b) {
		buffers.Put(b)
		d.data = make([]byte, n)
		return
	}
	d.pooled, d.data = b, (*b)[:n]
}

// lane serves a data lane of an origin until it ends.
func (r *receiver) lane(ctx context.Context, lane *bulk.Lane, leave <-chan struct{}, o *origin) {
	r.t.meter.lanes.Add(1)
	defer r.t.meter.lanes.Add(-1)
	o.addLane(lane)
	stop := onClose(leave, func() { _ = lane.CloseWrite() }) // asks the sender to end it (spec 4.6); the reader notices a lane that is lost
	err := r.readLane(ctx, lane, o)
	stop()
	o.removeLane(lane)
	if err == nil {
		return // the sender has ended it, and nothing is lost
	}
	if CodeOf(err) == CodeProtocol {
		o.giveUp(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.laneLost(&o.supplier) {
		r.planLocked(o)
	}
}

// laneOf returns what serves the data lanes of an origin.
func (r *receiver) laneOf(o *origin) laneFunc {
	return func(ctx context.Context, lane *bulk.Lane, leave <-chan struct{}) { r.lane(ctx, lane, leave, o) }
}

// readLane hands on what a lane brings, and returns nil when it ends after a whole frame. It reads no further while the writers are behind.
func (r *receiver) readLane(ctx context.Context, lane *bulk.Lane, o *origin) error {
	select {
	case <-r.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	in := bufio.NewReaderSize(lane, 4096) // for headers: what is larger is read past it
	var head [wire.DataHeaderSize]byte
	for {
		_, err := io.ReadFull(in, head[:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		d := &delivery{o: o}
		r.t.meter.crossed.Add(wire.DataHeaderSize)
		if d.h, err = wire.ConsumeDataHeader(head[:]); err == nil {
			err = r.fits(d.h)
		}
		if err != nil {
			return err
		}
		if d.h.Hashed && d.h.Kind == wire.Data {
			if _, err := io.ReadFull(in, d.hash[:]); err != nil {
				return err
			}
			r.t.meter.crossed.Add(wire.HashSize)
		}
		if d.h.Length > 0 {
			if err := awaitRoom(ctx, r.ctx, func() bool { return d.claim(o.arrived, int(d.h.Length)) }); err != nil {
				return err
			}
			d.room(int(d.h.Length))
			if err := r.readBody(ctx, in, d.data, o); err != nil {
				d.free()
				return err
			}
			r.t.meter.crossed.Add(int64(len(d.data)))
		}
		select {
		case r.work <- d:
		case <-ctx.Done():
			d.free()
			return ctx.Err()
		case <-r.ctx.Done():
			d.free()
			return context.Cause(r.ctx)
		}
	}
}

// readBody fills b, at the rate that is allowed. What comes shows that the origin has not stalled, however long all of it takes.
func (r *receiver) readBody(ctx context.Context, in io.Reader, b []byte, o *origin) error {
	most := slice(r.o.Rate)
	for len(b) > 0 {
		n, err := in.Read(b[:min(len(b), most)])
		b = b[n:]
		if err != nil && len(b) > 0 { // else the next read says it
			return err
		}
		o.heard.Store(time.Now().UnixNano())
		if err := pace(ctx, r.limit, n); err != nil {
			return err
		}
	}
	return nil
}

// fits checks a header against the manifest, before anything is kept for it.
func (r *receiver) fits(h wire.DataHeader) error {
	if int64(h.File) >= int64(len(r.entries)) || r.entries[h.File].Kind != manifest.KindFile || r.entries[h.File].Size == 0 {
		return wire.Breachf("%v of %d, which is no file with bytes", h.Kind, h.File)
	}
	shape := r.shapeOf(h.File)
	switch h.Kind {
	case wire.Data:
		if _, n := shape.Span(int(h.Piece)); n == 0 || int64(n) != int64(h.Length) {
			return wire.Breachf("piece %d of file %d with %d bytes", h.Piece, h.File, h.Length)
		}
	case wire.Zeros:
		if shape.Pieces() < 2 || uint64(h.Piece)+uint64(h.Count) > uint64(shape.Pieces()) {
			return wire.Breachf("%d pieces from %d of file %d, all zeros", h.Count, h.Piece, h.File)
		}
		return nil
	}
	if h.Hashed == r.hashed {
		return wire.Breachf("%v with a hash too many, or without one", h.Kind)
	}
	return nil
}
