package bulk

import (
	"fmt"
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
)

// A Mode says what carries a lane.
type Mode uint8

const (
	// Shared is a stream on the session's carrier: it outlives its carriers as the session does, and has a window of its own.
	Shared Mode = iota
	// Dedicated is libp2p streams of its own, Strands of them. Each has its own flow control. They share the connection with
	// everything else between the two peers: over TCP its losses and its order, over QUIC its congestion window.
	Dedicated
)

// String returns "shared" or "dedicated".
func (m Mode) String() string {
	if m == Dedicated {
		return "dedicated"
	}
	return "shared"
}

// Options are for Open. Nil is as good as the zero value.
type Options struct {
	// Mode is what carries the lane. A dedicated lane that cannot be had becomes a shared one of one strand: Snapshot says so, and why.
	Mode Mode
	// Strands is how many streams carry a dedicated lane together, 1 to 16. If zero, 1. More than one help over TCP with round
	// trips from about 20 ms on, where a stream's window is the bound.
	Strands int
	// Compress has blocks compressed with zstd where that pays: what does not shrink goes as it is, and after a few such blocks
	// only now and then one is tried. It takes both sides: a lane is compressed if Open's Options say so, and those that the accept
	// function of Handle returns.
	Compress bool
	// Rate bounds what this side writes, in bytes per second, before compression. If zero, it is not bounded.
	Rate int
	// AllowLimited lets the lane use a limited connection, as a relay's is that is cut after some bytes. Otherwise this side
	// waits with what it writes until the session is on another. With or without it, a dedicated lane is not opened there, but shared,
	// and outlives the connection; to the side that accepts a dedicated one the field means nothing.
	AllowLimited bool
	// HandshakeTimeout bounds the wait of Open for the peer's hello, as its ctx does. If zero, 5 s. The accepting side waits 5 s for
	// the opener's, in which silence of the connection does not count.
	HandshakeTimeout time.Duration
	// Registry, if not nil, lists the lane while it is open.
	Registry *Registry
}

func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Strands == 0 {
		out.Strands = 1
	}
	if out.HandshakeTimeout == 0 {
		out.HandshakeTimeout = defaults.Handshake
	}
	return out
}

func (o *Options) validate() error {
	switch {
	case o.Mode > Dedicated:
		return fmt.Errorf("%w: Mode is %d, want Shared or Dedicated", errInvalid, o.Mode)
	case o.Strands < 1 || o.Strands > maxStrands:
		return fmt.Errorf("%w: Strands is %d, want 1 to %d", errInvalid, o.Strands, maxStrands)
	case o.Strands > 1 && o.Mode != Dedicated:
		return fmt.Errorf("%w: Strands is %d: a shared lane has one", errInvalid, o.Strands)
	case o.Rate < 0:
		return fmt.Errorf("%w: Rate is %d, want 0 or more", errInvalid, o.Rate)
	case o.HandshakeTimeout < 0:
		return fmt.Errorf("%w: HandshakeTimeout is %v, want more than 0", errInvalid, o.HandshakeTimeout)
	}
	return nil
}
