package staging

import (
	"errors"
	"os"
	"syscall"
)

// datasync is fdatasync(2), which writes the size too. A file system that cannot sync is taken for one that need not.
func datasync(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for {
			if failed = syscall.Fdatasync(int(fd)); !errors.Is(failed, syscall.EINTR) {
				return
			}
		}
	})
	if failed != nil && !errors.Is(failed, syscall.EINVAL) && !errors.Is(failed, errors.ErrUnsupported) {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: failed}
	}
	return err
}
