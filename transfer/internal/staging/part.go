package staging

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strconv"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// part is one file being received. Staging.mu guards all fields but entry.
type part struct {
	entry   *manifest.Entry
	live    *live // nil before its file was open in this process
	inode   uint64
	durable ranges
	stage   stage
	use     use
	logged  logged
	local   local
	layered bool // a file with its layer may exist
}

// live is the in-memory state of a part.
type live struct {
	file    File
	opening bool
	fresh   bool // created by this process: unwritten bytes are zero
	users   int
	last    uint64
	losses  int     // how often written data was lost
	busy    []Range // being written
	written ranges  // and not synced
	syncing ranges  // of the running round
	lost    ranges  // their content is undefined
}

// isClean reports whether nothing waits to be synced.
func (l *live) isClean() bool { return len(l.written) == 0 && len(l.syncing) == 0 }

// find returns the part of the file id, or nil.
func (s *Staging) find(id uint32) *part {
	if len(s.parts) == 0 {
		return nil
	}
	if i := int64(id) - int64(s.parts[0].entry.ID); i >= 0 && i < int64(len(s.parts)) && s.parts[i].entry.ID == id {
		return &s.parts[i] // when all entries are files
	}
	i := sort.Search(len(s.parts), func(i int) bool { return s.parts[i].entry.ID >= id })
	if i == len(s.parts) || s.parts[i].entry.ID != id {
		return nil
	}
	return &s.parts[i]
}

// need is find for a call that requires a part.
func (s *Staging) need(op string, id uint32) (*part, error) {
	if p := s.find(id); p != nil {
		return p, nil
	}
	return nil, errorf(op, "", fault.CodeProtocol, "the transfer has no file %d", id)
}

// partName returns the name of the part.
func (s *Staging) partName(p *part) string { return s.fileName(p.entry.ID, ".part") }

// fileName returns the name of a file of the directory: <id><suffix>.
func (s *Staging) fileName(id uint32, suffix string) string {
	b := make([]byte, 0, len(s.dir)+24)
	b = append(append(b, s.dir...), '/')
	b = strconv.AppendUint(b, uint64(id), 10)
	return string(append(b, suffix...))
}

// all returns the written ranges.
func (p *part) all() ranges {
	all := p.durable
	if p.live != nil {
		all = all.merge(p.live.syncing).merge(p.live.written)
	}
	return all
}

// has reports whether any byte of r is present, or being written.
func (p *part) has(r Range) bool {
	if p.isPublished() || p.isWhole() || p.durable.overlaps(r) {
		return true
	}
	l := p.live
	return l != nil && (l.written.overlaps(r) || l.syncing.overlaps(r) ||
		slices.ContainsFunc(l.busy, func(b Range) bool { return b.From < r.To && r.From < b.To }))
}

// forget marks the whole file as not written. The journal may still have it.
func (p *part) forget() {
	*p = part{entry: p.entry, logged: min(p.logged, loggedMaybe), layered: p.layered}
}

// holdLocked returns the part's file, which stays open until releaseLocked. It releases mu while it opens the file.
func (s *Staging) holdLocked(p *part) (File, error) {
	if p.live == nil {
		p.live = &live{}
	}
	l := p.live
	l.users++
	for l.opening {
		s.wake.Wait()
	}
	s.tick++
	l.last = s.tick
	if l.file != nil {
		return l.file, nil
	}
	l.opening = true
	s.mu.Unlock()
	open, isNew := s.reopen, false
	if p.stage == stageNone { // only the goroutine that opens it changes that
		open, isNew = s.make, true
	}
	f, inode, err := open(p)
	s.mu.Lock()
	l.opening = false
	s.wake.Broadcast()
	if err != nil {
		s.releaseLocked(p)
		return nil, err
	}
	if isNew {
		p.move(stagePieces)
		p.inode, l.fresh, s.newNames = inode, true, true
	}
	l.file = f
	s.open = append(s.open, p)
	return f, nil
}

// releaseLocked ends one use of the part's file, and closes files that need not stay open. It releases mu while it closes them.
func (s *Staging) releaseLocked(p *part) {
	l := p.live
	if l.users--; l.users == 0 {
		s.wake.Broadcast()
		if p.isPublished() {
			s.retireLocked(p)
		}
	}
	for len(s.open) > s.opts.OpenParts {
		victim := s.idlestLocked()
		if victim == nil {
			return
		}
		s.closeLocked(victim)
	}
}

// idlestLocked returns the least recently used part that may be closed. A part with unsynced data stays open, because another descriptor
// may not learn that the data was lost.
func (s *Staging) idlestLocked() *part {
	var idlest *part
	for _, p := range s.open {
		if p.live.users == 0 && p.live.isClean() && (idlest == nil || p.live.last < idlest.live.last) {
			idlest = p
		}
	}
	return idlest
}

// closeLocked closes the file of an unused part. It releases mu meanwhile.
func (s *Staging) closeLocked(p *part) {
	f := p.live.file
	if f == nil {
		return
	}
	p.live.file = nil
	if i := slices.Index(s.open, p); i >= 0 {
		s.open = slices.Delete(s.open, i, i+1)
	}
	s.mu.Unlock()
	_ = f.Close() // its data is synced, or not wanted
	s.mu.Lock()
}

// retireLocked closes the file of a published part, now or once it is no longer used.
func (s *Staging) retireLocked(p *part) {
	if p.live != nil && p.live.users == 0 {
		s.closeLocked(p)
		p.live = nil
	}
}

// reopen opens the part, which must be the one that was created.
func (s *Staging) reopen(p *part) (File, uint64, error) {
	name := s.partName(p)
	f, info, err := s.openSame(name)
	if err != nil {
		return nil, 0, err
	}
	if !p.isSame(info) {
		_ = f.Close() // it is not ours
		return nil, 0, errorf("open", p.entry.Path, fault.CodeIO, "another program has changed %q: close the transfer and go on with it again", name)
	}
	return f, info.Inode, nil
}

// make creates the part anew, with its size and as one hole. By then the journal no longer lists data of an earlier part, whose inode the
// new one may get.
func (s *Staging) make(p *part) (File, uint64, error) {
	f, err := s.createNew(s.partName(p), os.O_RDWR)
	if err != nil {
		return nil, 0, err
	}
	err = f.Truncate(p.entry.Size)
	var info Info
	if err == nil {
		info, err = f.Stat()
	}
	if err != nil {
		_ = f.Close() // it is removed next time
		return nil, 0, err
	}
	return f, info.Inode, nil
}

// createNew creates a file of the directory. It removes a leftover of that name instead of truncating it, because the leftover may have
// another name by now.
func (s *Staging) createNew(name string, flag int) (File, error) {
	f, err := s.fs.OpenFile(name, flag|os.O_CREATE|os.O_EXCL, 0o600)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s.fs.OpenFile(name, flag|os.O_CREATE|os.O_EXCL, 0o600)
}

// isSame reports whether info describes the part that was created.
func (p *part) isSame(info Info) bool {
	return info.Mode.IsRegular() && info.Inode == p.inode && info.Size == p.entry.Size
}
