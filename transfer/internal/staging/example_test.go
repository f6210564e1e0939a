package staging_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/staging"
)

// A transfer that is interrupted and goes on where its state says.
func Example() {
	dest, err := os.MkdirTemp("", "dest")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dest)
	disk, err := staging.OpenRoot(dest)
	if err != nil {
		panic(err)
	}
	defer disk.Close()
	hello := manifest.Entry{ID: 1, Kind: manifest.KindFile, Path: "docs/hello.txt", Perm: 0o644, Size: 11}

	s, err := staging.Create(disk, "0123abcd", []manifest.Entry{hello}, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(s.WriteAt(1, []byte("hello "), 0), s.Sync(), s.Have(1))
	_ = s.Close() // or the machine stops

	if s, err = staging.Open(disk, "0123abcd", nil); err != nil {
		panic(err)
	}
	fmt.Println(s.Missing(1))
	fmt.Println(s.WriteAt(1, []byte("world"), 6), s.Publish([]uint32{1}), s.Finish())
	text, err := os.ReadFile(filepath.Join(dest, "docs", "hello.txt"))
	fmt.Println(string(text), err)
	// Output:
	// <nil> <nil> [{0 6}]
	// [{6 11}]
	// <nil> [] <nil>
	// hello world <nil>
}
