package natlab

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Conditions are the delay, loss and limits of a link, in each direction. The zero Conditions are a perfect link.
type Conditions struct {
	Delay   time.Duration // one way; a round trip has two
	Jitter  time.Duration // each packet takes up to so much longer, in order
	Loss    float64       // the share of packets that is lost, 0 to 1
	Reorder float64       // the share of packets that overtakes those before it: they do not wait for Delay
	Rate    int64         // bytes a second; zero is no limit
	MTU     int           // larger packets are answered with "too big"; zero is 1500
	NoUDP   bool          // UDP is lost
}

// maxQueue bounds how long packets wait for Rate, as a router's buffer does. Those that would wait longer are lost.
const maxQueue = 200 * time.Millisecond

// A Link joins a host or a router to a place. Its methods are safe for concurrent use.
type Link struct {
	up, down *lane // towards the place, and from it
}

func newLink() *Link { return &Link{up: newLane(), down: newLane()} }

// Set changes the conditions of both directions. Packets on their way keep theirs.
func (l *Link) Set(c Conditions) {
	l.up.set(c)
	l.down.set(c)
}

// Cut makes the link lose every packet until Heal, without a link-down signal on either side.
func (l *Link) Cut() {
	l.up.cut.Store(true)
	l.down.cut.Store(true)
}

// Heal ends a Cut.
func (l *Link) Heal() {
	l.up.cut.Store(false)
	l.down.cut.Store(false)
}

// Sent returns the bytes of the packets that the link has taken towards its place, IP headers included, lost ones too.
func (l *Link) Sent() int64 { return l.up.bytes.Load() }

// Received returns the bytes of the packets that the link has taken from its place.
func (l *Link) Received() int64 { return l.down.bytes.Load() }

// mtu returns the size of the largest packet that fits.
func (l *Link) mtu() int { return l.up.mtu() }

func (l *Link) close() {
	l.up.close()
	l.down.close()
}

// A lane is one direction of a link. Packets that it delays are delivered by its goroutine, which set starts and close ends.
type lane struct {
	cut   atomic.Bool
	bytes atomic.Int64
	now   atomic.Pointer[Conditions]

	mu      sync.Mutex
	ready   *sync.Cond
	queue   delayed
	seq     uint64    // of the last packet
	free    time.Time // when Rate lets the next packet begin
	last    time.Time // when the last packet that kept its order is due
	running bool
	closed  bool
	done    chan struct{}
}

func newLane() *lane {
	l := &lane{done: make(chan struct{})}
	l.ready = sync.NewCond(&l.mu)
	l.now.Store(new(Conditions))
	return l
}

func (l *lane) set(c Conditions) { l.now.Store(&c) }

const defaultMTU = 1500

func (l *lane) mtu() int {
	if mtu := l.now.Load().MTU; mtu > 0 {
		return mtu
	}
	return defaultMTU
}

// send takes a packet, and calls deliver with it, at once or later. It copies b if it keeps it.
func (l *lane) send(b []byte, udp bool, deliver func([]byte)) {
	c := l.now.Load()
	l.bytes.Add(int64(len(b)))
	if l.cut.Load() || c.NoUDP && udp || c.Loss > 0 && rand.Float64() < c.Loss {
		return
	}
	if c.Delay == 0 && c.Jitter == 0 && c.Rate == 0 && !l.busy() {
		deliver(b)
		return
	}
	l.delay(c, b, deliver)
}

// busy reports whether packets are waiting, which those that follow may not overtake.
func (l *lane) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0
}

func (l *lane) delay(c *Conditions, b []byte, deliver func([]byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	due := time.Now()
	if c.Rate > 0 {
		begin := due
		if l.free.After(begin) {
			begin = l.free
		}
		if begin.Sub(due) > maxQueue {
			return
		}
		l.free = begin.Add(time.Duration(int64(len(b)) * int64(time.Second) / c.Rate))
		due = l.free
	}
	if c.Reorder == 0 || rand.Float64() >= c.Reorder {
		due = due.Add(c.Delay)
		if c.Jitter > 0 {
			due = due.Add(rand.N(c.Jitter))
		}
		if l.last.After(due) {
			due = l.last
		}
		l.last = due
	}
	l.seq++
	heap.Push(&l.queue, held{due: due, seq: l.seq, b: append([]byte(nil), b...), deliver: deliver})
	if !l.running {
		l.running = true
		go l.run()
	}
	l.ready.Signal()
}

// run delivers the packets of the queue when they are due. It ends when the lane is closed.
func (l *lane) run() {
	defer close(l.done)
	wake := time.AfterFunc(time.Hour, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ready.Signal()
	})
	defer wake.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for !l.closed && len(l.queue) == 0 {
			l.ready.Wait()
		}
		if l.closed {
			return
		}
		if wait := time.Until(l.queue[0].due); wait > 0 {
			wake.Reset(wait)
			l.ready.Wait()
			continue
		}
		next := heap.Pop(&l.queue).(held)
		l.mu.Unlock()
		next.deliver(next.b)
		l.mu.Lock()
	}
}

func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	running := l.running
	l.ready.Signal()
	l.mu.Unlock()
	if running {
		<-l.done
	}
}

// A held packet is delivered when it is due.
type held struct {
	due     time.Time
	seq     uint64
	b       []byte
	deliver func([]byte)
}

// delayed is a heap of held packets: the one that is due first, and of several the one that was sent first.
type delayed []held

func (d delayed) Len() int { return len(d) }
func (d delayed) Less(i, j int) bool {
	if !d[i].due.Equal(d[j].due) {
		return d[i].due.Before(d[j].due)
	}
	return d[i].seq < d[j].seq
}
func (d delayed) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *delayed) Push(x any)   { *d = append(*d, x.(held)) }
func (d *delayed) Pop() any {
	old := *d
	last := old[len(old)-1]
	old[len(old)-1] = held{}
	*d = old[:len(old)-1]
	return last
}
