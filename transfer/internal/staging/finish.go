package staging

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// Finish creates the folders and symlinks, sets the modes and times of the folders, and deletes the state, once all files are published.
// After an error it may be repeated. When it has succeeded, the Staging is closed.
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

// finish does all of Finish but the deletion.
func (s *Staging) finish() error {
	s.commit.Lock()
	defer s.commit.Unlock()
	for _, step := range []func() error{s.seeFiles, s.makeFolders, s.makeLinks, s.sync, s.dressFolders, s.closeFolders} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// seeFiles returns an error unless all files are published and in their places.
func (s *Staging) seeFiles() error {
	for i := range s.parts {
		p := &s.parts[i]
		s.mu.Lock()
		isPublished, isAbsent := p.isPublished(), p.local == localSkipped
		s.mu.Unlock()
		if !isPublished {
			return errorf("finish", p.entry.Path, fault.CodeProtocol, "it is not published")
		}
		if isAbsent {
			continue
		}
		info, err := s.lstat(p.entry.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return errorf("finish", p.entry.Path, fault.CodeGone, "it was received, and has been moved or deleted since")
		case err != nil:
			return wrap("finish", p.entry.Path, err)
		case !info.Mode.IsRegular() || info.Size != p.entry.Size:
			return errorf("finish", p.entry.Path, fault.CodeExists, "it was received, and something else has taken its place since")
		case s.isTouched(info.ModTime, time.Unix(0, p.entry.ModTime)):
			return errorf("finish", p.entry.Path, fault.CodeExists, "it was received, and has been changed since")
		}
	}
	return nil
}

// makeFolders creates the folders of the entries, with any mode.
func (s *Staging) makeFolders() error {
	seen := make(folders)
	for _, e := range s.entries {
		if e.Kind != manifest.KindDir {
			continue
		}
		if err := s.makeFolder(seen, e.Path); err != nil {
			return wrap("finish", e.Path, err)
		}
	}
	return nil
}

// makeFolder creates a folder and those above it, and leaves an existing one as it is.
func (s *Staging) makeFolder(seen folders, name string) error {
	info, err := s.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.folders(seen, name)
	}
	if err != nil {
		return err
	}
	return isFolder(name, info)
}

// makeLinks creates the symlinks, after all files, so that nothing is written through one.
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

// makeLink creates one symlink, unless it exists already.
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

// dressFolders sets the modes and times of the folders, the inner ones first, unless KeepFolders was called.
func (s *Staging) dressFolders() error {
	for _, e := range slices.Backward(s.entries) {
		if e.Kind != manifest.KindDir || s.keepsFolders {
			continue
		}
		if err := s.dressFolder(&e); err != nil {
			return wrap("finish", e.Path, err)
		}
	}
	return nil
}

// dressFolder sets the time and the mode of a folder where they differ. A folder of another user cannot be changed, but may have the right
// ones.
func (s *Staging) dressFolder(e *manifest.Entry) error {
	info, err := s.fs.Lstat(e.Path)
	if err == nil {
		err = isFolder(e.Path, info)
	}
	if err != nil {
		return err
	}
	if at := time.Unix(0, e.ModTime); !isSameTime(info.ModTime, at) {
		if err := s.fs.Chtimes(e.Path, at); err != nil {
			return err
		}
	}
	if mode := modeOf(e.Perm, s.umask); info.Mode.Perm() != mode {
		if err := s.fs.ChmodDir(e.Path, mode); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.opened, e.Path)
	delete(s.looked, e.Path)
	return nil
}

// Lacks returns the path of the first folder or symlink that Finish would create, or "" if there is none. The error is CodeExists or
// CodePathUnsafe for something else in its place.
func (s *Staging) Lacks() (string, error) {
	if err := s.begin("look"); err != nil {
		return "", err
	}
	defer s.endCall()
	for i := range s.entries {
		e := &s.entries[i]
		if e.Kind == manifest.KindFile {
			continue
		}
		isThere, err := s.hasOther(e)
		if err != nil {
			return "", wrap("look", e.Path, err)
		}
		if !isThere {
			return e.Path, nil
		}
	}
	return "", nil
}

// hasOther reports whether an entry that is no file is in its place.
func (s *Staging) hasOther(e *manifest.Entry) (bool, error) {
	info, err := s.lstat(e.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case e.Kind == manifest.KindSymlink:
		target, err := s.fs.Readlink(e.Path)
		return err == nil && target == e.Target, nil
	}
	return true, isFolder(e.Path, info)
}

// KeepFolders makes Finish leave the modes and times of folders as they are.
func (s *Staging) KeepFolders() {
	s.commit.Lock()
	defer s.commit.Unlock()
	s.keepsFolders = true
}
