// Package steady writes to a conn so that one who waits for it sees it move: in pieces of 32 KiB at most while the conn is quick, and of
// some 200 ms when it is slow.
package steady

import (
	"io"
	"sync/atomic"
	"time"
)

const (
	slow  = 400 * time.Millisecond // a Write that takes longer is cut up the next time
	quick = 50 * time.Millisecond  // after one that is shorter it may be longer
	least = 1 << 10
	most  = 32 << 10
)

// A Pace is how one conn takes what is written. The zero value is ready.
type Pace struct {
	moved atomic.Uint64
	piece int // bytes of one Write; 0: most. The writer's own
}

// Moved returns how many bytes the conn has taken. It is safe to call during Write.
func (p *Pace) Moved() uint64 { return p.moved.Load() }

// Write writes b to w, in one Write or several. One goroutine at a time calls it.
func (p *Pace) Write(w io.Writer, b []byte) (int, error) {
	for n := 0; ; {
		part := b[n:]
		if p.piece == 0 {
			p.piece = most
		}
		part = part[:min(len(part), p.piece)]
		began := time.Now()
		wrote, err := w.Write(part)
		p.learn(wrote, time.Since(began))
		n += wrote
		if err != nil || n == len(b) {
			return n, err
		}
	}
}

// learn takes note of a Write.
func (p *Pace) learn(n int, took time.Duration) {
	p.moved.Add(uint64(n))
	switch {
	case took > slow:
		p.piece = max(least, int(int64(n)*int64(slow/2)/int64(took)))
	case took < quick:
		p.piece = min(most, 2*p.piece)
	}
}
