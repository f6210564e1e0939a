package staging

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"
)

type memFile struct {
	disk *memDisk
	node *node
	name string

	closed bool
}

// lock locks the disk for one call of an open file.
func (f *memFile) lock() {
	f.disk.mu.Lock()
	if f.closed {
		f.disk.mu.Unlock()
		panic("BUG: " + f.name + " is used after Close")
	}
}

// do does to the data what f does, and with luck on the disk.
func (f *memFile) do(change func([]byte) []byte) {
	f.node.data = change(f.node.data)
	f.node.late = append(f.node.late, change)
	f.node.mtime = time.Now()
}

func writing(b []byte, off int64) func([]byte) []byte {
	b = slices.Clone(b)
	return func(data []byte) []byte {
		if grow := int(off) + len(b) - len(data); grow > 0 {
			data = append(data, make([]byte, grow)...)
		}
		copy(data[off:], b)
		return data
	}
}

// WriteAt that fails has written some of it.
func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	if f.disk.written != nil {
		defer f.disk.written()
	}
	f.lock()
	defer f.disk.mu.Unlock()
	err := f.disk.op("write " + f.name)
	n := len(b)
	if err != nil {
		n = f.disk.rng.IntN(len(b))
	}
	for at := 0; at < n; { // in two, so that a cut tears them
		end := min(n, at+max(1, len(b)/2))
		f.do(writing(b[at:end], off+int64(at)))
		at = end
	}
	return n, err
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if f.disk.reading != nil {
		f.disk.reading()
	}
	f.lock()
	defer f.disk.mu.Unlock()
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Truncate(size int64) error {
	f.lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.op("truncate " + f.name); err != nil {
		return err
	}
	f.do(func(data []byte) []byte {
		if int(size) <= len(data) {
			return data[:size:size]
		}
		return append(data, make([]byte, int(size)-len(data))...)
	})
	return nil
}

// Datasync that fails has lost some of it, and says so once: the next one says nothing.
func (f *memFile) Datasync() error {
	f.lock()
	defer f.disk.mu.Unlock()
	err := f.disk.op("datasync " + f.name)
	f.node.sync(f.disk.rng, err)
	return err
}

// sync makes what was written durable, or loses some of it.
func (n *node) sync(rng *rand.Rand, err error) {
	if err != nil {
		if len(n.late) > 0 {
			n.late = n.late[:rng.IntN(len(n.late))]
		}
		return
	}
	for _, change := range n.late {
		n.synced = change(n.synced)
	}
	n.late = nil
}

// Punch writes zeros.
func (f *memFile) Punch(off, n int64) error {
	if f.disk.noPunch {
		return errors.ErrUnsupported
	}
	_, err := f.WriteAt(make([]byte, n), off)
	return err
}

// SyncAll makes the data durable, and no names. When it fails, each file has lost some.
func (f *memFile) SyncAll() error {
	d := f.disk
	f.lock()
	defer d.mu.Unlock()
	if d.noSyncAll {
		return errors.ErrUnsupported
	}
	err := d.op("syncall")
	for _, n := range d.names {
		n.sync(d.rng, err)
	}
	return err
}

func (f *memFile) Chtimes(mtime time.Time) error {
	f.lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.op("chtimes " + f.name); err != nil {
		return err
	}
	f.node.mtime = f.disk.kept(mtime)
	return nil
}

func (f *memFile) Chmod(perm fs.FileMode) error {
	f.lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.op("chmod " + f.name); err != nil {
		return err
	}
	f.node.mode = perm
	return nil
}

func (f *memFile) Link(to string) error {
	if f.disk.noSelf {
		return errors.ErrUnsupported
	}
	f.lock()
	defer f.disk.mu.Unlock()
	return f.disk.link(f.node, f.name, to)
}

func (f *memFile) Stat() (Info, error) {
	f.lock()
	defer f.disk.mu.Unlock()
	return f.node.info(), nil
}

// Close is not told of by the power.
func (f *memFile) Close() error {
	f.lock()
	defer f.disk.mu.Unlock()
	f.closed = true
	return nil
}
