package b3tree

import (
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3"
)

func TestAStreamHasTheRootOfItsBytes(t *testing.T) {
	var s Stream
	for _, size := range boundaries() {
		data := random(size)
		for _, step := range []int{1 << 10, 1<<14 - 1, 1 << 14, 1<<14 + 1, 1 << 20} {
			s.Reset()
			for rest := data; len(rest) > 0; {
				n, err := s.Write(rest[:min(step, len(rest))])
				require.NoError(t, err)
				rest = rest[n:]
			}
			require.Equal(t, Root(blake3.Sum256(data)), s.Root(), "%d bytes by %d", size, step)
			require.Equal(t, s.Root(), s.Root(), "asking changes nothing")
		}
	}
}

func TestAStreamGoesOnAfterItsRoot(t *testing.T) {
	var s Stream
	data := random(5*blockSize + 7)
	for i := range data {
		if i%blockSize < 2 || i%1000 == 0 {
			require.Equal(t, Sum(data[:i]), s.Root(), "%d bytes", i)
		}
		_, _ = s.Write(data[i : i+1])
	}
	require.Equal(t, Sum(data), s.Root())
}
