package transfer

import (
	"time"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/staging"
)

// StagingPrefix begins the name of each folder of a destination in which a receiver keeps received data. The transfer's ID follows. Such
// names are never sent.
const StagingPrefix = manifest.StagingPrefix

// Unfinished is the data that an unfinished or running transfer has stored in a destination, in the folder StagingPrefix + ID.
type Unfinished struct {
	ID    string    // identifies the transfer, as Result.ID and Ref.ID
	Name  string    // of its first file or folder: untrusted; "" if the list of files is damaged
	Bytes int64     // received, of files that are not published
	Used  time.Time // when it was last written to
}

// FindUnfinished returns the data of unfinished and running transfers in the directory dir, the most recently used first. The numbers of a
// running transfer may be out of date. The error is an *Error if dir cannot be read.
func FindUnfinished(dir string) (all []Unfinished, err error) {
	err = onDisk(dir, func(disk staging.FS) error {
		states, err := staging.States(disk)
		for _, s := range states {
			all = append(all, Unfinished(s))
		}
		return err
	})
	return all, err
}

// Discard deletes the stored data of the transfer id in the directory dir, if there is any. Published files stay. The error is CodeBusy if a
// receiver, of this process or another, is using the data.
func Discard(dir, id string) error {
	return onDisk(dir, func(disk staging.FS) error { return staging.Discard(disk, id) })
}

// DiscardUnused deletes the stored data of all transfers in the directory dir that no receiver uses, and that were not written to for
// olderThan. It returns their ids.
func DiscardUnused(dir string, olderThan time.Duration) (ids []string, err error) {
	err = onDisk(dir, func(disk staging.FS) (err error) {
		ids, err = staging.Cleanup(disk, olderThan)
		return err
	})
	return ids, err
}

// onDisk calls fn with the disk below dir.
func onDisk(dir string, fn func(staging.FS) error) error {
	disk, err := staging.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }() // a failure is fn's
	return fn(disk)
}
