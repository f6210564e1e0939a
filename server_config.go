package peerlane

import (
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/session"
)

// ServerConfig is the configuration of NewServer. Start from DefaultServerConfig: in a ServerConfig of your own, EnableCompression is off
// unless you set it, as in pointsub. The names, types and defaults of the first twelve fields are pointsub's. A zero field takes its
// default, except this one; a negative one is an error that names the field.
type ServerConfig struct {
	// ReadTimeout is how long a request that arrives in parts may make no progress before it is refused, and how long
	// Stop waits for handlers. If zero, 30 s.
	ReadTimeout time.Duration
	// WriteTimeout is how long a peer may accept none of the data written to it before its carrier is dropped. If zero, 30 s.
	WriteTimeout time.Duration
	// MaxBlockSize is the size limit of one request, response or message in either direction; a block of exactly this size passes. The
	// smaller of both sides' limits applies, and at most 7/8 of MaxMemoryUsage, which is as much as one peer may have of that. If zero, 32 MiB.
	// At most 1 GiB.
	MaxBlockSize int
	// MaxConcurrentConns limits the calls served at a time, and the sessions open at a time, over all peers, who share each limit: see
	// session.Quota. Calls and sessions beyond it are refused with ErrUnavailable and a retry hint. When all sessions are open, those that
	// nobody uses end to make room. If zero, 1000. At most 2^20.
	MaxConcurrentConns int
	// ConnectTimeout bounds the hello of a new carrier, and the arrival of an old peer's request header. If zero, 5 s.
	ConnectTimeout time.Duration
	// MaxRequestsPerConn is how many requests a session serves before it is drained. A Client then continues with a new session
	// automatically. If zero, 10000.
	MaxRequestsPerConn int
	// IdleTimeout drains the sessions of Start and Handle that have been without traffic for this long, at most a quarter of it late. If
	// zero, 60 s.
	IdleTimeout time.Duration
	// BufferPoolSize limits the one-way messages that a session holds for their handler. Each counts its bytes and 64 more. Below the limit
	// the peer may send another message of any size up to MaxBlockSize; at the limit its Send waits. If zero, 1 MiB. At most 1 GiB.
	BufferPoolSize int
	// EnableCompression lets both sides compress data that shrinks. DefaultServerConfig sets it. A body that expands to more than 1 MiB and
	// 8192 times its size is refused with ErrTooLarge. Of bodies over 16 KiB that expand more than 64 times, 128 MiB a second are unpacked, in
	// equal parts for the networks whose peers send them and then for these peers, and at most 64 MiB of one peer. More of them wait, up to 5 s, or get ErrUnavailable.
	EnableCompression bool
	// CleanupInterval limits the time between two checks for idle sessions. In any case there are four checks in the shorter one of
	// IdleTimeout and MaxIdleTime, and at most one a millisecond. If zero, 5 min.
	CleanupInterval time.Duration
	// MaxIdleTime closes every session that has been without traffic for this long, at most a quarter of it late. That includes sessions of
	// Listen and sessions with open streams; a session with a running call is not idle. If zero, 30 min.
	MaxIdleTime time.Duration
	// MaxMemoryUsage limits the bytes that peers make the server hold, who share it: see session.Quota. A request, message or stream beyond it is
	// refused with ErrUnavailable, and a reply is dropped, which the caller learns as codes.ReplyTooLarge. What is to be sent on streams and lanes
	// waits, and so does what arrives on lanes; the data of a stream waits at its sender. If zero, 1 GiB.
	MaxMemoryUsage uint64

	// AllowPeers, if not nil, admits only these peers; others get ErrNotAllowed.
	AllowPeers []peer.ID
	// AdmitAll lets Listen serve every peer without a pre-shared key. Listen returns ErrModernPSKRequired unless a
	// key is in use, or AllowPeers or AdmitAll is set.
	AdmitAll bool
	// Heartbeat is the silence after which a session's peer is probed; after twice as long its carrier is lost. If zero, 5 s.
	Heartbeat time.Duration
	// ResumeWindow is how long a session outlives its connection while it looks for another one. The shorter window of both sides applies.
	// If zero, 60 s. If negative, a session ends with its connection.
	ResumeWindow time.Duration
	// ReplayWindow limits the unacknowledged data that a session keeps for another connection. Sending waits when it is full. If zero, 1
	// MiB. 4 KiB to 64 MiB.
	ReplayWindow int
	// CloseTimeout is how long Close of a session or a stream waits without progress for accepted work to arrive. A slow link counts as
	// progress. If zero, 5 s.
	CloseTimeout time.Duration
	// OnState, if not nil, is called with each step of a session: connected, detached, resumed, migrated, ended. It must
	// not block.
	OnState func(*session.Session, session.StateChange)
	// OnPath, if not nil, is called with the path of a session when it is open, and each time it is on another connection: over another relay,
	// or directly. When the session has lost its connection and looks for another, it is called with the zero Path. The calls for one session
	// are in order, after those of OnState. It must not block either: that holds up the session's further calls of both, and its care for a
	// better connection, though not its data, nor other sessions. The round trip may not have been measured yet.
	OnPath func(*session.Session, Path)
	// Hooks, if not nil, are called when something happens to a session of the server, or to what runs on it. OnState and OnPath are not in order
	// with them.
	Hooks *Hooks
	// Logger receives events that an operator may need to act on. If nil, nothing is logged.
	Logger *slog.Logger
}

