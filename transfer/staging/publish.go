package staging

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// Publish gives the file id, which is whole, its mode, its time and its name. It replaces nothing, unless Options.Overwrite: that is
// CodeExists, and may be repeated when the other is out of the way. After the next Sync no power cut takes it away.
func (s *Staging) Publish(id uint32) error {
	p, err := s.file("publish", id)
	if err != nil || p.published {
		return err
	}
	if missing := p.all().missing(p.entry.Size); len(missing) > 0 {
		return errorf("publish", p.entry.Path, manifest.CodeProtocol, "bytes %d to %d are missing", missing[0].From, missing[0].To)
	}
	return wrap("publish", p.entry.Path, s.publish(p))
}

func (s *Staging) publish(p *part) error {
	if err := s.use(p); err != nil {
		return err
	}
	if err := s.syncWhole(p); err != nil {
		return err
	}
	if err := p.file.Chmod(modeOf(p.entry.Perm, s.umask)); err != nil {
		return err
	}
	if err := s.fs.Chtimes(p.name, time.Unix(0, p.entry.ModTime)); err != nil {
		return err
	}
	if err := s.parents(p.entry.Path); err != nil {
		return err
	}
	if err := s.leave(p); err != nil {
		return err
	}
	if err := s.place(p); err != nil {
		return err
	}
	s.dirtyDirs[path.Dir(p.entry.Path)] = true
	p.published = true
	s.placed = append(s.placed, p)
	return nil
}

// syncWhole makes all of the part durable, and the journal say so: a crash between the two names of a file is then seen for what it is.
func (s *Staging) syncWhole(p *part) error {
	if len(p.written) > 0 || len(p.durable.missing(p.entry.Size)) > 0 {
		if err := s.Sync(); err != nil {
			return err
		}
	}
	if p.recorded {
		return nil
	}
	if err := p.file.Datasync(); err != nil { // an empty file, of which nothing was written
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	s.newNames = false
	p.known = true
	if err := s.appendJournal([]record{{kind: recordPart, id: p.entry.ID, inode: p.inode}}); err != nil {
		return err
	}
	p.recorded = true
	return nil
}

// place moves the part to its path. A link keeps the part until the folder is synced; where there are none it is renamed.
func (s *Staging) place(p *part) error {
	to := p.entry.Path
	if s.opts.Overwrite {
		if info, err := s.fs.Lstat(to); err == nil && info.Mode.IsDir() {
			return fs.ErrExist // never a folder
		}
		return s.fs.Rename(p.name, to)
	}
	err := s.fs.Link(p.name, to)
	switch {
	case err == nil:
		p.linked = true
		return nil
	case errors.Is(err, fs.ErrExist):
		if s.isInPlace(p) { // the machine stopped behind the link
			p.linked = true
			return nil
		}
		return err
	case isNoSpace(err) || errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := s.fs.Lstat(to); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.fs.Rename(p.name, to)
}

// parents makes the folders above the path p, and refuses what is none: a symlink above all.
func (s *Staging) parents(p string) error {
	for end := strings.IndexByte(p, '/'); end >= 0; {
		if err := s.folder(p[:end], 0o777&^s.umask); err != nil {
			return err
		}
		next := strings.IndexByte(p[end+1:], '/')
		if next < 0 {
			return nil
		}
		end += 1 + next
	}
	return nil
}

func (s *Staging) folder(name string, perm fs.FileMode) error {
	info, err := s.fs.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.dirtyDirs[path.Dir(name)] = true
		return s.fs.Mkdir(name, perm|0o700)
	case err != nil:
		return err
	case info.Mode&fs.ModeSymlink != 0:
		return errorf("publish", name, manifest.CodePathUnsafe, "it is a symlink where a folder belongs: nothing is written through one")
	case !info.Mode.IsDir():
		return errorf("publish", name, manifest.CodeExists, "it is a file where a folder belongs: move it away")
	}
	return nil
}

// settle syncs the folders in which names have changed, tells the journal what is published, and then removes the parts.
func (s *Staging) settle() error {
	for dir := range s.dirtyDirs {
		if err := s.fs.SyncDir(dir); err != nil {
			return err
		}
		delete(s.dirtyDirs, dir)
	}
	if len(s.placed) == 0 {
		return nil
	}
	records := make([]record, 0, len(s.placed))
	for _, p := range s.placed {
		records = append(records, record{kind: recordPublished, id: p.entry.ID})
	}
	if err := s.appendJournal(records); err != nil {
		return err
	}
	for len(s.placed) > 0 {
		p := s.placed[0]
		if p.linked {
			if err := s.fs.Remove(p.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		p.linked, s.placed = false, s.placed[1:]
	}
	return nil
}

// Finish makes the folders and symlinks, gives the folders their modes and times, and deletes the state, when all files are published.
// After an error it may be repeated. Then the Staging is closed.
func (s *Staging) Finish() error {
	if s.closed {
		return &Error{Op: "finish", Code: CodeNoState, Err: os.ErrClosed}
	}
	for i := range s.entries {
		e := &s.entries[i]
		if e.Kind == manifest.KindFile && !s.parts[e.ID].published {
			return errorf("finish", e.Path, manifest.CodeProtocol, "it is not published")
		}
	}
	for _, step := range []func() error{s.makeFolders, s.makeLinks, s.Sync, s.dressFolders} {
		if err := step(); err != nil {
			return wrap("finish", "", err)
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	return wrap("finish", "", discard(s.fs, s.dir))
}

func (s *Staging) makeFolders() error {
	for _, e := range s.entries {
		if e.Kind != manifest.KindDir {
			continue
		}
		err := s.parents(e.Path)
		if err == nil {
			err = s.folder(e.Path, 0)
		}
		if err != nil {
			return wrap("finish", e.Path, err)
		}
	}
	return nil
}

func (s *Staging) makeLinks() error {
	for i := range s.entries {
		e := &s.entries[i]
		if e.Kind != manifest.KindSymlink {
			continue
		}
		err := s.parents(e.Path)
		if err == nil {
			err = s.makeLink(e)
		}
		if err != nil {
			return wrap("finish", e.Path, err)
		}
	}
	return nil
}

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
		if err := s.folder(e.Path, 0); err != nil { // by now it is one, or no more
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
