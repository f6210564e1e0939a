package staging

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// Finish makes the folders and symlinks, gives the folders their modes and times, and deletes the state, when all files are published.
// After an error it may be repeated. Then the Staging is closed.
func (s *Staging) Finish() error {
	if err := s.begin("finish"); err != nil {
		return err
	}
	err := s.finish()
	s.endCall()
	if err != nil {
		return wrap("finish", "", err)
	}
	return s.closeAndDiscard("finish")
}

// finish does all of Finish but the deleting.
func (s *Staging) finish() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.mu.Lock()
	for i := range s.parts {
		if p := &s.parts[i]; !p.published {
			s.mu.Unlock()
			return errorf("finish", p.entry.Path, manifest.CodeProtocol, "it is not published")
		}
	}
	s.mu.Unlock()
	for _, step := range []func() error{s.makeFolders, s.makeLinks, s.sync, s.dressFolders} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeFolders makes those of the entries, with any mode.
func (s *Staging) makeFolders() error {
	seen := make(folders)
	for _, e := range s.entries {
		if e.Kind != manifest.KindDir {
			continue
		}
		err := s.folders(seen, e.Path)
		if err != nil {
			return wrap("finish", e.Path, err)
		}
	}
	return nil
}

// makeLinks makes the symlinks, after all files: nothing is written through one.
func (s *Staging) makeLinks() error {
	seen := make(folders)
	for i := range s.entries {
		e := &s.entries[i]
		if e.Kind != manifest.KindSymlink {
			continue
		}
		err := s.folders(seen, path.Dir(e.Path))
		if err == nil {
			err = s.makeLink(e)
		}
		if err != nil {
			return wrap("finish", e.Path, err)
		}
	}
	return nil
}

// makeLink makes one, unless it is there already.
func (s *Staging) makeLink(e *manifest.Entry) error {
	if target, err := s.fs.Readlink(e.Path); err == nil && target == e.Target {
		return nil
	}
	s.dirtyDirs[path.Dir(e.Path)] = true
	if !s.opts.Overwrite {
		return s.fs.Symlink(e.Target, e.Path)
	}
	private := path.Join(s.dir, "link")
	if err := s.fs.Remove(private); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.fs.Symlink(e.Target, private); err != nil {
		return err
	}
	return s.fs.Rename(private, e.Path)
}

// dressFolders gives the folders their modes and times, the inner ones first.
func (s *Staging) dressFolders() error {
	for _, e := range slices.Backward(s.entries) {
		if e.Kind != manifest.KindDir {
			continue
		}
		if err := s.folder(e.Path); err != nil { // by now it is one, or no more
			return wrap("finish", e.Path, err)
		}
		if err := s.fs.Chtimes(e.Path, time.Unix(0, e.ModTime)); err != nil {
			return wrap("finish", e.Path, err)
		}
		if info, err := s.fs.Lstat(e.Path); err == nil && info.Mode.Perm() == modeOf(e.Perm, s.umask) {
			continue // also what can no longer be opened
		}
		if err := s.fs.ChmodDir(e.Path, modeOf(e.Perm, s.umask)); err != nil {
			return wrap("finish", e.Path, err)
		}
	}
	return nil
}
