package admin

import (
	"errors"
	"io/fs"
	"syscall"
)

// isPrivate reports whether a folder is this user's alone: the folder for temporary files is in the user's profile.
func isPrivate(fs.FileInfo) bool { return true }

// isRefused reports whether err of a dial says that no process listens at the socket.
func isRefused(err error) bool {
	const refused = syscall.Errno(10061) // WSAECONNREFUSED, which package syscall lacks
	return errors.Is(err, refused)
}
