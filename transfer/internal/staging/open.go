package staging

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// Open resumes the transfer id after a crash or Close. The error is CodeNoState if there is none, or if its list of files was never
// completely on the disk: Discard then makes room for Create. It is CodeBusy if another Staging has the transfer.
func Open(disk FS, id string, o *Options) (*Staging, error) {
	s, err := newStaging(disk, id, o)
	if err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		_ = s.closeFiles() // only the first error counts
		_ = s.closeFolders()
		if s.lock != nil {
			_ = s.lock.Close() // nothing was written to it
		}
		return nil, wrap("open", "", err)
	}
	return s, nil
}

// load takes the lock and reads the stored state. After an error the lock and files may be open.
func (s *Staging) load() error {
	info, err := s.fs.Lstat(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errorf("open", "", fault.CodeNoState, "there is no transfer %q to go on with", s.dir)
	} else if err != nil {
		return err
	}
	if !info.Mode.IsDir() {
		return errorf("open", s.dir, fault.CodePathUnsafe, "it is no directory of a transfer")
	}
	if err := s.checkOwn(info); err != nil {
		return err
	}
	s.device = info.Device
	if s.lock, err = s.fs.Lock(lockName(s.dir)); err != nil {
		return err
	}
	b, f, err := s.read(s.metaName())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f != nil {
		_ = f.Close() // it was read
	}
	var entries []manifest.Entry
	if entries, s.umask, s.meta, err = consumeMeta(b); err != nil {
		return errorf("open", "", fault.CodeNoState, "the transfer was never begun, or its list of files is damaged: start again")
	}
	if err := s.setEntries(entries); err != nil {
		return err
	}
	if err := s.renewUmask(); err != nil {
		return err
	}
	pieces, err := s.loadJournal()
	if err != nil {
		return err
	}
	return s.examineAll(pieces)
}

// read opens a file of the directory and reads it. A link in its place is refused.
func (s *Staging) read(name string) ([]byte, File, error) {
	f, info, err := s.openSame(name)
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, info.Size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		_ = f.Close() // the read has failed
		return nil, nil, err
	}
	return b, f, nil
}

