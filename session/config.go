package session

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/zstd"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/resume"
)

// Config is the configuration of one side. The zero value is useful. Sizes are in bytes.
type Config struct {
	// Local names this side and is bound into the PSK handshake: a Peer ID in its text form. Both sides must agree on it. At most 65535
	// bytes.
	Local string
	// Tag names the purpose of the session, as the application's protocol ID, and is bound into the PSK handshake too. Both sides must
	// agree on it. At most 65535 bytes.
	Tag string
	// Keys, if not nil, requires the pre-shared key on every carrier; nil refuses peers that use one.
	Keys *psk.Keyring
	// Mux holds the handlers. If nil, nothing is handled.
	Mux *Mux
	// Quota bounds what all sessions that share it may run and hold. If nil, only the limits below apply.
	Quota *Quota

	// HandshakeTimeout bounds the hello. If zero, 5 s.
	HandshakeTimeout time.Duration
	// WriteTimeout is how long the carrier may accept nothing before it is lost, or the peer acknowledge nothing while the ReplayWindow is
	// full. If zero, 30 s.
	WriteTimeout time.Duration
	// ReadTimeout is how long a message that arrives in parts may make no progress before it is refused. In each ReadTimeout at least 1/32
	// of what the incomplete messages of a session hold must arrive, or the largest are refused. If zero, 30 s.
	ReadTimeout time.Duration
	// RequestTimeout bounds every call. A ctx that ends earlier takes precedence. If zero, 30 s. If negative, there is no such bound.
	RequestTimeout time.Duration
	// ResumeWindow is how long the session outlives its carrier while it looks for another one. The shorter window of both sides applies.
	// If zero, 60 s. If negative, the session ends with its carrier.
	ResumeWindow time.Duration
	// Backoff is how long the dialing side waits between its attempts to find another carrier. Where the peer refuses one with a
	// RetryAfter, it waits as long as that, up to Max. If its Max is set and less than its Min, or either is negative, it is invalid.
	Backoff resume.Backoff
	// Heartbeat is the silence after which the peer is probed. If zero, 5 s. If negative, never.
	Heartbeat time.Duration
	// HeartbeatTimeout is the silence after which the carrier is lost: no byte has arrived on its connection, and no waiting Write has got
	// room. If zero, twice Heartbeat. At least Heartbeat.
	HeartbeatTimeout time.Duration
	// CloseTimeout is how long Close of a session or stream waits without progress for accepted work to arrive. If zero, 5 s.
	CloseTimeout time.Duration
	// OtherPath reports whether there is another way to the peer than the session's carrier. If it does, the dialing side leaves a carrier
	// that has been silent for 0.75 s or three round trips while the peer had bytes to acknowledge, and then does not answer a ping within
	// 0.75 s or four round trips, or as Probe says if that is less. If nil, there is none: Heartbeat and HeartbeatTimeout alone
	// count. It must not block.
	OtherPath func(*Session) bool

	// MaxMessage limits one request, response or message in either direction, decompressed; one of exactly this size passes. The smaller of
	// both sides' limits applies. On the accepting side it is at most what one peer may have of Quota.MaxBytes. If zero, 32 MiB. At most
	// 1 GiB.
	MaxMessage int
	// MaxInFlight limits the peer's unanswered requests; the peer waits at the limit. If zero, 4096. At most 2^20.
	MaxInFlight int
	// MessageWindow limits the one-way messages that wait for their handler. Each counts its bytes and 64 more. Below the limit the peer
	// may send another message of any size up to MaxMessage; at the limit it waits. If zero, 1 MiB. At most
	// 1 GiB.
	MessageWindow int
	// MaxStreams limits the shared streams that the peer has open. If zero, 128. At most 2^20.
	MaxStreams int
	// StreamWindow limits the unread bytes on one shared stream; the peer waits at the limit, or before where the Quota has no memory for
	// more. If zero, 512 KiB. At most 1 GiB.
	StreamWindow int
	// ReplayWindow limits the unacknowledged data kept for another carrier; sending waits when it is full. It is less while the Quota of the
	// accepting side has no room. The two sides of a session may differ. If zero, 1 MiB. 4 KiB to 64 MiB.
	ReplayWindow int
	// MaxRequests drains the session after it has served this many requests. If zero, there is no limit.
	MaxRequests int

	// DisableCompression neither sends compressed bodies nor accepts them. Otherwise a body that expands to more than 1 MiB and 8192 times its
	// size is refused with ErrTooLarge, and peers take turns at the coders of the process: docs/PROTOCOL.md, 5.1, has the bounds. A request
	// or message beyond them gets ErrUnavailable, with a RetryAfter.
	DisableCompression bool
	// Agent is sent to the peer, for diagnostics. If empty, nothing is sent. At most 255 bytes.
	Agent string
	// OnUndelivered, if not nil, is called with the failure of each one-way message. It must not block.
	OnUndelivered func(*Error)
	// OnState, if not nil, is called with each step of a session, one at a time, in a separate goroutine. Close does not wait for it.
	OnState func(*Session, StateChange)
	// Hooks, if not nil, are called when something happens.
	Hooks *Hooks
	// Logger receives events that an operator may need to act on. If nil, nothing is logged.
	Logger *slog.Logger

	pacer *zstd.Pacer // if nil, the process's
}

// minReplayWindow is the least Config.ReplayWindow.
const minReplayWindow = 4 << 10

