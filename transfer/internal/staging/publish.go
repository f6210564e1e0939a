package staging

import (
	"errors"
	"io/fs"
	"path"
	"slices"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// Failure is why one file was not published.
type Failure struct {
	ID  uint32
	Err error // an *Error
}

// batch is what one Publish is at:
//
//  1. files that are not whole are left out, empty ones made
//  2. all are made durable together, and the journal has the pieces of those that had some
//  3. they get their modes and times, folders and names; each that fails is left out
//  4. the folders are synced, then the journal, and the parts go
type batch struct {
	parts  []*part
	failed []Failure
}

// fail notes that the file id was not published; path may be "".
func (b *batch) fail(id uint32, path string, err error) {
	b.failed = append(b.failed, Failure{id, wrap("publish", path, err)})
}

// keep leaves in the batch those for which f returns nil.
func (b *batch) keep(f func(*part) error) {
	kept := b.parts[:0]
	for _, p := range b.parts {
		if err := f(p); err != nil {
			b.fail(p.entry.ID, p.entry.Path, err)
			continue
		}
		kept = append(kept, p)
	}
	b.parts = kept
}

// Publish gives the files ids, which are whole, their modes, times and names, and returns those that it could not: CodeExists for what
// has something in its place, unless Options.Overwrite, CodePathUnsafe for a symlink above it, CodeProtocol for what is not whole. The
// others are durable under their names when it returns, with SyncNone excepted. A file has no name before its data is durable. A call
// may be repeated; what is published already is no failure. A file that failed after it got its name is Published, and a Failure until
// its folder and the journal are synced. Empty files need not be written before.
//
// When the machine stops between a name and the journal, Open finds the file in its place. It does not where there are no hard links,
// or with Overwrite, when WriteFile had written it: Existing tells then.
func (s *Staging) Publish(ids []uint32) []Failure {
	b := &batch{}
	if err := s.begin("publish"); err != nil {
		for _, id := range ids {
			b.fail(id, "", err)
		}
		return b.failed
	}
	defer s.endCall()
	s.commit.Lock()
	defer s.commit.Unlock()
	s.collect(b, ids)
	all := slices.Clone(b.parts)
	s.makeDurable(b)
	seen := make(folders)
	b.keep(func(p *part) error { return s.publish(p, seen) })
	err := s.settle()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range all {
		if p.use == useBatch {
			p.use = useNone
		}
	}
	b.keep(func(p *part) error {
		if p.isPlacing() {
			return err
		}
		return nil
	})
	return b.failed
}

// collect puts the files into the batch that are whole, and not published and told to the journal.
func (s *Staging) collect(b *batch, ids []uint32) {
	for _, id := range ids {
		s.mu.Lock()
		p, err := s.need("publish", id)
		isEmpty := err == nil && p.entry.Size == 0 && !p.isPublished() && !p.isWhole()
		s.mu.Unlock()
		if isEmpty {
			err = s.writeFile(id, nil)
		}
		if err != nil {
			b.fail(id, "", err)
			continue
		}
		s.mu.Lock()
		switch missing := p.all().missing(p.entry.Size); {
		case p.use == useBatch, p.stage == stagePublished:
		case !p.isPublished() && !p.isWhole() && len(missing) > 0:
			b.fail(id, "", errorf("publish", p.entry.Path, fault.CodeProtocol,
				"bytes %d to %d are missing", missing[0].From, missing[0].To))
		default:
			p.use = useBatch
			b.parts = append(b.parts, p)
		}
		s.mu.Unlock()
	}
}

// makeDurable leaves in the batch what is on the disk, whole, with the journal saying so of what had pieces: a crash between the two
// names of a file is then seen for what it is.
func (s *Staging) makeDurable(b *batch) {
	r := &round{failed: make(map[*part]error)}
	s.mu.Lock()
	for _, p := range b.parts {
		s.takeLocked(r, p)
	}
	if len(r.parts) > 0 {
		s.takeLayersLocked(r)
	}
	s.mu.Unlock()
	err := s.run(r)
	b.keep(func(p *part) error {
		if failed := r.failed[p]; failed != nil {
			return failed
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if p.isPublished() || p.stage == stageFlushed || p.logged == loggedYes && len(p.durable.missing(p.entry.Size)) == 0 {
			return nil
		}
		return err
	})
}

// publish gives one file, which is durable, its name.
func (s *Staging) publish(p *part, seen folders) error {
	if p.isPublished() { // and the journal does not know
		return nil
	}
	if err := s.folders(seen, path.Dir(p.entry.Path)); err != nil {
		return err
	}
	if p.stage == stagePieces {
		return s.publishPieces(p)
	}
	isLink, err := s.place(p, nil)
	if err != nil {
		return err
	}
	s.dirtyDirs[path.Dir(p.entry.Path)] = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.placeLocked(p, isLink)
	return nil
}

// publishPieces is publish for a part of pieces. The part stays open until it has its name, its mode and its time.
func (s *Staging) publishPieces(p *part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.holdLocked(p)
	if err != nil {
		return err
	}
	defer s.releaseLocked(p)
	s.mu.Unlock()
	isLink := false
	if err = s.dress(p, f); err == nil {
		isLink, err = s.place(p, f)
	}
	s.mu.Lock()
	if err != nil {
		return err
	}
	s.dirtyDirs[path.Dir(p.entry.Path)] = true
	s.placeLocked(p, isLink)
	return nil
}

// placeLocked: the file has its name; isLinked when the part is still there.
func (s *Staging) placeLocked(p *part, isLinked bool) {
	if isLinked {
		p.move(stageLinked)
	} else {
		p.move(stageNamed)
	}
	p.durable = nil
	delete(s.layers, p.entry.ID)
	s.placed = append(s.placed, p)
	s.retireLocked(p)
}

// settle syncs the folders in which names have changed, tells the journal what is published, and then removes the parts.
func (s *Staging) settle() error {
	for dir := range s.dirtyDirs {
		if err := s.syncDir(dir); err != nil {
			return err
		}
		delete(s.dirtyDirs, dir)
	}
	s.mu.Lock()
	placed := s.placed // Adopt may append
	s.mu.Unlock()
	records := make([]record, 0, len(placed))
	for _, p := range placed {
		records = append(records, record{kind: recordPublished, id: p.entry.ID})
	}
	if err := s.appendJournal(records); err != nil {
		return err
	}
	for _, p := range placed {
		if err := s.removeParts(p, p.stage == stageLinked); err != nil {
			return err
		}
		s.mu.Lock()
		p.move(stagePublished)
		p.layered, s.placed = false, s.placed[1:]
		s.mu.Unlock()
	}
	return nil
}

// removeParts removes what the directory has of a published file: the part, if it exists, and the layer.
func (s *Staging) removeParts(p *part, hasPart bool) error {
	var names []string
	if hasPart {
		names = append(names, s.partName(p))
	}
	if p.layered {
		names = append(names, s.fileName(p.entry.ID, ".layer"))
	}
	for _, name := range names {
		if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
