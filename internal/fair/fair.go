// Package fair divides a bound among those who want it, so that no peer and no subnet keeps the others from it. Peer IDs are free, and a
// bound that is first come, first served belongs to the first attacker.
package fair

import (
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Kind is something that a Tree divides.
type Kind uint8

// The kinds.
const (
	Sessions Kind = iota
	Calls
	Bytes
	kinds
)

// A Verdict is the answer to a request for more.
type Verdict uint8

// The verdicts.
const (
	Granted     Verdict = iota
	PeerShare           // others want it, and the peer has its share
	SubnetShare         // others want it, and the peer's subnet has its share
	Full                // there is no room for a peer that has less than its share
	Spent               // there is no room, or only for peers that have little
)

// How a bound is divided.
const (
	quarters   = 4               // a peer, and a subnet, keeps at most this part of the bound while others want it
	reserved   = 8               // this part of the bound is for those who have little
	newcomer   = 16              // a newcomer gets this part of the reserve
	least      = 16              // a smaller bound is not divided: first come, first served
	wantedFor  = 5 * time.Second // others are taken to want a bound for so long after one of them found no room
	maxPresses = 2               // remembered: two differ, so that each holder sees another's
)

// A bound is one kind's.
type bound struct {
	limit int64 // 0: none
	step  int64 // a holder takes that many at a time
	used  atomic.Int64
	// pressed is when somebody below his share last found no room, in nanoseconds after the tree began; 0: never.
	pressed atomic.Int64
}

func (b *bound) divided() bool { return b.limit >= least }

// share returns the most that a peer or a subnet keeps while others want it.
func (b *bound) share() int64 { return b.limit / quarters }

// reserve returns what only those get who have little.
func (b *bound) reserve() int64 { return b.limit / reserved }

// first returns the newcomer's part of the reserve.
func (b *bound) first() int64 { return max(1, b.reserve()/newcomer) }

// A Tree divides bounds among subnets and the peers in them. It is safe for concurrent use.
type Tree struct {
	began  time.Time
	bounds [kinds]bound

	mu      sync.Mutex
	subnets map[string]*subnet
	holders map[string]*Holder
	known   regulars
	presses [kinds][maxPresses]press // the newest first
}

type subnet struct {
	name    string
	holders int // guarded by Tree.mu
	used    [kinds]atomic.Int64
}

// A Holder is one peer with all that it holds. It is safe for concurrent use.
type Holder struct {
	tree   *Tree
	peer   string
	subnet *subnet
	refs   int         // guarded by Tree.mu
	left   atomic.Bool // refs is zero
	known  bool        // has been served before, or is expected
	served atomic.Bool

	taken [kinds]atomic.Int64 // from the tree; changed with mu held where a kind is taken in steps
	spare [kinds]atomic.Int64 // what of taken is not used
	mu    sync.Mutex          // held to take from the tree in steps, and to give spare back
}

// stepOfBytes is how many bytes a holder takes from the tree at a time.
const stepOfBytes = 16 << 10

// New returns a tree with a bound for each kind; a limit of zero or less is none.
func New(sessions, calls, bytes int64) *Tree {
	t := &Tree{began: time.Now(), subnets: make(map[string]*subnet), holders: make(map[string]*Holder)}
	for k, limit := range [kinds]int64{sessions, calls, bytes} {
		t.bounds[k].limit, t.bounds[k].step = max(0, limit), 1
	}
	if limit := t.bounds[Bytes].limit; limit == 0 || limit >= 1024*stepOfBytes {
		t.bounds[Bytes].step = stepOfBytes
	}
	return t
}

// Hold returns the holder of a peer in a subnet, which Leave must be called for. A peer with several connections stays in the subnet that it
// was in first.
func (t *Tree) Hold(peer, of string) *Holder {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.holders[peer]
	if h == nil {
		s := t.subnets[of]
		if s == nil {
			s = &subnet{name: of}
			t.subnets[of] = s
		}
		s.holders++
		h = &Holder{tree: t, peer: peer, subnet: s, known: t.known.has(peer)}
		t.holders[peer] = h
	}
	h.refs++
	h.left.Store(false)
	return h
}

// Leave ends a Hold. What the holder has taken and not given back stays counted until it is given back.
func (h *Holder) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tree.mu.Lock()
	h.refs--
	h.left.Store(h.refs == 0)
	h.tree.mu.Unlock()
	h.settleLocked()
}

