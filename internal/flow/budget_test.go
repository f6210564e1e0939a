package flow

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// bounded is a Budget with a limit of its own.
type bounded struct {
	limit int

	mu   sync.Mutex
	used int
	most int
}

func (b *bounded) Take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.limit {
		return false
	}
	b.used += n
	b.most = max(b.most, b.used)
	return true
}

func (b *bounded) Give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
}

func (b *bounded) Scarce(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used+n > b.limit
}

func (b *bounded) inUse() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// writeBatches writes n batches as a session's writer does, each of at most size bytes, and returns how many bytes those were.
func writeBatches(t *testing.T, f *Flow, n, size int) (total int) {
	for range n {
		b := f.NewBatch()
		p := b.Buffer()
		wrote, err := f.WriteBatch(b, append(p, make([]byte, min(size, cap(p)))...))
		require.NoError(t, err)
		total += wrote
	}
	return total
}

// Several flows whose other side never acknowledges keep what their budget has room for, each a small chunk more, and wait. Once it
// acknowledges, all arrives.
func TestFlowsKeepWhatTheirBudgetHasRoomFor(t *testing.T) {
	for _, size := range []int{100, batchCopy, MaxBatch} {
		synctest.Test(t, func(t *testing.T) {
			const flows, batches = 20, 40
			memory := &bounded{limit: 8 * largeChunk}
			var all []*Flow
			var sent [flows]int
			var wrote sync.WaitGroup
			for i := range flows {
				f := New(&Config{Budget: memory, ResumeWindow: time.Hour})
				all = append(all, f)
				wrote.Go(func() { sent[i] = writeBatches(t, f, batches, size) })
			}
			synctest.Wait()
			require.LessOrEqual(t, memory.inUse(), memory.limit)
			kept := 0
			for _, f := range all {
				n, _ := f.Kept()
				kept += n
			}
			require.LessOrEqual(t, kept, memory.limit+flows*smallChunk)
			if size == MaxBatch {
				require.Greater(t, kept, 4*largeChunk)
			}
			var got [flows]int
			var read sync.WaitGroup
			var ends []*Flow
			for i, f := range all {
				here, there := net.Pipe()
				other := New(nil)
				ends = append(ends, f, other)
				require.NoError(t, f.Attach(here, 0, false))
				require.NoError(t, other.Attach(there, 0, false))
				read.Go(func() { _, _ = io.Copy(io.Discard, f) })
				read.Go(func() {
					n, _ := io.Copy(io.Discard, other)
					got[i] = int(n)
				})
			}
			wrote.Wait()
			for _, f := range ends {
				require.NoError(t, f.CloseWrite())
			}
			read.Wait()
			require.Equal(t, sent, got)
			require.LessOrEqual(t, memory.most, memory.limit)
			for _, f := range ends {
				f.Close(nil)
				f.Wait()
			}
			require.Zero(t, memory.inUse())
		})
	}
}

// A writer that waits has its batch in the budget, or a small one.
func TestABatchThatWaitsIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &bounded{limit: 100 * largeChunk}
		f := New(&Config{Budget: memory, ResumeWindow: time.Hour})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				b := f.NewBatch()
				if _, err := f.WriteBatch(b, append(b.Buffer(), make([]byte, batchCopy)...)); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		chunks := 0
		f.mu.Lock()
		for c := f.out.head; c != nil; c = c.next {
			chunks++
		}
		f.mu.Unlock()
		require.Equal(t, (chunks+1)*largeChunk, memory.inUse())
		f.Close(nil)
		<-done
		f.Wait()
		require.Zero(t, memory.inUse())
	})
}

// Without room, a flow goes on with small chunks, also for the parts of segments on a slow carrier, and ends in order.
func TestAFlowWithoutABudgetGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &bounded{}
		f, other := New(&Config{Budget: memory}), New(nil)
		b := Batch{newChunk(largeChunk, true)} // it was made before the memory was scarce
		done := make(chan error, 1)
		go func() {
			_, err := f.WriteBatch(b, append(b.Buffer(), make([]byte, MaxBatch)...))
			if err == nil {
				err = f.CloseWrite()
			}
			done <- err
		}()
		here, there := net.Pipe()
		require.NoError(t, f.Attach(here, 0, false))
		require.NoError(t, other.Attach(there, 0, false))
		go func() { _, _ = io.Copy(io.Discard, f) }()
		n, err := io.Copy(io.Discard, other)
		require.NoError(t, err)
		require.EqualValues(t, MaxBatch, n)
		require.NoError(t, <-done)
		require.Zero(t, memory.most)
		for _, f := range []*Flow{f, other} {
			f.Close(nil)
			f.Wait()
		}
	})
}
