package b3tree

import (
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3/guts"
)

// scalar returns the node above data, chunk by chunk and without vector code.
func scalar(data []byte, chunk uint64) guts.Node {
	if len(data) <= guts.ChunkSize {
		return guts.CompressChunk(data, &guts.IV, chunk, 0)
	}
	half := guts.ChunkSize
	for half*2 < len(data) {
		half *= 2
	}
	left := guts.ChainingValue(scalar(data[:half], chunk))
	right := guts.ChainingValue(scalar(data[half:], chunk+uint64(half/guts.ChunkSize)))
	return guts.ParentNode(left, right, &guts.IV, 0)
}

// The counter of chunks has 64 bits, and files of more than 4 TiB need the upper ones: vector code that drops them, or does not
// carry, would agree with itself.
func TestBranchCountsChunksBeyond32Bits(t *testing.T) {
	data := random(3*blockSize + 5*guts.ChunkSize + 7)
	for _, chunk := range []uint64{
		0, 1<<32 - 64, 1 << 32, 1<<32 + 1<<20, 1<<38 - 64, // the last is near the end of a file of MaxSize
	} {
		for _, n := range []int{1, guts.ChunkSize, 2 * guts.ChunkSize, 9*guts.ChunkSize + 1, blockSize, len(data)} {
			var b branch
			b.begin(int64(chunk * guts.ChunkSize))
			b.write(data[:n])
			require.Equal(t, cvOf(scalar(data[:n], chunk)), cvOf(b.node()), "%d bytes at chunk %d", n, chunk)
		}
	}
}

// No block spans 2^32, for each begins at a multiple of 16 chunks; branches do.
func TestBranchAroundTheCarry(t *testing.T) {
	data := random(4 * blockSize)
	var b branch
	at := uint64(1<<32 - 2*blockChunks)
	b.begin(int64(at * guts.ChunkSize))
	b.write(data)
	require.Equal(t, cvOf(scalar(data, at)), cvOf(b.node()))
}

func TestBranchNodeChangesNothing(t *testing.T) {
	var b branch
	for _, n := range []int{0, 1, blockSize - 1, 1, 1, blockSize, 3*blockSize + 100} {
		b.write(random(n))
		require.Equal(t, b.node(), b.node(), "after %d bytes more", n)
	}
}
