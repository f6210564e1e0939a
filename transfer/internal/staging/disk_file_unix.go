//go:build unix

package staging

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// diskFile is a descriptor. It is used only between OpenFile and Close, which the Staging sees to.
type diskFile struct {
	disk diskFS
	name string
	fd   int
}

// fail returns err with what it is of, nil for nil.
func (f *diskFile) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// ReadAt is pread, until b is full or the file ends: io.EOF.
func (f *diskFile) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		var n int
		err := uninterrupted(func() (err error) { n, err = unix.Pread(f.fd, b[done:], off+int64(done)); return err })
		if err != nil {
			return done, f.fail("read", err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// WriteAt is pwrite, until all is written.
func (f *diskFile) WriteAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		var n int
		err := uninterrupted(func() (err error) { n, err = unix.Pwrite(f.fd, b[done:], off+int64(done)); return err })
		if err != nil {
			return done, f.fail("write", err)
		}
		done += n
	}
	return done, nil
}

func (f *diskFile) Stat() (Info, error) {
	var st unix.Stat_t
	if err := uninterrupted(func() error { return unix.Fstat(f.fd, &st) }); err != nil {
		return Info{}, f.fail("stat", err)
	}
	return infoOf(&st), nil
}

func (f *diskFile) Truncate(size int64) error {
	return f.fail("truncate", uninterrupted(func() error { return unix.Ftruncate(f.fd, size) }))
}

func (f *diskFile) Chmod(perm fs.FileMode) error {
	return f.fail("chmod", uninterrupted(func() error { return unix.Fchmod(f.fd, uint32(perm.Perm())) }))
}

// Chtimes goes by the descriptor, or by the name where the system cannot with nanoseconds.
func (f *diskFile) Chtimes(mtime time.Time) error {
	err := futimes(f.fd, mtime)
	if errors.Is(err, errors.ErrUnsupported) {
		return f.disk.Chtimes(f.name, mtime)
	}
	return f.fail("chtimes", err)
}

// Datasync takes a file system that cannot sync for one that need not.
func (f *diskFile) Datasync() error { return f.fail("datasync", unlessUnsupported(datasync(f.fd))) }

func (f *diskFile) Close() error { return f.fail("close", unix.Close(f.fd)) }

// user is whom the files of this process belong to.
var user = uint32(os.Geteuid())

// infoOf returns what fstat says. What is no file, folder or symlink is irregular.
func infoOf(st *unix.Stat_t) Info {
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	default:
		mode |= fs.ModeIrregular
	}
	sec, nsec := st.Mtim.Unix()
	return Info{
		Mode: mode, Size: st.Size, ModTime: time.Unix(sec, nsec), Shared: st.Uid != user || st.Mode&0o022 != 0,
		Inode: uint64(st.Ino), Device: uint64(st.Dev), //nolint:unconvert // each system has its own types
	}
}
