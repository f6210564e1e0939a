package staging

import (
	"errors"
	"slices"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// fewFiles is how many files are synced one by one, where one call can sync all.
const fewFiles = 16

// datasync is f.Datasync, unless nothing is synced.
func (s *Staging) datasync(f File) error {
	if s.opts.Sync == SyncNone {
		return nil
	}
	return f.Datasync()
}

// syncDir is FS.SyncDir, unless nothing is synced.
func (s *Staging) syncDir(name string) error {
	if s.opts.Sync == SyncNone {
		return nil
	}
	return s.fs.SyncDir(name)
}

// appendJournal appends records and syncs them; what is behind the last right record is cut off before. The caller has commit.
func (s *Staging) appendJournal(records []record) error {
	if s.torn {
		if err := s.journal.Truncate(s.journalEnd); err != nil {
			return err
		}
	}
	var b []byte
	if s.journalEnd == 0 {
		b = appendJournalHead(b, s.meta)
	}
	for _, r := range records {
		b = appendRecord(b, r)
	}
	if len(b) == 0 && !s.torn {
		return nil
	}
	s.torn = true
	if len(b) > 0 {
		if _, err := s.journal.WriteAt(b, s.journalEnd); err != nil {
			return err
		}
	}
	if err := s.datasync(s.journal); err != nil {
		return err
	}
	s.journalEnd += int64(len(b))
	s.torn = false
	return nil
}

// round is what one Sync or Publish makes durable:
//
//  1. under mu, what is dirty is taken; what is written from then on is the next round's
//  2. layers are written, and parts, small files and layers synced
//  3. the staging directory is synced, if there are names in it that the journal is to rely on
//  4. the journal is appended to, and synced
//  5. under mu, Have learns it, or what was lost is missing again
type round struct {
	parts    []*part // with pieces; their files are held
	files    []File
	small    []*part
	layers   []layerPiece
	roots    []uint32
	newNames bool
	records  []record
	failed   map[*part]error
	lostAll  error
}

// Sync makes durable what was written when it was called, and Have says it. What the disk loses is missing again; the other files are
// not held up. Folders of published files are synced too, and the journal told. With SyncNone only the journal learns of it.
func (s *Staging) Sync() error {
	if err := s.begin("sync"); err != nil {
		return err
	}
	defer s.endCall()
	s.commit.Lock()
	defer s.commit.Unlock()
	return wrap("sync", "", s.sync())
}

// sync is Sync, for who has commit.
func (s *Staging) sync() error {
	s.mu.Lock()
	r := &round{failed: make(map[*part]error)}
	for _, p := range s.open {
		s.takeLocked(r, p)
	}
	for _, p := range s.small {
		s.takeLocked(r, p)
	}
	s.takeLayersLocked(r)
	s.mu.Unlock()
	if err := s.run(r); err != nil {
		return errors.Join(r.lost(), err)
	}
	return errors.Join(r.lost(), s.settle())
}

// syncRange returns when r, which was written, is durable. Of many who wait for their turn the first syncs for all.
func (s *Staging) syncRange(p *part, r Range) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	isDurable := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return p.isPublished() || len(ranges{r}.without(p.durable)) == 0
	}
	if isDurable() {
		return nil
	}
	err := s.sync()
	if isDurable() {
		return nil
	}
	if err == nil {
		err = errorf("sync", p.entry.Path, fault.CodeIO, "the disk has lost what was written: write it again")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := p.live; l != nil { // so that the same call may be repeated
		rest := l.written.without(ranges{r})
		s.unsynced -= l.written.size() - rest.size()
		l.written, l.lost = rest, l.lost.add(r)
	}
	return wrap("sync", p.entry.Path, err)
}

// takeLocked takes what of p is not durable.
func (s *Staging) takeLocked(r *round, p *part) {
	switch l := p.live; {
	case p.stage == stageWhole:
		r.small = append(r.small, p)
	case l != nil && len(l.written) > 0:
		l.syncing, l.written = l.written, nil
		l.users++
		r.parts, r.files = append(r.parts, p), append(r.files, l.file)
	}
}

