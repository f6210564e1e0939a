package staging

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// WriteAt writes a verified piece of the file id, and does not keep b. The piece is durable on return with SyncEach, and otherwise after
// the next Sync. The error is CodeProtocol if the piece is outside of the file, or if any of it is written already or being written: call
// Reset before writing it again. After any error the piece counts as not written.
func (s *Staging) WriteAt(id uint32, b []byte, off int64) error {
	return s.put(id, Range{off, off + int64(len(b))}, b)
}

// WriteZeros is WriteAt of n zeros. It leaves a hole; after Open, it does so where the system can make one.
func (s *Staging) WriteZeros(id uint32, off, n int64) error {
	if n < 0 {
		return errorf("write", "", fault.CodeProtocol, "%d zeros", n)
	}
	return s.put(id, Range{off, off + n}, nil)
}

// put writes b, or zeros if b is nil, to r.
func (s *Staging) put(id uint32, r Range, b []byte) error {
	if err := s.begin("write"); err != nil {
		return err
	}
	defer s.endCall()
	p, err := s.write(id, r, b)
	if err != nil || p == nil {
		return err
	}
	if s.opts.Sync == SyncEach {
		return s.syncRange(p, r)
	}
	return nil
}

// write returns the part that it wrote to, or nil for no bytes.
func (s *Staging) write(id uint32, r Range, b []byte) (*part, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.need("write", id)
	if err != nil {
		return nil, err
	}
	if err := p.check(r); err != nil || r.From == r.To {
		return nil, err
	}
	if p.live == nil {
		p.live = &live{}
	}
	l := p.live
	l.busy = append(l.busy, r)
	losses := l.losses
	f, err := s.holdLocked(p)
	if err == nil {
		isHole := b == nil && l.fresh && !l.lost.overlaps(r)
		s.mu.Unlock()
		if !isHole {
			err = writeTo(f, r, b)
		}
		s.mu.Lock()
		if err == nil && losses != l.losses {
			err = &fault.Error{Op: "write", Path: p.entry.Path, Code: fault.CodeIO, Err: ErrLost}
		}
		if err != nil {
			l.lost = l.lost.add(r)
		} else {
			l.written = l.written.add(r)
			s.unsynced += r.To - r.From
		}
	}
	l.busy = slices.DeleteFunc(l.busy, func(other Range) bool { return other == r })
	if f != nil {
		s.releaseLocked(p)
	}
	return p, wrap("write", p.entry.Path, err)
}

// check rejects an invalid write to r.
func (p *part) check(r Range) error {
	path := p.entry.Path
	switch {
	case r.From < 0 || r.To < r.From || r.To > p.entry.Size:
		return errorf("write", path, fault.CodeProtocol, "bytes %d to %d of %d", r.From, r.To, p.entry.Size)
	case r.From < r.To && p.has(r), p.isPublished():
		return errorf("write", path, fault.CodeProtocol, "bytes %d to %d are had already, or being written", r.From, r.To)
	case p.use == useWrite || p.use == useReset:
		return errorf("write", path, fault.CodeProtocol, "it is being written as a whole, or reset")
	}
	return nil
}

// writeTo writes b, or zeros if b is nil, to r.
func writeTo(f File, r Range, b []byte) error {
	if b != nil {
		_, err := f.WriteAt(b, r.From)
		return err
	}
	if err := f.Punch(r.From, r.To-r.From); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	zeros := make([]byte, min(r.To-r.From, 64<<10))
	for at := r.From; at < r.To; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), r.To-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile writes the whole verified file id, with its mode and time, and does not keep data. The file is then complete and ready for
// Publish, and counts in Dirty. The journal does not list it before it is published: a crash makes it missing again. The error is
// CodeProtocol if the size is wrong, or if pieces of the file are written: call Reset first.
func (s *Staging) WriteFile(id uint32, data []byte) error {
	if err := s.begin("write"); err != nil {
		return err
	}
	defer s.endCall()
	return s.writeFile(id, data)
}

