package staging

import (
	"io"
	"io/fs"
	"os"
	"time"
)

// FS is the disk below one destination, as a Staging needs it. Any number of goroutines may use it. Names are relative to the destination,
// with /. OpenRoot returns a real one; tests use one whose power can be cut.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	// Lstat also tells an FS that keeps folders open that one was moved: a Staging calls it for a folder before it uses the folder's
	// contents.
	Lstat(name string) (Info, error)
	Readlink(name string) (string, error)
	ReadDir(name string) ([]string, error)
	Remove(name string) error
	Rename(from, to string) error
	// RenameNew is like Rename, but fails with fs.ErrExist if to exists, even if another process creates it meanwhile. The error is
	// errors.ErrUnsupported if no single system call does that.
	RenameNew(from, to string) error
	Link(from, to string) error
	Symlink(target, name string) error
	Chtimes(name string, mtime time.Time) error
	// Chmod changes the mode of a file, even one that cannot be opened.
	Chmod(name string, perm fs.FileMode) error
	// ChmodDir changes the mode of a directory, and fails for anything else.
	ChmodDir(name string, perm fs.FileMode) error
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Lock opens the file name, creates it if needed, and holds it exclusively until Close or the end of the process. The error is ErrBusy
	// if another holder has it, including one in this process.
	Lock(name string) (io.Closer, error)
	// Room returns how many bytes and inodes this user may still allocate, or -1 where the system does not report it.
	Room() (bytes, inodes int64, err error)
	Close() error
}

// File is one open file of an FS, for any number of goroutines until Close.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (Info, error)
	Truncate(size int64) error
	Chmod(perm fs.FileMode) error
	Chtimes(mtime time.Time) error
	// Link gives the file another name, which must not exist, whatever has the file's own name by now. The error is errors.ErrUnsupported
	// if no single system call does that.
	Link(to string) error
	// Datasync makes the written data and the size durable.
	Datasync() error
	// SyncAll makes all data written to the file's disk durable, and reports data lost there since the file was opened or since its last
	// SyncAll. The error is errors.ErrUnsupported if no single system call does that.
	SyncAll() error
	// Punch makes n bytes from off on zero, and frees their space. The error is errors.ErrUnsupported if no single system call does that.
	Punch(off, n int64) error
}

// Info describes a file without its content.
type Info struct {
	Mode    fs.FileMode
	Size    int64
	ModTime time.Time
	Inode   uint64 // 0 where the system does not report it
	Device  uint64 // that the Inode is of
	Shared  bool   // another user owns it or may write to it; false where the system does not report it
}

// OpenRoot returns the FS below the directory dest, which must exist. Its Close does not close Stagings.
func OpenRoot(dest string) (FS, error) {
	root, err := os.OpenRoot(dest)
	if err != nil {
		return nil, wrap("open", "", err)
	}
	disk, err := newDiskFS(rootFS{root})
	if err != nil {
		_ = root.Close() // only the first error counts
		return nil, wrap("open", "", err)
	}
	return disk, nil
}

// Free returns how many bytes and inodes may still be allocated on the disk, or -1 where the system does not report it.
func Free(disk FS) (bytes, inodes int64, err error) {
	if err := checkDisk(disk); err != nil {
		return 0, 0, err
	}
	bytes, inodes, err = disk.Room()
	return bytes, inodes, wrap("free", "", err)
}

// rootFS is the part of an FS that is the same on all systems, over an os.Root.
type rootFS struct{ root *os.Root }

func (r rootFS) ReadDir(name string) ([]string, error) {
	d, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // it was only read
	return d.Readdirnames(-1)
}

// ChmodDir keeps the directory open, so that it changes the directory that it checked.
func (r rootFS) ChmodDir(name string, perm fs.FileMode) error {
	before, err := r.root.Lstat(name)
	if err != nil {
		return err
	}
	d, err := r.root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // it was only read
	now, err := d.Stat()
	switch {
	case err != nil:
		return err
	case !before.IsDir() || !os.SameFile(before, now):
		return &fs.PathError{Op: "chmod", Path: name, Err: fs.ErrInvalid}
	}
	return chmodOpenDir(d, perm)
}

func (r rootFS) Chmod(name string, perm fs.FileMode) error { return r.root.Chmod(name, perm) }
func (r rootFS) Mkdir(name string, perm fs.FileMode) error { return r.root.Mkdir(name, perm) }
func (r rootFS) Readlink(name string) (string, error)      { return r.root.Readlink(name) }
func (r rootFS) Symlink(target, name string) error         { return r.root.Symlink(target, name) }
func (r rootFS) Chtimes(name string, mtime time.Time) error {
	return r.root.Chtimes(name, time.Time{}, mtime)
}
func (r rootFS) SyncDir(name string) error { return syncDir(r.root, name) }
