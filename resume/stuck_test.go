package resume

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Who waits for the other side's application is not stuck: neither for its room, nor for its acknowledgement.
func TestASlowReaderIsNotStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, windows := range [][2]int{{64 << 10, 4 << 10}, {4 << 10, 64 << 10}} {
			p := newPair(t, &Options{Window: windows[0]}, &Options{Window: windows[1]})
			var writing sync.WaitGroup
			writing.Go(func() { _, _ = p.client.Write(make([]byte, 1<<20)) })
			time.Sleep(10 * time.Minute)
			require.Zero(t, p.client.flow.Stuck(), "%v", windows)
			require.Equal(t, "connected ", p.told.text())
			_, err := io.CopyN(io.Discard, p.server, 1<<20)
			require.NoError(t, err)
			writing.Wait()
		}
	})
}
