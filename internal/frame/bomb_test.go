package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/zstd"
)

// A zstdFrame writes zstd frames by hand (RFC 8878, 3.1.1), also those no encoder would.
type zstdFrame struct {
	content    uint64 // declared content size, in 8 bytes
	undeclared bool   // declare none
	checksum   bool   // say that a checksum follows
	dictionary byte   // name a dictionary; 0: none
}

const (
	lastBlock = 1
	moreCome  = 0
)

func (f zstdFrame) with(blocks ...[]byte) []byte {
	b := []byte("\x28\xb5\x2f\xfd")
	var descriptor byte
	if !f.undeclared {
		descriptor = 3 << 6
	}
	if f.checksum {
		descriptor |= 1 << 2
	}
	if f.dictionary != 0 {
		descriptor |= 1
	}
	b = append(b, descriptor, 7<<3) // a window of 128 KiB
	if f.dictionary != 0 {
		b = append(b, f.dictionary)
	}
	if !f.undeclared {
		b = binary.LittleEndian.AppendUint64(b, f.content)
	}
	return append(b, slices.Concat(blocks...)...)
}

func zstdBlock(kind, size, last int, body []byte) []byte {
	head := size<<3 | kind<<1 | last
	return append([]byte{byte(head), byte(head >> 8), byte(head >> 16)}, body...)
}

// rawBlock stores body; runBlock is n zeros in one byte; packedBlock is n zeros by run-length literals, so that only
// unpacking it tells n.
func rawBlock(body []byte, last int) []byte { return zstdBlock(0, len(body), last, body) }
func runBlock(n, last int) []byte           { return zstdBlock(1, n, last, []byte{0}) }
func packedBlock(n, last int) []byte {
	return zstdBlock(2, 5, last, []byte{byte(n<<4) | 0x0d, byte(n >> 4), byte(n >> 12), 0, 0})
}

// blocks returns count blocks of made by block, the last one marked.
func blocks(count, size int, block func(n, last int) []byte) []byte {
	var b []byte
	for i := range count {
		last := moreCome
		if i == count-1 {
			last = lastBlock
		}
		b = append(b, block(size, last)...)
	}
	return b
}

