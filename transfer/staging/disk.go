package staging

import (
	"io"
	"io/fs"
	"os"
	"time"
)

// FS is the disk below one destination, as a Staging needs it, for any number of goroutines. Names are relative to it, with /. OpenRoot
// returns the real one; tests have one whose power can be cut.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	// Lstat is also how an FS that keeps folders open learns that one was moved: it is asked for a folder before what is in it.
	Lstat(name string) (Info, error)
	Readlink(name string) (string, error)
	ReadDir(name string) ([]string, error)
	Remove(name string) error
	Rename(from, to string) error
	// RenameNew is Rename that fails with fs.ErrExist when to is there, whoever makes it meanwhile. It is errors.ErrUnsupported where no
	// one call does that.
	RenameNew(from, to string) error
	Link(from, to string) error
	Symlink(target, name string) error
	Chtimes(name string, mtime time.Time) error
	// Chmod changes the mode of a file, which may be one that cannot be opened.
	Chmod(name string, perm fs.FileMode) error
	// ChmodDir changes the mode of a directory, and fails for what is none.
	ChmodDir(name string, perm fs.FileMode) error
	// SyncDir returns when the names in a directory are on the disk.
	SyncDir(name string) error
	// Lock opens the file name, makes it if need be, and has it alone until Close or the end of the process. It is ErrBusy when another
	// has it, in this process too.
	Lock(name string) (io.Closer, error)
	// Room returns how many bytes and inodes this user may still allocate; -1 for what the system does not tell.
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
	// Datasync returns when what was written, and the size, are on the disk.
	Datasync() error
	// SyncAll returns when all that was written to the file's disk is on it, and reports what was lost there since the file was opened,
	// or SyncAll of it was called last. It is errors.ErrUnsupported where no one call does that.
	SyncAll() error
	// Punch makes n bytes from off on zero, and frees their room. It is errors.ErrUnsupported where no one call does that.
	Punch(off, n int64) error
}

// Info is what is known of a file without reading it.
type Info struct {
	Mode    fs.FileMode
	Size    int64
	ModTime time.Time
	Inode   uint64 // 0 where the system does not tell
}

// OpenRoot returns the FS below the directory dest, which must exist. Its Close does not close Stagings.
func OpenRoot(dest string) (FS, error) {
	root, err := os.OpenRoot(dest)
	if err != nil {
		return nil, wrap("open", "", err)
	}
	disk, err := newDiskFS(rootFS{root})
	if err != nil {
		_ = root.Close() // the first error is told
		return nil, wrap("open", "", err)
	}
	return disk, nil
}

// Free returns how many bytes and inodes may still be allocated on the disk; -1 for what the system does not tell.
func Free(disk FS) (bytes, inodes int64, err error) {
	if err := checkDisk(disk); err != nil {
		return 0, 0, err
	}
	bytes, inodes, err = disk.Room()
	return bytes, inodes, wrap("free", "", err)
}

// rootFS is what of an FS is the same on all systems, over an os.Root.
type rootFS struct{ root *os.Root }

func (r rootFS) ReadDir(name string) ([]string, error) {
	d, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }() // it was only read
	return d.Readdirnames(-1)
}

// ChmodDir holds the directory open, so that it is what has been looked at that changes.
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
