package bulk

import (
	"io"
	"sync"

	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/internal/zstd"
)

// buffer holds one block: raw is a part of room.
type buffer struct {
	room []byte // blockHead bytes for a header, then the bytes
	raw  []byte
	in   lane.Budget // that counts it; nil: none
}

var buffers = sync.Pool{New: func() any { return &buffer{room: make([]byte, bufferSize)} }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// free gives the buffer back, to whom it is lent next; of nil, it does nothing.
func (b *buffer) free() {
	if b == nil {
		return
	}
	if b.in != nil {
		b.in.Give(bufferSize)
	}
	b.raw, b.in = nil, nil
	buffers.Put(b)
}

// packer compresses the blocks of one strand, while that pays.
type packer struct {
	out    []byte
	held   lane.Held // counts out
	misses int       // blocks in a row that did not shrink
	skip   int       // so many blocks are not tried
}

const (
	leastPacked = 1 << 10 // smaller blocks are not tried, and teach nothing about larger ones
	worthwhile  = 32      // a block is sent compressed when that saves one part of so many
	maxMisses   = 4       // after so many that did not shrink, one of probeEvery is tried
	probeEvery  = 64
)

// seal returns the block on the wire, which is valid until the buffer is freed, or the next seal of z.
func (b *buffer) seal(number uint64, compress bool, z *packer) []byte {
	k := block{kind: blockRaw, length: len(b.raw), raw: len(b.raw), number: number}
	if compress && len(b.raw) >= leastPacked && z.tries() && z.held.UpTo(bufferSize) {
		z.out = zstd.Append(append(z.out[:0], make([]byte, blockHead)...), b.raw)
		if n := len(z.out) - blockHead; z.pays(n, len(b.raw)) {
			k.kind, k.length = blockZstd, n
			k.put(z.out)
			return z.out
		}
	}
	k.put(b.room)
	return b.room[:blockHead+len(b.raw)]
}

// tries reports whether the next block is to be compressed.
func (z *packer) tries() bool {
	if z.skip > 0 {
		z.skip--
		return false
	}
	return true
}

// pays reports whether n bytes in place of raw are worth it, and learns from that.
func (z *packer) pays(n, raw int) bool {
	if n <= raw-raw/worthwhile {
		z.misses = 0
		return true
	}
	if z.misses++; z.misses >= maxMisses {
		z.skip = probeEvery - 1
	}
	return false
}

// unpacker takes the blocks of one strand.
type unpacker struct {
	zstd   bool        // was agreed on
	from   lane.Stream // whose peer's turn is waited for, to unpack; nil: nobody's
	head   [blockHead]byte
	packed []byte
	held   lane.Held                               // counts packed
	pace   *follower                               // reads the bodies; nil: nothing holds that back
	buffer func(*unpacker, block) (*buffer, error) // returns one for a block, or errDeaf; nil: newBuffer
}

// readBlock reads one block. It returns io.EOF at the end of the strand, between blocks. An END has no buffer.
func readBlock(r io.Reader, z *unpacker) (*buffer, block, error) {
	if _, err := io.ReadFull(r, z.head[:]); err != nil {
		return nil, block{}, err
	}
	k, err := parseBlock(z.head[:])
	if err != nil {
		return nil, k, err
	}
	switch {
	case k.kind == blockEnd:
		return nil, k, nil
	case k.kind == blockZstd && !z.zstd:
		return nil, k, protocolErrorf("a zstd block, which was not agreed on")
	}
	if z.pace != nil {
		r = z.pace.follow(r, k)
	}
	b, err := z.newBuffer(k)
	if err == errDeaf {
		_, err = io.CopyN(io.Discard, r, int64(k.length))
		return nil, k, cut(err)
	}
	if err != nil {
		return nil, k, err
	}
	if err := b.fill(r, k, z); err != nil {
		b.free()
		return nil, k, cut(err)
	}
	return b, k, nil
}

func (z *unpacker) newBuffer(k block) (*buffer, error) {
	if z.buffer == nil {
		return newBuffer(), nil
	}
	return z.buffer(z, k)
}

// cut returns the error of a Read within a block.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (b *buffer) fill(r io.Reader, k block, z *unpacker) error {
	b.raw = b.room[blockHead : blockHead+k.raw]
	if k.kind != blockZstd {
		_, err := io.ReadFull(r, b.raw)
		return err
	}
	if cap(z.packed) < k.length {
		z.packed = make([]byte, maxBlock)
	}
	packed := z.packed[:k.length]
	if _, err := io.ReadFull(r, packed); err != nil {
		return err
	}
	if z.from != nil {
		defer z.from.AwaitCoder(k.raw)()
	}
	out, err := zstd.Decode(b.room[blockHead:blockHead:blockHead+k.raw], packed)
	if err != nil || len(out) != k.raw || &out[0] != &b.raw[0] {
		return protocolErrorf("zstd block of %d bytes, which holds %d and not %d: %v", k.length, len(out), k.raw, err)
	}
	return nil
}
