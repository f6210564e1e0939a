// Package b3tree is the content identity of files for package transfer: the BLAKE3-256 root of a file, and the chaining values of
// its pieces, by which any piece is checked alone, in any order and from any source.
//
//	shape, err := b3tree.ShapeOf(size)             // the sizes of the pieces
//	h := b3tree.NewHasher(shape)
//	_, err = io.Copy(h, file)                      // the sender reads once
//	root, err := h.Root()                          // h.Layer() are the chaining values
//
//	tree, err := b3tree.NewTree(shape, root, layer) // the receiver folds the layer to the root, once
//	err = tree.Verify(index, piece)                 // and trusts it from then on
//
// The root is that of b3sum, of iroh and of every other BLAKE3. The layer is a cut through the same tree, at the height of a piece:
// 32 bytes for 256 KiB, and for more where a file has more than 2^18 pieces. A file of one piece or none has no layer.
//
// # Position
//
// A chaining value covers the place of its piece: equal bytes at two places of a file have two values. Nothing may be found by
// its chaining value elsewhere, and zeros have no constant: [Shape.ZeroCV] hashes them.
//
// # Parallel
//
// Pieces are independent. Who has a big file and several processors calls [Shape.PieceCV] in goroutines of its own, as many as it
// likes, writes each value at its index of one slice, and folds that: see the example of Shape.Fold. The package starts none.
//
// # Cost
//
// What is hashed is copied, 16 KiB at a time, to a buffer that the vector code reads from the cache: over cold memory that is 1.4
// times as fast as no copy with AVX2, and over hot memory it costs nothing that can be measured (BenchmarkPiece). How this compares
// with crypto/sha256, which has instructions of its own, is the processor's: with AVX2 and on a busy machine it was 1.1 to 1.6 times
// as fast from the cache, 0.8 to 1.4 times from memory, and slower for files of 4 KiB and less. Only amd64 has vector code:
// elsewhere, arm64 among them, this is plain Go, and slower than crypto/sha256 with instructions.
//
// # Limits
//
// Files of at most [MaxSize], layers of at most [MaxPieces]. Sizes, indices, layers and pieces may be a stranger's: what does not
// fit is an error, never a panic, and nothing is reserved for it. A Hasher holds 18 KiB and its layer, 8 MiB at most.
package b3tree
