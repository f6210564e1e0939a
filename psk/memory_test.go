package psk

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/heap"
)

// The figure of the package doc: an idle conn, one that has carried bulk data included, holds little.
//
// Row: N2
func TestIdleConnHoldsLittleMemory(t *testing.T) {
	const conns = 2000
	const limit = 2304
	for name, use := range map[string]func(*sealedConn){
		"fresh": func(*sealedConn) {},
		"used":  func(c *sealedConn) { _, _ = c.Write(make([]byte, maxBatch)) },
	} {
		below := &fakeConn{}
		held := make([]*sealedConn, conns)
		keys, _ := fixedKeys()
		before := heap.InUse()
		for i := range held {
			held[i] = newConn(below, keys, rekeyInterval)
			use(held[i])
		}
		each := (heap.InUse() - before) / conns
		t.Logf("%s: %d bytes", name, each)
		require.LessOrEqual(t, each, int64(limit), name)
		runtime.KeepAlive(held)
	}
}

// A peer that stops reading costs one buffer of the size of the Write, and gives it back.
func TestBuffersFitWhatTheyHold(t *testing.T) {
	for _, test := range []struct{ need, size int }{
		{headerSize, smallBuffer},
		{smallBuffer, smallBuffer},
		{smallBuffer + 1, recordBuffer},
		{headerSize + maxBody, recordBuffer},
		{recordBuffer + 1, batchBuffer},
		{maxBatch + maxBatch/maxChunk*(headerSize+tagSize), batchBuffer},
	} {
		b := getBuffer(test.need)
		require.Len(t, b.b, test.size, "%d bytes", test.need)
		b.free()
	}
}
