package staging

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// A Staging is one transfer's state below its destination. It is for one goroutine at a time.
type Staging struct {
	fs    FS
	dir   string
	opts  Options
	umask fs.FileMode

	entries []manifest.Entry
	parts   map[uint32]*part // of files
	open    []*part          // those whose file is open, the one used last at the end

	journal   File
	end       int64  // of the journal's right records
	dirty     bool   // there may be something behind that end
	meta      uint32 // its CRC
	newNames  bool   // parts were made, and the directory was not synced
	unsynced  int64  // bytes
	since     time.Time
	placed    []*part         // published, and not yet in the journal
	dirtyDirs map[string]bool // in which names have changed
	closed    bool
}

// part is one file that is coming.
type part struct {
	entry     *manifest.Entry
	name      string
	file      File
	made      bool // in the journal, or in this process: there is a part
	known     bool // the journal may have records of it
	recorded  bool // the journal has its PART
	fresh     bool // made by this process: what is not in touched is zero
	inode     uint64
	durable   ranges
	written   ranges // and not synced
	touched   ranges // ever written, of a fresh one
	published bool
	linked    bool // published, with the part still there
}

// checkID reports what is no name of a transfer.
func checkID(id string) error {
	if len(id) < 4 || len(id) > 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return errorf("open", "", manifest.CodeProtocol, "%q names no transfer: want 4 to 64 hexadecimal digits", id)
	}
	return nil
}

func newStaging(disk FS, id string, o *Options) (*Staging, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Staging{fs: disk, dir: manifest.StagingPrefix + id, opts: opts, dirtyDirs: make(map[string]bool)}, nil
}

// setEntries checks the entries, as those of a peer or of a disk that another may have written to.
func (s *Staging) setEntries(entries []manifest.Entry) error {
	check, err := manifest.NewChecker(*s.opts.Rules)
	if err != nil {
		return err
	}
	s.entries = entries
	s.parts = make(map[uint32]*part)
	for i := range entries {
		e := &entries[i]
		if err := check.Add(*e); err != nil {
			return err
		}
		if e.Kind == manifest.KindFile {
			s.parts[e.ID] = &part{entry: e, name: path.Join(s.dir, strconv.FormatUint(uint64(e.ID), 10)+".part")}
		}
	}
	return nil
}

// Create begins the transfer id, 4 to 64 hexadecimal digits, of the entries, which it keeps. When it returns, they are on the disk.
// It is CodeExists when there is one of that id.
func Create(disk FS, id string, entries []manifest.Entry, o *Options) (*Staging, error) {
	s, err := newStaging(disk, id, o)
	if err != nil {
		return nil, err
	}
	if err := s.setEntries(slices.Clone(entries)); err != nil {
		return nil, wrap("create", "", err)
	}
	if err := disk.Mkdir(s.dir, 0o700); err != nil {
		return nil, wrap("create", s.dir, err)
	}
	if err := s.create(); err != nil {
		_ = s.closeFiles()       // the first error is told
		_ = discard(disk, s.dir) // what is left is no transfer: Cleanup's
		return nil, wrap("create", "", err)
	}
	return s, nil
}

