package resume

import (
	"fmt"
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/internal/flow"
)

// Options are the options of [Dial] and [NewListener]. Nil and the zero value are useful. The two sides may differ: each side's Window
// applies to the data that it keeps, and the smaller ResumeWindow applies to both.
type Options struct {
	// Window limits the written data that the other side has not taken, and the received data that has not been read, in bytes each, with
	// 12 more for each Write. Write waits at the limit of either side. If zero, 1 MiB. From 4 KiB to 64 MiB.
	Window int

	// ResumeWindow is how long a Conn may be without a carrier before it is lost. If zero, 60 s. If negative, a Conn is lost
	// with its carrier. At most 7 days.
	ResumeWindow time.Duration

	// HandshakeTimeout bounds each hello, with the dialing before it. If zero, 5 s.
	HandshakeTimeout time.Duration

	// CloseTimeout bounds how long a closed Conn continues to deliver data, and to find carriers for that. It is never longer than the
	// ResumeWindow. If zero, 5 s. If negative, Close delivers nothing more.
	CloseTimeout time.Duration

	// Heartbeat is the silence after which a carrier is asked for a sign of life; after twice as long it is given up. If zero, 10 s. If
	// negative, silence is ignored. At least 1 ms.
	Heartbeat time.Duration

	// Backoff is how long the dialing side waits between its attempts to resume. Neither Min nor Max may be negative, nor a
	// Max that is set less than Min.
	Backoff Backoff

	// MaxConns is how many Conns of a Listener there may be at a time, detached ones and those that are closing included;
	// further ones are refused with ErrBusy. If zero, 16384. If negative, there is no limit.
	MaxConns int

	// MaxDetached is how many Conns of a Listener may be without a carrier at a time. One too many ends one of them with ErrLost: one that
	// never received anything, or else the one that has been detached for longest. If zero, 1024. If negative, none: a Conn is lost with
	// its carrier.
	MaxDetached int

	// Backlog is how many new Conns of a Listener may wait for Accept; further ones are refused with ErrBusy. If zero, 128. At
	// most 2^20.
	Backlog int

	// OnState, if not nil, is called with each state change of each Conn, one at a time, in a goroutine of the Conn. It may call the Conn's
	// methods, but must not block: the Conn waits for it before it resumes.
	OnState func(StateChange)

	// Drop, if not nil, ends a carrier that is given up, instead of its Close. reason is nil if the Conn continues on another carrier,
	// net.ErrClosed if the Conn has ended in order, and otherwise the error that it has ended with: see Conn.Abort. A carrier whose hello
	// fails is closed instead. Drop may wait for the network.
	Drop func(carrier net.Conn, reason error)

	// Final, if not nil, is called with each error of a carrier, and of the dial function when resuming. An error that it returns is the other
	// side's last word, as sent by carriers that can be reset with a code: the Conn ends with that error, and does not look for another
	// carrier. Final must not block.
	Final func(err error) error

	memory memory
}

// memory bounds what a Conn keeps and holds, together with others.
type memory struct {
	kept, received flow.Budget // nil: there is no such bound
	refused        error       // ends a Conn that has no room for received bytes
}

const (
	minWindow       = 4 << 10
	maxWindow       = 64 << 20
	maxResumeWindow = 7 * 24 * time.Hour
	maxBacklog      = 1 << 20
)

// withDefaults returns a copy of o, which may be nil, with every zero field filled in.
func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	defaults.Set(&out.Window, defaults.ReplayWindow)
	defaults.Set(&out.ResumeWindow, defaults.ResumeWindow)
	defaults.Set(&out.HandshakeTimeout, defaults.Handshake)
	defaults.Set(&out.CloseTimeout, defaults.Close)
	defaults.Set(&out.Heartbeat, 10*time.Second)
	defaults.Set(&out.MaxConns, 16384)
	defaults.Set(&out.MaxDetached, 1024)
	defaults.Set(&out.Backlog, 128)
	return out
}

// validate returns an ErrInvalid that names the first field out of range. It runs after withDefaults.
func (o *Options) validate() error {
	switch {
	case o.Window < minWindow || o.Window > maxWindow:
		return fmt.Errorf("%w: Options.Window is %d, want %d to %d", ErrInvalid, o.Window, minWindow, maxWindow)
	case o.ResumeWindow > maxResumeWindow:
		return fmt.Errorf("%w: Options.ResumeWindow is %v, want at most %v", ErrInvalid, o.ResumeWindow, maxResumeWindow)
	case o.HandshakeTimeout < 0:
		return fmt.Errorf("%w: Options.HandshakeTimeout is %v, want more than 0", ErrInvalid, o.HandshakeTimeout)
	case o.Heartbeat > 0 && o.Heartbeat < time.Millisecond:
		return fmt.Errorf("%w: Options.Heartbeat is %v, want at least %v", ErrInvalid, o.Heartbeat, time.Millisecond)
	case o.Backoff.Min < 0:
		return fmt.Errorf("%w: Options.Backoff.Min is %v, want more than 0", ErrInvalid, o.Backoff.Min)
	case o.Backoff.Max < 0:
		return fmt.Errorf("%w: Options.Backoff.Max is %v, want more than 0", ErrInvalid, o.Backoff.Max)
	case o.Backoff.Max > 0 && o.Backoff.Max < o.Backoff.Min:
		return fmt.Errorf("%w: Options.Backoff.Max is %v, want at least Min, %v", ErrInvalid, o.Backoff.Max, o.Backoff.Min)
	case o.Backlog < 0 || o.Backlog > maxBacklog:
		return fmt.Errorf("%w: Options.Backlog is %d, want 0 to %d", ErrInvalid, o.Backlog, maxBacklog)
	}
	return nil
}

// unasked returns the time between received bytes and the unasked number sent for them. The other side has its own Heartbeat.
func (o *Options) unasked() time.Duration {
	if o.Heartbeat < 0 {
		return flow.PieceTime
	}
	return min(o.Heartbeat/2, flow.PieceTime)
}

// resumeWindow returns the ResumeWindow in milliseconds, as sent in a hello.
func (o *Options) resumeWindow() uint32 { return uint32(max(o.ResumeWindow, 0) / time.Millisecond) }

// closeTimeout returns how long a Conn with the given resume window may continue after its Close.
func (o *Options) closeTimeout(resumeWindow time.Duration) time.Duration {
	return max(0, min(o.CloseTimeout, resumeWindow))
}