// run makes the round durable. Its error is of what concerns all of the round; of single files round.failed has them.
func (s *Staging) run(r *round) error {
	err := s.writeLayers(r)
	if err == nil && s.opts.Sync != SyncNone {
		err = s.flush(r)
	}
	r.closeLayers()
	if err == nil {
		err = s.record(r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.concludeLocked(r, err)
	return err
}

// flush makes data durable: of many files in one call, where the system has it.
func (s *Staging) flush(r *round) error {
	for i, p := range r.parts {
		if p.live.losses == 0 || p.logged == loggedYes {
			continue
		}
		if err := r.files[i].Truncate(p.entry.Size); err != nil { // the size may be lost too
			return err
		}
	}
	if len(r.parts)+len(r.small)+len(r.layers) > fewFiles {
		err := s.journal.SyncAll() // its own descriptor: what another Staging is told is not what this one is
		if !errors.Is(err, errors.ErrUnsupported) {
			r.lostAll = err
			return err
		}
	}
	for i, p := range r.parts {
		if err := r.files[i].Datasync(); err != nil {
			r.failed[p] = err
		}
	}
	for _, p := range r.small {
		if err := s.flushSmall(p); err != nil {
			r.failed[p] = err
		}
	}
	for _, l := range r.layers {
		if err := l.file.Datasync(); err != nil {
			return err
		}
	}
	return nil
}

// flushSmall opens and syncs a file that WriteFile has closed.
func (s *Staging) flushSmall(p *part) error {
	f, info, err := s.openSame(s.partName(p))
	if err != nil {
		return err
	}
	if !p.isSame(info) {
		_ = f.Close() // it is not ours
		return errorf("sync", p.entry.Path, fault.CodeIO, "another program has changed %q", s.partName(p))
	}
	err = f.Datasync()
	if mode := modeOf(p.entry.Perm, s.umask); err == nil && info.Mode.Perm() != mode { // it could not be opened with that
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}

// record tells the journal what is durable now.
func (s *Staging) record(r *round) error {
	s.mu.Lock()
	for _, id := range r.roots {
		r.records = append(r.records, record{kind: recordRoot, id: id, root: s.roots[id].sum})
	}
	for _, l := range r.layers {
		r.records = append(r.records, record{kind: recordLayer, id: l.id, have: l.pieces})
	}
	for _, p := range r.parts {
		if r.failed[p] != nil {
			continue
		}
		if p.logged != loggedYes {
			r.records = append(r.records, record{kind: recordPart, id: p.entry.ID, inode: p.inode})
			p.logged = loggedMaybe // also when the append fails: it may be on the disk all the same
		}
		r.records = append(r.records, record{kind: recordRanges, id: p.entry.ID, have: p.live.syncing})
	}
	if len(r.records) > 0 {
		r.newNames, s.newNames = s.newNames, false
	}
	s.mu.Unlock()
	if r.newNames {
		if err := s.syncDir(s.dir); err != nil {
			return err
		}
		r.newNames = false
	}
	return s.appendJournal(r.records)
}

// concludeLocked takes down what has become of the round; err is what has failed for all of it.
func (s *Staging) concludeLocked(r *round, err error) {
	s.newNames = s.newNames || r.newNames
	for _, p := range r.parts {
		l := p.live
		switch {
		case r.lostAll != nil || r.failed[p] != nil:
			s.loseLocked(p)
		case err != nil: // the data is there, and the journal does not say so
			l.written, l.syncing = l.written.merge(l.syncing), nil
		default:
			s.unsynced -= l.syncing.size()
			p.durable, l.syncing, p.logged = p.durable.merge(l.syncing), nil, loggedYes
		}
	}
	for _, p := range r.small {
		switch {
		case r.lostAll != nil || r.failed[p] != nil:
			s.loseLocked(p)
		case err == nil && p.stage == stageWhole: // it may have been adopted
			s.unsynced -= p.entry.Size
			p.move(stageFlushed)
		}
	}
	if r.lostAll != nil { // also what is no part of this round, as no other will say
		for _, p := range slices.Concat(s.open, s.small) {
			s.loseLocked(p)
		}
	}
	s.small = slices.DeleteFunc(s.small, func(p *part) bool { return p.stage != stageWhole })
	if err != nil {
		s.returnLayersLocked(r)
	}
	for _, p := range r.parts {
		s.releaseLocked(p)
	}
}

// loseLocked: what was written to p and not synced is gone, or may be.
func (s *Staging) loseLocked(p *part) {
	if p.stage == stageWhole {
		s.unsynced -= p.entry.Size
		p.move(stageNone)
	}
	l := p.live
	if l == nil {
		return
	}
	l.losses++
	l.lost = l.lost.merge(l.written).merge(l.syncing)
	s.unsynced -= l.written.size() + l.syncing.size()
	l.written, l.syncing = nil, nil
}

// lost returns the errors of single files.
func (r *round) lost() error {
	var all error
	for p, err := range r.failed {
		all = errors.Join(all, wrap("sync", p.entry.Path, err))
	}
	return all
}
