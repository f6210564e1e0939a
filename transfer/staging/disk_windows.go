package staging

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// inode: os.FileInfo does not tell here.
func inode(fs.FileInfo) uint64 { return 0 }

const (
	errHandleDiskFull syscall.Errno = 39
	errDiskFull       syscall.Errno = 112
)

func isNoSpace(err error) bool {
	return errors.Is(err, errDiskFull) || errors.Is(err, errHandleDiskFull) || errors.Is(err, syscall.ENOSPC)
}

// chmodOpenDir does nothing: a directory has no such mode here.
func chmodOpenDir(*os.File, fs.FileMode) error { return nil }

// syncDir does nothing: NTFS keeps names in order by itself, and directories cannot be synced.
func syncDir(*os.Root, string) error { return nil }
