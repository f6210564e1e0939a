package staging

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// appendJournal appends records and syncs them; what is behind the last right record is cut off before.
func (s *Staging) appendJournal(records []record) error {
	if s.dirty {
		if err := s.journal.Truncate(s.end); err != nil {
			return err
		}
	}
	var b []byte
	if s.end == 0 {
		b = appendJournalHead(b, s.meta)
	}
	for _, r := range records {
		b = appendRecord(b, r)
	}
	if len(b) == 0 && !s.dirty {
		return nil
	}
	s.dirty = true
	if len(b) > 0 {
		if _, err := s.journal.WriteAt(b, s.end); err != nil {
			return err
		}
	}
	if err := s.journal.Datasync(); err != nil {
		return err
	}
	s.end += int64(len(b))
	s.dirty = false
	return nil
}

// use opens the part, and makes it first when there is none.
func (s *Staging) use(p *part) error {
	if p.file != nil {
		i := slices.Index(s.open, p)
		s.open = append(slices.Delete(s.open, i, i+1), p)
		return nil
	}
	if len(s.open) >= s.opts.OpenParts {
		if err := s.leave(s.open[0]); err != nil {
			return err
		}
	}
	open := s.make
	if p.made {
		open = s.reopen
	}
	if err := open(p); err != nil {
		return err
	}
	s.open = append(s.open, p)
	return nil
}

// leave closes a part. What was written to it is synced before: another descriptor may not learn that it was lost.
func (s *Staging) leave(p *part) error {
	if len(p.written) > 0 {
		if err := s.Sync(); err != nil {
			return err
		}
	}
	s.open = slices.DeleteFunc(s.open, func(q *part) bool { return p == q })
	f := p.file
	p.file = nil
	return f.Close()
}

func (s *Staging) reopen(p *part) error {
	f, info, err := s.openSame(p.name)
	if err != nil {
		return err
	}
	if !p.isSame(info) {
		_ = f.Close() // it is not ours
		return errorf("open", p.entry.Path, CodeIO, "another program has changed %q: close the transfer and go on with it again", p.name)
	}
	p.file = f
	return nil
}