// withDefaults returns a copy of c, which may be nil, with every zero field resolved, or an error that names a field that is out of range.
func (c *Config) withDefaults() (Config, error) {
	var out Config
	if c != nil {
		out = *c
	}
	if err := cmp.Or(out.setDurations(), out.checkBackoff(), out.setSizes(), out.checkNames(), out.Hooks.Validate()); err != nil {
		return out, fmt.Errorf("session: config: %w: %w", ErrInvalid, err)
	}
	if out.Mux == nil {
		out.Mux = NewMux()
	}
	if out.Quota == nil {
		out.Quota = new(Quota)
	}
	if out.pacer == nil {
		out.pacer = zstd.OfProcess
	}
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	return out, nil
}

// setDurations sets the durations that are zero, or returns the error of one that is out of range.
func (c *Config) setDurations() error {
	durations := []struct {
		name     string
		v        *time.Duration
		def      time.Duration
		negative bool
	}{
		{"HandshakeTimeout", &c.HandshakeTimeout, defaults.Handshake, false},
		{"WriteTimeout", &c.WriteTimeout, defaults.Write, false},
		{"ReadTimeout", &c.ReadTimeout, defaults.Read, false},
		{"RequestTimeout", &c.RequestTimeout, 30 * time.Second, true},
		{"ResumeWindow", &c.ResumeWindow, defaults.ResumeWindow, true},
		{"Heartbeat", &c.Heartbeat, defaults.Heartbeat, true},
		{"CloseTimeout", &c.CloseTimeout, defaults.Close, false},
	}
	for _, d := range durations {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < 0 && !d.negative {
			return fmt.Errorf("%s is %v, want more than 0", d.name, *d.v)
		}
	}
	if c.HeartbeatTimeout == 0 {
		if c.HeartbeatTimeout = 2 * c.Heartbeat; c.Heartbeat > math.MaxInt64/2 {
			c.HeartbeatTimeout = math.MaxInt64
		}
	}
	if c.Heartbeat > 0 && c.HeartbeatTimeout < c.Heartbeat {
		return fmt.Errorf("HeartbeatTimeout is %v, want at least Heartbeat, %v", c.HeartbeatTimeout, c.Heartbeat)
	}
	return nil
}

// checkBackoff returns the error of a Backoff that is out of range, or nil.
func (c *Config) checkBackoff() error {
	switch b := c.Backoff; {
	case b.Min < 0:
		return fmt.Errorf("Backoff.Min is %v, want 0 or more", b.Min)
	case b.Max < 0:
		return fmt.Errorf("Backoff.Max is %v, want 0 or more", b.Max)
	case b.Max > 0 && b.Max < b.Min:
		return fmt.Errorf("Backoff.Max is %v, want at least Min, %v", b.Max, b.Min)
	}
	return nil
}

// setSizes sets the sizes and counts that are zero, or returns the error of one that is out of range.
func (c *Config) setSizes() error {
	sizes := []struct {
		name     string
		v        *int
		def, max int
	}{
		{"MaxMessage", &c.MaxMessage, defaults.MaxMessage, frame.MaxTotal},
		{"MaxInFlight", &c.MaxInFlight, 4096, 1 << 20},
		{"MessageWindow", &c.MessageWindow, 1 << 20, frame.MaxTotal},
		{"MaxStreams", &c.MaxStreams, 128, 1 << 20},
		{"StreamWindow", &c.StreamWindow, 512 << 10, frame.MaxTotal},
		{"MaxRequests", &c.MaxRequests, math.MaxInt, math.MaxInt},
		{"ReplayWindow", &c.ReplayWindow, defaults.ReplayWindow, 64 << 20},
	}
	for _, z := range sizes {
		if *z.v == 0 {
			*z.v = z.def
		}
		if *z.v < 1 || *z.v > z.max {
			return fmt.Errorf("%s is %d, want 1 to %d", z.name, *z.v, z.max)
		}
	}
	if c.ReplayWindow < minReplayWindow {
		return fmt.Errorf("ReplayWindow is %d, want at least %d", c.ReplayWindow, minReplayWindow)
	}
	return nil
}

// checkNames returns the error of a name that is too long for the hello, or nil.
func (c *Config) checkNames() error {
	for _, name := range []struct {
		field   string
		n, most int
	}{{"Local", len(c.Local), math.MaxUint16}, {"Tag", len(c.Tag), math.MaxUint16}, {"Agent", len(c.Agent), frame.MaxName}} {
		if name.n > name.most {
			return fmt.Errorf("%s is %d bytes, want at most %d", name.field, name.n, name.most)
		}
	}
	return nil
}

// limits returns the limits for the hello.
func (c *Config) limits() *frame.Limits {
	return &frame.Limits{
		MaxMessage:    uint32(c.MaxMessage),
		MaxInFlight:   uint32(c.MaxInFlight),
		MessageWindow: uint32(c.MessageWindow),
		MaxStreams:    uint32(c.MaxStreams),
		StreamWindow:  uint32(c.StreamWindow),
	}
}

// caps returns the capabilities that this side offers.
func (c *Config) caps() frame.Caps {
	caps := frame.CapBatchAck | frame.CapEnds | frame.CapCredit
	if !c.DisableCompression {
		caps |= frame.CapZstd
	}
	if c.resumable() {
		caps |= frame.CapResume | frame.CapResumeStreams
	}
	return caps
}

// resumable reports whether this side keeps a session that has lost its carrier.
func (c *Config) resumable() bool { return c.ResumeWindow > 0 }

// resumeWindow returns the ResumeWindow for the hello, in milliseconds.
func (c *Config) resumeWindow() uint32 {
	if !c.resumable() {
		return 0
	}
	return uint32(min(max(c.ResumeWindow.Milliseconds(), 1), math.MaxUint32))
}
