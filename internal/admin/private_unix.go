//go:build unix

package admin

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// isPrivate reports whether a folder is this user's alone.
func isPrivate(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(st.Uid) == int64(os.Geteuid()) && info.Mode().Perm()&0o077 == 0
}

// isRefused reports whether err of a dial says that no process listens at the socket.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
