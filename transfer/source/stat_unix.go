//go:build unix

package source

import (
	"io/fs"
	"os"
	"syscall"
)

// openFlags let nothing wait that is no regular file.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOFOLLOW | openLarge

// mayRead reports a file that this user may surely read. Of others, an open tells.
func mayRead(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	switch os.Geteuid() {
	case 0:
		return true
	case int(st.Uid):
		return st.Mode&0o400 != 0
	}
	return st.Mode&0o044 == 0o044
}
