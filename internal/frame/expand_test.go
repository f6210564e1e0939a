package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// expanding are bodies that honest programs send and that shrink the most.
func expanding() map[string]func(n int) []byte {
	line := []byte("2026-11-30T23:57:41Z INFO request served path=/healthz status=200 dur=1ms\n")
	return map[string]func(n int) []byte{
		"zeros":    func(n int) []byte { return make([]byte, n) },
		"ones":     func(n int) []byte { return bytes.Repeat([]byte{255}, n) },
		"one line": func(n int) []byte { return bytes.Repeat(line, n/len(line)+1)[:n] },
		"a sparse file": func(n int) []byte {
			b := make([]byte, n)
			for i := 0; i < n; i += 64 << 10 {
				b[i] = byte(i>>16) + 1
			}
			return b
		},
		"a log": func(n int) []byte {
			r := rand.New(rand.NewPCG(1, 2))
			var b bytes.Buffer
			for i := 0; b.Len() < n; i++ {
				fmt.Fprintf(&b, "2026-11-30T23:%02d:%02d.%03dZ INFO served peer=%d status=200 dur=%dms\n", i/60000%60, i/1000%60, i%1000,
					r.IntN(100), r.IntN(30))
			}
			return b.Bytes()[:n]
		},
	}
}

// What our encoder makes of bodies that shrink the most is within the ratio that a receiver takes, with room to spare, and comes back
// whole.
func TestHonestBodiesStayWithinTheRatio(t *testing.T) {
	for name, make := range expanding() {
		for _, n := range []int{MinCompress, 64 << 10, 128 << 10, FreeExpansion, FreeExpansion + 1, 2<<20 + 3, 8 << 20, 32 << 20} {
			body := make(n)
			require.True(t, Promising(body), "%d bytes of %s", n, name)
			small, ok := Compress(body)
			require.True(t, ok, "%d bytes of %s", n, name)
			require.False(t, Expands(len(small), n), "%d bytes of %s in %d", n, name, len(small))
			if n > FreeExpansion {
				require.Less(t, n/len(small), MaxRatio*2/3, "%d bytes of %s in %d", n, name, len(small))
			}
			got, err := Decompress(small, n)
			require.NoError(t, err)
			require.True(t, bytes.Equal(body, got), "%d bytes of %s", n, name)
		}
	}
}

func TestABodyMayExpandSoMuch(t *testing.T) {
	for _, total := range []int{0, 1, 1000, 1 << 20} {
		require.False(t, Expands(total, FreeExpansion+MaxRatio*total))
		require.True(t, Expands(total, FreeExpansion+MaxRatio*total+1))
	}
	bomb := zstdFrame{content: 32 << 20}.with(blocks(256, maxBlock, runBlock))
	require.True(t, Expands(len(bomb), 32<<20), "run lengths alone")
	_, err := Decompress(bomb, 32<<20)
	require.NoError(t, err, "it is no other fault")
}
