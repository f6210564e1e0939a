//go:build unix

package staging

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// diskFS is the FS over an os.Root, with folders that stay open: an item in a folder is named by the folder's descriptor and one component,
// and no symlink is followed. Rare operations use the Root.
type diskFS struct {
	rootFS

	top  *os.File
	dirs *dirCache
}

// newDiskFS returns the FS over r, which it closes.
func newDiskFS(r rootFS) (FS, error) {
	top, err := r.root.Open(".")
	if err != nil {
		return nil, err
	}
	return diskFS{r, top, newDirCache(int(top.Fd()))}, nil
}

func (d diskFS) Close() error {
	d.dirs.close()
	return errors.Join(d.top.Close(), d.root.Close())
}

// at calls f with the descriptor of the folder that name is in, and its last component.
func (d diskFS) at(op, name string, f func(dir int, base string) error) error {
	dir, err := d.dirs.get(path.Dir(name))
	if err == nil {
		err = uninterrupted(func() error { return f(dir.fd, path.Base(name)) })
		d.dirs.put(dir)
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// uninterrupted calls f until no signal interrupts it.
func uninterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// OpenFile follows no symlink: it is ELOOP for one.
func (d diskFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f := &diskFile{disk: d, name: name}
	err := d.at("open", name, func(dir int, base string) (err error) {
		f.fd, err = unix.Openat(dir, base, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, uint32(perm.Perm())) // of a FIFO
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Lstat of a folder that is kept open, and that is not the one of its name any more, closes it.
func (d diskFS) Lstat(name string) (Info, error) {
	var st unix.Stat_t
	err := d.at("lstat", name, func(dir int, base string) error { return unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		d.dirs.forget(name)
		return Info{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		d.dirs.forget(name)
	} else {
		d.dirs.confirm(name, &st)
	}
	return infoOf(&st), nil
}

// ChmodDir does not need u+r on the folder. If the system cannot change modes by name without following symlinks, it opens the folder.
func (d diskFS) ChmodDir(name string, perm fs.FileMode) error {
	info, err := d.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode.IsDir() {
		return &fs.PathError{Op: "chmod", Path: name, Err: fs.ErrInvalid}
	}
	err = d.at("chmod", name, func(dir int, base string) error {
		return unix.Fchmodat(dir, base, uint32(perm.Perm()), unix.AT_SYMLINK_NOFOLLOW)
	})
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return d.chmodDirByRoot(name, perm, info.Mode)
	}
	return err
}

// chmodDirByRoot is ChmodDir through the os.Root.
func (d diskFS) chmodDirByRoot(name string, perm, was fs.FileMode) error {
	if was.Perm()&0o400 != 0 {
		return d.rootFS.ChmodDir(name, perm)
	}
	return d.root.Chmod(name, perm)
}

// Remove is for files, symlinks and empty folders.
func (d diskFS) Remove(name string) error {
	err := d.at("remove", name, func(dir int, base string) error { return unix.Unlinkat(dir, base, 0) })
	if !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EPERM) { // what systems say of a folder
		return err
	}
	d.dirs.forget(name)
	folder := d.at("remove", name, func(dir int, base string) error { return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR) })
	if errors.Is(folder, syscall.ENOTDIR) {
		return err
	}
	return folder
}

func (d diskFS) Rename(from, to string) error {
	return d.two("rename", from, to, unix.Renameat)
}

func (d diskFS) RenameNew(from, to string) error {
	return d.two("rename", from, to, renameNew)
}

func (d diskFS) Link(from, to string) error {
	return d.two("link", from, to, func(a int, from string, b int, to string) error { return unix.Linkat(a, from, b, to, 0) })
}

// two calls f with the folders and last components of two names.
func (d diskFS) two(op, from, to string, f func(a int, from string, b int, to string) error) error {
	return d.at(op, from, func(a int, from string) error {
		return d.at(op, to, func(b int, to string) error { return f(a, from, b, to) })
	})
}

// Lock is flock. A file system that has none is taken for one that is used alone.
func (d diskFS) Lock(name string) (io.Closer, error) {
	open, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	f := open.(*diskFile)
	err = uninterrupted(func() error { return unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB) })
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = ErrBusy
	case errors.Is(err, syscall.ENOLCK), errors.Is(err, errors.ErrUnsupported):
		err = nil
	}
	if err == nil { // who had it may have deleted it
		var was, is Info
		if was, err = f.Stat(); err == nil {
			if is, err = d.Lstat(name); err == nil && (is.Inode != was.Inode || !is.Mode.IsRegular()) {
				err = ErrBusy
			}
		}
	}
	if err != nil {
		_ = f.Close() // it is not used
		return nil, err
	}
	return f, nil
}

// isNoSpace reports a full disk, or a quota that is used up.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func chmodOpenDir(d *os.File, perm fs.FileMode) error { return d.Chmod(perm) }

// syncDir takes a file system that cannot sync directories for one that need not.
func syncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing was written to it
	return unlessUnsupported(d.Sync())
}

// unlessUnsupported returns err, or nil when it says that the file system cannot sync.
func unlessUnsupported(err error) error {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}
