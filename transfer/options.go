package transfer

import (
	"fmt"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/manifest"
	"github.com/peerlane/peerlane/transfer/staging"
)

// Options are what both sides of a transfer choose. The zero value is good.
type Options struct {
	// Lanes is how many data lanes this side takes at most, 1 to 16. If zero, 4. How many there are, the opener decides: one, and
	// over TCP with a round trip of 20 ms and more as many as both take.
	Lanes int
	// Rate bounds the bytes of files per second that this side sends or takes. If zero, it is not bounded.
	Rate int
	// Compress has data compressed with zstd where that pays. It takes both sides.
	Compress bool
	// AllowLimited lets data pass a limited connection, as a relay's is that is cut after some bytes. Otherwise the transfer waits
	// there until there is another one.
	AllowLimited bool
	// Patience is how long the opener tries to reach the peer again: it counts the time since the last verified byte, without
	// the time that a connection lasted before it was lost. One that has stalled counts. An attempt that is under way when it is
	// over may still succeed. The first attempt must reach the peer. If zero, 2 min; if negative, it does not try again.
	Patience time.Duration
	// StallAfter is how long nothing that a receiver has asked for may come, to the second, before it replaces the lanes, and
	// after as long again the whole connection. It means nothing to a sender. If zero, 15 s.
	StallAfter time.Duration
	// Event, if not nil, is told what happens beside the plain course. It is called from one goroutine at a time. The transfer goes on
	// meanwhile, but it ends when all is told: Event must not Wait for it. While a call does not return, of what is no EventFileFailed or
	// EventSourceDropped the first 128 are kept, and the last 128 to 384: what was between is not told.
	Event func(Event)
	// Registry, if not nil, lists the transfer while it runs.
	Registry *Registry
}

// ReceiveOptions are a receiver's.
type ReceiveOptions struct {
	Options
	// Rules say what is taken. If nil, manifest.LocalRules.
	Rules *manifest.Rules
	// Overwrite lets a file replace what has its name and is not the same, but never a folder.
	Overwrite bool
	// Sync says how much the disk is asked for. If zero, staging.SyncBatch.
	Sync staging.SyncPolicy
	// Verify says how much of what an earlier run has left is read again before it counts.
	Verify Verify
	// Checksum compares the content of existing files with the sender's. By default, a file with the right size and time counts as
	// received. If the tree was not hashed, the sender reads each such file too; if it was, VerifyAll does the same as Checksum. A file
	// with different content is CodeExists, or is replaced with Overwrite.
	Checksum bool
	// Tokens, if not nil, are those of Fetch's sources, one for each, in the place of Ref's: what several senders of the same tree have
	// given out. Each has at most 64 bytes.
	Tokens [][]byte
}

// Verify says how much of what an earlier run has left is read again before it counts.
type Verify uint8

// The ways to verify on resume.
const (
	VerifySample Verify = iota // the first piece, the last one, and some between
	VerifyAll                  // every piece; of a hashed tree, existing files too
	VerifyNothing
)

func (o Options) withDefaults() Options {
	if o.Lanes == 0 {
		o.Lanes = 4
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	if o.StallAfter == 0 {
		o.StallAfter = 15 * time.Second
	}
	if o.Event == nil {
		o.Event = func(Event) {}
	}
	return o
}

func (o Options) validate() error {
	var wrong string
	switch {
	case o.Lanes < 1 || o.Lanes > wire.MaxLanes:
		wrong = fmt.Sprintf("Options.Lanes is %d: give 1 to %d, or 0 for 4", o.Lanes, wire.MaxLanes)
	case o.Rate < 0:
		wrong = fmt.Sprintf("Options.Rate is %d: give bytes per second, or 0 for no bound", o.Rate)
	case o.StallAfter < 0:
		wrong = fmt.Sprintf("Options.StallAfter is %v: give a time, or 0 for 15 s", o.StallAfter)
	default:
		return nil
	}
	return &Error{Code: CodeInvalid, Text: wrong}
}

func (o ReceiveOptions) withDefaults() ReceiveOptions {
	o.Options = o.Options.withDefaults()
	if o.Rules == nil {
		rules := manifest.LocalRules()
		o.Rules = &rules
	}
	return o
}

func (o ReceiveOptions) validate() error {
	if o.Verify > VerifyNothing {
		return &Error{Code: CodeInvalid, Text: fmt.Sprintf("ReceiveOptions.Verify is %d: there is no such way", o.Verify)}
	}
	return o.Options.validate()
}
