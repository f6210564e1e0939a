package b3tree

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"lukechampine.com/blake3/guts"
)

// HashSize is how many bytes a Root and a CV have.
const HashSize = 32

// Root is the BLAKE3-256 hash of a file, as b3sum prints it.
type Root [HashSize]byte

// CV is the chaining value of a piece: what the tree above it is made from. It is no hash of the piece alone, and never a file's.
type CV [HashSize]byte

// Sum returns the root of data, of any length. A file of one piece or none is hashed by it.
func Sum(data []byte) Root {
	if len(data) <= guts.ChunkSize {
		return rootOf(guts.CompressChunk(data, &guts.IV, 0, 0)) // no block to clear: BenchmarkSum
	}
	var b branch
	b.write(data)
	return rootOf(b.node())
}

// ParseRoot returns the root that text is. Text that is not 64 lower-case hexadecimal digits fails with ErrRoot: a root has one text.
func ParseRoot(text string) (Root, error) {
	var r Root
	if len(text) == hex.EncodedLen(HashSize) {
		if _, err := hex.Decode(r[:], []byte(text)); err == nil && r.String() == text {
			return r, nil
		}
	}
	return Root{}, fmt.Errorf("%w: %.80q, want 64 lower-case hexadecimal digits", ErrRoot, text)
}

// String returns r in 64 lower-case hexadecimal digits.
func (r Root) String() string { return hex.EncodeToString(r[:]) }

// String returns c in 64 lower-case hexadecimal digits.
func (c CV) String() string { return hex.EncodeToString(c[:]) }

func rootOf(n guts.Node) Root {
	n.Flags |= guts.FlagRoot
	return Root(bytesOf(guts.ChainingValue(n)))
}

func cvOf(n guts.Node) CV { return CV(bytesOf(guts.ChainingValue(n))) }

func bytesOf(words [8]uint32) (b [HashSize]byte) {
	for i, w := range words {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
	return b
}

func (c *CV) words() (words [8]uint32) {
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(c[4*i:])
	}
	return words
}
