package staging

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// folders caches which folders were checked, and what was wrong with them.
type folders map[string]error

// place gives the part its path, and reports whether the part still has its own name: with a link it keeps the name until the folder is
// synced. Without hard links the part is renamed. f is the part's open file, or nil; without it, the file that got the name is compared with
// the one that was written.
func (s *Staging) place(p *part, f File) (isLink bool, err error) {
	if f != nil && !s.opts.Overwrite {
		if err := f.Link(p.entry.Path); err == nil {
			return true, nil
		}
		// it may be possible by name, and the error of that is the one that counts
	}
	if isLink, err = s.placeByName(p); err == nil {
		err = s.verifyPlaced(p)
	}
	return isLink, err
}

// placeByName is place for whatever file has the part's name.
func (s *Staging) placeByName(p *part) (isLink bool, err error) {
	from, to := s.partName(p), p.entry.Path
	if s.opts.Overwrite {
		if info, err := s.fs.Lstat(to); err == nil && info.Mode.IsDir() {
			return false, fs.ErrExist // never a folder
		}
		return false, s.fs.Rename(from, to)
	}
	err = s.fs.Link(from, to)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrExist):
		if s.isOneFile(from, to) { // NFS may report this for its own link, when it retries
			return true, nil
		}
		return false, err
	case isNoSpace(err) || errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	if err := s.fs.RenameNew(from, to); !errors.Is(err, errors.ErrUnsupported) {
		return false, err
	}
	if _, err := s.fs.Lstat(to); err == nil {
		return false, fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return false, s.fs.Rename(from, to)
}

// isOneFile reports whether two names refer to one file.
func (s *Staging) isOneFile(a, b string) bool {
	first, err := s.fs.Lstat(a)
	if err != nil || first.Inode == 0 || !first.Mode.IsRegular() {
		return false
	}
	second, err := s.fs.Lstat(b)
	return err == nil && second.Mode.IsRegular() && first.Inode == second.Inode
}

// folders creates the folder name and those above it. It refuses anything else in their place, symlinks in particular. It checks each once.
func (s *Staging) folders(seen folders, name string) error {
	if name == "." {
		return nil
	}
	if err, found := seen[name]; found {
		return err
	}
	err := s.folders(seen, path.Dir(name))
	if err == nil {
		err = s.folder(name)
	}
	seen[name] = err
	return err
}

// The mode bits needed to look into a folder, and to change its contents.
const (
	mayLook   fs.FileMode = 0o500
	mayChange fs.FileMode = 0o700
)

// openUp adds u+rwx to an existing folder that lacks one of need. dressFolders or closeFolders restores its mode. It returns nil for a folder
// of another user: the operations inside it then fail.
func (s *Staging) openUp(name string, info Info, need fs.FileMode) error {
	perm := info.Mode.Perm()
	if perm&need == need {
		return nil
	}
	err := s.fs.ChmodDir(name, perm|mayChange)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, was := s.opened[name]; !was {
		s.opened[name] = perm
	}
	return nil
}

// closeFolders restores the modes of the folders that openUp changed and dressFolders did not set, the inner ones first.
func (s *Staging) closeFolders() error {
	s.mu.Lock()
	opened := s.opened
	s.opened = make(map[string]fs.FileMode)
	clear(s.looked)
	s.mu.Unlock()
	var all []error
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(opened))) {
		if err := s.fs.ChmodDir(name, opened[name]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// folder creates the folder name, whose parent exists, or makes an existing one writable. It refuses anything else.
func (s *Staging) folder(name string) error {
	info, err := s.fs.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.dirtyDirs[path.Dir(name)] = true
		err := s.fs.Mkdir(name, 0o777&^s.umask|0o700)
		s.mu.Lock()
		delete(s.looked, name)
		s.mu.Unlock()
		return err
	case err != nil:
		return err
	}
	if err := isFolder(name, info); err != nil {
		return err
	}
	return s.openUp(name, info, mayChange)
}

// isFolder rejects anything but a folder in the place of one.
func isFolder(name string, info Info) error {
	switch {
	case info.Mode&fs.ModeSymlink != 0:
		return errorf("look", name, fault.CodePathUnsafe, "the destination has a symlink where this folder belongs: nothing is written through symlinks")
	case !info.Mode.IsDir():
		return errorf("look", name, fault.CodeExists, "the destination has a file where this folder belongs: move it away")
	}
	return nil
}