// DefaultServerConfig returns the defaults, with compression on.
func DefaultServerConfig() *ServerConfig {
	c := ServerConfig{EnableCompression: true}.withDefaults()
	return &c
}

// Validate returns an error that matches ErrInvalid and names the first field that is out of range, or nil. A nil
// config is valid: it has the defaults.
func (c *ServerConfig) Validate() error {
	if c == nil {
		return nil
	}
	for i, pid := range c.AllowPeers {
		if err := pid.Validate(); err != nil {
			return invalidf("ServerConfig.AllowPeers[%d]: %w", i, err)
		}
	}
	if err := validateReplayWindow("ServerConfig.ReplayWindow", c.ReplayWindow); err != nil {
		return err
	}
	if err := c.Hooks.Validate(); err != nil {
		return invalidf("ServerConfig.%w", err)
	}
	return validateFields("ServerConfig", []durationField{
		{"ReadTimeout", c.ReadTimeout}, {"WriteTimeout", c.WriteTimeout}, {"ConnectTimeout", c.ConnectTimeout},
		{"IdleTimeout", c.IdleTimeout}, {"CleanupInterval", c.CleanupInterval}, {"MaxIdleTime", c.MaxIdleTime},
		{"Heartbeat", c.Heartbeat}, {"CloseTimeout", c.CloseTimeout},
	}, []sizeField{
		{"MaxBlockSize", c.MaxBlockSize, maxBlockSize}, {"MaxConcurrentConns", c.MaxConcurrentConns, 1 << 20},
		{"MaxRequestsPerConn", c.MaxRequestsPerConn, maxInt}, {"BufferPoolSize", c.BufferPoolSize, maxBlockSize},
		{"MaxMemoryUsage", int(min(c.MaxMemoryUsage, maxInt)), maxInt},
	})
}

func (c ServerConfig) withDefaults() ServerConfig {
	defaults.Set(&c.ReadTimeout, defaults.Read)
	defaults.Set(&c.WriteTimeout, defaults.Write)
	defaults.Set(&c.MaxBlockSize, defaults.MaxMessage)
	defaults.Set(&c.MaxConcurrentConns, 1000)
	defaults.Set(&c.ConnectTimeout, defaults.Handshake)
	defaults.Set(&c.MaxRequestsPerConn, 10000)
	defaults.Set(&c.IdleTimeout, time.Minute)
	defaults.Set(&c.BufferPoolSize, 1<<20)
	defaults.Set(&c.CleanupInterval, 5*time.Minute)
	defaults.Set(&c.MaxIdleTime, 30*time.Minute)
	defaults.Set(&c.MaxMemoryUsage, 1<<30)
	defaults.Set(&c.Heartbeat, defaults.Heartbeat)
	defaults.Set(&c.ResumeWindow, defaults.ResumeWindow)
	defaults.Set(&c.ReplayWindow, defaults.ReplayWindow)
	defaults.Set(&c.CloseTimeout, defaults.Close)
	return c
}

// sessionConfig returns the configuration of the sessions of one tag.
func (c *ServerConfig) sessionConfig(mux *session.Mux, quota *session.Quota) session.Config {
	return session.Config{
		Mux: mux, Quota: quota, Logger: c.Logger, Agent: agent, Hooks: c.Hooks,
		HandshakeTimeout: c.ConnectTimeout, ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout,
		RequestTimeout: c.ReadTimeout, Heartbeat: c.Heartbeat, CloseTimeout: c.CloseTimeout,
		ResumeWindow: c.ResumeWindow, ReplayWindow: c.ReplayWindow,
		MaxMessage: c.MaxBlockSize, MessageWindow: c.BufferPoolSize, MaxRequests: c.MaxRequestsPerConn,
		MaxInFlight:        min(max(4096, c.MaxConcurrentConns+1), 1<<20), // so that too many calls are refused, and not queued
		DisableCompression: !c.EnableCompression,
	}
}
