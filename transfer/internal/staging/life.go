package staging

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// lockFile is the name of the locked file in a staging directory. It is deleted last.
const lockFile = "lock"

// lockName returns the name of the lock of a staging directory.
func lockName(dir string) string { return path.Join(dir, lockFile) }

// isBusy reports whether another Staging has the directory.
func isBusy(disk FS, dir string) bool {
	if info, err := disk.Lstat(dir); err != nil || !info.Mode.IsDir() {
		return false
	}
	lock, err := disk.Lock(lockName(dir))
	if err == nil {
		_ = lock.Close() // nothing was written to it
	}
	return errors.Is(err, ErrBusy)
}

// Close waits for running calls, closes the files and keeps the state for Open. Unsynced data is lost, as after a crash of the machine.
func (s *Staging) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.closeFiles(), wrap("close", "", s.closeFolders()), wrap("close", "", s.lock.Close()))
}

// closeFiles closes all but the lock.
func (s *Staging) closeFiles() error {
	var all []error
	for _, p := range s.open {
		all = append(all, p.live.file.Close())
		p.live.file = nil
	}
	s.open = nil
	if s.journal != nil {
		all = append(all, s.journal.Close())
		s.journal = nil
	}
	return wrap("close", "", errors.Join(all...))
}

// Abort waits for running calls, and deletes the state. Published files stay.
func (s *Staging) Abort() error { return s.closeAndDiscard("abort") }

// closeAndDiscard closes the Staging, and deletes the state before another Staging can take it.
func (s *Staging) closeAndDiscard(op string) error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed { // then it may be another's
		return wrap(op, "", Discard(s.fs, strings.TrimPrefix(s.dir, manifest.StagingPrefix)))
	}
	s.closed = true
	return errors.Join(s.closeFiles(), wrap(op, "", s.closeFolders()), wrap(op, "", discard(s.fs, s.dir, s.lock, s.syncDir)))
}

// Discard deletes the state of the transfer id, if there is one. The error is CodeBusy if a Staging has it.
func Discard(disk FS, id string) error {
	if err := checkDisk(disk); err != nil {
		return err
	}
	if err := checkID(id); err != nil {
		return err
	}
	err := lockAndDiscard(disk, manifest.StagingPrefix+id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return wrap("discard", "", err)
}

// lockAndDiscard discards a directory that no Staging has. The error is ErrBusy if one has it, and fs.ErrNotExist if there is none.
func lockAndDiscard(disk FS, dir string) error {
	info, err := disk.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.Mode.IsDir() {
		return errorf("discard", dir, fault.CodePathUnsafe, "it is no directory of a transfer")
	}
	lock, err := disk.Lock(lockName(dir))
	if err != nil {
		return err
	}
	return discard(disk, dir, lock, disk.SyncDir)
}

// discard deletes a staging directory, meta first: without meta, the remaining files are no transfer. The lock goes last, and is always
// closed. Anything but a file is left alone.
func discard(disk FS, dir string, lock io.Closer, syncDir func(string) error) error {
	err := discardFiles(disk, dir, syncDir)
	if closed := lock.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return disk.Remove(dir)
}

// discardFiles deletes all files in a staging directory, meta first and the lock last.
func discardFiles(disk FS, dir string, syncDir func(string) error) error {
	names, err := disk.ReadDir(dir)
	if err != nil {
		return err
	}
	if slices.Contains(names, "meta") {
		if err := disk.Remove(path.Join(dir, "meta")); err != nil {
			return err
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	names = append(slices.DeleteFunc(names, func(name string) bool { return name == "meta" || name == lockFile }), lockFile)
	for _, name := range names {
		name = path.Join(dir, name)
		if info, err := disk.Lstat(name); err == nil && !info.Mode.IsDir() {
			if err := disk.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Cleanup deletes the states of transfers that have not been written to for olderThan and that no Staging has. It returns their ids.
func Cleanup(disk FS, olderThan time.Duration) ([]string, error) {
	if err := checkDisk(disk); err != nil {
		return nil, err
	}
	names, err := disk.ReadDir(".")
	if err != nil {
		return nil, wrap("clean up", "", err)
	}
	var gone []string
	var failed []error
	limit := time.Now().Add(-max(0, olderThan))
	for _, name := range names {
		id, found := strings.CutPrefix(name, manifest.StagingPrefix)
		if !found || checkID(id) != nil || !unusedSince(disk, name, limit) {
			continue
		}
		switch err := lockAndDiscard(disk, name); {
		case err == nil:
			gone = append(gone, id)
		case !errors.Is(err, ErrBusy):
			failed = append(failed, wrap("clean up", name, err))
		}
	}
	return gone, errors.Join(failed...)
}

// unusedSince reports whether nothing was written to a staging directory after limit.
func unusedSince(disk FS, dir string, limit time.Time) bool {
	info, err := disk.Lstat(dir)
	if err != nil || !info.Mode.IsDir() || info.ModTime.After(limit) {
		return false
	}
	info, err = disk.Lstat(path.Join(dir, "journal"))
	return err != nil || !info.ModTime.After(limit)
}
