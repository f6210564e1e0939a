package manifest_test

import (
	"fmt"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func ExampleChecker() {
	c, err := manifest.NewChecker(manifest.Rules{Portable: true})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Add(manifest.Entry{ID: 1, Kind: manifest.KindFile, Path: "docs/README"}))
	fmt.Println(c.Add(manifest.Entry{ID: 2, Kind: manifest.KindFile, Path: "docs/Readme"}))
	// Output:
	// <nil>
	// "docs/Readme": "README" and "Readme" are one name on Windows or macOS: rename one of them
}
