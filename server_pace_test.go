package peerlane

import (
	"io"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/pointsub"
)

// A dripping reader returns a first part at once, and then a few bytes each second.
type dripping struct {
	first, drop int
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.first > 0 {
		n := min(d.first, len(p))
		d.first -= n
		return n, nil
	}
	time.Sleep(time.Second)
	return min(d.drop, len(p)), nil
}

// An old peer's request that holds much must arrive at some pace; one on a slow link is read to its end.
func TestAnOldRequestThatTricklesIsGivenUp(t *testing.T) {
	const size = 4 << 20
	for drop, want := range map[int]error{1: os.ErrDeadlineExceeded, 16 << 10: nil} {
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Uint64
			held := 0
			r := &pacedReader{Reader: &dripping{first: 3 << 20, drop: drop}, n: &n, window: 30 * time.Second, began: time.Now()}
			_, err := pointsub.ReadBody(r, size, func(more int) bool { held += more; return true })
			require.ErrorIs(t, err, want)
			if want != nil {
				require.LessOrEqual(t, time.Since(r.began), time.Minute+time.Second)
				require.LessOrEqual(t, held, (3<<20)+pointsub.Chunk)
			}
		})
	}
	_, err := io.ReadFull(&dripping{first: 10}, make([]byte, 10))
	require.NoError(t, err)
}

// So must one of less than a chunk, for which a chunk is held.
func TestASmallOldRequestThatTricklesIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &pacedReader{Reader: &dripping{first: 1, drop: 1}, n: new(atomic.Uint64), window: 30 * time.Second, began: time.Now()}
		_, err := pointsub.ReadBody(r, pointsub.Chunk, func(int) bool { return true })
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Less(t, time.Since(r.began), time.Hour)
	})
}
