package source_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/peerlane/peerlane/transfer/manifest"
	"github.com/peerlane/peerlane/transfer/source"
)

func Example() {
	dir, err := os.MkdirTemp("", "source")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	docs := filepath.Join(dir, "docs")
	if err := os.MkdirAll(filepath.Join(docs, "empty"), 0o755); err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(docs, "abc"), []byte("abc"), 0o644); err != nil {
		panic(err)
	}

	ctx := context.Background()
	tree, err := source.Walk(ctx, []string{docs}, nil)
	if err != nil {
		panic(err)
	}
	defer tree.Close()
	if err := tree.Hash(ctx, 0, nil); err != nil {
		panic(err)
	}
	fmt.Println(tree.Name(), tree.Files(), tree.Bytes())
	for _, e := range tree.Entries() {
		fmt.Println(e.ID, e.Kind, e.Path)
		if e.Kind != manifest.KindFile {
			continue
		}
		content, err := tree.ReadFile(e.ID, nil)
		fmt.Printf("%q %v, root %x...\n", content, err, e.Hash[:4])
	}

	if err := os.WriteFile(filepath.Join(docs, "abc"), []byte("changed"), 0o644); err != nil {
		panic(err)
	}
	_, err = tree.Open(1)
	fmt.Println(err)
	// Output:
	// docs 1 3
	// 0 dir docs
	// 1 file docs/abc
	// "abc" <nil>, root 6437b3ac...
	// 2 dir docs/empty
	// open "docs/abc": it has 7 bytes now, and had 3
}

func ExampleOpenCache() {
	dir, err := os.MkdirTemp("", "cache")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	cache, err := source.OpenCache(dir, 64<<20)
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	file := filepath.Join(dir, "large")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o644); err != nil {
		panic(err)
	}

	tree, err := source.Walk(context.Background(), []string{file}, &source.Options{Cache: cache})
	if err != nil {
		panic(err)
	}
	defer tree.Close()
	layer, root, err := tree.Layer(context.Background(), 0) // the next time, without reading
	fmt.Println(len(layer), root, err)
	// Output:
	// 4 488de202f73bd976de4e7048f4e1f39a776d86d582b7348ff53bf432b987fca8 <nil>
}
