package session

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// All shared streams of a session draw on one credit of the session, besides the credit of each stream (spec 5.12). Credit is reserved memory,
// so there is always room for data that the peer sends within it:
//
//	quota ─ reserve, extend ─> unused ─ STREAM_DATA ─> unread ─ granted, dropped ─> owed ─ settle ─> unused, or back to the quota
//	                           └─ SESSION_RETURN ─> quota
//
// Without pressure it grows to the sum of the streams' windows. While others want memory, read data is not granted again.

// errBeyondCredit: the peer has sent more than the session's credit.
var errBeyondCredit = errors.New("beyond the credit of the session")

const (
	// bufferCost is the most memory that the buffer of a stream takes beyond its content.
	bufferCost = 2 * spanSize
	// More credit is granted once half of it was used within burstTime. On a slow path, credit waits in queues for seconds.
	burstTime = 10 * time.Second
	// askTime is how often unused credit is looked at, where memory is limited.
	askTime = 2 * time.Second
	// mostRegrants is how often in askTime what a peer returns of the floor is granted again at once. Two sides that disagree about whether a stream
	// is open would otherwise exchange the same credit without end.
	mostRegrants = 8
	// askPatience is how long a peer may keep unused credit that others want, while it is asked for it.
	askPatience = 30 * time.Second
	// After a stream was refused for lack of memory, the session leaves room for one for crampedTime.
	crampedTime = 5 * time.Second
)

// allowance is the credit that the peer has, and the memory that is reserved for it. It is guarded by Session.mu.
type allowance struct {
	part   *QuotaPart
	window int // of each stream

	streams int   // that the peer may send on
	unused  int64 // granted and neither used nor returned
	unread  int64 // arrived, and not settled
	spare   int64 // reserved, and granted when unused falls below the floor; at most that
	due     int64 // of unused: the peer does not know yet
	over    bool  // the session has ended

	burst     int64         // bytes that have arrived since burstAt
	burstAt   time.Duration // as Session.elapsed
	refusedAt time.Duration // when there was no memory for more; 0: never
	cramped   time.Duration // when a stream was last refused for lack of memory; 0: never, or one was admitted since
	asked     int64         // unused, when the peer was last asked for it
	asks      int           // how often in a row it was asked in vain
	regrants  int           // how often the floor was granted again since regrantAt
	regrantAt time.Duration // as Session.elapsed

	buffers atomic.Int64 // streams whose buffer is in use; not guarded
	owed    atomic.Int64 // of unread: dropped, or read and about to be granted again to its stream; not guarded
	worth   atomic.Int64 // how many bytes must be read from a stream before they are granted again; not guarded
	ended   atomic.Bool  // over; not guarded
}

// floor is the credit that a session always has, so that every stream moves whatever others have under way.
func (a *allowance) floor() int64 { return floorFor(a.streams) }

func floorFor(streams int) int64 {
	if streams == 0 {
		return 0
	}
	return min(frame.LeastCredit+int64(streams)*frame.StreamShare, frame.MaxTotal/2)
}

// total returns the reserved memory, without that of the buffers.
func (a *allowance) total() int64 { return a.unused + a.unread + a.spare }

// most returns the sum of the streams' windows.
func (a *allowance) most() int64 {
	return max(a.floor(), min(frame.MaxTotal, a.buffers.Load()*int64(a.window)))
}

// reserve reserves memory for another stream, or returns why there is none. After a refusal, memory that becomes free is kept for a stream
// for crampedTime.
func (a *allowance) reserve(now time.Duration) frame.Failure {
	need := max(0, floorFor(a.streams+1)-a.unused-a.spare)
	if f := a.part.take(fair.Bytes, int(need)+bufferCost); f.Code != codes.OK {
		a.cramped = max(1, now)
		return f
	}
	a.cramped = 0
	a.streams++
	a.buffers.Add(1)
	a.spare += need
	return frame.Failure{}
}

// begin grants credit for another stream, once the peer knows of it.
func (a *allowance) begin(now time.Duration) {
	a.topUp()
	first := 0
	switch a.part.holder.UsedQuarters(fair.Bytes) {
	case 0, 1:
		first = a.window
	case 2:
		first = min(firstFlight, a.window)
	}
	a.extend(min(int64(first), a.floor()+int64(a.streams)*int64(first)-a.unused), now)
}