// settle gives everything back that a holder that has left does not use. Once that is all, the tree forgets the holder.
func (h *Holder) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settleLocked()
}

func (h *Holder) settleLocked() {
	if !h.left.Load() {
		return
	}
	t, none := h.tree, true
	for k := range kinds {
		t.give(h, k, h.spare[k].Swap(0))
		none = none && h.taken[k].Load() == 0
	}
	if !none {
		return // the last that it gives back calls settle again
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.refs > 0 || t.holders[h.peer] != h {
		return
	}
	delete(t.holders, h.peer)
	if h.served.Load() {
		t.known.add(h.peer, h.subnet.name)
	}
	if h.subnet.holders--; h.subnet.holders == 0 {
		delete(t.subnets, h.subnet.name)
	}
}

// Served notes that the peer has been served. When it comes again, the reserve is open to it up to its share.
func (h *Holder) Served() {
	if !h.served.Load() { // rather than write what other processors read
		h.served.Store(true)
	}
}

// Take asks for n more of a kind.
func (h *Holder) Take(k Kind, n int64) Verdict { return h.takeFor(k, n, claim{parts: 1}) }

// TakeSpare is Take for what the holder can do without: where there is not enough for all, it leaves half of what the holder may have to Take.
func (h *Holder) TakeSpare(k Kind, n int64) Verdict { return h.takeFor(k, n, claim{parts: 2}) }

// TakeQuietly is Take that others do not notice where it is refused: the holder is not taken to want more.
func (h *Holder) TakeQuietly(k Kind, n int64) Verdict {
	return h.takeFor(k, n, claim{parts: 1, quiet: true})
}

// TakeUnused is Take for what the holder may never use. Beyond its share it is refused while others want more, and where it would not leave
// half of the bound free, for others and for other work of the holder.
func (h *Holder) TakeUnused(k Kind, n int64) Verdict {
	b := &h.tree.bounds[k]
	switch {
	case b.limit == 0 || h.taken[k].Load()+n <= b.share():
		return h.Take(k, n)
	case b.pressed.Load() != 0 || b.used.Load()+n > b.limit/2:
		return Spent
	}
	return h.TakeQuietly(k, n)
}

// A claim says how much a request for more is worth where there is not enough for all.
type claim struct {
	parts int64 // the holder may have one part of so many
	quiet bool  // it is no press
}

// takeFor is Take for a claim.
func (h *Holder) takeFor(k Kind, n int64, c claim) Verdict {
	step := h.tree.bounds[k].step
	if step == 1 {
		return h.tree.take(h, k, n, c)
	}
	if h.takeSpare(k, n) {
		return Granted
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	own := h.spare[k].Swap(0)
	if more := n - own; more > 0 {
		got := (more + step - 1) / step * step
		v := h.tree.take(h, k, got, c)
		if v != Granted && got != more {
			got = more
			v = h.tree.take(h, k, got, c)
		}
		if v != Granted {
			h.spare[k].Add(own)
			return v
		}
		own += got
	}
	h.spare[k].Add(own - n)
	return Granted
}

// takeSpare takes n of what the holder has in advance, and reports false if that is less.
func (h *Holder) takeSpare(k Kind, n int64) bool {
	for {
		spare := h.spare[k].Load()
		if spare < n {
			return false
		}
		if h.spare[k].CompareAndSwap(spare, spare-n) {
			return true
		}
	}
}

// Give gives back n of a kind.
func (h *Holder) Give(k Kind, n int64) {
	b := &h.tree.bounds[k]
	switch {
	case b.step == 1:
		h.tree.give(h, k, n)
	case b.keeps(h.spare[k].Add(n), &h.taken[k]):
	default:
		h.trim(k)
	}
	if h.left.Load() { // after what was given back, or before Leave looks for it
		h.settle()
	}
}

// keeps reports whether a holder may keep so much that it does not use.
func (b *bound) keeps(spare int64, taken *atomic.Int64) bool {
	if b.pressed.Load() != 0 {
		return spare == 0
	}
	return spare <= b.step || spare <= 2*b.step && spare < taken.Load()
}

// trim gives back what the holder has in advance, but for a step, or all if somebody found no room.
func (h *Holder) trim(k Kind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := &h.tree.bounds[k]
	spare, keep := h.spare[k].Swap(0), b.step
	if b.pressed.Load() != 0 {
		keep = 0
	}
	keep = min(keep, spare)
	h.tree.give(h, k, spare-keep)
	h.spare[k].Add(keep)
}

// Scarce reports whether Take of n of a kind may be refused. It takes no lock.
func (h *Holder) Scarce(k Kind, n int64) bool {
	b := &h.tree.bounds[k]
	switch {
	case b.limit == 0:
		return false
	case !b.divided():
		return b.used.Load()+n > b.limit
	}
	return b.used.Load()+n > b.limit-b.reserve() || b.pressed.Load() != 0
}

// Owes returns how much of n that the holder could keep, or give back, should go to others, because they have found less than they want
// lately: all of it if the holder or its subnet has more than its share. If not, half of it, as long as little is left.
func (h *Holder) Owes(k Kind, n int64) int64 {
	b := &h.tree.bounds[k]
	if b.pressed.Load() == 0 {
		return 0
	}
	own := h.taken[k].Load()
	t := h.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	peer, other := t.wantedByOthers(h, k, time.Since(t.began)+1)
	switch {
	case peer && own > b.share(), other && h.subnet.used[k].Load() > b.share():
		return n
	case peer && b.used.Load() > b.limit-2*b.reserve():
		return n / 2
	}
	return 0
}

// UsedQuarters returns how many whole quarters of a kind are used, by all.
func (h *Holder) UsedQuarters(k Kind) int {
	b := &h.tree.bounds[k]
	if b.limit == 0 {
		return 0
	}
	return int(quarters * b.used.Load() / b.limit)
}

// Used returns how much of a kind the holder has.
func (h *Holder) Used(k Kind) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken[k].Load() - h.spare[k].Load()
}

// UsedOfSubnet returns how much of a kind the holder's subnet has, and what its peers have taken in advance.
func (h *Holder) UsedOfSubnet(k Kind) int64 { return h.subnet.used[k].Load() }

// Most returns the most that one holder can have of a kind.
func (t *Tree) Most(k Kind) int64 {
	b := &t.bounds[k]
	switch {
	case b.limit == 0:
		return math.MaxInt64
	case !b.divided():
		return b.limit
	}
	return b.limit - b.reserve()
}

// Used returns what all holders have of a kind.
func (t *Tree) Used(k Kind) (n int64) {
	for _, h := range t.Holders() {
		n += h.Used(k)
	}
	return n
}

// Holders returns everybody who holds something, or may.
func (t *Tree) Holders() []*Holder {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Values(t.holders))
}

