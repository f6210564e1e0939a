package staging

import "golang.org/x/sys/unix"

// fullSync is F_FULLFSYNC, and fsync where the file system has none.
func fullSync(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0); err != nil {
		return unix.Fsync(fd)
	}
	return nil
}