// closed notes that the peer has finished sending on one stream.
func (a *allowance) closed(now time.Duration) {
	a.streams--
	a.settle(now)
	if excess := a.spare - a.floor(); excess > 0 {
		a.spare -= excess
		a.release(excess)
	}
	a.changed()
}

// arrive handles n bytes of the peer, and reports whether it had credit for them.
func (a *allowance) arrive(n int64, now time.Duration) bool {
	if n > a.unused-a.due {
		return false
	}
	a.unused -= n
	a.unread += n
	a.topUp()
	if now-a.burstAt > burstTime {
		a.burst, a.burstAt = 0, now
	}
	a.burst += n
	if total := a.total(); 2*a.burst >= total || 4*a.unused < total {
		a.extend(total, now)
		a.burst, a.burstAt = 0, now
	}
	return true
}

// extend grants up to n more if the streams can use it and there is memory. The peer may never use it, so at least half of the memory stays free
// for other work, the peer's own included. With less than half free, extend grants only a little in advance.
func (a *allowance) extend(n int64, now time.Duration) {
	if n = min(n, a.most()-a.total()); n <= 0 || a.refusedAt != 0 && now-a.refusedAt < retryHint || a.isCramped(now) {
		return
	}
	for n, least := n, n/8; n >= max(1, least); n /= 2 {
		if a.part.holder.TakeUnused(fair.Bytes, n) == fair.Granted {
			a.refusedAt = 0
			a.grant(n)
			return
		}
	}
	if n = min(n, max(a.floor(), a.little())-a.unused); n > 0 && a.part.holder.TakeQuietly(fair.Bytes, n) == fair.Granted {
		a.refusedAt = 0
		a.grant(n)
		return
	}
	a.refusedAt = max(1, now)
}

// settle grants what is owed again. What others want, and what the streams cannot use, it returns to the quota.
func (a *allowance) settle(now time.Duration) {
	n := a.owed.Swap(0)
	if n == 0 {
		return
	}
	a.unread -= n
	if a.over {
		a.release(n)
		return
	}
	out := n
	if a.streams > 0 && !a.isCramped(now) {
		out = max(a.part.holder.Owes(fair.Bytes, n), a.total()+n-a.most())
		if a.isScarce() {
			out = max(out, a.unused+n-max(a.floor(), a.little()))
		}
	}
	if out <= 0 {
		a.grant(n)
		return
	}
	keep := min(n, max(0, a.floor()-a.spare))
	a.spare += keep
	n -= keep
	out = min(n, out)
	a.release(out)
	a.grant(n - out)
	a.topUp()
}

// back handles the peer's return of unused credit, and reports whether it had so much.
func (a *allowance) back(n int64, now time.Duration) bool {
	if n > a.unused-a.due {
		return false
	}
	a.settle(now)
	a.unused -= n
	keep := min(n, max(0, a.floor()-a.unused-a.spare))
	a.spare += keep
	a.release(n - keep)
	if now-a.regrantAt >= askTime {
		a.regrants, a.regrantAt = 0, now
	}
	if a.regrants++; a.regrants <= mostRegrants {
		a.topUp() // otherwise when the credit is next looked at
	}
	a.changed()
	return true
}

// topUp raises the peer's credit to the floor, as far as memory for that is reserved.
func (a *allowance) topUp() {
	n := min(a.spare, max(0, a.floor()-a.unused))
	a.spare -= n
	a.grant(n)
}

// grant grants n more bytes, for which memory is reserved.
func (a *allowance) grant(n int64) {
	a.unused += n
	a.due += n
	a.changed()
}

// changed sets worth: small while the credit is small, so that the peer does not have to wait for slow readers.
func (a *allowance) changed() { a.worth.Store(max(leastGrant, a.total()/int64(2*max(1, a.streams)))) }

// release returns n bytes to the quota.
func (a *allowance) release(n int64) { a.part.release(fair.Bytes, int(n)) }

// needsLook reports whether the credit has to be looked at again after askTime.
func (a *allowance) needsLook() bool { return a.mayAsk() || a.spare > 0 && a.unused < a.floor() }

// mayAsk reports whether the peer has credit that it may not need, and memory is limited.
func (a *allowance) mayAsk() bool {
	return !a.over && a.part.quota.MaxBytes > 0 && a.unused > a.floor()
}

