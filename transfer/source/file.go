package source

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync/atomic"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// maxReadFile is the largest file, in bytes, that readEntry reads.
const maxReadFile = 16 << 20

// A file is an open file of a Tree. Goroutines may use it concurrently.
type file struct {
	tree   *Tree
	entry  *manifest.Entry
	folder *folder
	name   string // in folder
	f      *os.File
	info   fs.FileInfo // when it was opened

	closed atomic.Bool
}

// openEntry opens the file with an id. The error is an *transfer.Error with CodeSourceChanged if the file is not as Walk found it: gone, replaced, or
// with another size or time.
func (t *Tree) openEntry(id uint32) (*file, error) {
	f, err := t.open("open", id)
	if err != nil {
		return nil, err
	}
	if err := f.checkName("open", f.info); err != nil {
		_ = f.Close() // it was not read
		return nil, err
	}
	return f, nil
}

// open is openEntry without the check of the file's name.
func (t *Tree) open(op string, id uint32) (*file, error) {
	e, err := t.file(op, id)
	if err != nil {
		return nil, err
	}
	top, dir := t.topOf(id), e.Path
	if top.file == "" {
		dir = path.Dir(dir)
	}
	d, err := t.folders.get(top, dir)
	if err != nil {
		return nil, wrap(op, e.Path, err)
	}
	f := &file{tree: t, entry: e, folder: d, name: top.file}
	if f.name == "" {
		f.name = path.Base(e.Path)
	}
	if f.f, err = d.root.OpenFile(f.name, openFlags, 0); err != nil {
		err = f.whyNot(op, err)
		t.folders.put(d)
		return nil, err
	}
	if f.info, err = f.f.Stat(); err != nil {
		err = wrap(op, e.Path, err)
	} else {
		err = f.compare(op, f.info)
	}
	if err != nil {
		_ = f.Close() // it was not read
		return nil, err
	}
	return f, nil
}

// whyNot returns the error of a file that cannot be opened.
func (f *file) whyNot(op string, err error) error {
	fi, lerr := f.folder.root.Lstat(f.name)
	switch {
	case errors.Is(lerr, fs.ErrNotExist):
		return changed(op, f.entry.Path, "it is gone")
	case lerr == nil && !fi.Mode().IsRegular():
		return changed(op, f.entry.Path, "it is %s now", what(fi.Mode()))
	}
	return wrap(op, f.entry.Path, err)
}

// compare checks that the open file matches its entry.
func (f *file) compare(op string, fi fs.FileInfo) error {
	switch e := f.entry; {
	case !fi.Mode().IsRegular():
		return changed(op, e.Path, "it is %s now", what(fi.Mode()))
	case fi.Size() != e.Size:
		return changed(op, e.Path, "it has %d bytes now, and had %d", fi.Size(), e.Size)
	case nanos(fi.ModTime()) != e.ModTime:
		return changed(op, e.Path, "it was written to at %v", fi.ModTime())
	}
	return nil
}

// checkName checks that the file still has its name.
func (f *file) checkName(op string, fi fs.FileInfo) error {
	named, err := f.folder.root.Lstat(f.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return changed(op, f.entry.Path, "it is gone")
	case err != nil:
		return wrap(op, f.entry.Path, err)
	case !os.SameFile(named, fi):
		return changed(op, f.entry.Path, "another file has its name now")
	}
	return nil
}

// Check returns nil if the file is as Walk found it, so that all data read belongs to one file: it checks the file's size, its time, and
// that its name leads to it. Otherwise the error is an *transfer.Error with CodeSourceChanged. Check does not detect a write that keeps the time.
func (f *file) Check() error { return f.check("read") }

func (f *file) check(op string) error {
	fi, err := f.f.Stat()
	if err != nil {
		return wrap(op, f.entry.Path, err)
	}
	if err := f.compare(op, fi); err != nil {
		return err
	}
	return f.checkName(op, fi)
}

// ReadAt implements io.ReaderAt for a file that ends where its entry says. The error is an *transfer.Error with CodeSourceChanged if the file ends
// before that.
func (f *file) ReadAt(b []byte, off int64) (int, error) {
	var end error
	if off >= 0 && int64(len(b)) > f.entry.Size-off {
		b, end = b[:max(0, f.entry.Size-off)], io.EOF
	}
	if len(b) == 0 {
		return 0, end
	}
	n, err := f.f.ReadAt(b, off)
	switch err {
	case nil:
		return n, end
	case io.EOF:
		return n, changed("read", f.entry.Path, "it has only %d bytes now, and had %d", off+int64(n), f.entry.Size)
	}
	return n, wrap("read", f.entry.Path, err)
}

// Hole returns the end of the hole at off or, with hole false, of the data. A hole contains only zeros and need not be read. Where the
// system does not report holes, everything up to the end of the file is data. Each call costs two system calls, whatever the size.
func (f *file) Hole(off int64) (end int64, hole bool) {
	if off < 0 || off >= f.entry.Size {
		return f.entry.Size, false
	}
	return holeAt(f.f, off, f.entry.Size)
}

// Close closes the file. Later calls do nothing.
func (f *file) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	defer f.tree.folders.put(f.folder)
	if err := f.f.Close(); err != nil {
		return wrap("close", f.entry.Path, err)
	}
	return nil
}

// readEntry appends all bytes of the file with an id to buf, and returns the result; with an error, it returns buf unchanged. It fails like
// openEntry, ReadAt and Check, and with CodeTooLarge for a file of more than maxReadFile bytes.
func (t *Tree) readEntry(op string, id uint32, buf []byte) ([]byte, error) {
	f, err := t.open(op, id)
	if err != nil {
		return buf, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if f.entry.Size > maxReadFile {
		return buf, errorf(op, f.entry.Path, fault.CodeTooLarge, "it has %d bytes, and %d are read at once", f.entry.Size, maxReadFile)
	}
	start, end := len(buf), len(buf)+int(f.entry.Size)
	out := slices.Grow(buf, end-start)[:end]
	if _, err := f.ReadAt(out[start:], 0); err != nil {
		return buf, err
	}
	if err := f.check(op); err != nil {
		return buf, err
	}
	return out, nil
}
