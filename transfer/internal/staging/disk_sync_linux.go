package staging

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// datasync is fdatasync(2), which writes the size too.
func datasync(fd int) error { return uninterrupted(func() error { return unix.Fdatasync(fd) }) }

// SyncAll is syncfs(2), which reports lost writes from Linux 5.8 on.
func (f *diskFile) SyncAll() error {
	return f.fail("syncfs", uninterrupted(func() error { return unix.Syncfs(f.fd) }))
}

// Punch is fallocate(2), which not all file systems have.
func (f *diskFile) Punch(off, n int64) error {
	err := uninterrupted(func() error {
		return unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported
	}
	return f.fail("punch", err)
}

// futimes is utimensat(2) of the descriptor. Linux before 5.8 cannot.
func futimes(fd int, mtime time.Time) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime.UnixNano())}
	err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		return errors.ErrUnsupported
	}
	return err
}

// hasProc reports whether open files have names.
var hasProc = sync.OnceValue(func() bool { _, err := os.Stat("/proc/self/fd"); return err == nil })

// Link is linkat(2) of the descriptor's name in /proc.
func (f *diskFile) Link(to string) error {
	if !hasProc() {
		return errors.ErrUnsupported
	}
	self := "/proc/self/fd/" + strconv.Itoa(f.fd)
	return f.disk.at("link", to, func(dir int, base string) error {
		return unix.Linkat(unix.AT_FDCWD, self, dir, base, unix.AT_SYMLINK_FOLLOW)
	})
}

// renameNew is renameat2(2) with RENAME_NOREPLACE, which not all file systems have.
func renameNew(a int, from string, b int, to string) error {
	err := unix.Renameat2(a, from, b, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported
	}
	return err
}