// isCramped reports whether another stream of the session wants memory.
func (a *allowance) isCramped(now time.Duration) bool {
	return a.cramped != 0 && now-a.cramped < crampedTime
}

// isWanted reports whether others want memory, or another stream does.
func (a *allowance) isWanted(now time.Duration) bool {
	return a.isCramped(now) || a.isScarce() || a.part.holder.Owes(fair.Bytes, 2) > 0
}

// little returns how much credit the peer may have in advance while memory is scarce.
func (a *allowance) little() int64 { return min(firstFlight, a.part.quota.MaxBytes/64) }

// isScarce reports whether three quarters of the memory are in use, by whomever.
func (a *allowance) isScarce() bool { return a.part.holder.UsedQuarters(fair.Bytes) >= 3 }

// keepsUnused counts one more request for unused credit. It reports whether the peer has been asked for askPatience, has more than its share while
// others want memory, and has used or returned less than a 16th of its unused credit after each request.
func (a *allowance) keepsUnused() bool {
	before := a.asked
	a.asked = a.unused
	if a.asks++; a.unused < before-before/16 || a.unused <= a.floor()+a.little() || a.part.holder.Owes(fair.Bytes, 2) < 2 {
		a.asks = 0
	}
	return time.Duration(a.asks)*askTime >= askPatience
}

// owe notes that n bytes of a stream were dropped, or are about to be granted to it again. The caller must call settle afterwards.
//
// The stream's own credit must be granted first: until then, the peer counts those bytes as under way on the stream, and gives new credit of the
// session to other streams.
func (a *allowance) owe(n int) {
	a.owed.Add(int64(n))
	if a.ended.Load() {
		a.release(a.owed.Swap(0))
	}
}

// leaveBuffer notes that a stream's buffer is no longer used. If its memory is still counted, leaveBuffer returns that to the quota.
func (a *allowance) leaveBuffer(counted bool) {
	a.buffers.Add(-1)
	if counted {
		a.release(bufferCost)
	}
}

// end returns everything to the quota except the unread data in the streams' buffers. The streams return that themselves.
func (a *allowance) end() {
	a.over = true
	a.ended.Store(true)
	a.release(a.unused + a.spare + a.owed.Swap(0))
	a.unused, a.spare, a.due = 0, 0, 0
}

// purse is the credit that this side has. It is guarded by Session.mu.
//
// Each stream may always have StreamShare bytes under way, and no other stream can take that part of the credit, so every stream can move: see
// room. Bytes are under way on a stream until the peer grants them to it again.
type purse struct {
	left    int64
	spent   bool  // since the peer last asked for credit
	least   int64 // that left has been since then, if spent
	kept    int64 // of left, for the streams that have less than their share under way
	streams int   // that may send
}

// A share is the part of a purse that is kept for one stream.
type share struct {
	kept  int64
	sends bool // counted in purse.streams
}

// keep sets how many bytes a stream has under way, or that it does not send.
func (p *purse) keep(of *share, sends bool, underWay uint64) {
	kept := int64(0)
	if sends {
		kept = max(0, frame.StreamShare-int64(underWay))
	}
	p.kept += kept - of.kept
	of.kept = kept
	switch {
	case sends && !of.sends:
		p.streams++
	case !sends && of.sends:
		p.streams--
	}
	of.sends = sends
}

// room returns how many bytes a stream may send.
func (p *purse) room(of *share) int {
	return int(max(p.left-(p.kept-of.kept), min(p.left, of.kept)))
}

// spend takes n bytes.
func (p *purse) spend(n int) {
	p.left -= int64(n)
	if !p.spent {
		p.spent, p.least = true, p.left
	}
	p.least = min(p.least, p.left)
}

// add adds n bytes, and reports false if that is more than there may be.
func (p *purse) add(n uint32) bool {
	if p.left+int64(n) > frame.MaxTotal {
		return false
	}
	p.left += int64(n)
	return true
}

// takeIdle takes the credit that has not been needed since its last call, and returns how much that is.
func (p *purse) takeIdle() int64 {
	n := max(0, p.left-floorFor(p.streams))
	if p.spent {
		n = min(n, p.least)
	}
	p.left -= n
	p.spent = false
	return n
}
