package b3tree_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/peerlane/peerlane/internal/b3tree"
)

// A sender hashes a file, and a receiver checks a piece that came first.
func Example() {
	file := bytes.Repeat([]byte("peerlane"), 100_000)
	shape, err := b3tree.ShapeOf(int64(len(file)))
	if err != nil {
		fmt.Println(err)
		return
	}
	h := b3tree.NewHasher(shape)
	if _, err := io.Copy(h, bytes.NewReader(file)); err != nil {
		fmt.Println(err)
		return
	}
	root, err := h.Root()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(root)
	wire := b3tree.AppendLayer(nil, h.Layer())
	fmt.Println(shape.Pieces(), "pieces, a layer of", len(wire), "bytes")

	layer, err := shape.ConsumeLayer(nil, wire)
	if err != nil {
		fmt.Println(err)
		return
	}
	tree, err := b3tree.NewTree(shape, root, layer)
	if err != nil {
		fmt.Println(err)
		return
	}
	off, n := shape.Span(3)
	last := bytes.Clone(file[off : off+int64(n)])
	fmt.Println(tree.Verify(3, last))
	last[0]++
	err = tree.Verify(3, last)
	fmt.Println(err, errors.Is(err, b3tree.ErrPiece))
	// Output:
	// f105a86bc41db4ffbce60ff320df6f17c21ad1616f1318b0f7facc0f70ec7423
	// 4 pieces, a layer of 128 bytes
	// <nil>
	// b3tree: piece 3: its bytes are others true
}

// Pieces are hashed by as many goroutines as the caller likes.
func ExampleShape_Fold() {
	file := bytes.NewReader(make([]byte, 5_000_000))
	shape, err := b3tree.ShapeOf(file.Size())
	if err != nil {
		fmt.Println(err)
		return
	}
	const workers = 4
	layer := make([]b3tree.CV, shape.LayerLen())
	failed := make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			piece := make([]byte, shape.PieceSize())
			for i := w; i < len(layer) && failed[w] == nil; i += workers {
				off, n := shape.Span(i)
				if _, failed[w] = file.ReadAt(piece[:n], off); failed[w] == nil {
					layer[i], failed[w] = shape.PieceCV(i, piece[:n])
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(shape.Fold(layer))
	// Output: 0f0887797116a13337b6eae37efdfb3fcdec73d21c83fd13c74d5f86acaad9c3 <nil>
}
