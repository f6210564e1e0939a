package staging

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// A Staging is one transfer's state below its destination. Any number of goroutines of one process may use it.
type Staging struct {
	fs      FS
	dir     string
	opts    Options
	umask   fs.FileMode // of this process
	device  uint64      // that the staging directory is on
	entries []manifest.Entry
	parts   []part // the parts of files, by id
	lock    io.Closer

	life   sync.RWMutex // read-locked by each call while it runs; Close waits for the calls
	closed bool

	commit     sync.Mutex // held to write to the journal and to publish, even during disk operations; taken before mu
	journal    File
	journalEnd int64           // end of its valid records
	torn       bool            // there may be something behind that end
	meta       uint32          // its CRC
	dirtyDirs  map[string]bool // directories with changed names

	keepsFolders bool // KeepFolders was called

	probing sync.Mutex // held to ask the disk how it stores a time

	mu       sync.Mutex
	wake     sync.Cond // a part was opened, or is no longer used
	open     []*part   // parts with an open file, in no order
	tick     uint64
	unsynced int64   // bytes
	small    []*part // written by WriteFile, not durable
	newNames bool    // files have been added to the directory since it was last synced
	layers   map[uint32]*layer
	roots    map[uint32]root
	newRoots []uint32
	placed   []*part                // published, and not yet in the journal
	looked   map[string]bool        // folders that Existing has checked: whether they exist
	opened   map[string]fs.FileMode // folders that were made accessible, and their former modes
}

// checkID rejects an id that is not the name of a transfer.
func checkID(id string) error {
	if len(id) < 4 || len(id) > 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return errorf("open", "", fault.CodeProtocol, "%q names no transfer: want 4 to 64 hexadecimal digits", id)
	}
	return nil
}

// checkDisk rejects a nil disk.
func checkDisk(disk FS) error {
	if disk == nil {
		return errorf("open", "", fault.CodeProtocol, "disk is nil")
	}
	return nil
}

// newStaging returns a Staging without entries. It checks the id and the options.
func newStaging(disk FS, id string, o *Options) (*Staging, error) {
	if err := checkDisk(disk); err != nil {
		return nil, err
	}
	if err := checkID(id); err != nil {
		return nil, err
	}
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Staging{
		fs: disk, dir: manifest.StagingPrefix + id, opts: opts, dirtyDirs: make(map[string]bool),
		layers: make(map[uint32]*layer), roots: make(map[uint32]root), looked: make(map[string]bool), opened: make(map[string]fs.FileMode),
	}
	s.wake.L = &s.mu
	return s, nil
}

// setEntries checks the entries: they may come from a peer, or from a disk that others write to.
func (s *Staging) setEntries(entries []manifest.Entry) error {
	check, err := manifest.NewChecker(*s.opts.Rules)
	if err != nil {
		return err
	}
	files := 0
	for i := range entries {
		if err := check.Add(entries[i]); err != nil {
			return err
		}
		if entries[i].Kind == manifest.KindFile {
			files++
		}
	}
	s.entries = entries
	s.parts = make([]part, 0, files)
	for i := range entries {
		if entries[i].Kind == manifest.KindFile {
			s.parts = append(s.parts, part{entry: &entries[i]})
		}
	}
	return nil
}

// Create begins the transfer id, 4 to 64 hexadecimal digits, of the entries, and stores them durably before it returns. The error is
// CodeExists if the transfer exists, and CodeBusy if another Staging has it.
func Create(disk FS, id string, entries []manifest.Entry, o *Options) (*Staging, error) {
	s, err := newStaging(disk, id, o)
	if err != nil {
		return nil, err
	}
	if err := s.setEntries(slices.Clone(entries)); err != nil {
		return nil, wrap("create", "", err)
	}
	if err := disk.Mkdir(s.dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) && isBusy(disk, s.dir) {
			err = ErrBusy
		}
		return nil, wrap("create", s.dir, err)
	}
	if s.lock, err = disk.Lock(lockName(s.dir)); err != nil {
		_ = disk.Remove(s.dir) // empty, or another's by now
		return nil, wrap("create", "", err)
	}
	if err := s.create(); err != nil {
		_ = s.closeFiles()                          // only the first error counts
		_ = discard(disk, s.dir, s.lock, s.syncDir) // leftovers are no transfer: Cleanup deletes them
		return nil, wrap("create", "", err)
	}
	return s, nil
}

