package source_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

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
	if err := tree.Hash(ctx, nil); err != nil {
		panic(err)
	}
	fmt.Println(tree.Name(), tree.Files(), tree.Bytes())
	for _, e := range tree.Entries() {
		fmt.Printf("%d %v %s, hash %x...\n", e.ID, e.Kind, e.Path, e.Hash[:4])
	}
	// Output:
	// docs 1 3
	// 0 dir docs, hash 00000000...
	// 1 file docs/abc, hash 6437b3ac...
	// 2 dir docs/empty, hash 00000000...
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
	err = tree.Hash(context.Background(), nil) // the next time, without reading
	fmt.Printf("%x... %v\n", tree.Entries()[0].Hash[:4], err)
	// Output:
	// 488de202... <nil>
}