// openSame opens a regular file, and checks that no link leads elsewhere: Root follows links inside of it.
func (s *Staging) openSame(name string) (File, Info, error) {
	before, err := s.fs.Lstat(name)
	if err != nil {
		return nil, Info{}, err
	}
	unsafe := errorf("open", name, fault.CodePathUnsafe, "it is not the file that this program has made")
	if !before.Mode.IsRegular() {
		return nil, Info{}, unsafe
	}
	f, err := s.fs.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) && before.Mode.Perm()&0o600 != 0o600 { // Publish has set its mode, and got no further
		if err = s.fs.Chmod(name, 0o600); err == nil {
			f, err = s.fs.OpenFile(name, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return nil, Info{}, err
	}
	info, err := f.Stat()
	if err == nil && (info.Inode != before.Inode || !info.Mode.IsRegular()) {
		err = unsafe
	}
	if err != nil {
		_ = f.Close() // it is not used
		return nil, Info{}, err
	}
	return f, info, nil
}

// loadJournal replays the journal, cuts off an incomplete record at its end, and returns the pieces that have layers.
func (s *Staging) loadJournal() (map[uint32]ranges, error) {
	b, f, err := s.read(s.journalName())
	if errors.Is(err, fs.ErrNotExist) { // the machine stopped in Create
		f, err = s.fs.OpenFile(s.journalName(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		s.newNames = true
	}
	if err != nil {
		return nil, err
	}
	s.journal = f
	s.torn = true
	pieces := make(map[uint32]ranges)
	if !isJournal(b, s.meta) {
		return pieces, s.appendJournal(nil)
	}
	s.journalEnd = journalHead
	for {
		r, n := consumeRecord(b[s.journalEnd:])
		if n == 0 || !s.replay(r, pieces) {
			break
		}
		s.journalEnd += int64(n)
	}
	for i := range s.parts {
		p := &s.parts[i]
		p.durable = p.durable.sorted()
	}
	s.torn = s.journalEnd < int64(len(b))
	return pieces, s.appendJournal(nil)
}

// replay applies one record, and reports whether the record is valid. The durable ranges are not in order yet.
func (s *Staging) replay(r record, pieces map[uint32]ranges) bool {
	p := s.find(r.id)
	if p == nil {
		return false
	}
	switch r.kind {
	case recordPart:
		p.forget()
		p.move(stagePieces)
		p.logged, p.inode = loggedYes, r.inode
	case recordReset:
		p.forget()
		p.logged = loggedNo
		delete(pieces, r.id)
		delete(s.roots, r.id)
	case recordPublished:
		if p.stage != stagePublished { // said again after an error
			p.move(stagePublished)
		}
	case recordRoot:
		s.roots[r.id] = root{r.root}
	case recordLayer:
		pieces[r.id] = append(pieces[r.id], r.have...)
		p.layered = true
	case recordRanges:
		beyond := slices.ContainsFunc(r.have, func(have Range) bool { return have.To > p.entry.Size })
		if p.logged != loggedYes || beyond {
			return false
		}
		p.durable = append(p.durable, r.have...)
	}
	return true
}

// examineAll compares the journal with the files. It removes missing parts from the journal before one is created anew.
func (s *Staging) examineAll(pieces map[uint32]ranges) error {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	leftover := make(map[uint32]bool)
	for _, name := range names {
		number, isPart := strings.CutSuffix(name, ".part")
		if id, err := strconv.ParseUint(number, 10, 32); isPart && err == nil {
			leftover[uint32(id)] = true
		}
	}
	var resets []record
	for i := range s.parts {
		p := &s.parts[i]
		if isLost, err := s.examine(p, leftover[p.entry.ID]); err != nil {
			return err
		} else if isLost {
			p.forget()
			delete(pieces, p.entry.ID)
			delete(s.roots, p.entry.ID)
			resets = append(resets, record{kind: recordReset, id: p.entry.ID})
		}
	}
	if err := s.appendJournal(resets); err != nil {
		return err
	}
	for id, have := range pieces {
		if s.find(id).isPublished() {
			continue
		}
		if err := s.loadLayer(id, have.sorted()); err != nil {
			return err
		}
	}
	return nil
}

// examine checks whether the part is the one in the journal, or has been published since, and reports whether it is lost. A published file
// that was deleted, moved or changed since is lost too. isThere is whether the part exists.
func (s *Staging) examine(p *part, isThere bool) (isLost bool, err error) {
	switch {
	case p.isPublished():
		p.durable = nil
		if err := s.removeParts(p, isThere); err != nil {
			return false, err
		}
		isThere, err := s.isPublished(p)
		return !isThere, err
	case p.logged != loggedYes && !isThere:
		return false, nil
	case p.logged != loggedYes: // WriteFile's, or one whose PART was not written
		if s.isOneFile(s.partName(p), p.entry.Path) {
			s.isPlaced(p, isThere)
		}
		return false, nil
	}
	info, err := s.fs.Lstat(s.partName(p))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	isOurs := err == nil && p.isSame(info)
	if s.isInPlace(p) { // and must not be opened as a part, because it has its final mode
		s.isPlaced(p, isOurs)
		return false, nil
	}
	return !isOurs, nil
}

// isPublished reports whether a file that is published according to the journal is in its place: a regular file with its size and time.
func (s *Staging) isPublished(p *part) (bool, error) {
	info, err := s.lstat(p.entry.Path)
	var other *fault.Error // of a folder that is no folder any more
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.As(err, &other):
		return false, nil
	case err != nil:
		return false, err
	}
	return s.isFile(p, info), nil
}

// isPlaced: the file was published, and the journal is to learn it.
func (s *Staging) isPlaced(p *part, isLinked bool) {
	s.placeLocked(p, isLinked) // nobody else has s yet
	s.dirtyDirs[path.Dir(p.entry.Path)] = true
}

// isInPlace reports whether the part, all of which was had, is where it is published to: the machine stopped before the journal said so.
func (s *Staging) isInPlace(p *part) bool {
	info, err := s.fs.Lstat(p.entry.Path)
	return err == nil && p.inode != 0 && p.isSame(info) && len(p.durable.missing(p.entry.Size)) == 0
}
