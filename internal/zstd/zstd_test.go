package zstd

import (
	"bytes"
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

// A frame that declares a gigabyte reserves nothing.
func TestDecodeReservesNothing(t *testing.T) {
	src := bytes.Repeat([]byte("peerlane "), 1000)
	packed, room := Append(nil, src), make([]byte, 0, len(src))
	_, err := Decode(room, packed) // makes what the decoder leaves for the first use
	require.NoError(t, err)
	require.Less(t, testing.AllocsPerRun(100, func() { _, _ = Decode(room, packed) }), 2.0)
}
