package flow

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A queue is a byte slice to which something is added at the end and taken from the front, with chunks that are full.
func TestQueueIsASliceOfBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Queue
		var want []byte
		next, space := byte(0), []byte(nil)
		t.Repeat(map[string]func(*rapid.T){
			"space": func(t *rapid.T) {
				if space == nil {
					space = q.Space(rapid.IntRange(1, 1<<17).Draw(t, "want"), rapid.IntRange(1, 1<<17).Draw(t, "most"))
					require.NotEmpty(t, space)
				}
			},
			"commit": func(t *rapid.T) {
				n := 0
				if space != nil {
					n = rapid.IntRange(0, len(space)).Draw(t, "n")
				}
				for i := range n {
					space[i] = next
					want = append(want, next)
					next += 7
				}
				q.Commit(n)
				space = nil
			},
			"read": func(t *rapid.T) {
				p := make([]byte, rapid.IntRange(0, 1<<17).Draw(t, "p"))
				n := q.Read(p)
				require.Equal(t, min(len(p), len(want)), n)
				require.True(t, bytes.Equal(want[:n], p[:n]))
				want = want[n:]
			},
			"drop": func(t *rapid.T) {
				require.Equal(t, len(want), q.Drop())
				want = nil
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(want), q.Len())
				held := 0
				for c := q.head; c != nil; c = c.next {
					held += len(c.buf)
				}
				require.LessOrEqual(t, held, q.n+2*largeChunk, "memory follows the bytes")
				if q.n == 0 && space == nil {
					require.Zero(t, held, "and is freed with the last of them")
				}
			},
		})
	})
}
