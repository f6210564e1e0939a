package source

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/fault"
)

const (
	cacheBytes   = 256 << 20
	cacheEntries = 1 << 16
	cacheExt     = ".layer"
	cacheTmp     = ".tmp"
	cacheSettled = 2 * time.Second // a file that was changed later may change again within one tick of the file system's clock
)

// A Cache stores the layers of files of more than one piece on the disk, so that a large file that is sent again is not read twice. An
// entry is valid as long as device, inode, size, modification time and change time are the same. A nil or zero Cache stores nothing, nor
// does any Cache on systems that do not report these. Goroutines and processes may use it concurrently; each keeps to the limit as far as
// it knows.
type Cache struct {
	root *os.Root
	most int64
	now  func() time.Time // for tests

	mu    sync.Mutex
	files map[string]cached // by name
	bytes int64
	tmp   int
}

// cached is one file of a Cache.
type cached struct {
	size int64
	used time.Time
}

// OpenCache opens the Cache in a directory. It creates the directory if needed; no one else must write to it. When the Cache has more than
// maxBytes, or 65,536 files, it removes the least recently used ones. If maxBytes is zero, 256 MiB: the layers of 2 TiB.
func OpenCache(dir string, maxBytes int64) (*Cache, error) {
	if maxBytes < 0 {
		return nil, errorf("cache", dir, fault.CodeIO, "at most %d bytes, want none or more than 0", maxBytes)
	}
	if maxBytes == 0 {
		maxBytes = cacheBytes
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, wrap("cache", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, wrap("cache", dir, err)
	}
	c := &Cache{root: root, most: maxBytes, now: time.Now, files: make(map[string]cached)}
	if err := c.list(); err != nil {
		_ = root.Close() // it was only read
		return nil, wrap("cache", dir, err)
	}
	c.evict()
	return c, nil
}

// keepsNothing reports whether c is nil, or was not made by OpenCache.
func (c *Cache) keepsNothing() bool { return c == nil || c.root == nil }

// Close closes the Cache, which then stores and finds nothing more.
func (c *Cache) Close() error {
	if c.keepsNothing() {
		return nil
	}
	return c.root.Close()
}

// list reads the directory, and removes leftovers of a crash.
func (c *Cache) list() error {
	d, err := c.root.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // it was only read
	for {
		names, err := d.Readdirnames(listBatch)
		for _, name := range names {
			fi, err := c.root.Lstat(name)
			switch {
			case err != nil || !fi.Mode().IsRegular():
			case strings.HasSuffix(name, cacheExt):
				c.files[name] = cached{fi.Size(), fi.ModTime()}
				c.bytes += fi.Size()
			case strings.HasSuffix(name, cacheTmp) && time.Since(fi.ModTime()) > time.Hour:
				_ = c.root.Remove(name) // it is tried again next time
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// get returns the layer and the root of the file with a key, if the cache has valid ones.
func (c *Cache) get(k fileKey) ([]b3tree.CV, b3tree.Root, bool) {
	if c.keepsNothing() {
		return nil, b3tree.Root{}, false
	}
	name := k.name()
	b, err := c.read(name, k.size)
	if err != nil {
		if errors.Is(err, errCacheSize) || errors.Is(err, io.ErrUnexpectedEOF) {
			c.remove(name)
		}
		return nil, b3tree.Root{}, false
	}
	was, layer, err := decodeLayer(b)
	if err != nil || was != k {
		c.remove(name) // damaged, or of an earlier state of the file
		return nil, b3tree.Root{}, false
	}
	shape, err := b3tree.ShapeOf(k.size)
	if err != nil {
		return nil, b3tree.Root{}, false
	}
	root, err := shape.Fold(layer)
	if err != nil {
		c.remove(name)
		return nil, b3tree.Root{}, false
	}
	c.touch(name, int64(len(b)))
	return layer, root, true
}

var errCacheSize = errors.New("a file of the cache has the wrong size")

func (c *Cache) read(name string, size int64) ([]byte, error) {
	f, err := c.root.OpenFile(name, openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() != encodedLayerSize(size) {
		return nil, errCacheSize
	}
	b := make([]byte, fi.Size())
	_, err = io.ReadFull(f, b)
	return b, err
}

// put stores the layer of the file with a key. A failure has the same effect as no cache.
func (c *Cache) put(k fileKey, layer []b3tree.CV) {
	if c.keepsNothing() || encodedLayerSize(k.size) > c.most {
		return
	}
	b := encodeLayer(k, layer)
	c.mu.Lock()
	c.tmp++
	tmp := fmt.Sprintf("%d-%d%s", os.Getpid(), c.tmp, cacheTmp)
	c.mu.Unlock()
	if err := c.root.WriteFile(tmp, b, 0o600); err != nil {
		_ = c.root.Remove(tmp) // leftovers are removed when the cache is opened
		return
	}
	if err := c.root.Rename(tmp, k.name()); err != nil {
		_ = c.root.Remove(tmp) // same
		return
	}
	c.note(k.name(), int64(len(b)))
	c.evict()
}

// touch makes a file the most recently used.
func (c *Cache) touch(name string, size int64) {
	c.note(name, size)
	now := time.Now()
	_ = c.root.Chtimes(name, now, now) // otherwise it is removed earlier than necessary
}

func (c *Cache) note(name string, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += size - c.files[name].size
	c.files[name] = cached{size, time.Now()}
}

func (c *Cache) remove(name string) {
	_ = c.root.Remove(name) // an invalid file is not used, even if it remains
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= c.files[name].size
	delete(c.files, name)
}

// evict removes the least recently used files, until the rest is within seven eighths of the limits, so that the next ones need no check.
func (c *Cache) evict() {
	c.mu.Lock()
	if c.bytes <= c.most && len(c.files) <= cacheEntries {
		c.mu.Unlock()
		return
	}
	names := make([]string, 0, len(c.files))
	for name := range c.files {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(c.files[a].used.Compare(c.files[b].used), strings.Compare(a, b))
	})
	n, bytes := 0, c.bytes
	for n < len(names)-1 && (bytes > c.most-c.most/8 || len(names)-n > cacheEntries-cacheEntries/8) {
		bytes -= c.files[names[n]].size
		n++
	}
	c.mu.Unlock()
	for _, name := range names[:n] {
		c.remove(name)
	}
}