// make makes the part anew, with its size and holes all over. The journal forgets an earlier one before: a new one may get its inode.
func (s *Staging) make(p *part) error {
	if p.known {
		if err := s.appendJournal([]record{{kind: recordReset, id: p.entry.ID}}); err != nil {
			return err
		}
		p.known = false
	}
	p.forget()
	if err := s.fs.Remove(p.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.fs.OpenFile(p.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(p.entry.Size)
	var info Info
	if err == nil {
		info, err = f.Stat()
	}
	if err != nil {
		_ = f.Close() // it is removed next time
		return err
	}
	p.file, p.inode, p.made, p.fresh, s.newNames = f, info.Inode, true, true, true
	return nil
}

// WriteAt writes a piece of the file id, which is known to be right. When SyncBytes are written, or SyncEvery is over, it syncs. It is
// CodeProtocol for what is outside of the file, and for what Have has already: Reset comes before writing that again.
func (s *Staging) WriteAt(id uint32, b []byte, off int64) error {
	return s.put(id, Range{off, off + int64(len(b))}, b)
}

// WriteZeros is WriteAt of n zeros, and leaves a hole where nothing was written before.
func (s *Staging) WriteZeros(id uint32, off, n int64) error {
	if n < 0 {
		return errorf("write", "", manifest.CodeProtocol, "%d zeros", n)
	}
	return s.put(id, Range{off, off + n}, nil)
}

// put writes b, or zeros when it is nil, to r.
func (s *Staging) put(id uint32, r Range, b []byte) error {
	p, err := s.file("write", id)
	if err != nil {
		return err
	}
	switch {
	case r.From < 0 || r.To < r.From || r.To > p.entry.Size:
		return errorf("write", p.entry.Path, manifest.CodeProtocol, "bytes %d to %d of %d", r.From, r.To, p.entry.Size)
	case p.published || p.durable.overlaps(r):
		return errorf("write", p.entry.Path, manifest.CodeProtocol, "bytes %d to %d are had already", r.From, r.To)
	case r.From == r.To:
		return nil
	}
	if err := s.use(p); err != nil {
		return wrap("write", p.entry.Path, err)
	}
	if b != nil {
		err = p.write(b, r.From)
	} else if !p.fresh || p.touched.overlaps(r) {
		err = p.writeZeros(r)
	}
	if err != nil {
		return wrap("write", p.entry.Path, err)
	}
	if s.unsynced == 0 {
		s.since = s.opts.now()
	}
	p.written = p.written.add(r)
	s.unsynced += r.To - r.From
	if s.unsynced >= s.opts.SyncBytes || s.opts.now().Sub(s.since) >= s.opts.SyncEvery {
		return s.Sync()
	}
	return nil
}

// write writes b, and notes that it may have, also when it fails.
func (p *part) write(b []byte, off int64) error {
	p.touched = p.touched.add(Range{off, off + int64(len(b))})
	_, err := p.file.WriteAt(b, off)
	return err
}

func (p *part) writeZeros(r Range) error {
	zeros := make([]byte, min(r.To-r.From, 64<<10))
	for at := r.From; at < r.To; at += int64(len(zeros)) {
		if err := p.write(zeros[:min(int64(len(zeros)), r.To-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// ReadAt reads from the part of the file id, so that what was had before a crash can be compared with its hash.
func (s *Staging) ReadAt(id uint32, b []byte, off int64) (int, error) {
	p, err := s.file("read", id)
	if err != nil {
		return 0, err
	}
	if p.published || !p.made {
		return 0, errorf("read", p.entry.Path, manifest.CodeProtocol, "there is no part of it")
	}
	if err := s.use(p); err != nil {
		return 0, wrap("read", p.entry.Path, err)
	}
	return p.file.ReadAt(b, off)
}

// Reset forgets all of the file id, as when its hash is not the one that was said. A file that is published stays.
func (s *Staging) Reset(id uint32) error {
	p, err := s.file("reset", id)
	if err != nil || p.published {
		return err
	}
	if p.file != nil {
		p.written = nil
		if err := s.leave(p); err != nil {
			return wrap("reset", p.entry.Path, err)
		}
	}
	if p.known {
		if err := s.appendJournal([]record{{kind: recordReset, id: id}}); err != nil {
			return wrap("reset", p.entry.Path, err)
		}
	}
	p.known = false
	p.forget()
	return nil
}

// Sync makes durable what was written: the parts, then the directory, then the journal, and Have says it. What a part's sync loses is
// missing again; the others are not held up. Folders of published files are synced too, and the journal told.
func (s *Staging) Sync() error {
	if s.closed {
		return &Error{Op: "sync", Code: CodeNoState, Err: os.ErrClosed}
	}
	records, failed := s.syncParts()
	if s.newNames && len(records) > 0 {
		if err := s.fs.SyncDir(s.dir); err != nil {
			return wrap("sync", "", errors.Join(failed, err))
		}
		s.newNames = false
	}
	for _, r := range records {
		s.parts[r.id].known = true // also when the append fails: it may be on the disk all the same
	}
	if err := s.appendJournal(records); err != nil {
		return wrap("sync", "", errors.Join(failed, err))
	}
	s.unsynced = 0
	for _, r := range records {
		p := s.parts[r.id]
		p.recorded = true
		if r.kind == recordRanges {
			for _, have := range p.written {
				p.durable = p.durable.add(have)
			}
			p.written = nil
		}
	}
	return wrap("sync", "", errors.Join(failed, s.settle()))
}

// syncParts syncs the parts that were written to, and returns what the journal is to say of them.
func (s *Staging) syncParts() (records []record, failed error) {
	for _, p := range s.open {
		if len(p.written) == 0 {
			continue
		}
		if err := p.file.Datasync(); err != nil {
			p.written = nil // the system may have dropped it, and the next sync would not say so
			failed = errors.Join(failed, wrap("sync", p.entry.Path, err))
			continue
		}
		if !p.recorded {
			records = append(records, record{kind: recordPart, id: p.entry.ID, inode: p.inode})
		}
		records = append(records, record{kind: recordRanges, id: p.entry.ID, have: p.written})
	}
	return records, failed
}
