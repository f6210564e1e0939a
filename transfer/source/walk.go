package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/manifest"
)

// Options say how Walk finds files, and what the Tree does with them. Nil, and the zero value, are good.
type Options struct {
	// Rules say what may be sent: Portable refuses what Windows or macOS cannot keep, Symlinks sends those that lead to inside of
	// the transfer, and the rest are limits, with the defaults of package manifest.
	Rules manifest.Rules

	// Skip is told of what is left out, by its entry's path: devices, FIFOs and sockets, what this user may not read, symlinks that
	// are not sent, and names that Rules do not take; of a folder, everything that is in it is left out as well. The error is an
	// *Error. If nil, the first such thing is what Walk fails with. Staging directories are left out without a word. What Walk is
	// given by name is never left out. It is called by Walk's goroutine.
	Skip func(path string, reason error)

	// Found is told how many entries, and how many bytes of files, have been found: now and then, and at the end, by Walk's
	// goroutine. If nil, nobody is.
	Found func(entries int, bytes int64)

	// Cache keeps the hashes of large files from one transfer to the next. If nil, nothing is kept. It is not closed by the Tree.
	Cache *Cache
}

const (
	listBatch  = 4096 // names that are read at once
	listExcess = 1 << 16
	tellEvery  = 1000 // entries
)

// Walk finds the files that the paths lead to. Each path is one entry at the top of the transfer, by its last name, or that of the
// folder if that is "." or ".."; the root of all folders is "root". A folder is sent with all that is in it, also on other disks, and
// is an entry itself. A path that is a symlink is followed; below it none is.
//
// It is an *Error when two paths have one name, when something is not what Rules take, or the disk fails; and ctx's error when that
// is done.
func Walk(ctx context.Context, paths []string, o *Options) (*Tree, error) {
	w := walker{ctx: ctx}
	if o != nil {
		w.opts = *o
	}
	var err error
	if w.checker, err = manifest.NewChecker(w.opts.Rules); err != nil {
		return nil, wrap("walk", "", err)
	}
	tops, err := openTops(paths)
	if err != nil {
		return nil, err
	}
	for i := range tops {
		if err := w.top(&tops[i]); err != nil {
			closeTops(tops)
			return nil, err
		}
	}
	w.tell()
	return newTree(&w, tops), nil
}

// walker is what one Walk knows. Folders are walked in the order of the manifest, so that nothing is sorted but the names in each.
type walker struct {
	ctx     context.Context
	opts    Options
	checker *manifest.Checker
	entries []manifest.Entry
	files   int
}

func (w *walker) top(t *top) error {
	t.first = uint32(len(w.entries))
	if err := manifest.CheckPath(t.name, w.opts.Rules); err != nil {
		return wrap("walk", t.given, err)
	}
	name := t.file
	if name == "" {
		name = "."
	}
	fi, err := t.root.Lstat(name)
	if err != nil {
		return wrap("walk", t.given, err)
	}
	if t.file == "" {
		names, err := w.list(t.root, t.given)
		if err != nil {
			return err
		}
		return w.folder(t.root, t.name, fi, names)
	}
	if !fi.Mode().IsRegular() {
		return changed("walk", t.given, "it is %s now", what(fi.Mode()))
	}
	defer func(skip func(string, error)) { w.opts.Skip = skip }(w.opts.Skip)
	w.opts.Skip = nil // what is asked for by name is not left out
	if err = w.file(t.root, name, t.name, fi); err == nil && len(w.entries) == int(t.first) {
		err = changed("walk", t.given, "it is gone")
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		e.Path = t.given
	}
	return err
}

