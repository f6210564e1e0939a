package staging

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

// diskFS is the FS over an os.Root.
type diskFS struct{ rootFS }

// newDiskFS returns the FS over r, which it closes.
func newDiskFS(r rootFS) (FS, error) { return diskFS{r}, nil }

func (d diskFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := d.root.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (d diskFS) Lstat(name string) (Info, error) {
	fi, err := d.root.Lstat(name)
	if err != nil {
		return Info{}, err
	}
	return infoOf(fi), nil
}

func (d diskFS) Remove(name string) error     { return d.root.Remove(name) }
func (d diskFS) Rename(from, to string) error { return d.root.Rename(from, to) }
func (d diskFS) RenameNew(_, _ string) error  { return errors.ErrUnsupported }
func (d diskFS) Link(from, to string) error   { return d.root.Link(from, to) }
func (d diskFS) Close() error                 { return d.root.Close() }

// Lock is LockFileEx.
func (d diskFS) Lock(name string) (io.Closer, error) {
	if fi, err := d.root.Lstat(name); err == nil && !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: fs.ErrInvalid}
	}
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0,
		new(windows.Overlapped))
	if err == nil {
		return f, nil
	}
	_ = f.Close() // it is not used
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return nil, ErrBusy
	}
	return nil, err
}

// Room is GetDiskFreeSpaceEx. There is no limit of inodes that the system would tell.
func (d diskFS) Room() (bytes, inodes int64, err error) {
	name, err := windows.UTF16PtrFromString(d.root.Name())
	if err != nil {
		return -1, -1, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return -1, -1, err
	}
	return int64(free), -1, nil
}

type diskFile struct{ *os.File }

// Datasync is FlushFileBuffers.
func (f diskFile) Datasync() error { return f.Sync() }

// SyncAll: that of a volume is for administrators.
func (f diskFile) SyncAll() error { return errors.ErrUnsupported }

// Link would need the file's own name.
func (f diskFile) Link(string) error { return errors.ErrUnsupported }

// Punch would need a file that was made sparse.
func (f diskFile) Punch(int64, int64) error { return errors.ErrUnsupported }

// Chtimes uses the handle: data written through the handle then does not change the time again on Close.
func (f diskFile) Chtimes(mtime time.Time) error {
	ft := windows.NsecToFiletime(mtime.UnixNano())
	return windows.SetFileTime(windows.Handle(f.Fd()), nil, nil, &ft)
}

func (f diskFile) Stat() (Info, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return Info{}, err
	}
	return infoOf(fi), nil
}

// infoOf has no inode: os.FileInfo does not tell here.
func infoOf(fi fs.FileInfo) Info {
	return Info{Mode: fi.Mode(), Size: fi.Size(), ModTime: fi.ModTime()}
}

const (
	errHandleDiskFull syscall.Errno = 39
	errDiskFull       syscall.Errno = 112
)

// isNoSpace reports a full disk.
func isNoSpace(err error) bool {
	return errors.Is(err, errDiskFull) || errors.Is(err, errHandleDiskFull) || errors.Is(err, syscall.ENOSPC)
}

// chmodOpenDir does nothing: a directory has no such mode here.
func chmodOpenDir(*os.File, fs.FileMode) error { return nil }

// syncDir does nothing: NTFS keeps names in order by itself, and directories cannot be synced.
func syncDir(*os.Root, string) error { return nil }
