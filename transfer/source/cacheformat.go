package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"time"

	"github.com/peerlane/peerlane/internal/b3tree"
)

// A file of the cache, in big endian: magic u32, version u8, three of zero, the key (device u64, inode u64, size i64, time i64 and time
// of change i64 in ns since 1970), the layer, and the CRC32C of all before it u32. The root is what the layer folds to.
const (
	layerMagic   = 0x7078666c // "pxfl"
	layerVersion = 1
	layerHead    = 48 // magic 4, version 1, zero 3, device 8, inode 8, size 8, time 8, time of change 8
	crcSize      = 4
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errLayer   = errors.New("a file of the cache is damaged")
)

// fileKey is what a file has as long as nobody writes to it.
type fileKey struct {
	dev, ino          uint64
	size              int64
	mtime, changeTime int64
}

// keyOf returns the key of a file, if it can be told from what it may become: not of one that has just been changed.
func keyOf(fi fs.FileInfo, now time.Time) (fileKey, bool) {
	k := fileKey{size: fi.Size(), mtime: fi.ModTime().UnixNano()}
	known := k.inode(fi)
	return k, known && k.changeTime < now.Add(-cacheSettled).UnixNano()
}

// name returns that in the cache: a file that has been changed takes the place of what it was.
func (k fileKey) name() string { return fmt.Sprintf("%016x-%016x%s", k.dev, k.ino, cacheExt) }

// encodedLayerSize returns how many bytes the layer of a file of size bytes has in the cache, or more than there are if it has none.
func encodedLayerSize(size int64) int64 {
	shape, err := b3tree.ShapeOf(size)
	if err != nil || shape.LayerLen() == 0 {
		return math.MaxInt64
	}
	return layerHead + int64(shape.LayerLen())*b3tree.HashSize + crcSize
}

func encodeLayer(k fileKey, layer []b3tree.CV) []byte {
	b := make([]byte, 0, layerHead+len(layer)*b3tree.HashSize+crcSize)
	b = binary.BigEndian.AppendUint32(b, layerMagic)
	b = append(b, layerVersion, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, k.dev)
	b = binary.BigEndian.AppendUint64(b, k.ino)
	b = binary.BigEndian.AppendUint64(b, uint64(k.size))
	b = binary.BigEndian.AppendUint64(b, uint64(k.mtime))
	b = binary.BigEndian.AppendUint64(b, uint64(k.changeTime))
	b = b3tree.AppendLayer(b, layer)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeLayer takes what encodeLayer made. The layer is as long as the key's size says.
func decodeLayer(b []byte) (fileKey, []b3tree.CV, error) {
	if len(b) < layerHead+crcSize {
		return fileKey{}, nil, errLayer
	}
	body := b[:len(b)-crcSize]
	if binary.BigEndian.Uint32(b[len(body):]) != crc32.Checksum(body, castagnoli) {
		return fileKey{}, nil, errLayer
	}
	if binary.BigEndian.Uint64(b) != layerMagic<<32|layerVersion<<24 {
		return fileKey{}, nil, errLayer
	}
	k := fileKey{
		dev:        binary.BigEndian.Uint64(b[8:]),
		ino:        binary.BigEndian.Uint64(b[16:]),
		size:       int64(binary.BigEndian.Uint64(b[24:])),
		mtime:      int64(binary.BigEndian.Uint64(b[32:])),
		changeTime: int64(binary.BigEndian.Uint64(b[40:])),
	}
	if int64(len(b)) != encodedLayerSize(k.size) {
		return fileKey{}, nil, errLayer
	}
	shape, err := b3tree.ShapeOf(k.size)
	if err != nil {
		return fileKey{}, nil, err
	}
	layer, err := shape.ConsumeLayer(nil, body[layerHead:])
	return k, layer, err
}
