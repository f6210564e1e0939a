package staging

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// Open goes on with the transfer id, after a crash or Close. It is CodeNoState when there is none, or when its list of files was never
// whole on the disk: Discard then makes way for Create.
func Open(disk FS, id string, o *Options) (*Staging, error) {
	s, err := newStaging(disk, id, o)
	if err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		_ = s.closeFiles()
		return nil, wrap("open", "", err)
	}
	return s, nil
}

func (s *Staging) load() error {
	info, err := s.fs.Lstat(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errorf("open", "", CodeNoState, "there is no transfer %q to go on with", s.dir)
	} else if err != nil {
		return err
	}
	if !info.Mode.IsDir() {
		return errorf("open", s.dir, manifest.CodePathUnsafe, "it is no directory of a transfer")
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
		return errorf("open", "", CodeNoState, "the transfer was never begun, or its list of files is damaged: start again")
	}
	if err := s.setEntries(entries); err != nil {
		return err
	}
	if err := s.loadJournal(); err != nil {
		return err
	}
	for _, p := range s.parts {
		if err := s.examine(p); err != nil {
			return err
		}
	}
	return nil
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

// openSame opens a regular file, and sees that it is not something else by way of a link: Root follows those inside of it.
func (s *Staging) openSame(name string) (File, Info, error) {
	before, err := s.fs.Lstat(name)
	if err != nil {
		return nil, Info{}, err
	}
	unsafe := errorf("open", name, manifest.CodePathUnsafe, "it is not the file that this program has made")
	if !before.Mode.IsRegular() {
		return nil, Info{}, unsafe
	}
	f, err := s.fs.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) && before.Mode.Perm()&0o600 != 0o600 { // Publish has given it its mode, and did not get on
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

// loadJournal takes what the journal says, and cuts off what is no record at its end.
func (s *Staging) loadJournal() error {
	b, f, err := s.read(s.journalName())
	if errors.Is(err, fs.ErrNotExist) { // the machine stopped in Create
		f, err = s.fs.OpenFile(s.journalName(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		s.newNames = true
	}
	if err != nil {
		return err
	}
	s.journal = f
	s.dirty = true
	if !isJournal(b, s.meta) {
		return s.appendJournal(nil)
	}
	s.end = journalHead
	for {
		r, n := consumeRecord(b[s.end:])
		if n == 0 || !s.replay(r) {
			break
		}
		s.end += int64(n)
	}
	s.dirty = s.end < int64(len(b))
	return s.appendJournal(nil)
}

// replay takes one record, and reports whether it can be.
func (s *Staging) replay(r record) bool {
	p := s.parts[r.id]
	if p == nil {
		return false
	}
	switch r.kind {
	case recordPart:
		p.forget()
		p.made, p.recorded, p.inode = true, true, r.inode
	case recordReset:
		p.forget()
	case recordPublished:
		p.published = true
	case recordRanges:
		for _, have := range r.have {
			if !p.recorded || have.To > p.entry.Size {
				return false
			}
			p.durable = p.durable.add(have)
		}
	}
	p.known = true
	return true
}

// forget: nothing of the file is had.
func (p *part) forget() {
	p.durable, p.written, p.touched = nil, nil, nil
	p.made, p.recorded, p.fresh, p.published = false, false, false, false
}

// examine looks whether the part is the one that the journal speaks of, or has been published since.
func (s *Staging) examine(p *part) error {
	if p.published {
		p.durable = p.durable.add(Range{0, p.entry.Size})
		err := s.fs.Remove(p.name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if !p.recorded {
		return nil
	}
	info, err := s.fs.Lstat(p.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	there := err == nil && p.isSame(info)
	if s.isInPlace(p) { // and must not be opened as a part: it has its mode
		p.published, p.linked = true, there
		s.placed = append(s.placed, p)
		s.dirtyDirs[path.Dir(p.entry.Path)] = true
		return nil
	}
	if there {
		return nil
	}
	p.forget() // and the journal learns it before the next part is made
	return nil
}

// isSame reports whether info is of the part.
func (p *part) isSame(info Info) bool {
	return info.Mode.IsRegular() && info.Inode == p.inode && info.Size == p.entry.Size
}

// isInPlace reports whether the part, all of which was had, is where it is published to: the machine stopped before the journal said so.
func (s *Staging) isInPlace(p *part) bool {
	info, err := s.fs.Lstat(p.entry.Path)
	return err == nil && p.inode != 0 && p.isSame(info) && len(p.durable.missing(p.entry.Size)) == 0
}
