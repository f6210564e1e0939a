package session

import (
	"sync/atomic"

	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/zstd"
)

// dull remembers whether what is sent is worth a compression attempt. After bodies that did not shrink it passes over the
// next few, twice as many each time, up to maxDull; a large body is always tried, for there is more to gain. A session of
// incompressible 64 KiB bodies makes 1 to 2 % more calls by it, within the noise.
type dull struct {
	failed atomic.Int32 // attempts in a row that did not pay
	skip   atomic.Int32 // bodies to pass over
}

const (
	maxDull   = 16
	neverDull = 256 << 10
)

// turns gives the leave to compress a reply of n bytes.
type turns interface{ replyTurn(n int) *zstd.Turn }

// compress is frame.Compress, unless the body is likely not to shrink. It waits for its turn, of turns if
// that is not nil, before it does what takes long.
func (d *dull) compress(body []byte, turns turns) (small []byte, ok bool) {
	if len(body) < frame.MinCompress {
		return nil, false
	}
	if len(body) < neverDull && d.skip.Load() > 0 {
		d.skip.Add(-1)
		return nil, false
	}
	if frame.Promising(body) {
		var t *zstd.Turn
		if turns != nil {
			t = turns.replyTurn(len(body))
		}
		small, ok = frame.Compress(body)
		t.Done()
	}
	if ok {
		d.failed.Store(0)
		d.skip.Store(0)
	} else {
		d.skip.Store(min(int32(1)<<min(d.failed.Add(1), 5), maxDull))
	}
	return small, ok
}
