package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// Options configure Walk and its Tree. Nil and the zero value are useful.
type Options struct {
	// Rules limit what may be sent: Portable refuses names that Windows or macOS cannot store, Symlinks sends symlinks that lead to inside
	// the transfer, and the rest are limits, with the defaults of package manifest.
	Rules manifest.Rules

	// OnLeftOut, if not nil, lets Walk leave out items that cannot be sent: devices, FIFOs and sockets, files of size 0 that are not empty (as
	// in /proc), unreadable items, symlinks that are not sent, and names that Rules reject. A folder is left out with everything in it. Walk's
	// goroutine calls OnLeftOut for each item, with its entry's path or the path that Walk was given; the error is an *transfer.Error. Tree.LeftOut
	// counts them. If each of Walk's paths is left out, Walk returns ErrAllLeftOut. If OnLeftOut is nil, Walk fails with the first such item.
	// Staging directories are left out silently.
	OnLeftOut func(path string, reason error)

	// OnClamped, if not nil, is called for each file or folder whose modification time is not between 1677 and 2262. The nearest time in that
	// range is sent.
	OnClamped func(path string, at time.Time)

	// OnFound, if not nil, is called with the number of entries and of bytes found so far, from time to time and at the end, by Walk's
	// goroutine.
	OnFound func(entries int, bytes int64)

	// Cache keeps the hashes of large files from one transfer to the next. If nil, nothing is kept. The Tree does not close it.
	Cache *Cache
}

const (
	listBatch  = 4096 // names read at a time
	listExcess = 1 << 16
	tellEvery  = 1000 // entries
)

// Walk finds the files that the paths lead to. Each path is one entry at the top of the transfer, under its last name, or the folder's if
// that is "." or ".."; the root of all folders is "root". A folder is sent with all its contents, even on other disks, and is an entry
// itself. A path that is a symlink is followed; symlinks below it are not.
//
// The error is an *transfer.Error if two paths have the same name, if a path does not exist, if Rules reject an item, or if the disk fails. It matches
// ErrAllLeftOut if nothing is left to send. It is ctx's error if that is done.
func Walk(ctx context.Context, paths []string, o *Options) (*Tree, error) {
	tree, err := find(ctx, paths, o)
	if left := (*leftError)(nil); errors.As(err, &left) {
		err = left.err
	}
	return tree, err
}

func find(ctx context.Context, paths []string, o *Options) (*Tree, error) {
	w := walker{ctx: ctx}
	if o != nil {
		w.opts = *o
	}
	var err error
	if w.checker, err = manifest.NewChecker(w.opts.Rules); err != nil {
		return nil, wrap("walk", "", err)
	}
	tops, err := w.openTops(paths)
	if err != nil {
		return nil, err
	}
	sent := tops[:0]
	for i := range tops {
		err := w.top(&tops[i])
		if err == nil {
			sent = append(sent, tops[i])
			continue
		}
		if len(w.entries) == int(tops[i].first) { // nothing of it was accepted
			err = w.missTop(err)
		}
		if err != nil {
			closeTops(append(sent, tops[i:]...))
			return nil, err
		}
		closeTops(tops[i : i+1])
	}
	for _, m := range w.missed {
		_ = w.leave(m.err, m.why) // there is an OnLeftOut
	}
	if len(sent) == 0 {
		return nil, w.allLeftOut()
	}
	w.tell()
	return newTree(&w, sent), nil
}

// walker is the state of one Walk. It walks folders in the order of the manifest, so that only the names in each folder are sorted.
type walker struct {
	ctx     context.Context
	opts    Options
	checker *manifest.Checker
	entries []manifest.Entry
	files   int
	missed  []*leftError // paths given to Walk that are left out
	left    LeftOut
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
	defer func(skip func(string, error)) { w.opts.OnLeftOut = skip }(w.opts.OnLeftOut)
	w.opts.OnLeftOut = nil // an item that is requested by name is not left out
	if err = w.file(t.root, name, t.name, fi); err == nil && len(w.entries) == int(t.first) {
		err = changed("walk", t.given, "it is gone")
	}
	if e := (*fault.Error)(nil); errors.As(err, &e) {
		e.Path = t.given
	}
	return err
}

// folder adds the folder of root, and its contents.
func (w *walker) folder(root *os.Root, path string, fi fs.FileInfo, names []string) error {
	e := manifest.Entry{Kind: manifest.KindDir, Perm: uint16(fi.Mode().Perm()), ModTime: w.timeOf(fi, path), Path: path}
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
	most := w.checker.Room() + listExcess // listExcess is for items that are left out
	for {
		more, err := d.Readdirnames(listBatch)
		names = append(names, more...)
		switch {
		case w.ctx.Err() != nil:
			return nil, w.ctx.Err()
		case len(names) > most:
			return nil, errorf("walk", path, fault.CodeTooLarge, "there are more than %d files in it: send them in parts, or as an archive", most)
		case err == io.EOF:
			slices.Sort(names)
			return names, nil
		case err != nil:
			return nil, wrap("walk", path, err)
		}
	}
}

