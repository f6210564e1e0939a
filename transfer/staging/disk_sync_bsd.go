//go:build unix && !linux && !darwin

package staging

import "golang.org/x/sys/unix"

func fullSync(fd int) error { return unix.Fsync(fd) }
