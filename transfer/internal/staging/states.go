package staging

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// State describes the stored data of an unfinished or running transfer.
type State struct {
	ID    string
	Name  string    // of its first file or folder: untrusted; "" when the list of files is damaged
	Bytes int64     // received, of files that are not published
	Used  time.Time // when it was last written to
}

// States returns the states in a destination, the most recently used first. It takes no lock, so that the numbers of a running transfer may
// be out of date.
func States(disk FS) ([]State, error) {
	if err := checkDisk(disk); err != nil {
		return nil, err
	}
	names, err := disk.ReadDir(".")
	if err != nil {
		return nil, wrap("list", "", err)
	}
	var all []State
	for _, name := range names {
		id, found := strings.CutPrefix(name, manifest.StagingPrefix)
		if !found || checkID(id) != nil {
			continue
		}
		if s, isOne := stateIn(disk, name); isOne {
			s.ID = id
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b State) int { return b.Used.Compare(a.Used) })
	return all, nil
}

// stateIn reads a staging directory without its lock. What cannot be read stays zero.
func stateIn(disk FS, dir string) (s State, isOne bool) {
	info, err := disk.Lstat(dir)
	if err != nil || !info.Mode.IsDir() {
		return s, false
	}
	s.Used = info.ModTime
	if info, err := disk.Lstat(path.Join(dir, "journal")); err == nil && info.ModTime.After(s.Used) {
		s.Used = info.ModTime
	}
	if b, err := readSome(disk, path.Join(dir, "meta"), metaHead+mostEntry); err == nil && len(b) > metaHead && binary.BigEndian.Uint32(b) == metaMagic {
		if e, _, err := manifest.ConsumeEntry(b[metaHead:]); err == nil {
			s.Name, _, _ = strings.Cut(e.Path, "/")
		}
	}
	if b, err := readSome(disk, path.Join(dir, "journal"), mostJournal); err == nil {
		s.Bytes = unnamedBytes(b)
	}
	return s, true
}

const (
	mostEntry   = 16 << 10 // more than an entry has
	mostJournal = 64 << 20 // bytes of a journal that are read
)

// readSome reads the beginning of a regular file.
func readSome(disk FS, name string, most int64) ([]byte, error) {
	info, err := disk.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode.IsRegular() {
		return nil, fs.ErrInvalid
	}
	f, err := disk.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	b := make([]byte, min(info.Size, most))
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// unnamedBytes returns how many bytes a journal says are had of files that are not published.
func unnamedBytes(b []byte) (total int64) {
	if len(b) < journalHead {
		return 0
	}
	have := make(map[uint32]ranges)
	for b = b[journalHead:]; ; {
		r, n := consumeRecord(b)
		if n == 0 {
			break
		}
		b = b[n:]
		switch r.kind {
		case recordPart, recordReset, recordPublished:
			delete(have, r.id)
		case recordRanges:
			have[r.id] = append(have[r.id], r.have...)
		case recordRoot, recordLayer:
		}
	}
	for _, ranges := range have {
		total += ranges.sorted().size()
	}
	return total
}
