package session

import "time"

// A flight bounds the bytes under way in one direction of a shared stream, so that calls do not wait long behind them: all data of a
// session goes through the queues of one connection, and a stream's queued bytes come first. The peer's credit says when bytes have been
// read. From that the flight learns the least time that they take, and that they take longer when they queue. It then allows only as many
// as keep the queue short. That is the idea of TCP Vegas (Brakmo and Peterson 1995), with the least sample of a round trip as the reference
// (CoDel, RFC 8289, section 3).
//
// When all sent bytes have been read, enough credit has been granted that leastFlight bytes may leave again. When they have not been read,
// they are no longer under way either: after a while without credit a flight allows more, up to the credit. See relaxFlights.
type flight struct {
	sent, heard uint64        // bytes of this direction that have been sent, and those for which the peer has granted credit again
	limit       int           // limit of the difference; one fragment may begin below it
	movedAt     time.Duration // when either grew last

	marks   queue[mark]   // for the bytes between sent and heard
	least   time.Duration // from sending to credit; zero before the first
	leastAt time.Duration // when least was measured, as Session.elapsed

	// A round ends when everything sent before its begin has been heard.
	round     uint64        // sent at the begin
	roundAt   time.Duration // when that was
	roundFrom uint64        // heard at the begin
	roundBest time.Duration
	bounded   bool // it has been at the limit
	known     bool // the limit has been lowered once: until then it doubles
	before    int  // the limit, while it is lowered on a long path to measure the path again; 0 otherwise
	settling  bool // bytes heard in this round were sent before the limit was lowered
}

// A mark is the time when the bytes up to an offset were sent.
type mark struct {
	end   uint64
	at    time.Duration
	alone bool // with so few bytes before them that they can hardly have queued
}

const (
	leastFlight   = 16 << 10 // bytes
	firstFlight   = 64 << 10
	leastFragment = 4 << 10
	// Read bytes are granted from mostGrant on, and from leastGrant on before a Read waits: soon on a slow path, seldom on a fast one.
	leastGrant = 4 << 10
	mostGrant  = 64 << 10

	// How long the bytes of a stream may queue. While there are calls, about as long as the path takes, so that calls take twice as long as
	// without. In a program that only moves data, short enough that a new call is not noticeably delayed.
	mostQueue  = 50 * time.Millisecond
	leastQueue = 200 * time.Microsecond // shorter times are scheduling delays, and would cost throughput
	attentive  = time.Second            // after a call or a message

	leastRelax = 100 * time.Millisecond // between checks of the flights that hold up a Write
	blindRelax = 500 * time.Millisecond // without credit, when the path is unknown
	mostRelax  = 2 * time.Second        // in any case: a measured time may include a reader's pause, or credit that accumulates

	leastHolds = 10 * time.Second // how long a least time counts; after that, the next sample that has not queued replaces it
)

// room returns how many bytes may leave now as one fragment.
func (f *flight) room() int {
	if f.sent-f.heard >= uint64(f.limit) {
		f.bounded = true
		return 0
	}
	if f.least == 0 {
		return leastFragment // the first one has nothing before it, and measures the path
	}
	soon := int(float64(f.limit) * float64(mostQueue/2) / float64(f.least)) // so that a fragment does not form a queue of its own on a long path
	return min(fragment, max(leastFragment, min(f.limit/4, soon)))
}

// leave records that n bytes are sent now.
func (f *flight) leave(n int, now time.Duration) {
	if f.sent == f.heard {
		f.begin(now)
	}
	f.sent += uint64(n)
	f.movedAt = now
	if last := f.marks.len() - 1; last >= 0 && f.sent-f.marks.at(last).end < leastGrant {
		return // small writes need no mark of their own
	}
	f.marks.push(mark{f.sent, now, f.sent-f.heard <= leastFlight})
}

// begin begins a round.
func (f *flight) begin(now time.Duration) {
	f.round, f.roundBest, f.bounded, f.settling = f.sent, 0, false, false
	f.roundAt, f.roundFrom = now, f.heard
}

// isLong reports whether a round trip is so long that even a slow path has more than leastFlight under way.
func (f *flight) isLong() bool { return f.least > 2*mostQueue }

// grain returns how long, on a long path, the bytes take that are sent and granted together, however short the queue is. On a slow path
// that is longer than they may queue.
func (f *flight) grain(now time.Duration) time.Duration {
	if !f.isLong() {
		return 0
	}
	rate := float64(f.heard-f.roundFrom) / float64(max(1, now-f.roundAt))
	return time.Duration((2*leastFragment + leastGrant) / rate)
}

// hear handles the peer's credit for n more bytes. Sent bytes may queue for at most most.
func (f *flight) hear(n int, now, most time.Duration) {
	f.movedAt = now
	f.heard = min(f.heard+uint64(n), f.sent) // the rest is credit for unsent bytes: a growing window
	for f.marks.len() > 0 && f.marks.peek().end <= f.heard {
		f.sample(f.marks.pop(), now)
	}
	if f.heard < f.round || f.roundBest == 0 {
		return
	}
	fits := float64(f.least+most+f.grain(now)) / float64(f.roundBest)
	lower := !f.settling && fits < 1
	switch {
	case f.before > 0:
		if !f.settling { // nothing else was under way in this round
			f.limit, f.before = f.before, 0
		}
		lower = false
	case lower && f.isLong() && now-f.leastAt > max(leastHolds, 50*f.least):
		f.before, f.limit = f.limit, leastFlight
	case lower:
		f.limit = max(leastFlight, int(float64(f.limit)*max(fits, 0.5)))
		f.known = true
	case f.bounded && fits > 1 && !f.known:
		f.limit *= 2
	case f.bounded && fits > 1:
		f.limit = int(float64(f.limit) * min(fits, 1.25))
	}
	f.begin(now)
	f.settling = lower
}

// sample handles the time that the bytes of m took.
func (f *flight) sample(m mark, now time.Duration) {
	took := max(1, now-m.at)
	if f.roundBest == 0 || took < f.roundBest {
		f.roundBest = took
	}
	if f.least == 0 || took < f.least || m.alone && now-f.leastAt > leastHolds {
		f.least, f.leastAt = took, now
	}
}

// relax allows more when there has been no credit for so long that sent bytes can no longer be under way.
func (f *flight) relax(now time.Duration) {
	wait := blindRelax
	if f.least > 0 {
		wait = min(max(leastRelax, 2*(f.least+mostQueue)), mostRelax)
	}
	if now-f.movedAt >= wait {
		f.limit *= 2
	}
}

// move forgets the measurements, because the path has changed. Unread bytes are now sent on the new one.
func (f *flight) move(now time.Duration) {
	f.movedAt = now
	for f.marks.len() > 0 {
		f.marks.pop()
	}
	f.least, f.known, f.before = 0, false, 0
	f.begin(now)
}
