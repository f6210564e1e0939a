package staging

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"time"
)

func (d *memDisk) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkDir("open", name, 0o500); err != nil {
		return nil, err
	}
	if flag&syscall.O_CREAT == 0 {
		n := d.names[name]
		if n == nil {
			return nil, notFound("open", name)
		}
		if n.mode.Perm()&0o600 != 0o600 {
			return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
		}
		return &memFile{disk: d, node: n, name: name}, nil
	}
	if flag&syscall.O_EXCL == 0 {
		panic("BUG: what is made is made with O_EXCL")
	}
	if err := d.op("create " + name); err != nil {
		return nil, err
	}
	n, err := d.make(name, perm&^(0o022|d.umask))
	return &memFile{disk: d, node: n, name: name}, err
}

func (d *memDisk) Mkdir(name string, perm fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("mkdir " + name); err != nil {
		return err
	}
	_, err := d.make(name, fs.ModeDir|perm)
	return err
}

func (d *memDisk) Symlink(target, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("symlink " + name); err != nil {
		return err
	}
	n, err := d.make(name, fs.ModeSymlink|0o777)
	if err == nil {
		n.target = target
	}
	return err
}

func (d *memDisk) Lstat(name string) (Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isCut() {
		return Info{}, errCut
	}
	if err := d.checkDir("lstat", name, 0o500); err != nil {
		return Info{}, err
	}
	n := d.names[name]
	if n == nil {
		return Info{}, notFound("lstat", name)
	}
	return n.info(), nil
}

func (n *node) info() Info {
	return Info{Mode: n.mode, Size: int64(len(n.data)), ModTime: n.mtime, Inode: n.inode, Shared: n.shared}
}

func (d *memDisk) Readlink(name string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	if n == nil || n.mode&fs.ModeSymlink == 0 {
		return "", notFound("readlink", name)
	}
	return n.target, nil
}

func (d *memDisk) ReadDir(dir string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.readDir(dir), nil
}

func (d *memDisk) readDir(dir string) []string {
	var all []string
	for name := range d.names {
		if name != "." && path.Dir(name) == dir {
			all = append(all, path.Base(name))
		}
	}
	slices.Sort(all)
	return all
}

func (d *memDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("remove " + name); err != nil {
		return err
	}
	if err := d.checkDir("remove", name, 0o700); err != nil {
		return err
	}
	n := d.names[name]
	if n == nil {
		return notFound("remove", name)
	}
	if len(d.readDir(name)) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	d.change(func(m map[string]*node) { delete(m, name) })
	d.drop(n)
	return nil
}

func (d *memDisk) Rename(from, to string) error {
	if d.between != nil {
		d.between()
	}
	return d.rename(from, to, false)
}

func (d *memDisk) RenameNew(from, to string) error {
	if d.noNew {
		return errors.ErrUnsupported
	}
	if d.between != nil {
		d.between()
	}
	return d.rename(from, to, true)
}

func (d *memDisk) rename(from, to string, isNew bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("rename " + from + " " + to); err != nil {
		return err
	}
	n, old := d.names[from], d.names[to]
	switch {
	case n == nil:
		return notFound("rename", from)
	case old != nil && (isNew || old.mode.IsDir()):
		return exists("rename", to)
	case old == n:
		return nil
	case old != nil:
		d.drop(old)
	}
	if err := d.checkDir("rename", to, 0o700); err != nil {
		return err
	}
	d.change(func(m map[string]*node) { delete(m, from); m[to] = n })
	return nil
}

func (d *memDisk) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[from]
	if n == nil {
		return notFound("link", from)
	}
	return d.link(n, from, to)
}

// link gives a node, of the name from, another name.
func (d *memDisk) link(n *node, from, to string) error {
	if d.noLinks {
		return &fs.PathError{Op: "link", Path: to, Err: syscall.EPERM}
	}
	if err := d.op("link " + from + " " + to); err != nil {
		return err
	}
	if err := d.checkDir("link", to, 0o700); err != nil {
		return err
	}
	if d.names[to] != nil {
		return exists("link", to)
	}
	n.links++
	d.change(func(m map[string]*node) { m[to] = n })
	return nil
}

func (d *memDisk) Chtimes(name string, mtime time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("chtimes " + name); err != nil {
		return err
	}
	if d.names[name] == nil {
		return notFound("chtimes", name)
	}
	d.names[name].mtime = d.kept(mtime)
	return nil
}

func (d *memDisk) Chmod(name string, perm fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("chmod " + name); err != nil {
		return err
	}
	n := d.names[name]
	if n == nil {
		return notFound("chmod", name)
	}
	n.mode = perm
	return nil
}

func (d *memDisk) ChmodDir(name string, perm fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("chmod " + name); err != nil {
		return err
	}
	n := d.names[name]
	if n == nil || !n.mode.IsDir() {
		return fs.ErrInvalid
	}
	n.mode = fs.ModeDir | perm
	return nil
}

func (d *memDisk) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("syncdir " + name); err != nil {
		return err
	}
	for _, change := range d.late {
		change(d.durable)
	}
	d.late = nil
	return nil
}
