package psk

import "sync"

// The three sizes of buffer. A read waits in the small one and takes the record size when a header asks for more; a write
// takes the least that holds its batch. The larger two are whole 8 KiB pages of the Go allocator.
const (
	smallBuffer  = 2 << 10
	recordBuffer = 72 << 10  // >= headerSize + maxBody = 65537
	batchBuffer  = 136 << 10 // >= maxBatch + 32 records * (headerSize + tagSize) = 131648
)

var bufferSizes = [...]int{smallBuffer, recordBuffer, batchBuffer}

// bufferPools has one pool per size. Its buffers hold no pointers; their bytes are never read before they are written.
var bufferPools [len(bufferSizes)]sync.Pool

// A buffer is pooled scratch memory. Who got it owns it until free.
type buffer struct {
	b     []byte
	class int
}

// getBuffer returns a buffer of at least n bytes, n <= batchBuffer.
func getBuffer(n int) *buffer {
	class := 0
	for bufferSizes[class] < n {
		class++
	}
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, bufferSizes[class]), class: class}
}

// free gives the buffer back. The caller must not touch it again.
func (b *buffer) free() { bufferPools[b.class].Put(b) }
