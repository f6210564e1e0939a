package manifest

import (
	"hash/maphash"
	"strings"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// Compare says which of two paths comes first in a manifest: the order of their components, so that a folder is directly before all
// that is in it. It is that of the bytes, with / before any other.
func Compare(a, b string) int {
	n := common(a, b)
	switch {
	case n == len(a) && n == len(b):
		return 0
	case n == len(a):
		return -1
	case n == len(b):
		return 1
	case a[n] == '/':
		return -1
	case b[n] == '/', a[n] > b[n]:
		return 1
	}
	return -1
}

// common returns how many bytes two strings begin with in common.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// A Checker takes the entries of one manifest, in order, and finds what must not be together. It is for one goroutine.
type Checker struct {
	rules Rules

	path     string // the last entry's
	id       uint32
	open     []folder // the folders from the root to path, and path
	entries  int      // those added
	implied  int      // and folders that are none
	bytes    int64
	manifest int64
	err      error
	folding  folding
	seed     maphash.Seed
}

// folder is one component of the last entry's path, which is a file or symlink at its end only.
type folder struct {
	end   int // of its path
	kind  Kind
	names map[uint64]string // what is in it, by the hash of what names have in common; nil while empty, and when rules are not portable
}

// NewChecker returns a Checker by the rules. It is an error when one of their limits is negative.
func NewChecker(rules Rules) (*Checker, error) {
	if err := rules.validate(); err != nil {
		return nil, err
	}
	c := &Checker{rules: rules.withDefaults(), seed: maphash.MakeSeed()}
	c.open = append(c.open, folder{kind: KindDir}) // the root
	return c, nil
}

// Entries returns how many have been added.
func (c *Checker) Entries() int { return c.entries }

// Bytes returns how many all files added have together.
func (c *Checker) Bytes() int64 { return c.bytes }

// Room returns how many entries may still be added.
func (c *Checker) Room() int { return max(0, c.rules.Entries-c.entries-c.implied) }

// Add takes the next entry. It is an *Error when the entry is not taken: the Checker then takes no other one, and returns the same.
func (c *Checker) Add(e Entry) error {
	if c.err == nil {
		c.err = c.add(&e)
	}
	return c.err
}

func (c *Checker) add(e *Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if err := CheckPath(e.Path, c.rules); err != nil {
		return err
	}
	if err := c.checkSymlink(e); err != nil {
		return err
	}
	if err := c.checkOrder(e); err != nil {
		return err
	}
	if err := c.count(e); err != nil {
		return err
	}
	return c.place(e)
}

func (c *Checker) checkSymlink(e *Entry) error {
	switch {
	case e.Kind != KindSymlink:
		return nil
	case !c.rules.Symlinks:
		return unsafef(e.Path, "symlinks are not taken: send what it leads to, or let the receiver allow them")
	}
	return CheckTarget(e.Path, e.Target, c.rules)
}

func (c *Checker) checkOrder(e *Entry) error {
	if c.entries == 0 {
		return nil
	}
	switch order := Compare(c.path, e.Path); {
	case order == 0:
		return errorf(fault.CodeExists, e.Path, "it is sent twice")
	case order > 0:
		return errorf(fault.CodeProtocol, e.Path, "it comes after %.100q, and belongs before it", c.path)
	case e.ID <= c.id:
		return errorf(fault.CodeProtocol, e.Path, "its number is %d, and the one before has %d", e.ID, c.id)
	}
	return nil
}

// count keeps to the limits.
func (c *Checker) count(e *Entry) error {
	c.entries++
	c.manifest += int64(e.EncodedSize())
	if c.manifest > c.rules.ManifestBytes {
		return errorf(fault.CodeTooLarge, e.Path, "the list of files has more than %d bytes: send it in parts", c.rules.ManifestBytes)
	}
	if e.Size > c.rules.Bytes-c.bytes {
		return errorf(fault.CodeTooLarge, e.Path, "with it there are more than %d bytes: send less, or raise the receiver's limit", c.rules.Bytes)
	}
	c.bytes += e.Size
	return nil
}

// place opens the folders down to e, and e.
func (c *Checker) place(e *Entry) error {
	n := common(c.path, e.Path)
	keep := len(c.open)
	for keep > 1 && (c.open[keep-1].end > n || len(e.Path) <= c.open[keep-1].end || e.Path[c.open[keep-1].end] != '/') {
		keep--
	}
	clear(c.open[keep:])
	c.open = c.open[:keep]
	c.path, c.id = e.Path, e.ID
	switch up := &c.open[keep-1]; up.kind {
	case KindFile:
		return errorf(fault.CodeExists, e.Path, "%.100q is a file, and here it is a folder", e.Path[:up.end])
	case KindSymlink:
		return unsafef(e.Path, "%.100q is a symlink: nothing is taken through one", e.Path[:up.end])
	}
	for start := c.start(); ; start = c.start() {
		name, _, more := strings.Cut(e.Path[start:], "/")
		if err := c.take(e.Path, name); err != nil {
			return err
		}
		f := folder{end: start + len(name), kind: KindDir}
		if !more {
			f.kind = e.Kind
		} else {
			c.implied++
		}
		if c.entries+c.implied > c.rules.Entries {
			return errorf(fault.CodeTooLarge, e.Path, "there are more than %d files and folders: send them in parts, or as an archive", c.rules.Entries)
		}
		if c.open = append(c.open, f); !more {
			return nil
		}
	}
}

// start returns where in the path the component begins that is in the innermost open folder.
func (c *Checker) start() int {
	if len(c.open) == 1 {
		return 0
	}
	return c.open[len(c.open)-1].end + 1
}

// take notes name in the innermost open folder, where no other may be that is taken for it. The order sees to equal ones.
func (c *Checker) take(p, name string) error {
	if !c.rules.Portable {
		return nil
	}
	in := &c.open[len(c.open)-1]
	if in.names == nil {
		in.names = make(map[uint64]string)
	}
	for at := maphash.Bytes(c.seed, c.folding.fold(name)); ; at++ {
		other, taken := in.names[at]
		if !taken {
			in.names[at] = name
			return nil
		}
		if fold(other) == fold(name) { // and not their hashes alone
			return errorf(fault.CodeExists, p, "%.100q and %.100q are one name on Windows or macOS: rename one of them", other, name)
		}
	}
}
