package zstd

import "container/heap"

// A Peer is whose turn it is: an identity, of which a program has as many as it likes, in the network that it comes from. Networks take turns,
// and so do the peers of each.
type Peer struct{ Network, ID string }

// A network is the lines of the peers that come from one.
type network struct {
	name    string
	tag     uint64 // bytes that its peers have had, not less than the clock when it began to wait
	clock   uint64 // the tag of the latest line of it that had a turn
	lines   int
	waiting int      // jobs of them that wait
	ready   [2]lines // those whose first job may run as far as its peer is concerned: small jobs, and large ones
	at      [2]int   // in turns.ready; -1: not there
}

// networkOf returns the network with a name, for one more line of it.
func (t *turns) networkOf(name string) *network {
	n := t.networks[name]
	if n == nil {
		n = &network{name: name, at: [2]int{-1, -1}}
		t.networks[name] = n
	}
	n.lines++
	return n
}

// leaveNetwork ends a networkOf.
func (t *turns) leaveNetwork(n *network) {
	if n.lines--; n.lines == 0 {
		delete(t.networks, n.name)
	}
}

// enter notes one more job that waits.
func (n *network) enter(clock uint64) {
	if n.waiting == 0 {
		n.tag = max(n.tag, clock)
	}
	n.waiting++
}

// push puts a line among those that are ready.
func (t *turns) push(l *line) {
	n := l.network
	heap.Push(&n.ready[l.class], l)
	if n.at[l.class] < 0 {
		heap.Push(&t.ready[l.class], inClass{n, l.class})
	}
}

// remove takes a line from those that are ready.
func (t *turns) remove(l *line) {
	n := l.network
	heap.Remove(&n.ready[l.class], l.at)
	if len(n.ready[l.class]) == 0 {
		heap.Remove(&t.ready[l.class], n.at[l.class])
	}
}

// charge counts the bytes of a job of a line that has a turn, and of its network.
func (t *turns) charge(l *line, bytes int) {
	n := l.network
	t.clock, n.clock = max(t.clock, n.tag), max(n.clock, l.tag)
	n.waiting--
	n.tag += uint64(bytes)
	l.tag += uint64(bytes)
	for class, at := range n.at {
		if at >= 0 {
			heap.Fix(&t.ready[class], at)
		}
	}
}

// first returns the line of a class whose turn it would be, or nil.
func (t *turns) first(class int) *line {
	if len(t.ready[class]) == 0 {
		return nil
	}
	return t.ready[class][0].ready[class][0]
}

// comesBefore reports whether it is the turn of l before that of the other.
func (l *line) comesBefore(other *line) bool {
	if l.network != other.network {
		return l.network.tag < other.network.tag
	}
	return l.tag < other.tag
}

// inClass is a network as one with ready lines of a class.
type inClass struct {
	*network
	class int
}

// networks is a heap of networks with ready lines of one class, the one with the least tag first.
type networks []inClass

func (h networks) Len() int           { return len(h) }
func (h networks) Less(i, j int) bool { return h[i].tag < h[j].tag }
func (h networks) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at[h[i].class], h[j].at[h[j].class] = i, j
}

// Push and Pop are for container/heap.
func (h *networks) Push(x any) {
	n := x.(inClass)
	n.at[n.class] = len(*h)
	*h = append(*h, n)
}

func (h *networks) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	(*h)[last] = inClass{}
	*h = (*h)[:last]
	n.at[n.class] = -1
	return n
}
