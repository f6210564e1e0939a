//go:build unix

package staging

import (
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// openDirs is how many folders are kept open.
const openDirs = 64

// dirCache keeps folders open by their names. Each is opened from the one above, and none through a symlink.
type dirCache struct {
	top *openDir

	mu   sync.Mutex
	open map[string]*openDir
	tick uint64
}

// openDir is one folder. It is closed when nobody uses it and the cache has let it go.
type openDir struct {
	fd       int
	dev, ino uint64

	users int // guarded by dirCache.mu
	last  uint64
	gone  bool
}

// newDirCache returns the cache below the descriptor top, which stays its caller's.
func newDirCache(top int) *dirCache {
	return &dirCache{top: &openDir{fd: top}, open: make(map[string]*openDir)}
}

// get returns the folder name, which put gives back.
func (c *dirCache) get(name string) (*openDir, error) {
	if name == "." {
		return c.top, nil
	}
	c.mu.Lock()
	if d := c.open[name]; d != nil {
		c.useLocked(d)
		c.mu.Unlock()
		return d, nil
	}
	c.mu.Unlock()
	up, err := c.get(path.Dir(name))
	if err != nil {
		return nil, err
	}
	d := &openDir{}
	err = uninterrupted(func() (err error) {
		d.fd, err = unix.Openat(up.fd, path.Base(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	c.put(up)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := uninterrupted(func() error { return unix.Fstat(d.fd, &st) }); err != nil {
		_ = unix.Close(d.fd) // the first error is told
		return nil, err
	}
	d.dev, d.ino = uint64(st.Dev), uint64(st.Ino) //nolint:unconvert // each system has its own types
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.open[name]; other != nil { // another was faster
		_ = unix.Close(d.fd) // it was not used
		d = other
	} else {
		c.makeRoomLocked()
		c.open[name] = d
	}
	c.useLocked(d)
	return d, nil
}

// useLocked notes one use, which put ends.
func (c *dirCache) useLocked(d *openDir) {
	c.tick++
	d.users, d.last = d.users+1, c.tick
}

// put gives back a folder that get has returned.
func (c *dirCache) put(d *openDir) {
	if d == c.top {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d.users--
	d.closeLocked()
}

// closeLocked closes a folder that is let go, when nobody uses it.
func (d *openDir) closeLocked() {
	if d.gone && d.users == 0 {
		_ = unix.Close(d.fd) // nothing was written to it
	}
}

// makeRoomLocked lets the one go that was used longest ago, and those in it: what is kept has all above it kept too.
func (c *dirCache) makeRoomLocked() {
	if len(c.open) < openDirs {
		return
	}
	oldest := ""
	for name, d := range c.open {
		if oldest == "" || d.last < c.open[oldest].last {
			oldest = name
		}
	}
	c.forgetLocked(oldest)
}

// dropLocked lets the folder name go, if it is kept.
func (c *dirCache) dropLocked(name string) {
	if d := c.open[name]; d != nil {
		delete(c.open, name)
		d.gone = true
		d.closeLocked()
	}
}

// confirm lets the folder name go, and all in it, when it is not the one that st is of.
func (c *dirCache) confirm(name string, st *unix.Stat_t) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.open[name]
	if d != nil && (d.dev != uint64(st.Dev) || d.ino != uint64(st.Ino)) { //nolint:unconvert // each system has its own types
		c.forgetLocked(name)
	}
}

// forget lets the folder name go, and all in it.
func (c *dirCache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[name] != nil {
		c.forgetLocked(name)
	}
}

// forgetLocked lets the folder name go, and all in it.
func (c *dirCache) forgetLocked(name string) {
	for other := range c.open {
		if other == name || strings.HasPrefix(other, name+"/") {
			c.dropLocked(other)
		}
	}
}

// close lets all go.
func (c *dirCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.open {
		c.dropLocked(name)
	}
}
