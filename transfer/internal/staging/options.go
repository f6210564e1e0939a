package staging

import (
	"fmt"
	"io/fs"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// Options say how a Staging works. Nil, and the zero value, are good.
type Options struct {
	// Rules are those that the entries are checked by, at Create and at Open. If nil, manifest.LocalRules.
	Rules *manifest.Rules
	// Overwrite lets a file or link replace what has its name, but never a folder.
	Overwrite bool
	// Sync is how much is made durable, and when. If zero, SyncBatch.
	Sync SyncPolicy
	// OpenParts is how many parts are kept open without need. If zero, 64. One that is in use, or that was written to since the last
	// Sync, stays open beyond it.
	OpenParts int
}

// SyncPolicy is how much a Staging makes durable, and when.
type SyncPolicy uint8

const (
	// SyncBatch makes durable what was written when Sync or Publish is called.
	SyncBatch SyncPolicy = 0
	// SyncNone never waits for the disk. All outlives the end of the process; a power cut may take away what Have says, leave published
	// files empty or with holes, and lose the whole transfer.
	SyncNone SyncPolicy = 1
	// SyncEach makes durable each piece before WriteAt and WriteZeros return.
	SyncEach SyncPolicy = 2
)

// String returns "batch", "none", "each", or "policy N".
func (p SyncPolicy) String() string {
	switch p {
	case SyncBatch:
		return "batch"
	case SyncNone:
		return "none"
	case SyncEach:
		return "each"
	}
	return fmt.Sprintf("policy %d", uint8(p))
}

// withDefaults returns a copy with no zeros. It is CodeProtocol for what cannot be.
func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Rules == nil {
		rules := manifest.LocalRules()
		out.Rules = &rules
	}
	if out.OpenParts == 0 {
		out.OpenParts = 64
	}
	if out.OpenParts < 0 || out.Sync > SyncEach {
		return out, errorf("open", "", fault.CodeProtocol, "Options.OpenParts %d is negative, or Sync is %v", out.OpenParts, out.Sync)
	}
	return out, nil
}

// modeOf returns the mode that a mode of the wire becomes here.
func modeOf(perm uint16, umask fs.FileMode) fs.FileMode { return fs.FileMode(perm) & 0o777 &^ umask }