// child adds the item called name in the folder of root.
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
		return w.leave(wrap("walk", path, err), notNamed)
	}
	switch mode := fi.Mode(); {
	case mode.IsDir():
		return w.subfolder(root, name, path, fi)
	case mode.IsRegular():
		return w.file(root, name, path, fi)
	case mode&fs.ModeSymlink != 0:
		return w.symlink(root, name, path, fi)
	}
	return w.leave(errorf("walk", path, fault.CodePathUnsafe, "it is %s: only files, folders and symlinks are sent", what(fi.Mode())), notSent)
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
		return errorf("walk", path, fault.CodeTooLarge, "it has %d bytes, and %d are the most", fi.Size(), int64(b3tree.MaxSize))
	}
	e := manifest.Entry{
		Kind:    manifest.KindFile,
		Perm:    uint16(fi.Mode().Perm()),
		Size:    fi.Size(),
		ModTime: w.timeOf(fi, path),
		Path:    path,
	}
	if mayHaveHoles(fi) || !mayRead(fi) || fi.Size() == 0 {
		f, err := root.OpenFile(name, openFlags, 0)
		if err != nil {
			return w.leaveDenied(path, err)
		}
		isAsSaid := fi.Size() > 0 || isEmpty(f)
		if mayHaveHoles(fi) && hasHole(f, fi.Size()) {
			e.Flags = manifest.FlagSparse
		}
		_ = f.Close() // it was only read
		if !isAsSaid {
			return w.leave(errorf("walk", path, fault.CodePathUnsafe,
				"it has a size of 0 but is not empty, like the files of /proc: send a copy of it"), notSent)
		}
	}
	w.files++
	return w.add(e)
}

// isEmpty reports whether a file of no bytes really has nothing to read.
func isEmpty(f *os.File) bool {
	_, err := f.Read(make([]byte, 1))
	return err == io.EOF
}

func (w *walker) symlink(root *os.Root, name, path string, fi fs.FileInfo) error {
	if !w.opts.Rules.Symlinks {
		return w.leave(errorf("walk", path, fault.CodePathUnsafe, "it is a symlink: allow them, or send what it leads to"), notFollowed)
	}
	target, err := root.Readlink(name)
	if err != nil {
		return w.leaveDenied(path, err)
	}
	target = filepath.ToSlash(target)
	if err := manifest.CheckTarget(path, target, w.opts.Rules); err != nil {
		return w.leave(wrap("walk", path, err), notFollowed)
	}
	return w.add(manifest.Entry{Kind: manifest.KindSymlink, ModTime: nanos(fi.ModTime()), Path: path, Target: target})
}

// The times that an entry can have.
var (
	firstTime = time.Unix(0, math.MinInt64)
	lastTime  = time.Unix(0, math.MaxInt64)
)

// nanos returns a time as an entry has it: the nearest one if it is out of range.
func nanos(at time.Time) int64 {
	switch {
	case at.Before(firstTime):
		return math.MinInt64
	case at.After(lastTime):
		return math.MaxInt64
	}
	return at.UnixNano()
}

// timeOf returns the time of a file or folder, and calls OnClamped if it is out of range.
func (w *walker) timeOf(fi fs.FileInfo, path string) int64 {
	at := fi.ModTime()
	if w.opts.OnClamped != nil && (at.Before(firstTime) || at.After(lastTime)) {
		w.opts.OnClamped(path, at)
	}
	return nanos(at)
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
	if w.opts.OnFound != nil {
		w.opts.OnFound(len(w.entries), w.checker.Bytes())
	}
}

// leaveDenied leaves out an unreadable item and ignores one that has disappeared since its folder was read. It fails with any other error.
func (w *walker) leaveDenied(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	e := wrap("walk", path, err)
	if e.Code != fault.CodeDenied {
		return e
	}
	return w.leave(e, notNamed)
}

func (w *walker) leave(e *fault.Error, why reason) error {
	if w.opts.OnLeftOut == nil {
		return &leftError{e, why}
	}
	w.left.add(e, why)
	w.opts.OnLeftOut(e.Path, e)
	return nil
}

// missTop records a path of Walk that cannot be sent. It returns err if err has another reason.
func (w *walker) missTop(err error) error {
	e := (*fault.Error)(nil)
	if w.opts.OnLeftOut == nil || !errors.As(err, &e) || e.Code != fault.CodeDenied && e.Code != fault.CodePathUnsafe {
		return err
	}
	m := &leftError{err: e}
	_ = errors.As(err, &m)
	w.missed = append(w.missed, m)
	return nil
}

// allLeftOut returns the error of a Walk that left out each of its paths. The code is the first path's, and so is the path if it is the only
// one.
func (w *walker) allLeftOut() error {
	e := &fault.Error{Op: "walk", Area: fault.AreaSource, Code: w.missed[0].err.Code, Text: "left out " + w.left.String(), Err: ErrAllLeftOut}
	if len(w.missed) == 1 {
		e.Path = w.missed[0].err.Path
	}
	return e
}

// what names the kind of a mode that is not sent.
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
