//go:build unix && !linux && !darwin

package staging

import (
	"errors"

	"golang.org/x/sys/unix"
)

// fullSync is fsync(2).
func fullSync(fd int) error { return unix.Fsync(fd) }

// renameNew: these systems have no such call.
func renameNew(int, string, int, string) error { return errors.ErrUnsupported }
