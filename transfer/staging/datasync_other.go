//go:build !linux

package staging

import "os"

// datasync is Sync, which is F_FULLFSYNC on macOS and FlushFileBuffers on Windows.
func datasync(f *os.File) error { return f.Sync() }
