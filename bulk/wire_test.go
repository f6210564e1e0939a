package bulk

import (
	"bytes"
	"io"
	"math"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// goldenBlocks are by field: kind, zero, length, raw, number, body.
var goldenBlocks = []struct {
	name string
	hex  string
	b    []byte
}{
	{"RAW", "01 000000 00000002 00000002 0000000000000007 6869", rawBlock(7, "hi")},
	{"RAW, the largest number", "01 000000 00000001 00000001 ffffffffffffffff 78", rawBlock(math.MaxUint64, "x")},
	{"ZSTD", "02 000000 00000003 00000100 0000000000012345 616263", rawZstd(0x12345, []byte("abc"), 256)},
	{"END", "03 000000 00000000 00000000 000000000000000a", rawEnd(10)},
}

func TestBlocksGolden(t *testing.T) {
	for _, test := range goldenBlocks {
		wire := unhex(t, test.hex)
		require.Equal(t, wire, test.b, test.name)
		k, err := parseBlock(wire)
		require.NoError(t, err, test.name)
		again := make([]byte, blockHead)
		k.put(again)
		require.Equal(t, wire[:blockHead], again, test.name)
		require.Len(t, wire, blockHead+k.length, test.name)
	}
}

func TestBlocksRefuseEveryTruncation(t *testing.T) {
	wires := map[string][]byte{
		"RAW": rawBlock(3, "some bytes"), "ZSTD": rawZstd(3, pack(theBytes(1000)), 1000), "END": rawEnd(3),
	}
	for name, wire := range wires {
		for n := range wire {
			b, _, err := readBlock(bytes.NewReader(wire[:n]), &unpacker{zstd: true})
			require.Nil(t, b, name)
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			require.Equal(t, want, err, "%s, %d bytes", name, n)
			_, _, err = readBlock(io.MultiReader(bytes.NewReader(wire[:n]), iotest.ErrReader(io.ErrClosedPipe)), &unpacker{zstd: true})
			require.ErrorIs(t, err, io.ErrClosedPipe, "%s, %d bytes", name, n)
		}
		b, _, err := readBlock(iotest.OneByteReader(bytes.NewReader(wire)), &unpacker{zstd: true})
		require.NoError(t, err, name)
		switch name {
		case "RAW":
			require.Equal(t, "some bytes", string(b.raw))
		case "ZSTD":
			require.Equal(t, theBytes(1000), b.raw)
		}
		b.free()
	}
}

func TestBlocksKeepTheRangesOfTheirFields(t *testing.T) {
	sizes := []uint32{0, 1, 2, maxBlock - 1, maxBlock, maxBlock + 1, math.MaxInt32, math.MaxUint32}
	for k := range 256 {
		for _, length := range sizes {
			for _, raw := range sizes {
				b := make([]byte, blockHead)
				block{kind: blockKind(k), length: int(length), raw: int(raw), number: 1}.put(b)
				got, err := parseBlock(b)
				ok := false
				switch k {
				case 1:
					ok = length == raw && raw >= 1 && raw <= 262144
				case 2:
					ok = raw >= 1 && raw <= 262144 && length >= 1 && length <= raw
				case 3:
					ok = length == 0 && raw == 0
				}
				if !ok {
					require.ErrorIs(t, err, errProtocol, "kind %d, length %d, raw %d", k, length, raw)
					continue
				}
				require.NoError(t, err, "kind %d, length %d, raw %d", k, length, raw)
				require.Equal(t, block{blockKind(k), int(length), int(raw), 1}, got)
				for i := 1; i <= 3; i++ {
					bad := bytes.Clone(b)
					bad[i] = 1
					_, err = parseBlock(bad)
					require.ErrorIs(t, err, errProtocol, "byte %d", i)
				}
			}
		}
	}
}

// A block holds exactly what it says, and a buffer is never larger than a block may be.
func TestBlocksRefuseZstdThatIsNotWhatItSays(t *testing.T) {
	body := theBytes(maxBlock)
	packed := pack(body[:1000])
	corrupt := bytes.Clone(packed)
	corrupt[4] ^= 0xff // the frame's descriptor: there is no checksum
	for name, wire := range map[string][]byte{
		"one byte less":      rawZstd(0, packed, 999),
		"one byte more":      rawZstd(0, packed, 1001),
		"a bomb":             rawZstd(0, pack(make([]byte, 64<<20)), maxBlock),
		"a bomb in a bomb":   rawZstd(0, bytes.Repeat(pack(make([]byte, maxBlock)), 100), maxBlock),
		"no zstd":            rawZstd(0, []byte("this is no zstd"), 100),
		"corrupt":            rawZstd(0, corrupt, 1000),
		"cut":                rawZstd(0, packed[:len(packed)-1], 1000),
		"nothing in it":      rawZstd(0, pack(nil), 100),
		"one byte too large": rawZstd(0, pack(theBytes(maxBlock+1)), maxBlock),
	} {
		b, _, err := readBlock(bytes.NewReader(wire), &unpacker{zstd: true})
		require.True(t, b == nil, name)
		require.ErrorIs(t, err, errProtocol, name)
	}
	b, _, err := readBlock(bytes.NewReader(rawZstd(0, pack(body), maxBlock)), &unpacker{zstd: true})
	require.NoError(t, err)
	require.Equal(t, body, b.raw)
	b.free()
	_, _, err = readBlock(bytes.NewReader(rawZstd(0, packed, 1000)), new(unpacker))
	require.ErrorIs(t, err, errProtocol, "it was not agreed on")
}

// What does not shrink is sent as it is, and tried rarely; what shrinks again is noticed.
func TestCompressionTurnsItselfOff(t *testing.T) {
	var z packer
	noise := make([]byte, 4096)
	seed := uint32(1)
	for i := range noise {
		seed = seed*1664525 + 1013904223
		noise[i] = byte(seed >> 24)
	}
	seal := func(body []byte) (tried, shrank bool) {
		b := newBuffer()
		defer b.free()
		b.raw = b.room[blockHead : blockHead+copy(b.room[blockHead:], body)]
		before := z.skip
		wire := b.seal(0, true, &z)
		return before == 0, blockKind(wire[0]) == blockZstd
	}
	tries := 0
	for range maxMisses + 10*probeEvery {
		tried, shrank := seal(noise)
		require.False(t, shrank)
		if tried {
			tries++
		}
	}
	require.Equal(t, maxMisses+10, tries)
	for i := range probeEvery {
		if _, shrank := seal(make([]byte, 4096)); shrank {
			break
		}
		require.Less(t, i, probeEvery-1, "it is noticed")
	}
	for range 100 {
		_, shrank := seal(make([]byte, 4096))
		require.True(t, shrank)
	}
}
