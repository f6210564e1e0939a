//go:build unix && !linux && !darwin

package staging

import "golang.org/x/sys/unix"

// fullSync is fsync(2).
func fullSync(fd int) error { return unix.Fsync(fd) }
