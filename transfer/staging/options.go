package staging

import (
	"io/fs"
	"time"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// Options say how a Staging works. Nil, and the zero value, are good.
type Options struct {
	// Rules are those that the entries are checked by, at Create and at Open. If nil, manifest.LocalRules.
	Rules *manifest.Rules
	// Overwrite lets a file or link replace what has its name, but never a folder.
	Overwrite bool
	// SyncBytes is how much is written before it is synced. If zero, 64 MiB; if negative, each write is.
	SyncBytes int64
	// SyncEvery is how old what is written becomes before the next WriteAt syncs it. If zero, 2 s.
	SyncEvery time.Duration
	// OpenParts is how many parts are kept open. If zero, 64.
	OpenParts int

	now func() time.Time // of tests
}

func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Rules == nil {
		rules := manifest.LocalRules()
		out.Rules = &rules
	}
	if out.SyncBytes == 0 {
		out.SyncBytes = 64 << 20
	}
	if out.SyncEvery == 0 {
		out.SyncEvery = 2 * time.Second
	}
	if out.OpenParts == 0 {
		out.OpenParts = 64
	}
	if out.now == nil {
		out.now = time.Now
	}
	if out.SyncEvery < 0 || out.OpenParts < 0 {
		return out, errorf("open", "", manifest.CodeProtocol, "Options.SyncEvery %v or OpenParts %d is negative", out.SyncEvery, out.OpenParts)
	}
	return out, nil
}

// modeOf returns the mode that a mode of the wire becomes here.
func modeOf(perm uint16, umask fs.FileMode) fs.FileMode { return fs.FileMode(perm) & 0o777 &^ umask }
