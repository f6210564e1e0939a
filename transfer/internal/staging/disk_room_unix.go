//go:build linux || darwin || freebsd || dragonfly

package staging

import (
	"os"

	"golang.org/x/sys/unix"
)

// Room is statfs.
func (d diskFS) Room() (bytes, inodes int64, err error) {
	var st unix.Statfs_t
	if err := uninterrupted(func() error { return unix.Fstatfs(int(d.top.Fd()), &st) }); err != nil {
		return -1, -1, os.NewSyscallError("statfs", err)
	}
	inodes = -1
	if st.Files > 0 { // 0 where they are made as they are needed
		inodes = int64(st.Ffree) // unsigned on most
	}
	return int64(st.Bavail) * int64(st.Bsize), inodes, nil //nolint:unconvert // each system has its own types
}
