//go:build unix && !linux

package staging

import (
	"errors"
	"time"
)

// datasync is fsync(2), or F_FULLFSYNC where the system has it: there fsync leaves data in the disk's cache.
func datasync(fd int) error { return uninterrupted(func() error { return fullSync(fd) }) }

// SyncAll: no call of these systems waits for all.
func (f *diskFile) SyncAll() error { return errors.ErrUnsupported }

// Link: these systems know no name of a descriptor.
func (f *diskFile) Link(string) error { return errors.ErrUnsupported }

// Punch: what these systems have differs too much.
func (f *diskFile) Punch(int64, int64) error { return errors.ErrUnsupported }

// futimes: these systems know microseconds at most of a descriptor.
func futimes(int, time.Time) error { return errors.ErrUnsupported }
