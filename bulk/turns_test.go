package bulk

import (
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/zstd"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A compressed block is unpacked when its peer's turn comes, as a body is; the end of the session ends the wait too.
func TestBlocksWaitForTheTurnOfTheirPeer(t *testing.T) {
	for _, abort := range []bool{false, true} {
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		here, there := p.lanes(t, &Options{Compress: true})
		var taken []*zstd.Turn
		for range max(1, runtime.GOMAXPROCS(0)/4) {
			turn, err := zstd.Await(zstd.Peer{Network: there.Peer(), ID: there.Peer()}, nil, maxBlock, false)
			require.NoError(t, err)
			taken = append(taken, turn)
		}
		read := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(there, make([]byte, maxBlock))
			read <- err
		}()
		_, err := here.Write(make([]byte, maxBlock))
		require.NoError(t, err)
		select {
		case err := <-read:
			require.Fail(t, "a block was unpacked out of turn", "%v", err)
		case <-time.After(50 * time.Millisecond): // it cannot be while the turns are taken
		}
		if abort {
			p.Bob.Abort()
			<-read // ends, with the block or without it
		}
		for _, turn := range taken {
			turn.Done()
		}
		if !abort {
			require.NoError(t, <-read)
		}
		_ = here.Abort(0)
		_ = there.Abort(0)
	}
}
