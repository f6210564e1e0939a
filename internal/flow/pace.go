package flow

import (
	"sync/atomic"
	"time"
)

// A pace is the rate at which the other side acknowledges on the present carrier, and the size limit that follows from it for one segment
// and one Write of the carrier. On a slow carrier the limit is small, because neither a number nor a sign of life can pass bytes under way.
// There each segment asks for a number, so that the pace is known and the other side is heard. Flow.mu guards it.
type pace struct {
	rate   float64       // bytes a second; 0: not measured yet
	since  time.Duration // start of the stretch being measured, as Flow.elapsed
	from   uint64        // the acknowledged offset at that time
	begun  bool          // something has been under way since then
	fresh  bool          // nothing was under way before: the stretch includes a round trip
	blind  uint64        // bytes sent before the first acknowledgement
	number int           // bytes of one piece
	known  atomic.Int64  // the same, or maxPiece without a rate; read without mu
}

const (
	// PieceTime is how long one piece may take.
	PieceTime = 500 * time.Millisecond
	paceSpan  = 250 * time.Millisecond // the shortest stretch that lowers the rate
	minPiece  = 5 << 10                // also the first piece on a carrier whose rate is unknown
	blindPart = 32                     // on such a carrier, a piece is at most this fraction of the bytes sent
	maxPiece  = largeChunk             // on a fast carrier, pieces are not cut smaller
)

// reset forgets the measurements, for a new carrier.
func (p *pace) reset() {
	p.rate, p.begun, p.blind = 0, false, 0
	p.number = minPiece
	p.known.Store(maxPiece)
}

// leave records that n bytes are being sent, with everything before from acknowledged.
func (p *pace) leave(now time.Duration, from, n uint64) {
	if p.rate == 0 {
		p.blind += n
		p.number = int(min(max(minPiece, p.blind/blindPart), maxPiece))
	}
	if !p.begun {
		p.begun, p.fresh, p.since, p.from = true, true, now, from
	}
}

// hear records that everything before acked has been acknowledged, and whether that is everything sent. The acknowledgement of a few first
// bytes gives a lower bound of the rate. Only a stretch in which the carrier was never idle can show that it has become slower.
func (p *pace) hear(now time.Duration, acked uint64, all bool) {
	if !p.begun {
		return
	}
	span := max(now-p.since, time.Microsecond)
	if p.fresh || span >= paceSpan {
		rate := float64(acked-p.from) / span.Seconds()
		if !p.fresh || rate > p.rate {
			p.rate = max(rate, p.rate/2, 1) // acknowledgements come in bursts
			p.number = int(min(max(p.rate*PieceTime.Seconds(), minPiece), maxPiece))
			p.known.Store(int64(p.number))
		}
		p.fresh, p.since, p.from = false, now, acked
	}
	p.begun = !all
}

// piece returns the size limit of a segment and of a Write of the carrier.
func (p *pace) piece() int { return p.number }

// slow reports whether pieces are smaller than on a fast carrier.
func (p *pace) slow() bool { return p.piece() < maxPiece }

// Piece returns the number of bytes that reach the other side in about half a second, at the acknowledgement rate of this carrier. It is
// between 5 KiB and 136 KiB, and 136 KiB while no rate has been measured.
func (f *Flow) Piece() int { return int(f.out.pace.known.Load()) - headerSize }

// Backlog returns how long the sent, unacknowledged bytes take to arrive, at the acknowledgement rate of this carrier. d is 0 if there are
// none. known is false if no rate has been measured.
func (f *Flow) Backlog() (d time.Duration, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &f.out
	n := o.sent - min(o.acked, o.sent)
	if n == 0 {
		return 0, true
	}
	if o.pace.rate == 0 {
		return 0, false
	}
	return time.Duration(min(float64(n)/o.pace.rate, 3600) * float64(time.Second)), true
}

// owe records that bytes of the other side have arrived. The other side must learn of them even if it has not asked: within
// Config.Unasked a segment tells it that this side lives, and what this side has received. mu is held.
func (f *Flow) owe() {
	f.in.unsaid = true
	if f.in.signing || f.cfg.Unasked <= 0 {
		return
	}
	f.in.signing = true
	if f.sign == nil {
		f.sign = time.AfterFunc(f.cfg.Unasked, f.signDue)
	} else {
		f.sign.Reset(f.cfg.Unasked)
	}
}

// signDue sends a number if no segment has been sent since bytes arrived.
func (f *Flow) signDue() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.in.signing = false
	if f.in.unsaid && f.err == nil {
		f.answer(true)
	}
}

// Sign sends the other side an unasked number, as a sign of life. It serves an owner that has received bytes of the other side on another
// carrier.
func (f *Flow) Sign() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.cur != nil {
		f.answer(true)
	}
}