// create writes meta and an empty journal, and determines the umask.
func (s *Staging) create() error {
	info, err := s.fs.Lstat(s.dir)
	if err != nil {
		return err
	}
	if err := s.checkOwn(info); err != nil {
		return err
	}
	s.device = info.Device
	f, err := s.fs.OpenFile(s.metaName(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o777) // the bits missing from this mode are the umask
	if err != nil {
		return err
	}
	defer f.Close()
	if s.umask, err = umaskOf(f); err != nil {
		return err
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
	if err := s.datasync(f); err != nil {
		return err
	}
	s.meta = crcOfMeta(b)
	if s.journal, err = s.fs.OpenFile(s.journalName(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	if err := s.appendJournal(nil); err != nil {
		return err
	}
	if err := s.syncDir(s.dir); err != nil {
		return err
	}
	return s.syncDir(".")
}

func (s *Staging) metaName() string    { return path.Join(s.dir, "meta") }
func (s *Staging) journalName() string { return path.Join(s.dir, "journal") }

// begin must be called first by each method that must not run during or after Close. endCall lets Close continue.
func (s *Staging) begin(op string) error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return &fault.Error{Op: op, Code: fault.CodeNoState, Err: os.ErrClosed}
	}
	return nil
}

// endCall ends what begin has begun.
func (s *Staging) endCall() { s.life.RUnlock() }

// Entries returns the entries of the transfer. They must not be changed.
func (s *Staging) Entries() []manifest.Entry { return s.entries }

// Have returns the durable ranges of the file id: they survive a power cut, or with SyncNone the end of the process. A published file is
// durable as a whole once its Publish has returned no Failure for it. A file written by WriteFile has no durable ranges before that.
func (s *Staging) Have(id uint32) []Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(id)
	switch {
	case p == nil:
		return nil
	case p.isPublished() && p.entry.Size > 0:
		return []Range{{0, p.entry.Size}}
	}
	return slices.Clone(p.durable)
}

// Missing returns the ranges of the file id that have not been written, or were lost by a failed sync.
func (s *Staging) Missing(id uint32) []Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.find(id); p != nil && !p.isPublished() && !p.isWhole() {
		return p.all().missing(p.entry.Size)
	}
	return nil
}

// Published reports whether the file id is in its place.
func (s *Staging) Published(id uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(id)
	return p != nil && p.isPublished()
}

// IsEmpty reports whether there is nothing that another run could resume from: no piece was written, and no file was published. Files taken
// by Adopt since Create or Open do not count.
func (s *Staging) IsEmpty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.parts {
		if p := &s.parts[i]; !p.local.isAdopted() && (p.isPublished() || p.isWhole() || p.all().size() > 0) {
			return false
		}
	}
	return true
}

// Dirty returns how many written bytes are not yet durable, of pieces and of small files. Sync makes it 0. The caller decides when to call
// Sync, for example at 64 MiB or after 2 s, with SyncNone too.
func (s *Staging) Dirty() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsynced
}

// Needs returns at most how many bytes and inodes the transfer has yet to allocate. It counts no bytes for files with holes, and counts
// folders and symlinks as if none existed.
func (s *Staging) Needs() (bytes, inodes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	inodes = int64(len(s.entries) - len(s.parts))
	for i := range s.parts {
		p := &s.parts[i]
		if p.isPublished() || p.isWhole() {
			continue
		}
		if p.stage == stageNone {
			inodes++
		}
		if p.entry.Flags&manifest.FlagSparse == 0 {
			bytes += p.entry.Size - p.all().size()
		}
	}
	return bytes, inodes
}
