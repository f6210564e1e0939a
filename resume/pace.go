package resume

import (
	"sync/atomic"
	"time"
)

// A pace is how fast the other side acknowledges on the present carrier, and what follows from it: how many bytes one segment
// and one Write of the carrier have. On a slow carrier they are few, for nothing gets past them, neither a number nor a sign of
// life; and each of them asks, so that the pace is known and the other side heard. Flow.mu guards it.
type pace struct {
	rate   float64       // bytes a second; 0: not measured yet
	since  time.Duration // when the stretch began that is being measured, as Flow.elapsed
	from   uint64        // what was acknowledged then
	begun  bool          // something has been on its way since then
	fresh  bool          // nothing was on its way before: a round trip is part of the stretch
	blind  uint64        // bytes that have left before the first was acknowledged
	number int           // of bytes of one piece
	known  atomic.Int64  // the same, or maxPiece without a rate; read without mu
}

const (
	pieceTime = 500 * time.Millisecond // how long a piece may take
	paceSpan  = 250 * time.Millisecond // the least stretch that lowers the rate
	minPiece  = 5 << 10                // also the first on a carrier of which nothing is known
	blindPart = 32                     // there a piece may be this part of what has left
	maxPiece  = largeChunk             // on a fast carrier pieces are as they come
)

// reset forgets what was measured: it is another carrier.
func (p *pace) reset() {
	p.rate, p.begun, p.blind = 0, false, 0
	p.number = minPiece
	p.known.Store(maxPiece)
}

// leave notes that n bytes leave, when all before from has been acknowledged.
func (p *pace) leave(now time.Duration, from, n uint64) {
	if p.rate == 0 {
		p.blind += n
		p.number = int(min(max(minPiece, p.blind/blindPart), maxPiece))
	}
	if !p.begun {
		p.begun, p.fresh, p.since, p.from = true, true, now, from
	}
}

// hear notes that all before acked has been acknowledged, and whether that is all that has left. What was acknowledged of a first
// few bytes tells at least how fast the carrier is; only a stretch in which it was never idle tells that it is slower than before.
func (p *pace) hear(now time.Duration, acked uint64, all bool) {
	if !p.begun {
		return
	}
	span := max(now-p.since, time.Microsecond)
	if p.fresh || span >= paceSpan {
		rate := float64(acked-p.from) / span.Seconds()
		if !p.fresh || rate > p.rate {
			p.rate = max(rate, p.rate/2, 1) // acknowledgements come in bursts
			p.number = int(min(max(p.rate*pieceTime.Seconds(), minPiece), maxPiece))
			p.known.Store(int64(p.number))
		}
		p.fresh, p.since, p.from = false, now, acked
	}
	p.begun = !all
}

// piece returns how many bytes a segment, and a Write of the carrier, may have.
func (p *pace) piece() int { return p.number }

// slow reports whether bytes are cut smaller than they would be on a fast carrier.
func (p *pace) slow() bool { return p.piece() < maxPiece }

// Piece returns how many bytes take about half a second to get to the other side, at the rate at which it has acknowledged on this
// carrier: from 5 KiB to 136 KiB, which it also returns while no rate has been measured.
func (f *Flow) Piece() int { return int(f.out.pace.known.Load()) - headerSize }

// Backlog returns how long what has been sent and not acknowledged takes to get there, at the rate at which the other side has
// acknowledged on this carrier. It is 0 when there is nothing, and known is false when no rate has been measured.
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

// owe notes that bytes of the other side have come, which it has to hear of though it may not have asked: a segment within
// FlowConfig.Unasked says that this side lives, and what it has. mu is held.
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

// signDue sends a number if no segment has left since bytes came.
func (f *Flow) signDue() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.in.signing = false
	if f.in.unsaid && f.err == nil {
		f.answer(true)
	}
}

// Sign sends the other side a number that it has not asked for, as a sign of life: for an owner that has heard it on another
// carrier.
func (f *Flow) Sign() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.cur != nil {
		f.answer(true)
	}
}
