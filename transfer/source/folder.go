package source

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"
)

// openFolder opens a folder in parent that Lstat has shown to be one. It is an *transfer.Error when it is another meanwhile, or a symlink.
func openFolder(op string, parent *os.Root, name, path string, was fs.FileInfo) (*os.Root, error) {
	root, err := parent.OpenRoot(name + "/.") // which waits for nobody if it is a FIFO by now
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, changed(op, path, "it was a folder a moment ago")
	}
	if err != nil {
		return nil, err
	}
	now, err := root.Stat(".")
	if err == nil && !os.SameFile(was, now) {
		err = changed(op, path, "it was another folder a moment ago")
	}
	if err != nil {
		_ = root.Close() // it was not used
		return nil, err
	}
	return root, nil
}

// maxFolders is how many folders are kept open for the files in them, beside those that are in use.
const maxFolders = 64

// folder is one that is open, for as long as anybody uses it.
type folder struct {
	root *os.Root
	refs int    // with the table's own
	used uint64 // when it was asked for last
}

// folders are those that files were opened in lately. So a file costs one name and not its whole path, and no part of the path is
// looked up, nor replaced, behind our back.
type folders struct {
	mu     sync.Mutex
	open   map[string]*folder // by path
	clock  uint64
	closed bool
}

// get returns the folder of a path, which is t's or below it, and is to be put back. Of a file at the top, the path is its own.
func (f *folders) get(t *top, p string) (*folder, error) {
	if d, err := f.have(p); d != nil || err != nil {
		return d, err
	}
	if p == t.name || t.file != "" {
		root, err := t.root.OpenRoot(".")
		if err != nil {
			return nil, err
		}
		return f.keep(p, root)
	}
	up, err := f.get(t, path.Dir(p))
	if err != nil {
		return nil, err
	}
	defer f.put(up)
	name := path.Base(p)
	fi, err := up.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, changed("open", p, "the folder is gone")
	case err != nil:
		return nil, err
	case !fi.IsDir():
		return nil, changed("open", p, "it was a folder, and is %s now", what(fi.Mode()))
	}
	root, err := openFolder("open", up.root, name, p, fi)
	if err != nil {
		return nil, err
	}
	return f.keep(p, root)
}

// have returns the folder if it is open.
func (f *folders) have(p string) (*folder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fs.ErrClosed
	}
	d := f.open[p]
	if d != nil {
		d.refs++
		f.clock++
		d.used = f.clock
	}
	return d, nil
}

// keep makes root the folder of a path, unless another goroutine was first.
func (f *folders) keep(p string, root *os.Root) (*folder, error) {
	var closing []*os.Root
	defer func() {
		for _, root := range closing {
			_ = root.Close() // it was only read
		}
	}()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		closing = append(closing, root)
		return nil, fs.ErrClosed
	}
	d := f.open[p]
	if d == nil {
		if len(f.open) >= maxFolders {
			closing = f.evictLocked(closing)
		}
		d = &folder{root: root, refs: 1}
		f.open[p] = d
	} else {
		closing = append(closing, root)
	}
	d.refs++
	f.clock++
	d.used = f.clock
	return d, nil
}

// evictLocked takes the folder that was not asked for longest out of the table.
func (f *folders) evictLocked(closing []*os.Root) []*os.Root {
	oldest := ""
	for p, d := range f.open {
		if oldest == "" || d.used < f.open[oldest].used {
			oldest = p
		}
	}
	d := f.open[oldest]
	delete(f.open, oldest)
	if d.refs--; d.refs == 0 {
		closing = append(closing, d.root)
	}
	return closing
}

// put gives back what get returned.
func (f *folders) put(d *folder) {
	f.mu.Lock()
	d.refs--
	last := d.refs == 0
	f.mu.Unlock()
	if last {
		_ = d.root.Close() // it was only read
	}
}

// close closes all that are not in use, and the others when they are put back.
func (f *folders) close() {
	f.mu.Lock()
	open := f.open
	f.open, f.closed = nil, true
	f.mu.Unlock()
	for _, d := range open {
		f.put(d)
	}
}
