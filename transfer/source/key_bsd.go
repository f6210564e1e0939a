//go:build darwin || ios || freebsd || netbsd

package source

import (
	"io/fs"
	"syscall"
)

// inode fills in what fs.FileInfo does not have. It is false where the system does not tell.
func (k *fileKey) inode(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	k.dev, k.ino = uint64(st.Dev), uint64(st.Ino) //nolint:unconvert // narrower on some systems
	k.changeTime = int64(st.Ctimespec.Sec)*1e9 + int64(st.Ctimespec.Nsec)
	return k.ino != 0
}
