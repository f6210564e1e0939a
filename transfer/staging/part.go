package staging

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strconv"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// part is one file that is coming. Staging.mu guards all of it but entry.
type part struct {
	entry     *manifest.Entry
	live      *live // nil before its file was open in this process
	inode     uint64
	durable   ranges
	made      bool // in the journal, or in this process: there is a part for pieces
	known     bool // the journal may have a PART of it
	recorded  bool // the journal has that
	writing   bool // WriteFile is at it
	whole     bool // WriteFile has written it
	flushed   bool // and it is on the disk
	published bool
	found     bool // Existing has seen it
	adopted   bool // published by Adopt, in this process
	absent    bool // and there need be nothing in its place
	placing   bool // published, and not yet in the journal
	linked    bool // published, with the part still there
	layered   bool // there may be a file of its layer
	batched   bool // in the Publish that runs
}

// live is what of a part is not on the disk.
type live struct {
	file      File
	opening   bool
	resetting bool // no more writes
	retired   bool // whoever uses it last closes it
	fresh     bool // made by this process: what was never written is zero
	users     int
	last      uint64
	losses    int     // how often written data was lost
	busy      []Range // being written
	written   ranges  // and not synced
	syncing   ranges  // of the round that runs
	lost      ranges  // may hold anything
}

// isClean reports whether nothing waits to be synced.
func (l *live) isClean() bool { return len(l.written) == 0 && len(l.syncing) == 0 }

// find returns the part of the file id, or nil.
func (s *Staging) find(id uint32) *part {
	if len(s.parts) == 0 {
		return nil
	}
	if i := int64(id) - int64(s.parts[0].entry.ID); i >= 0 && i < int64(len(s.parts)) && s.parts[i].entry.ID == id {
		return &s.parts[i] // as when there are files alone
	}
	i := sort.Search(len(s.parts), func(i int) bool { return s.parts[i].entry.ID >= id })
	if i == len(s.parts) || s.parts[i].entry.ID != id {
		return nil
	}
	return &s.parts[i]
}

// need is find for a call that is wrong without one.
func (s *Staging) need(op string, id uint32) (*part, error) {
	if p := s.find(id); p != nil {
		return p, nil
	}
	return nil, errorf(op, "", manifest.CodeProtocol, "the transfer has no file %d", id)
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

// all returns what has been written.
func (p *part) all() ranges {
	all := p.durable
	if p.live != nil {
		all = all.merge(p.live.syncing).merge(p.live.written)
	}
	return all
}

// has reports whether any byte of r is had, or being written.
func (p *part) has(r Range) bool {
	if p.published || p.whole || p.durable.overlaps(r) {
		return true
	}
	l := p.live
	return l != nil && (l.written.overlaps(r) || l.syncing.overlaps(r) ||
		slices.ContainsFunc(l.busy, func(b Range) bool { return b.From < r.To && r.From < b.To }))
}

// forget: nothing of the file is had.
func (p *part) forget() {
	*p = part{entry: p.entry, known: p.known, layered: p.layered}
}

// holdLocked returns the part's file, open and not to be closed until releaseLocked. It lets mu go while it opens.
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
	if !p.made { // only who opens it changes that
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
		p.inode, p.made, l.fresh, s.newNames = inode, true, true, true
	}
	l.file = f
	s.open = append(s.open, p)
	return f, nil
}

// releaseLocked ends one use of the part's file, and closes what is open without need. It lets mu go while it closes.
func (s *Staging) releaseLocked(p *part) {
	l := p.live
	if l.users--; l.users == 0 {
		s.wake.Broadcast()
		if l.retired {
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

// idlestLocked returns the part that may be closed, and was used longest ago. What was written and not synced keeps it open: another
// descriptor may not learn that it was lost.
func (s *Staging) idlestLocked() *part {
	var idlest *part
	for _, p := range s.open {
		if p.live.users == 0 && p.live.isClean() && (idlest == nil || p.live.last < idlest.live.last) {
			idlest = p
		}
	}
	return idlest
}

// closeLocked closes the file of a part that nobody uses, letting mu go.
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
	_ = f.Close() // what was written to it is synced, or not wanted
	s.mu.Lock()
}

// retireLocked closes the file of a part that is published, now or when it is used no more.
func (s *Staging) retireLocked(p *part) {
	if l := p.live; l != nil {
		l.retired = true
		if l.users == 0 {
			s.closeLocked(p)
			p.live = nil
		}
	}
}

// reopen opens the part, which must be the one that was made.
func (s *Staging) reopen(p *part) (File, uint64, error) {
	name := s.partName(p)
	f, info, err := s.openSame(name)
	if err != nil {
		return nil, 0, err
	}
	if !p.isSame(info) {
		_ = f.Close() // it is not ours
		return nil, 0, errorf("open", p.entry.Path, CodeIO, "another program has changed %q: close the transfer and go on with it again", name)
	}
	return f, info.Inode, nil
}

// make makes the part anew, with its size and holes all over. The journal says by then that nothing is had of an earlier one: the new
// one may get its inode.
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

// createNew makes a file of the directory. A leftover of its name is removed, not emptied: it may have another name by now.
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

// isSame reports whether info is of the part that was made.
func (p *part) isSame(info Info) bool {
	return info.Mode.IsRegular() && info.Inode == p.inode && info.Size == p.entry.Size
}
