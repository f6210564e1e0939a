package bulk

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// slowStrand is a strand whose Close takes a while, and that reads on until then, whatever CloseRead says.
type slowStrand struct {
	rawStrand
	release chan struct{}
}

func (s slowStrand) CloseRead() error { return nil }

func (s slowStrand) Close() error {
	<-s.release
	return s.rawStrand.Close()
}

// A strand that joins while the lane is being closed is closed too, whatever the peer does with it, and none joins afterwards.
func TestAStrandThatJoinsDuringCloseIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFramed(false, 3)
		var far [3]rawStrand
		join := func(n int, release chan struct{}) bool {
			here, there := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
			far[n] = rawStrand{there}
			return f.join(n, slowStrand{rawStrand{here}, release})
		}
		held, free := make(chan struct{}), make(chan struct{})
		close(free)
		require.True(t, join(0, held))
		closed := make(chan error, 1)
		go func() { closed <- f.Close() }()
		time.Sleep(2 * endGrace) // now it closes strand 0
		synctest.Wait()
		require.True(t, join(1, free))
		synctest.Wait()
		require.Empty(t, closed)
		close(held)
		require.NoError(t, <-closed)
		require.False(t, join(2, free))
		for _, st := range far {
			_ = st.Close()
		}
	})
}