// folder adds the folder that root is, and what is in it.
func (w *walker) folder(root *os.Root, path string, fi fs.FileInfo, names []string) error {
	e := manifest.Entry{Kind: manifest.KindDir, Perm: uint16(fi.Mode().Perm()), ModTime: fi.ModTime().UnixNano(), Path: path}
	if err := w.add(e); err != nil {
		return err
	}
	for _, name := range names {
		if err := w.child(root, name, path+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// list returns the names in a folder, in order.
func (w *walker) list(root *os.Root, path string) ([]string, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, wrap("walk", path, err)
	}
	defer func() { _ = d.Close() }() // it was only read
	var names []string
	most := w.checker.Room() + listExcess // of what is left out
	for {
		more, err := d.Readdirnames(listBatch)
		names = append(names, more...)
		switch {
		case w.ctx.Err() != nil:
			return nil, w.ctx.Err()
		case len(names) > most:
			return nil, errorf("walk", path, manifest.CodeTooLarge, "there are more than %d files in it: send them in parts, or as an archive", most)
		case err == io.EOF:
			slices.Sort(names)
			return names, nil
		case err != nil:
			return nil, wrap("walk", path, err)
		}
	}
}

// child adds what has a name in the folder that root is.
func (w *walker) child(root *os.Root, name, path string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	fi, err := root.Lstat(name)
	switch {
	case err != nil:
		return w.leaveDenied(path, err)
	case fi.IsDir() && strings.HasPrefix(name, manifest.StagingPrefix):
		return nil
	}
	if err := manifest.CheckPath(path, w.opts.Rules); err != nil {
		return w.leave(wrap("walk", path, err))
	}
	switch mode := fi.Mode(); {
	case mode.IsDir():
		return w.subfolder(root, name, path, fi)
	case mode.IsRegular():
		return w.file(root, name, path, fi)
	case mode&fs.ModeSymlink != 0:
		return w.symlink(root, name, path, fi)
	}
	return w.leave(errorf("walk", path, manifest.CodePathUnsafe, "it is %s: only files, folders and symlinks are sent", what(fi.Mode())))
}

func (w *walker) subfolder(parent *os.Root, name, path string, fi fs.FileInfo) error {
	root, err := openFolder("walk", parent, name, path, fi)
	if err != nil {
		return w.leaveDenied(path, err)
	}
	defer func() { _ = root.Close() }() // it was only read
	names, err := w.list(root, path)
	if err != nil {
		return w.leaveDenied(path, err)
	}
	return w.folder(root, path, fi, names)
}

func (w *walker) file(root *os.Root, name, path string, fi fs.FileInfo) error {
	if fi.Size() > b3tree.MaxSize {
		return errorf("walk", path, manifest.CodeTooLarge, "it has %d bytes, and %d are the most", fi.Size(), int64(b3tree.MaxSize))
	}
	e := manifest.Entry{
		Kind:    manifest.KindFile,
		Perm:    uint16(fi.Mode().Perm()),
		Size:    fi.Size(),
		ModTime: fi.ModTime().UnixNano(),
		Path:    path,
	}
	if mayHaveHoles(fi) || !mayRead(fi) {
		f, err := root.OpenFile(name, openFlags, 0)
		if err != nil {
			return w.leaveDenied(path, err)
		}
		if mayHaveHoles(fi) && hasHole(f, fi.Size()) {
			e.Flags = manifest.FlagSparse
		}
		_ = f.Close() // it was only read
	}
	w.files++
	return w.add(e)
}

func (w *walker) symlink(root *os.Root, name, path string, fi fs.FileInfo) error {
	if !w.opts.Rules.Symlinks {
		return w.leave(errorf("walk", path, manifest.CodePathUnsafe, "it is a symlink: allow them, or send what it leads to"))
	}
	target, err := root.Readlink(name)
	if err != nil {
		return w.leaveDenied(path, err)
	}
	target = filepath.ToSlash(target)
	if err := manifest.CheckTarget(path, target, w.opts.Rules); err != nil {
		return w.leave(wrap("walk", path, err))
	}
	return w.add(manifest.Entry{Kind: manifest.KindSymlink, ModTime: fi.ModTime().UnixNano(), Path: path, Target: target})
}

func (w *walker) add(e manifest.Entry) error {
	e.ID = uint32(len(w.entries))
	if err := w.checker.Add(e); err != nil {
		return wrap("walk", e.Path, err)
	}
	if w.entries = append(w.entries, e); len(w.entries)%tellEvery == 0 {
		w.tell()
	}
	return nil
}

func (w *walker) tell() {
	if w.opts.Found != nil {
		w.opts.Found(len(w.entries), w.checker.Bytes())
	}
}

// leaveDenied leaves out what may not be read, and what is gone since its folder was, and fails with any other error.
func (w *walker) leaveDenied(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	e := wrap("walk", path, err)
	if e.Code != CodeDenied {
		return e
	}
	return w.leave(e)
}

func (w *walker) leave(e *Error) error {
	if w.opts.Skip == nil {
		return e
	}
	w.opts.Skip(e.Path, e)
	return nil
}

// what says what a mode is that is not sent.
func what(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "a symlink"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	case mode.IsDir():
		return "a folder"
	}
	return "no regular file"
}
