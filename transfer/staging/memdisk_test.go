package staging

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errCut is what everything gets once the power is cut.
var errCut = errors.New("the power is cut")

// node is a file, directory or link of a memDisk.
type node struct {
	inode  uint64
	mode   fs.FileMode
	mtime  time.Time
	target string
	data   []byte
	synced []byte
	late   []func([]byte) []byte // what was done to data since, in order
	links  int
}

// memDisk is a disk in memory that keeps, at a cut, only what was synced, and of the rest what it likes: of names a beginning, as file
// systems with a journal do; of writes any, whole or torn. It gives inodes of removed files to the next ones.
type memDisk struct {
	names   map[string]*node
	durable map[string]*node
	late    []func(map[string]*node)
	next    uint64
	free    []uint64

	mu      sync.Mutex
	locked  map[string]bool
	ops     int
	cutAt   int           // the operation at which the power is cut; 0: none
	fail    map[int]error // operations that fail once
	noLinks bool

	noSyncAll bool
	written   func() // called after each write, if not nil
	reading   func() // and before each read
	rng       *rand.Rand
	trace     []string
}

func newDisk(seed uint64) *memDisk {
	root := &node{inode: 1, mode: fs.ModeDir | 0o755, links: 1}
	return &memDisk{
		names: map[string]*node{".": root}, durable: map[string]*node{".": root}, next: 2,
		fail: map[int]error{}, locked: map[string]bool{}, rng: rand.New(rand.NewPCG(seed, 0)),
	}
}

// op counts an operation that changes something.
func (d *memDisk) op(what string) error {
	d.ops++
	d.trace = append(d.trace, what)
	if d.cutAt > 0 && d.ops >= d.cutAt {
		return errCut
	}
	return d.fail[d.ops]
}

func (d *memDisk) isCut() bool { return d.cutAt > 0 && d.ops >= d.cutAt }

// cut returns the disk after the power came back.
func (d *memDisk) cut() *memDisk {
	names := maps.Clone(d.durable)
	for _, change := range d.late[:d.rng.IntN(len(d.late)+1)] {
		change(names)
	}
	out := &memDisk{names: names, durable: maps.Clone(names), next: d.next, free: d.free, trace: append(d.trace, "CUT"), fail: map[int]error{}, locked: map[string]bool{}, rng: d.rng, noLinks: d.noLinks,
		noSyncAll: d.noSyncAll}
	seen := map[*node]bool{}
	for _, n := range names {
		n.links = 0
	}
	for _, n := range names {
		if n.links++; seen[n] {
			continue
		}
		seen[n] = true
		data := slices.Clone(n.synced)
		for _, write := range n.late {
			if d.rng.IntN(2) == 0 {
				data = write(data)
			}
		}
		n.data, n.synced, n.late = data, slices.Clone(data), nil
	}
	return out
}

// kill returns the disk after the process has ended.
func (d *memDisk) kill() *memDisk {
	return &memDisk{
		names: d.names, durable: d.durable, late: d.late, next: d.next, free: d.free, trace: append(d.trace, "CUT"), fail: map[int]error{}, locked: map[string]bool{},
		rng: d.rng, noLinks: d.noLinks, noSyncAll: d.noSyncAll,
	}
}

// change changes the names, now and, at the next sync or with luck, for ever.
func (d *memDisk) change(f func(map[string]*node)) {
	f(d.names)
	d.late = append(d.late, f)
}

func notFound(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT} }
func exists(op, name string) error   { return &fs.PathError{Op: op, Path: name, Err: syscall.EEXIST} }

// checkDir reports a name whose folder is none.
func (d *memDisk) checkDir(op, name string) error {
	if up := d.names[path.Dir(name)]; up == nil || !up.mode.IsDir() {
		return notFound(op, name)
	}
	return nil
}

func (d *memDisk) make(name string, mode fs.FileMode) (*node, error) {
	if err := d.checkDir("make", name); err != nil {
		return nil, err
	}
	if d.names[name] != nil {
		return nil, exists("make", name)
	}
	n := &node{mode: mode, links: 1, mtime: time.Now()}
	if last := len(d.free) - 1; last >= 0 {
		n.inode, d.free = d.free[last], d.free[:last]
	} else {
		n.inode, d.next = d.next, d.next+1
	}
	d.change(func(m map[string]*node) { m[name] = n })
	return n, nil
}

func (d *memDisk) drop(n *node) {
	if n.links--; n.links == 0 {
		d.free = append(d.free, n.inode)
	}
}

func (d *memDisk) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
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
	n, err := d.make(name, perm&^0o022)
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
	n := d.names[name]
	if n == nil {
		return Info{}, notFound("lstat", name)
	}
	return n.info(), nil
}

func (n *node) info() Info {
	return Info{Mode: n.mode, Size: int64(len(n.data)), ModTime: n.mtime, Inode: n.inode}
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
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("rename " + from + " " + to); err != nil {
		return err
	}
	n, old := d.names[from], d.names[to]
	switch {
	case n == nil:
		return notFound("rename", from)
	case old != nil && old.mode.IsDir():
		return exists("rename", to)
	case old == n:
		return nil
	case old != nil:
		d.drop(old)
	}
	if err := d.checkDir("rename", to); err != nil {
		return err
	}
	d.change(func(m map[string]*node) { delete(m, from); m[to] = n })
	return nil
}

func (d *memDisk) Link(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noLinks {
		return &fs.PathError{Op: "link", Path: to, Err: syscall.EPERM}
	}
	if err := d.op("link " + from + " " + to); err != nil {
		return err
	}
	n := d.names[from]
	if n == nil {
		return notFound("link", from)
	}
	if err := d.checkDir("link", to); err != nil {
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
	d.names[name].mtime = mtime
	return nil
}

func (d *memDisk) Chmod(name string, perm fs.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op("chmod " + name); err != nil {
		return err
	}
	d.names[name].mode = perm
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

func (d *memDisk) Room() (bytes, inodes int64, err error) { return 1 << 30, -1, nil }

func (d *memDisk) Close() error { return nil }

// outside returns what is in the destination and no staging directory.
func (d *memDisk) outside() map[string]*node {
	out := map[string]*node{}
	for name, n := range d.names {
		if name != "." && !strings.HasPrefix(name, ".xfer-") {
			out[name] = n
		}
	}
	return out
}
