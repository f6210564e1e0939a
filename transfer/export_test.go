package transfer

import (
	"io/fs"
	"testing"

	"github.com/peerlane/peerlane/transfer/internal/staging"
)

// SetDisk has receivers work on what wrap makes of their disks, until the test ends.
func SetDisk(t testing.TB, wrap func(staging.FS) staging.FS) {
	was := openRoot
	t.Cleanup(func() { openRoot = was })
	openRoot = func(dir string) (staging.FS, error) {
		disk, err := was(dir)
		if err != nil {
			return nil, err
		}
		return wrap(disk), nil
	}
}

// SkipSyncs has receivers not wait for the disk, for good. That they wait where they should is tested in package staging.
func SkipSyncs() {
	was := openRoot
	openRoot = func(dir string) (staging.FS, error) {
		disk, err := was(dir)
		if err != nil {
			return nil, err
		}
		return unsyncedDisk{disk}, nil
	}
}

// unsyncedDisk does not wait until anything is durable.
type unsyncedDisk struct{ staging.FS }

func (d unsyncedDisk) OpenFile(name string, flag int, perm fs.FileMode) (staging.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (unsyncedDisk) SyncDir(string) error { return nil }

type unsyncedFile struct{ staging.File }

func (unsyncedFile) Datasync() error { return nil }
func (unsyncedFile) SyncAll() error  { return nil }
