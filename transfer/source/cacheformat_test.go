package source

import (
	"bytes"
	"hash/crc32"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/internal/b3tree"
)

// withSum returns what a file of the cache would be with a right checksum at its end.
func withSum(b []byte) []byte {
	body := b[:len(b)-crcSize]
	sum := crc32.Checksum(body, castagnoli)
	return append(bytes.Clone(body), byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}

func TestALayerIsStoredAsItIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := fileKey{
			dev: rapid.Uint64().Draw(t, "dev"), ino: rapid.Uint64().Draw(t, "ino"), mtime: rapid.Int64().Draw(t, "mtime"), changeTime: rapid.Int64().Draw(t, "ctime"),
			size: rapid.Int64Range(b3tree.MinPieceSize+1, 20*b3tree.MinPieceSize).Draw(t, "size"),
		}
		shape, err := b3tree.ShapeOf(k.size)
		require.NoError(t, err)
		layer := make([]b3tree.CV, shape.LayerLen())
		for i := range layer {
			layer[i] = b3tree.CV(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "cv"))
		}
		b := encodeLayer(k, layer)
		require.Len(t, b, int(encodedLayerSize(k.size)))
		got, cvs, err := decodeLayer(b)
		require.NoError(t, err)
		require.Equal(t, k, got)
		require.Equal(t, layer, cvs)
	})
}

func TestADamagedLayerIsNotRead(t *testing.T) {
	k, layer, _ := someKey(t, 1, 3)
	whole := encodeLayer(k, layer)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		_, _, err := decodeLayer(b)
		require.ErrorIs(t, err, errLayer, "byte %d", i)
		_, _, err = decodeLayer(whole[:i])
		require.ErrorIs(t, err, errLayer, "cut after %d", i)
	}
	for name, b := range map[string][]byte{
		"another format":  withSum(append([]byte{1}, whole[1:]...)),
		"another version": withSum(append(append(bytes.Clone(whole[:4]), 9), whole[5:]...)),
		"too long":        withSum(append(bytes.Clone(whole), make([]byte, b3tree.HashSize)...)),
		"too short":       withSum(whole[:len(whole)-b3tree.HashSize]),
	} {
		_, _, err := decodeLayer(b)
		require.ErrorIs(t, err, errLayer, name)
	}
}

func TestOnlyFilesOfSeveralPiecesHaveALayer(t *testing.T) {
	for size, want := range map[int64]int64{
		0: math.MaxInt64, b3tree.MinPieceSize: math.MaxInt64, -1: math.MaxInt64, math.MaxInt64: math.MaxInt64,
		b3tree.MinPieceSize + 1: layerHead + 2*b3tree.HashSize + crcSize,
	} {
		require.Equal(t, want, encodedLayerSize(size), "%d", size)
	}
}

func TestAFileThatMayStillChangeHasNoKey(t *testing.T) {
	needsChangeTimes(t)
	root := write(t, map[string]string{"a": "1"})
	tree := walk(t, nil, root)
	f, err := tree.openEntry(1)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	_, isSure := keyOf(f.info, time.Now())
	require.False(t, isSure, "it was made a moment ago")
	k, isSure := keyOf(f.info, time.Now().Add(2*cacheSettled))
	require.True(t, isSure)
	require.EqualValues(t, 1, k.size)
	require.Regexp(t, `^[0-9a-f]{16}-[0-9a-f]{16}\.layer$`, k.name())
}
