package record

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/heap"
)

// promised is what doc.go says of the memory for a direction.
func promised(windowBytes int) int { return 3*windowBytes + 192<<10 }

// inMemory returns how many bytes the way in of s holds: the chunks, with what else is in them, and the buffer of its conn.
func inMemory(s *Stream) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, lent := readBuffer, s.in.lent
	for c := s.in.head; c != nil; c = c.next {
		n += cap(c.buf) + 64
		if c == lent {
			lent = nil
		}
	}
	if lent != nil {
		n += cap(lent.buf) + 64
	}
	return n
}

// outMemory is inMemory of the way out.
func outMemory(s *Stream) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := cap(s.copied)
	for c := s.out.head; c != nil; c = c.next {
		n += cap(c.buf) + 96
	}
	return n
}

// Whatever sizes a peer chooses, and however little of it is taken, the way in keeps its bound.
func TestMemoryOfTheWayInIsBounded(t *testing.T) {
	for name, sizes := range map[string][]int{
		"tiny frames of tiny records": {1},
		"frames of half a chunk":      {pooledSize/2 + 1},
		"of a chunk, and of nothing":  {pooledSize - 4, 0},
		"of more, and of nothing":     {pooledSize + 1, 0},
		"of a third, and two":         {pooledSize / 3, pooledSize * 2 / 3},
		"as large as they may be":     {1 << 20, 0},
		"of all sizes":                {0, 1, 100, 10000, 40000, 100000, 3},
	} {
		for _, window := range []int{1000, 60 << 10, 1 << 20} {
			for taken := range 4 {
				t.Run(fmt.Sprintf("%s, %d, taken %d", name, window, taken), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						p := withRaw(t, &Options{Window: 1 << 24, WindowBytes: window, MaxRecord: window - maxLengthSize}, nil)
						peak := fill(p, sizes, taken)
						t.Logf("%d bytes over the window", peak-window)
						require.LessOrEqual(t, peak, promised(window))
					})
				})
			}
		}
	}
}

// fill has p send frames of records of these sizes until the window is full, as the reader sees it, while the application takes
// some of them, and returns the most memory that was held. taken: 0 nothing is, 1 one of each frame's, 2 all that there is as
// soon as half the window is full, once, 3 all but the last record of one frame as large as the window.
func fill(p *rawPeer, sizes []int, taken int) (peak int) {
	next := uint64(1)
	send := func(payloads ...string) {
		p.send(rawBatch(next, payloads...))
		next += uint64(len(payloads))
		peak = max(peak, inMemory(p.s))
	}
	dst := make([]Record, 1<<16)
	largest, window := p.s.opts.MaxRecord, p.s.opts.WindowBytes
	if taken == 3 {
		send(letters(min(largest, window-6)-maxLengthSize), "")
		_, err := p.s.ReadBatch(p.t.Context(), dst[:1])
		require.NoError(p.t, err)
	}
	for i := 0; ; i++ {
		n := min(sizes[i%len(sizes)], largest)
		p.s.mu.Lock()
		used := p.s.in.bytes
		p.s.mu.Unlock()
		if used+recordSize(n) > window || i > 4000 {
			return peak
		}
		send(letters(n))
		if taken == 1 && i%50 == 0 || taken == 2 && i%50 == 49 {
			_, err := p.s.ReadBatch(p.t.Context(), dst[:1+(len(dst)-1)*(taken-1)])
			require.NoError(p.t, err)
		}
	}
}

// What a peer says that it will send costs it as much as this side: a frame is not room for it.
func TestMemoryForAFrameIsTakenAsItArrives(t *testing.T) {
	const streams, window = 64, 16 << 20
	synctest.Test(t, func(t *testing.T) {
		before := heap.WithStacks()
		var peers []*rawPeer
		for range streams {
			p := withRaw(t, &Options{WindowBytes: window, MaxRecord: window - 5}, nil)
			head := rawBatchAck(batch{first: 1, count: 1}, letters(1))
			h := header{kind: kindBatch, length: window}
			p.send(append(h.append(nil), head[headerSize:]...))
			require.NoError(t, p.s.Err())
			peers = append(peers, p)
		}
		each := (heap.WithStacks() - before) / streams
		t.Logf("%d bytes each", each)
		require.LessOrEqual(t, each, int64(256<<10))
		runtime.KeepAlive(peers)
	})
}

// The way out keeps its bound too, whatever is written, and sent again.
func TestMemoryOfTheWayOutIsBounded(t *testing.T) {
	for name, sizes := range map[string][]int{
		"tiny records":            {1},
		"half a chunk":            {pooledSize/2 + 1},
		"a chunk, and nothing":    {pooledSize - 4, 0},
		"more, and nothing":       {pooledSize + 1, 0},
		"as large as they may be": {1 << 20, 0},
		"of all sizes":            {0, 1, 100, 10000, 40000, 100000, 3},
	} {
		for _, window := range []int{1000, 60 << 10, 1 << 20} {
			for _, batchBytes := range []int{0, 1 << 10, 1 << 20} {
				t.Run(fmt.Sprintf("%s, %d, batches of %d", name, window, batchBytes), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						p := withRaw(t, &Options{Window: 1 << 24, WindowBytes: window, BatchBytes: batchBytes}, func(h *hello) { h.records = 1 << 24 })
						peak := p.overwrite(sizes)
						t.Logf("%d bytes over the window", peak-window)
						require.LessOrEqual(t, peak, promised(window))
					})
				})
			}
		}
	}
}

// overwrite has p's stream write records of these sizes until its window is full, and again what has failed, and returns the most
// memory that was held.
func (p *rawPeer) overwrite(sizes []int) (peak int) {
	look := func() {
		synctest.Wait()
		peak = max(peak, outMemory(p.s))
	}
	for i := range 20000 {
		n := min(sizes[i%len(sizes)], p.s.out.largest)
		p.s.mu.Lock()
		full := !p.s.out.room(1, recordSize(n))
		p.s.mu.Unlock()
		if full {
			break
		}
		_, err := p.s.WriteRecord(p.t.Context(), make([]byte, n))
		require.NoError(p.t, err)
		if i%100 == 0 {
			look()
		}
	}
	look()
	p.send(failure{seq: 1, retryable: true}.append(nil))
	require.NoError(p.t, p.s.Resend())
	look()
	return peak
}
