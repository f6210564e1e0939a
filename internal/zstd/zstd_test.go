package zstd

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsCompressedUnpacksToTheSame(t *testing.T) {
	for _, src := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte("peerlane "), 1000)} {
		packed := Append([]byte("head"), src)
		require.Equal(t, "head", string(packed[:4]))
		out, err := Decode(make([]byte, 0, len(src)), packed[4:])
		require.NoError(t, err)
		require.True(t, bytes.Equal(src, out))
	}
}

func TestDecodeStaysWithinTheCapacity(t *testing.T) {
	src := bytes.Repeat([]byte("peerlane "), 1000)
	_, err := Decode(make([]byte, 0, len(src)-1), Append(nil, src))
	require.Error(t, err)
	_, err = Decode(make([]byte, 0, 100), []byte("no frame"))
	require.Error(t, err)
}

// A frame that declares a window of 512 MiB, the most that is taken, reserves next to nothing: what it unpacks to is its history.
func TestDecodeReservesNothingForADeclaredWindow(t *testing.T) {
	packed := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 19 << 3, 3<<3 | 1, 0, 0, 'a', 'b', 'c'} // RFC 8878, 3.1.1: window of 2^29, one raw block
	room := make([]byte, 0, 64)
	out, err := Decode(room, packed) // makes what the decoder leaves for the first use
	require.NoError(t, err)
	require.Equal(t, "abc", string(out))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		_, _ = Decode(room, packed)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	packed[5] = 20 << 3 // 2^30
	_, err = Decode(room, packed)
	require.Error(t, err)
}
