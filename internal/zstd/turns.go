package zstd

import (
	"errors"
	"runtime"
	"slices"
	"sync"
)

// The bounds of what the coders do at once for peers, so that one whose bodies take them long does not hold up the others.
const (
	// Free is the size of a body, not packed, that waits for no turn: it takes a coder some 10 us.
	Free = 4 << 10
	// maxSmall is the size up to which a job is small. Small jobs do not wait for large ones.
	maxSmall = 1 << 20
	maxFree  = 64
	// maxWaiting bounds the jobs of one peer that wait.
	maxWaiting = 1024
	// maxBytes and maxPeerBytes bound what jobs that run at once unpack to, for all peers and for one. A larger job runs alone.
	maxBytes     = 256 << 20
	maxPeerBytes = 64 << 20
)

var (
	// ErrBusy means that too many jobs of the peer wait for a turn.
	ErrBusy = errors.New("zstd: too many bodies of this peer wait for the coder")
	// ErrLeft means that Leave has been called for the owner.
	ErrLeft = errors.New("zstd: nobody waits for this body any more")
)

// turns shares the coders between networks, and what each has between its peers. Jobs of one peer have their turn in order, but for urgent
// ones, which come first. Of several networks, and of several peers of one, the one comes first that has had the least since it began to wait,
// in bytes.
type turns struct {
	most       int // jobs that run at once
	mostLarge  int // of them, large ones
	mostOfPeer int // of them, those of one peer

	mu      sync.Mutex
	running int
	large   int
	bytes   int    // of the jobs that run
	clock   uint64 // the tag of the latest network that had a turn
	lines   map[Peer]*line
	free    []*line // of peers that have left, for reuse; at most maxFree

	networks map[string]*network
	ready    [2]networks // those with a line that is ready: for small jobs, and for large ones
}

// A line is the jobs of one peer.
type line struct {
	peer    Peer
	network *network
	tag     uint64 // bytes that the peer has had, not less than its network's clock when it began to wait
	running int
	bytes   int // of the jobs that run
	waiting []*Turn
	class   int // of network.ready
	at      int // in network.ready[class]; -1: not there
}

// A Turn is the leave to use a coder.
type Turn struct {
	turns *turns
	line  *line
	owner any
	n     int
	// woken is locked until the turn has come. It is no channel: one that was made in a synctest bubble could not be closed outside.
	woken sync.Mutex
	left  bool
}

// free recycles Turns, whose woken is unlocked.
var free = sync.Pool{New: func() any { return new(Turn) }}

// ofProcess are the turns of this process: half of the processors, but at least two, code for peers, of which half take large jobs, and as
// many are one peer's.
var ofProcess = newTurns(max(2, runtime.GOMAXPROCS(0)/2))

func newTurns(most int) *turns {
	return &turns{most: most, mostLarge: max(1, most/2), mostOfPeer: max(1, most/2), lines: make(map[Peer]*line),
		networks: make(map[string]*network)}
}

// Await waits until it is the turn of a job for peer: to pack or to unpack a body of n bytes, counted unpacked. An urgent job comes before
// the others of the peer: so a peer's answers leave before its next bodies come. The caller calls Done. The error is ErrBusy, or ErrLeft if
// Leave was called for owner.
func Await(peer Peer, owner any, n int, urgent bool) (*Turn, error) {
	return ofProcess.await(peer, owner, n, urgent)
}

// Leave ends the waits of owner's jobs for peer.
func Leave(peer Peer, owner any) { ofProcess.leave(peer, owner) }

// Done ends the turn. A nil Turn has none.
func (j *Turn) Done() {
	if j != nil {
		j.turns.done(j)
		j.turns, j.line, j.owner = nil, nil, nil
		free.Put(j)
	}
}

func (t *turns) await(peer Peer, owner any, n int, urgent bool) (*Turn, error) {
	if n <= Free {
		return nil, nil
	}
	j := free.Get().(*Turn)
	j.turns, j.owner, j.n = t, owner, n
	j.woken.Lock()
	if err := t.enter(j, peer, urgent); err != nil {
		return nil, err
	}
	j.woken.Lock()
	j.woken.Unlock() //nolint:staticcheck // it was a wait
	if j.left {
		return nil, ErrLeft
	}
	return j, nil
}

