package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// checkOwn returns a CodePathUnsafe error if another user may change what is in the staging directory, which info describes. It accepts a
// file system without owners and modes.
func (s *Staging) checkOwn(info Info) error {
	if !info.Shared {
		return nil
	}
	own, _, err := s.probe()
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err == nil && own.Shared {
		return nil // so is every file here
	}
	return errorf("open", s.dir, fault.CodePathUnsafe,
		"this folder of a transfer is another user's, or others may write to it (mode %04o): do not trust what is in it", info.Mode.Perm())
}

// probe creates a file in the staging directory and removes it. It returns the Info of a file there that is for this user alone, and the
// umask.
func (s *Staging) probe() (own Info, umask fs.FileMode, err error) {
	name := path.Join(s.dir, fmt.Sprintf("probe-%016x", rand.Uint64())) // several processes may do this at once
	f, err := s.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o777)
	if err != nil {
		return own, 0, err
	}
	if umask, err = umaskOf(f); err == nil {
		if err = f.Chmod(0o600); err == nil {
			own, err = f.Stat()
		}
	}
	return own, umask, errors.Join(err, f.Close(), s.fs.Remove(name))
}

// renewUmask takes the umask of this process, and not of the one that began the transfer. On a full disk the stored one stays.
func (s *Staging) renewUmask() error {
	_, umask, err := s.probe()
	if isNoSpace(err) {
		return nil
	}
	s.umask = umask
	return err
}

// umaskOf returns the umask, given a file that was created with the mode 0777: the bits that are missing. It is 0 on Windows and FAT.
func umaskOf(f File) (fs.FileMode, error) {
	info, err := f.Stat()
	if err != nil || info.Mode.Perm()&0o700 != 0o700 {
		return 0, err
	}
	return 0o777 &^ info.Mode.Perm(), nil
}

// verifyPlaced returns an error, and takes the name away, if a published name is not the part that was written and verified.
func (s *Staging) verifyPlaced(p *part) error {
	if p.inode == 0 {
		return nil // the system does not report it
	}
	info, err := s.fs.Lstat(p.entry.Path)
	if err != nil {
		return err
	}
	if p.isSame(info) && info.Device == s.device {
		return nil
	}
	_ = s.fs.Remove(p.entry.Path) // the error below says more
	return errorf("publish", p.entry.Path, fault.CodeIO, "another program has put another file in the place of what was received")
}
