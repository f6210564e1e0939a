package b3tree

import "lukechampine.com/blake3/guts"

const (
	blockSize   = guts.MaxSIMD * guts.ChunkSize // what is hashed at once, 16 KiB
	blockChunks = guts.MaxSIMD
)

// spine joins the subtrees of one height, from left to right, into the tree that BLAKE3 makes of them: every left side is the largest
// power of two that leaves something for the right. Its left[i] is 2^i subtrees, if bit i of n is set.
type spine struct {
	left [64][8]uint32
	n    uint64
}

// push adds a subtree that is not the last.
func (s *spine) push(cv [8]uint32) {
	height := 0
	for ; s.n>>height&1 != 0; height++ {
		cv = guts.ChainingValue(guts.ParentNode(s.left[height], cv, &guts.IV, 0))
	}
	s.left[height] = cv
	s.n++
}

// node returns the node above all, the last subtree being cv. One has been pushed at least. It changes nothing.
func (s *spine) node(cv [8]uint32) guts.Node {
	var n guts.Node
	for height := range s.left {
		if s.n>>height&1 != 0 {
			n = guts.ParentNode(s.left[height], cv, &guts.IV, 0)
			cv = guts.ChainingValue(n)
		}
	}
	return n
}

// branch hashes bytes that follow each other and have one node above them: a piece, or a whole file.
// The block at its end waits until it is known not to be the last, for the last node of a file is hashed otherwise than others.
type branch struct {
	spine spine
	chunk uint64 // where in the file block begins
	n     int    // of block
	block [blockSize]byte
}

// begin makes b a branch without bytes that begins at an offset, a multiple of what the branch will have in bytes.
func (b *branch) begin(off int64) {
	b.spine.n, b.chunk, b.n = 0, uint64(off)/guts.ChunkSize, 0
}

func (b *branch) write(p []byte) {
	for len(p) > 0 {
		if b.n == blockSize {
			b.flush()
		}
		n := copy(b.block[b.n:], p)
		b.n += n
		p = p[n:]
	}
}

// zeros is write of n zeros by a branch whose block is zero.
func (b *branch) zeros(n int) {
	for ; n > blockSize; n -= blockSize {
		b.n = blockSize
		b.flush()
	}
	b.n = n
}

func (b *branch) flush() {
	n := guts.CompressBuffer(&b.block, blockSize, &guts.IV, b.chunk, 0)
	b.spine.push(guts.ChainingValue(n))
	b.chunk += blockChunks
	b.n = 0
}

// node returns the node above all that has been written. It changes nothing.
func (b *branch) node() guts.Node {
	n := guts.CompressBuffer(&b.block, b.n, &guts.IV, b.chunk, 0)
	if b.spine.n == 0 {
		return n
	}
	return b.spine.node(guts.ChainingValue(n))
}