// allocated returns what fn allocates, in bytes: the least of three runs, for the process has other goroutines. The
// decoders' own buffers are warm by then.
func allocated(fn func()) uint64 {
	least := uint64(1 << 62)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		fn()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// warm lets every decoder make its own buffers.
func warm(t *testing.T) {
	t.Helper()
	body := zstdFrame{content: 2 * maxBlock}.with(blocks(2, maxBlock, packedBlock))
	run := zstdFrame{content: 2 * maxBlock}.with(blocks(2, maxBlock, runBlock))
	for range 2 * runtime.GOMAXPROCS(0) {
		for _, b := range [][]byte{body, run} {
			_, err := Decompress(b, 2*maxBlock)
			require.NoError(t, err, "the handmade frames are not zstd")
		}
	}
}

const bombRaw = 8 * maxBlock // 1 MiB

// honest unpacks to bombRaw zeros.
var honest = zstdFrame{content: bombRaw}.with(blocks(8, maxBlock, packedBlock))

// refusedUnseen are bodies that are refused by their headers alone.
var refusedUnseen = map[string][]byte{
	"nothing":                       {},
	"no zstd at all":                bytes.Repeat([]byte("no"), 100),
	"content size one more":         zstdFrame{content: bombRaw + 1}.with(blocks(8, maxBlock, packedBlock)),
	"content size one less":         zstdFrame{content: bombRaw - 1}.with(blocks(8, maxBlock, packedBlock)),
	"content size 0":                zstdFrame{}.with(blocks(8, maxBlock, packedBlock)),
	"content size 1 TiB":            zstdFrame{content: 1 << 40}.with(blocks(8, maxBlock, packedBlock)),
	"content size 2^64-1":           zstdFrame{content: 1<<64 - 1}.with(blocks(8, maxBlock, packedBlock)),
	"no content size":               zstdFrame{undeclared: true}.with(blocks(8, maxBlock, packedBlock)),
	"no content size, endless runs": zstdFrame{undeclared: true}.with(blocks(10_000, maxBlock, runBlock)),
	"runs past the content size":    zstdFrame{content: bombRaw}.with(blocks(9, maxBlock, runBlock)),
	"endless runs":                  zstdFrame{content: bombRaw}.with(blocks(10_000, maxBlock, runBlock)),
	"two frames of half each": append(zstdFrame{content: bombRaw / 2}.with(blocks(4, maxBlock, packedBlock)),
		zstdFrame{content: bombRaw / 2}.with(blocks(4, maxBlock, packedBlock))...),
	"an empty frame behind":      append(slices.Clone(honest), zstdFrame{}.with(rawBlock(nil, lastBlock))...),
	"an empty frame in front":    append(zstdFrame{}.with(rawBlock(nil, lastBlock)), honest...),
	"the same frame again":       append(slices.Clone(honest), honest...),
	"a skippable frame behind":   append(slices.Clone(honest), "\x50\x2a\x4d\x18\x02\x00\x00\x00hi"...),
	"a skippable frame in front": append([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00hi"), honest...),
	"a byte behind":              append(slices.Clone(honest), 0),
	"four bytes behind":          append(slices.Clone(honest), 0, 0, 0, 0),
	"a checksum that is missing": zstdFrame{content: bombRaw, checksum: true}.with(blocks(8, maxBlock, packedBlock)),
	"no last block":              zstdFrame{content: bombRaw}.with(packedBlock(maxBlock, moreCome)),
	"no block":                   zstdFrame{content: bombRaw}.with(),
	"a block longer than the body": zstdFrame{content: bombRaw}.with(
		zstdBlock(0, 1000, lastBlock, make([]byte, 999))),
}

// Row: D11. pointsub HEAD unpacked without any limit (features.md 5.1 d).
func TestBodiesThatLieInTheirHeadersAreRefusedWithoutReservingAnything(t *testing.T) {
	warm(t)
	for name, body := range refusedUnseen {
		t.Run(name, func(t *testing.T) {
			var out []byte
			var err error
			spent := allocated(func() { out, err = Decompress(body, bombRaw) })
			require.ErrorIs(t, err, ErrMalformed)
			require.Nil(t, out)
			require.Less(t, spent, uint64(16<<10), "bytes reserved of %d declared", bombRaw)
		})
	}
}

// bombs are bodies whose size shows only while they unpack: all declare raw bytes and hold more, or less.
func bombs(raw int) map[string][]byte {
	n := max(raw/maxBlock, 1)
	f := zstdFrame{content: uint64(raw)}
	return map[string][]byte{
		"a block too many":   f.with(blocks(n+1, maxBlock, packedBlock)),
		"many blocks":        f.with(blocks(50*n, maxBlock, packedBlock)),
		"a run at the end":   f.with(packedBlock(maxBlock, moreCome), blocks(n, min(maxBlock, raw), runBlock)),
		"a byte short":       f.with(packedBlock(min(maxBlock, raw)-1, lastBlock)),
		"reserved type":      f.with(zstdBlock(3, 3, lastBlock, []byte("abc"))),
		"a dictionary":       zstdFrame{content: uint64(raw), dictionary: 7}.with(runBlock(min(maxBlock, raw), lastBlock)),
		"bad literals":       f.with(zstdBlock(2, 5, lastBlock, []byte{0xff, 0xff, 0xff, 0xff, 0xff})),
		"bytes of no format": f.with(zstdBlock(2, 64, lastBlock, random(4, 64))),
		"a wrong checksum": append(zstdFrame{content: uint64(raw), checksum: true}.with(
			rawBlock(make([]byte, min(raw, maxBlock)), lastBlock)), 1, 2, 3, 4),
	}
}

// Row: D11. Invariant 2.
func TestBodiesThatLieInsideAreRefusedWithinOneBlockOfWhatTheyDeclare(t *testing.T) {
	warm(t)
	for _, raw := range []int{1, 600, 64 << 10, maxBlock, 4 * maxBlock, 4*maxBlock + 1, bombRaw, 8 << 20} {
		for name, body := range bombs(raw) {
			t.Run(fmt.Sprintf("%d/%s", raw, name), func(t *testing.T) {
				bound := uint64(raw + maxBlock)
				if raw <= 4*maxBlock {
					bound = uint64(raw + (raw+maxBlock)*5/4) // append moves it once, a quarter larger than it must be
				}
				require.Less(t, bound, uint64(raw+1<<20), "more than Decompress promises")
				var out []byte
				var err error
				spent := allocated(func() { out, err = Decompress(body, raw) })
				require.ErrorIs(t, err, ErrMalformed)
				require.Nil(t, out)
				require.LessOrEqual(t, spent, bound+64<<10, "bytes reserved of %d declared", raw)
			})
		}
	}
}

func TestHonestBodyReservesItsRawSizeAndOneBlockAtMost(t *testing.T) {
	warm(t)
	for _, raw := range []int{600, 64 << 10, 4 * maxBlock, bombRaw, 8 << 20} {
		body := zstd.Append(nil, text(raw))
		var out []byte
		var err error
		spent := allocated(func() { out, err = Decompress(body, raw) })
		require.NoError(t, err, "raw %d", raw)
		require.Equal(t, raw, cap(out), "raw %d: room behind the body is not the caller's", raw)
		require.LessOrEqual(t, spent, uint64(raw+maxBlock+64<<10), "raw %d", raw)
	}
}

func TestDecompressIntoAnotherSizeIsMalformed(t *testing.T) {
	body := zstd.Append(nil, text(2000))
	for _, raw := range []int{-1, 0, 1, 1999, 2001, MaxTotal} {
		_, err := Decompress(body, raw)
		require.ErrorIs(t, err, ErrMalformed, "raw %d", raw)
	}
}

func TestEveryTruncationAndEveryFlippedByteOfABodyFailsCleanly(t *testing.T) {
	body := zstd.Append(nil, text(2000))
	for i := range body {
		_, err := Decompress(body[:i], 2000)
		require.ErrorIs(t, err, ErrMalformed, "cut at %d", i)
		flipped := slices.Clone(body)
		flipped[i] ^= 0x55
		if out, err := Decompress(flipped, 2000); err != nil {
			require.ErrorIs(t, err, ErrMalformed, "flipped at %d", i)
			require.Nil(t, out)
		} else {
			require.Len(t, out, 2000, "flipped at %d", i) // there is no checksum: other text of the same size is legal
		}
	}
}
