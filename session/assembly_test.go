package session

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/frame"
)

func TestABodyIsTheSameInWhateverCut(t *testing.T) {
	for _, total := range []int{0, 1, slowStart - 1, slowStart, slowStart + 1, chunkSize - 1, chunkSize, chunkSize + 1, 5*chunkSize + 7} {
		body := make([]byte, total)
		_, _ = rand.Read(body)
		for _, cut := range []int{1, 7, 1000, slowStart, slowStart + 1, fragment, chunkSize, 3 * chunkSize} {
			if total/cut > 20_000 {
				continue
			}
			var a assembly
			a.begin(frame.Start{Total: total}, 0)
			for rest := body; len(rest) > 0; {
				n := min(cut, len(rest))
				require.False(t, a.complete())
				require.NoError(t, a.add(rest[:n]))
				require.LessOrEqual(t, cap(a.whole)+len(a.parts)*chunkSize, max(4*a.got, a.start.Total+4096), "total %d cut %d", total, cut)
				rest = rest[n:]
			}
			require.True(t, a.complete())
			require.ErrorIs(t, a.add([]byte{1}), frame.ErrMalformed)
			v, err := a.value()
			require.NoError(t, err)
			require.NotNil(t, v)
			require.True(t, bytes.Equal(body, v), "total %d cut %d", total, cut)
			require.Nil(t, a.parts)
		}
	}
}
