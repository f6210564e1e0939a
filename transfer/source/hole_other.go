//go:build !linux

package source

import (
	"io/fs"
	"os"
)

func mayHaveHoles(fs.FileInfo) bool { return false }

func hasHole(*os.File, int64) bool { return false }

// holeAt takes all for data.
func holeAt(_ *os.File, _, size int64) (int64, bool) { return size, false }