// enter puts j in its line.
func (t *turns) enter(j *Turn, peer Peer, urgent bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[peer]
	if l == nil {
		l = t.newLine(peer)
	}
	if len(l.waiting) >= maxWaiting && !urgent { // urgent ones answer what has been taken
		return ErrBusy
	}
	if len(l.waiting) == 0 {
		l.tag = max(l.tag, l.network.clock)
	}
	l.network.enter(t.clock)
	j.line = l
	if urgent {
		l.waiting = slices.Insert(l.waiting, 0, j)
	} else {
		l.waiting = append(l.waiting, j)
	}
	t.place(l)
	t.dispatch()
	return nil
}

// newLine returns a line for a peer without one. t.mu is held.
func (t *turns) newLine(peer Peer) *line {
	l := new(line)
	if n := len(t.free); n > 0 {
		l, t.free = t.free[n-1], t.free[:n-1]
	}
	*l = line{peer: peer, network: t.networkOf(peer.Network), at: -1, waiting: l.waiting[:0]}
	t.lines[peer] = l
	return l
}

// place puts l where it belongs in ready. t.mu is held.
func (t *turns) place(l *line) {
	if l.at >= 0 {
		t.remove(l)
	}
	if len(l.waiting) == 0 {
		if l.running == 0 {
			delete(t.lines, l.peer)
			t.leaveNetwork(l.network)
			l.network = nil
			if len(t.free) < maxFree {
				t.free = append(t.free, l)
			}
		}
		return
	}
	n := l.waiting[0].n
	if l.running >= t.mostOfPeer || l.running > 0 && l.bytes+n > maxPeerBytes {
		return
	}
	l.class = classOf(n)
	t.push(l)
}

// classOf returns 0 for a small job, 1 for a large one.
func classOf(n int) int {
	if n <= maxSmall {
		return 0
	}
	return 1
}

// dispatch begins the jobs for which there is room. t.mu is held.
func (t *turns) dispatch() {
	for t.running < t.most {
		l := t.next()
		if l == nil {
			return
		}
		j := l.waiting[0]
		l.waiting = slices.Delete(l.waiting, 0, 1)
		t.count(j, 1)
		t.charge(l, j.n)
		t.place(l)
		j.woken.Unlock()
	}
}

// next returns the line whose first job is to run next, or nil if there is none.
func (t *turns) next() *line {
	small, large := t.first(0), t.first(1)
	if large != nil && (t.large >= t.mostLarge || t.bytes > 0 && t.bytes+large.waiting[0].n > maxBytes) {
		large = nil
	}
	if small == nil || large != nil && large.comesBefore(small) {
		return large
	}
	return small
}

// count adds a job that begins, or with sign -1 one that has ended, to what runs. t.mu is held.
func (t *turns) count(j *Turn, sign int) {
	t.running += sign
	t.large += sign * classOf(j.n)
	t.bytes += sign * j.n
	j.line.running += sign
	j.line.bytes += sign * j.n
}

func (t *turns) done(j *Turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count(j, -1)
	t.place(j.line)
	t.dispatch()
}

func (t *turns) leave(peer Peer, owner any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[peer]
	if l == nil {
		return
	}
	l.waiting = slices.DeleteFunc(l.waiting, func(j *Turn) bool {
		if j.owner != owner {
			return false
		}
		j.left = true
		l.network.waiting--
		j.woken.Unlock()
		return true
	})
	t.place(l)
	t.dispatch() // another job of the peer may be first now
}

// lines is a heap of lines, the one with the least tag first.
type lines []*line

func (h lines) Len() int           { return len(h) }
func (h lines) Less(i, j int) bool { return h[i].tag < h[j].tag }
func (h lines) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push and Pop are for container/heap.
func (h *lines) Push(x any) {
	l := x.(*line)
	l.at = len(*h)
	*h = append(*h, l)
}

func (h *lines) Pop() any {
	n := len(*h) - 1
	l := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	l.at = -1
	return l
}
