package staging

import "golang.org/x/sys/unix"

// fullSync is F_FULLFSYNC, and fsync where the file system has none.
func fullSync(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0); err != nil {
		return unix.Fsync(fd)
	}
	return nil
}

// renameNew is renameatx_np(2) with RENAME_EXCL, which not all file systems have.
func renameNew(a int, from string, b int, to string) error {
	return unix.RenameatxNp(a, from, b, to, unix.RENAME_EXCL)
}
