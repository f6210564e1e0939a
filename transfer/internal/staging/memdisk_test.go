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
	shared bool
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
	noNew   bool                      // there is no RenameNew
	noSelf  bool                      // there is no File.Link
	umask   fs.FileMode               // besides 022
	shares  bool                      // all that is made is Shared, as on a FAT
	keeps   func(time.Time) time.Time // what becomes of a time, if not nil
	between func()                    // called before a Rename, as another program may do something then

	noSyncAll bool
	noPunch   bool
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
	out := d.after(names, maps.Clone(names))
	out.free = slices.DeleteFunc(slices.Clone(d.free), func(inode uint64) bool { // what was removed may be back
		for _, n := range names {
			if n.inode == inode {
				return true
			}
		}
		return false
	})
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
	out := d.after(d.names, d.durable)
	out.late = d.late
	return out
}

// after returns the disk with those names, which nobody uses and nothing happens to.
func (d *memDisk) after(names, durable map[string]*node) *memDisk {
	return &memDisk{
		names: names, durable: durable, next: d.next, free: d.free, fail: map[int]error{}, locked: map[string]bool{}, rng: d.rng,
		trace: append(d.trace, "CUT"), noLinks: d.noLinks, noNew: d.noNew, keeps: d.keeps, noSyncAll: d.noSyncAll, noPunch: d.noPunch,
	}
}

// change changes the names, now and, at the next sync or with luck, for ever.
func (d *memDisk) change(f func(map[string]*node)) {
	f(d.names)
	d.late = append(d.late, f)
}

func notFound(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT} }
func exists(op, name string) error   { return &fs.PathError{Op: op, Path: name, Err: syscall.EEXIST} }

// checkDir reports a name whose folder is none, or does not allow what need says.
func (d *memDisk) checkDir(op, name string, need fs.FileMode) error {
	up := d.names[path.Dir(name)]
	if up == nil || !up.mode.IsDir() {
		return notFound(op, name)
	}
	if up.mode&need != need {
		return &fs.PathError{Op: op, Path: name, Err: syscall.EACCES}
	}
	if name == "." || path.Dir(name) == "." {
		return nil
	}
	return d.checkDir(op, path.Dir(name), 0o500) // as of who opens each folder
}

// kept returns what the disk makes of a time.
func (d *memDisk) kept(at time.Time) time.Time {
	if d.keeps == nil {
		return at
	}
	return d.keeps(at)
}

func (d *memDisk) make(name string, mode fs.FileMode) (*node, error) {
	if err := d.checkDir("make", name, 0o700); err != nil {
		return nil, err
	}
	if d.names[name] != nil {
		return nil, exists("make", name)
	}
	n := &node{mode: mode, links: 1, mtime: time.Now(), shared: d.shares}
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
