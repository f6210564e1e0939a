package staging

import (
	"errors"
	"io/fs"
	"path"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// Existing reports whether a regular file of the same size and time is already in the place of the file id: Adopt may then take it. It
// returns false and nil if nothing is there, or if Options.Overwrite allows a replacement. The error is CodeExists for anything else,
// always for a folder, and CodePathUnsafe for a symlink above the file. Folders are checked once, until Publish creates them.
func (s *Staging) Existing(id uint32) (same bool, err error) {
	if err := s.begin("look"); err != nil {
		return false, err
	}
	defer s.endCall()
	p, err := s.need("look", id)
	if err != nil {
		return false, err
	}
	info, err := s.lstat(p.entry.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, wrap("look", p.entry.Path, err)
	case s.isFile(p, info):
		s.mu.Lock()
		defer s.mu.Unlock()
		p.local = localFound
		return true, nil
	case s.opts.Overwrite && !info.Mode.IsDir():
		return false, nil
	}
	return false, wrap("look", p.entry.Path, fs.ErrExist)
}

// lstat returns the Info of an entry's path. The error also matches fs.ErrNotExist if a folder above it is missing.
func (s *Staging) lstat(name string) (Info, error) {
	isThere, err := s.look(path.Dir(name))
	if err != nil {
		return Info{}, err
	}
	if !isThere {
		return Info{}, fs.ErrNotExist
	}
	return s.fs.Lstat(name)
}

// isFile reports whether info describes a regular file with the size and time of p.
func (s *Staging) isFile(p *part, info Info) bool {
	return info.Mode.IsRegular() && info.Size == p.entry.Size && s.isTime(info.ModTime, time.Unix(0, p.entry.ModTime))
}

// isTime reports whether have is how this file system stores the time want. If have is not want cut to a known unit, as for a year that the
// file system does not support, isTime sets want on meta and reads it back.
func (s *Staging) isTime(have, want time.Time) bool {
	return isSameTime(have, want) || s.stored(want).Equal(have)
}

// isTouched reports whether a file that was given the time want has another one since. On a file system that stores want in an unknown way,
// or ignores it, nothing is known, and isTouched reports false.
func (s *Staging) isTouched(have, want time.Time) bool {
	return !isSameTime(have, want) && isSameTime(s.stored(want), want)
}

// stored returns the time want as this file system stores it on meta. It is the zero Time after an error.
func (s *Staging) stored(want time.Time) time.Time {
	s.probing.Lock()
	defer s.probing.Unlock()
	if err := s.fs.Chtimes(s.metaName(), want); err != nil {
		return time.Time{}
	}
	info, err := s.fs.Lstat(s.metaName())
	if err != nil {
		return time.Time{}
	}
	return info.ModTime
}

// look reports whether the folder name exists, and makes it accessible.
func (s *Staging) look(name string) (bool, error) {
	if name == "." {
		return true, nil
	}
	s.mu.Lock()
	isThere, found := s.looked[name]
	s.mu.Unlock()
	if found {
		return isThere, nil
	}
	isThere, err := s.look(path.Dir(name))
	if err != nil {
		return false, err
	}
	if isThere {
		info, err := s.fs.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			isThere = false
		case err != nil:
			return false, err
		default:
			if err := isFolder(name, info); err != nil {
				return false, err
			}
			if err := s.openUp(name, info, mayLook); err != nil {
				return false, err
			}
		}
	}
	s.mu.Lock()
	s.looked[name] = isThere
	s.mu.Unlock()
	return isThere, nil
}

// timeUnits are the units in which file systems store times: NTFS 100 ns, exFAT 10 ms, FAT 2 s.
var timeUnits = []time.Duration{1, 100, time.Microsecond, time.Millisecond, 10 * time.Millisecond, time.Second, 2 * time.Second}

// isSameTime reports whether have is want, cut to a unit that a file system stores.
func isSameTime(have, want time.Time) bool {
	for _, unit := range timeUnits {
		if have.Equal(want.Truncate(unit)) {
			return true
		}
	}
	return false
}

// Adopt takes the file in the place of the file id as it is, after Existing has returned true. The file then counts as published, and the
// next Sync records it in the journal. If Existing has not returned true, the file is skipped, and Finish does not require it. The error is
// CodeProtocol while the file is being written, reset or published.
func (s *Staging) Adopt(id uint32) error {
	if err := s.begin("adopt"); err != nil {
		return err
	}
	defer s.endCall()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.need("adopt", id)
	switch {
	case err != nil:
		return err
	case p.isPublished():
		return nil
	case p.use != useNone || p.live != nil && p.live.users > 0:
		return errorf("adopt", p.entry.Path, fault.CodeProtocol, "it is in use")
	}
	if p.live != nil {
		s.unsynced -= p.live.written.size()
		s.closeLocked(p)
	}
	if p.stage == stageWhole { // Sync skips it from now on
		s.unsynced -= p.entry.Size
	}
	if p.local == localFound {
		p.local = localAdopted
	} else {
		p.local = localSkipped
	}
	s.placeLocked(p, p.stage != stageNone)
	return nil
}
