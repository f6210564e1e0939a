package session

// queue is a first-in first-out queue in a ring. The zero value is empty.
type queue[T any] struct {
	ring []T
	head int
	n    int
}

func (q *queue[T]) len() int { return q.n }

func (q *queue[T]) push(v T) {
	if q.n == len(q.ring) {
		bigger := make([]T, max(8, 2*q.n))
		for i := range q.n {
			bigger[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = bigger, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = v
	q.n++
}

// at returns item i, counted from the first.
func (q *queue[T]) at(i int) T { return q.ring[(q.head+i)%len(q.ring)] }

// peek returns the first item in place; the queue must not be empty.
func (q *queue[T]) peek() *T { return &q.ring[q.head] }

// pop takes the first item; the queue must not be empty.
func (q *queue[T]) pop() T {
	var zero T
	v := q.ring[q.head]
	q.ring[q.head] = zero
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return v
}

// A line is a queue whose items may give up before their turn. The zero value is empty.
type line[T interface{ gaveUp() bool }] struct {
	items queue[T]
	gone  int // items that gave up and still stand in the line
}

// len returns how many wait.
func (l *line[T]) len() int { return l.items.n - l.gone }

func (l *line[T]) push(v T) { l.items.push(v) }

// first returns the first item that waits; there must be one.
func (l *line[T]) first() T {
	for (*l.items.peek()).gaveUp() {
		l.items.pop()
		l.gone--
	}
	return *l.items.peek()
}

// pop takes the first item that waits; there must be one.
func (l *line[T]) pop() T {
	v := l.items.pop()
	for v.gaveUp() {
		l.gone--
		v = l.items.pop()
	}
	l.compact()
	return v
}

// leave notes that one item of the line has just given up.
func (l *line[T]) leave() {
	l.gone++
	l.compact()
}

// compact drops those that gave up once they are more than half of the line.
func (l *line[T]) compact() {
	if 2*l.gone <= l.items.n {
		return
	}
	var kept queue[T]
	for range l.items.n {
		if v := l.items.pop(); !v.gaveUp() {
			kept.push(v)
		}
	}
	l.items, l.gone = kept, 0
}