// writeFile is WriteFile for calls that have begun.
func (s *Staging) writeFile(id uint32, data []byte) error {
	s.mu.Lock()
	p, err := s.need("write", id)
	if err == nil {
		err = p.checkWhole(int64(len(data)))
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	p.use = useWrite
	s.mu.Unlock()

	inode, err := s.writeWhole(p, data)

	s.mu.Lock()
	defer s.mu.Unlock()
	p.use = useNone
	if err != nil {
		return wrap("write", p.entry.Path, err)
	}
	p.inode = inode
	p.move(stageWhole)
	s.small = append(s.small, p)
	s.unsynced += p.entry.Size
	return nil
}

// checkWhole rejects an invalid WriteFile of size bytes.
func (p *part) checkWhole(size int64) error {
	switch {
	case size != p.entry.Size:
		return errorf("write", p.entry.Path, fault.CodeProtocol, "%d bytes of %d", size, p.entry.Size)
	case p.stage != stageNone || p.use == useWrite || p.use == useReset || p.live != nil && len(p.live.busy) > 0:
		return errorf("write", p.entry.Path, fault.CodeProtocol, "some of it is had already, or being written")
	}
	return nil
}

// writeWhole writes the part with all the data, its mode and its time, and returns its inode. After an error an incomplete part may exist.
func (s *Staging) writeWhole(p *part, data []byte) (inode uint64, err error) {
	f, err := s.createNew(s.partName(p), os.O_WRONLY)
	if err != nil {
		return 0, err
	}
	if len(data) > 0 {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = s.dress(p, f)
	}
	var info Info
	if err == nil {
		info, err = f.Stat()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return info.Inode, err
}

// dress sets the file's mode and time on an open part.
func (s *Staging) dress(p *part, f File) error {
	if err := f.Chmod(modeOf(p.entry.Perm, s.umask)); err != nil {
		return err
	}
	return f.Chtimes(time.Unix(0, p.entry.ModTime))
}

// ReadAt reads from the part of the file id, so that data from before a crash can be compared with its hash. The error is CodeProtocol for
// a file that is published, was written by WriteFile, or has no part, and for a negative off; it is io.EOF at the end.
func (s *Staging) ReadAt(id uint32, b []byte, off int64) (int, error) {
	if err := s.begin("read"); err != nil {
		return 0, err
	}
	defer s.endCall()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.need("read", id)
	if err != nil {
		return 0, err
	}
	if p.stage != stagePieces || p.use == useReset {
		return 0, errorf("read", p.entry.Path, fault.CodeProtocol, "there is no part of it")
	}
	if off < 0 {
		return 0, errorf("read", p.entry.Path, fault.CodeProtocol, "offset %d", off)
	}
	f, err := s.holdLocked(p)
	if err != nil {
		return 0, wrap("read", p.entry.Path, err)
	}
	s.mu.Unlock()
	n, err := f.ReadAt(b, off)
	s.mu.Lock()
	s.releaseLocked(p)
	return n, err
}

// Reset forgets the whole file id, with its layer and root, for example when its hash is wrong. It waits for the calls that write the file.
// A published file stays in its place, but no longer counts as received. The error is CodeProtocol while WriteFile writes the file.
func (s *Staging) Reset(id uint32) error {
	if err := s.begin("reset"); err != nil {
		return err
	}
	defer s.endCall()
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.need("reset", id)
	switch {
	case err != nil:
		return err
	case p.use == useWrite || p.isPlacing():
		return errorf("reset", p.entry.Path, fault.CodeProtocol, "it is being written as a whole, or published")
	}
	p.use = useReset
	for p.live != nil && p.live.users > 0 {
		s.wake.Wait()
	}
	if p.logged != loggedNo || p.isPublished() || p.layered || s.layers[id] != nil || s.hasRoot(id) {
		s.mu.Unlock()
		err := s.appendJournal([]record{{kind: recordReset, id: id}})
		s.mu.Lock()
		if err != nil {
			p.use = useNone
			return wrap("reset", p.entry.Path, err)
		}
	}
	s.forgetLocked(p)
	return nil
}

// forgetLocked forgets an unused part that the journal has forgotten.
func (s *Staging) forgetLocked(p *part) {
	switch {
	case p.stage == stageWhole:
		s.unsynced -= p.entry.Size
		s.small = slices.DeleteFunc(s.small, func(other *part) bool { return p == other })
	case p.live != nil:
		s.unsynced -= p.live.written.size()
		s.closeLocked(p)
	}
	delete(s.layers, p.entry.ID)
	delete(s.roots, p.entry.ID)
	p.forget()
	p.logged = loggedNo
}