// Network returns the name of the subnet that the peer was in when it came.
func (h *Holder) Network() string { return h.subnet.name }

// Subnet identifies the holder's subnet among those of the tree that have holders.
func (h *Holder) Subnet() any { return h.subnet }

// Lead returns how much more of a kind the holder's Side would still have than the other one's if that had one more.
func (h *Holder) Lead(other *Holder, k Kind) int64 {
	if h.subnet != other.subnet {
		return h.subnet.used[k].Load() - other.subnet.used[k].Load() - 1
	}
	return h.Used(k) - other.Used(k) - 1
}

// Side returns what identifies the holder among all that are compared with another one: the peer, if they are in one subnet, or else its
// subnet.
func (h *Holder) Side(other *Holder) any {
	if h.subnet != other.subnet {
		return h.subnet
	}
	return h
}

// IsKnown reports whether the peer is expected, or was served before it came.
func (h *Holder) IsKnown() bool { return h.known }

// take takes n of a kind for a holder, all or nothing: what is refused is never counted, or it would keep others from what is free.
func (t *Tree) take(h *Holder, k Kind, n int64, c claim) Verdict {
	b := &t.bounds[k]
	switch {
	case b.limit == 0:
		b.used.Add(n)
	case !b.divided():
		if !b.add(n, b.limit) {
			return Spent
		}
	case b.pressed.Load() != 0 || !b.add(n, b.limit-b.reserve()):
		return t.takeWeighed(h, k, n, c)
	}
	h.subnet.used[k].Add(n)
	h.taken[k].Add(n)
	return Granted
}

// add counts n more in use, unless there would be more than most.
func (b *bound) add(n, most int64) bool {
	for {
		was := b.used.Load()
		if was+n > most {
			return false
		}
		if b.used.CompareAndSwap(was, was+n) {
			return true
		}
	}
}

// give gives n of a kind back to the tree.
func (t *Tree) give(h *Holder, k Kind, n int64) {
	if n == 0 {
		return
	}
	h.taken[k].Add(-n)
	h.subnet.used[k].Add(-n)
	t.bounds[k].used.Add(-n)
}
