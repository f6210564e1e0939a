package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A fileLoad is what is moved: so many files of so many bytes each.
type fileLoad struct {
	Files int   `json:"files"`
	Size  int64 `json:"size"`
}

// String returns the load as in "10000 x 4 KiB".
func (l fileLoad) String() string {
	if l.Size%(1<<20) == 0 {
		return fmt.Sprintf("%d x %d MiB", l.Files, l.Size>>20)
	}
	return fmt.Sprintf("%d x %d KiB", l.Files, l.Size>>10)
}

// bytes returns how many all files have together.
func (l fileLoad) bytes() int64 { return int64(l.Files) * l.Size }

const (
	treeName  = "tree" // what every tree is called, so that it has the same name wherever it comes to
	perFolder = 100    // files
	blockSize = 1 << 20
)

// A fileTree is a folder with the files of a load. Its own folder has nothing else.
type fileTree struct {
	load fileLoad
	dir  string // the folder called treeName
	sum  treeSum
}

// newFileTree makes a tree below base of a payload of the given kind.
func newFileTree(base string, l fileLoad, kind string) (*fileTree, error) {
	from, err := os.MkdirTemp(base, "from-")
	if err != nil {
		return nil, err
	}
	block, err := newPayload(kind, int(min(l.Size, blockSize)))
	if err != nil {
		return nil, err
	}
	t := &fileTree{load: l, dir: filepath.Join(from, treeName)}
	w := treeWriter{block: block}
	for i := range l.Files {
		folder := filepath.Join(t.dir, fmt.Sprint(i/perFolder))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
		if err := w.write(filepath.Join(folder, fmt.Sprint(i)), l.Size); err != nil {
			return nil, err
		}
	}
	t.sum, err = sumTree(from)
	return t, err
}

// treeWriter writes files of blocks that differ in their first eight bytes, so
// that no two files are the same.
type treeWriter struct {
	block  []byte
	blocks uint64
}

func (w *treeWriter) write(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for size > 0 && err == nil {
		binary.BigEndian.PutUint64(w.block, w.blocks)
		w.blocks++
		n := min(size, int64(len(w.block)))
		_, err = f.Write(w.block[:n])
		size -= n
	}
	return errors.Join(err, f.Close())
}

// check fails unless the directory has the same files as the tree, by name, size
// and content, and no others.
func (t *fileTree) check(dir string) error {
	got, err := sumTree(dir)
	if err != nil {
		return err
	}
	if got != t.sum {
		return fmt.Errorf("not the same files: %s, want %s", got, t.sum)
	}
	return nil
}

// A treeSum says what files a directory has.
type treeSum struct {
	files int
	bytes int64
	hash  [sha256.Size]byte // of names, sizes and contents
}

func (s treeSum) String() string {
	return fmt.Sprintf("%d files of %d bytes together, hash %x", s.files, s.bytes, s.hash[:4])
}

// sumTree reads all files below dir, in the order of their names.
func sumTree(dir string) (treeSum, error) {
	var s treeSum
	h, buf := sha256.New(), make([]byte, 256<<10)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		n, err := sumFile(h, name, path, buf)
		s.files++
		s.bytes += n
		return err
	})
	s.hash = [sha256.Size]byte(h.Sum(nil))
	return s, err
}

// sumFile adds a file to h, and returns its size.
func sumFile(h hash.Hash, name, path string, buf []byte) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(h, "%q %d\n", name, info.Size())
	return io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, buf)
}

// A workspace is the directory that a run has all its files in.
type workspace struct {
	Dir  string `json:"dir"`
	Note string `json:"note"` // what kind of place it is
}

// memoryDir is a directory in memory on Linux.
const memoryDir = "/dev/shm"

// newWorkspace makes a directory with room for need bytes: in memory if that can
// be had, otherwise among the temporary files.
func newWorkspace(need int64) (workspace, error) {
	note := "in memory"
	base := memoryDir
	if info, err := os.Stat(base); err != nil || !info.IsDir() {
		base, note = os.TempDir(), "the temporary files: there is no "+memoryDir
	} else if free, ok := freeBytes(base); ok && free < need {
		base = os.TempDir()
		note = fmt.Sprintf("the temporary files: %s has %d MiB, not %d", memoryDir, free>>20, need>>20)
	}
	dir, err := os.MkdirTemp(base, "peerlane-bench-")
	return workspace{Dir: dir, Note: note}, err
}

// firstLine returns the first line of text.
func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(bytes.TrimSpace(line))
}
