package transfer

import (
	"context"
	"fmt"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// Options are the options of either side of a transfer. The zero value is useful.
type Options struct {
	// Lanes is how many data lanes this side accepts at most, 1 to 16. If zero, 4. The opener decides how many there are: one, or, over TCP
	// with a round trip of 20 ms or more, as many as both sides accept.
	Lanes int
	// Rate limits the bytes of files per second that this side sends or receives. If zero, there is no limit.
	Rate int
	// Compress enables zstd compression of data where that pays. Both sides must set it.
	Compress bool
	// AllowLimited lets data pass over a limited connection, such as a relay's that is cut after a number of bytes: as much as there is, as
	// the data lanes outlive the connection. Otherwise the transfer waits for another connection. The opener decides: it has no effect on a
	// Service.
	AllowLimited bool
	// ResumeWindow is how long the opener tries to reach the peer again. It counts the time since the last verified byte, without the time that
	// a connection lasted before it was lost. The time of a stalled connection counts. An attempt in progress when ResumeWindow is over may
	// still succeed. The first attempt must reach the peer. If zero, 2 min; if negative, the opener does not try again.
	ResumeWindow time.Duration
	// StallAfter is how long, to the second, nothing requested may arrive before a receiver replaces the lanes, and after as long again the
	// whole connection. It has no effect on a sender. If zero, 15 s.
	StallAfter time.Duration
	// OnEvent, if not nil, is called with each Event, from one goroutine at a time. The transfer continues meanwhile, but it ends only when
	// all events are reported: OnEvent must not call Wait. While a call does not return, EventFileFailed and EventSourceDropped are all kept;
	// of the other events, the first 128 and the last 128 to 384 are kept, and those between are dropped.
	OnEvent func(Event)
	// Registry, if not nil, lists the transfer while it runs.
	Registry *Registry
}

// ReceiveOptions are the options of a receiver.
type ReceiveOptions struct {
	Options
	// Rules are the rules for accepted entries. If nil, LocalRules.
	Rules *Rules
	// Overwrite lets a file replace a different file of its name, but never a folder.
	Overwrite bool
	// Sync is the durability policy. If zero, SyncBatch.
	Sync SyncPolicy
	// Verify is how much data of an earlier run is read again before it counts.
	Verify Verify
	// Checksum compares the content of existing files with the sender's. By default, a file with the right size and time counts as
	// received. If the tree was not hashed, the sender reads each such file too; if it was, VerifyAll does the same as Checksum. A file
	// with different content is CodeExists, or is replaced with Overwrite.
	Checksum bool
	// Tokens, if not nil, replace the token of Ref, one for each of Fetch's sources, when several senders of the same tree have issued
	// their own. Each has at most 64 bytes.
	Tokens [][]byte
	// Place, if not nil, decides where a fetched tree goes. Fetch calls it once it knows the entries and before it stores anything, unless
	// its dir has data of an earlier run. Place may take as long as a user needs; ctx ends with the transfer. An error, or nil without an
	// error, ends the transfer. Place has no effect on pushes.
	Place func(ctx context.Context, in Incoming) (*Place, error)
}

// SyncPolicy is how much a receiver makes durable, and when.
type SyncPolicy = staging.SyncPolicy

// The policies.
const (
	// SyncBatch makes received data durable every 32 MiB, or 2 s, and each file before it has its name.
	SyncBatch = staging.SyncBatch
	// SyncNone never waits for the disk. Data survives the end of the process; a power cut may lose the whole transfer, and leave published
	// files empty or with holes.
	SyncNone = staging.SyncNone
	// SyncEach makes each piece durable before it counts.
	SyncEach = staging.SyncEach
)

// Verify is how much data of an earlier run is read again before it counts.
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
	if o.ResumeWindow == 0 {
		o.ResumeWindow = 2 * time.Minute
	}
	if o.StallAfter == 0 {
		o.StallAfter = 15 * time.Second
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
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
		rules := LocalRules()
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