func (s *Staging) create() error {
	f, err := s.fs.OpenFile(s.metaName(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o777) // what is missing of that is the umask
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode.Perm()&0o700 == 0o700 { // not on Windows, nor on FAT
		s.umask = 0o777 &^ info.Mode.Perm()
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	b, err := encodeMeta(s.umask, s.entries)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if err := f.Datasync(); err != nil {
		return err
	}
	if _, _, s.meta, err = consumeMeta(b); err != nil {
		return err
	}
	if s.journal, err = s.fs.OpenFile(s.journalName(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	if err := s.appendJournal(nil); err != nil {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	return s.fs.SyncDir(".")
}

func (s *Staging) metaName() string    { return path.Join(s.dir, "meta") }
func (s *Staging) journalName() string { return path.Join(s.dir, "journal") }

// Entries returns those of the transfer. They are not to be changed.
func (s *Staging) Entries() []manifest.Entry { return s.entries }

// file returns the part of the file id.
func (s *Staging) file(op string, id uint32) (*part, error) {
	if s.closed {
		return nil, &Error{Op: op, Code: CodeNoState, Err: os.ErrClosed}
	}
	p := s.parts[id]
	if p == nil {
		return nil, errorf(op, "", manifest.CodeProtocol, "the transfer has no file %d", id)
	}
	return p, nil
}

// Have returns what of the file id no power cut takes away. All of a file that is published is, when its folder is synced.
func (s *Staging) Have(id uint32) []Range {
	if p := s.parts[id]; p != nil {
		return slices.Clone(p.durable)
	}
	return nil
}

// Missing returns what of the file id has not been written, or was lost again by a sync that failed.
func (s *Staging) Missing(id uint32) []Range {
	if p := s.parts[id]; p != nil && !p.published {
		return p.all().missing(p.entry.Size)
	}
	return nil
}

// Published reports whether the file id has its place.
func (s *Staging) Published(id uint32) bool { return s.parts[id] != nil && s.parts[id].published }

func (p *part) all() ranges {
	all := slices.Clone(p.durable)
	for _, r := range p.written {
		all = all.add(r)
	}
	return all
}

// Close closes the files and keeps the state, for Open. What was not synced is lost, as when the machine stops.
func (s *Staging) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return s.closeFiles()
}

func (s *Staging) closeFiles() error {
	var all []error
	for _, p := range s.open {
		all = append(all, p.file.Close())
		p.file = nil
	}
	s.open = nil
	if s.journal != nil {
		all = append(all, s.journal.Close())
		s.journal = nil
	}
	return wrap("close", "", errors.Join(all...))
}

// Abort deletes the state. What is published stays.
func (s *Staging) Abort() error {
	err := s.Close()
	return errors.Join(err, wrap("abort", "", discard(s.fs, s.dir)))
}

// Discard deletes the state of the transfer id, which no Staging has open. There need not be any.
func Discard(disk FS, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	err := discard(disk, manifest.StagingPrefix+id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return wrap("discard", "", err)
}

// discard deletes a staging directory, meta first: without it, what is left is no transfer. What is no file in it is not touched.
func discard(disk FS, dir string) error {
	info, err := disk.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.Mode.IsDir() {
		return errorf("discard", dir, manifest.CodePathUnsafe, "it is no directory of a transfer")
	}
	names, err := disk.ReadDir(dir)
	if err != nil {
		return err
	}
	if slices.Contains(names, "meta") {
		if err := disk.Remove(path.Join(dir, "meta")); err != nil {
			return err
		}
		if err := disk.SyncDir(dir); err != nil {
			return err
		}
	}
	for _, name := range names {
		name = path.Join(dir, name)
		if info, err := disk.Lstat(name); err == nil && !info.Mode.IsDir() {
			if err := disk.Remove(name); err != nil {
				return err
			}
		}
	}
	return disk.Remove(dir)
}

// Cleanup deletes the states of transfers that nothing was written to for olderThan, and returns their ids. No Staging may have one
// of those open.
func Cleanup(disk FS, olderThan time.Duration) ([]string, error) {
	names, err := disk.ReadDir(".")
	if err != nil {
		return nil, wrap("clean up", "", err)
	}
	var gone []string
	var failed []error
	limit := time.Now().Add(-olderThan)
	for _, name := range names {
		id, found := strings.CutPrefix(name, manifest.StagingPrefix)
		if !found || checkID(id) != nil || !unusedSince(disk, name, limit) {
			continue
		}
		if err := discard(disk, name); err != nil {
			failed = append(failed, wrap("clean up", name, err))
			continue
		}
		gone = append(gone, id)
	}
	return gone, errors.Join(failed...)
}

func unusedSince(disk FS, dir string, limit time.Time) bool {
	info, err := disk.Lstat(dir)
	if err != nil || !info.Mode.IsDir() || info.ModTime.After(limit) {
		return false
	}
	info, err = disk.Lstat(path.Join(dir, "journal"))
	return err != nil || !info.ModTime.After(limit)
}
