package peerlane

import (
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/session"
)

// ServerConfig is for NewServer. The names, types and defaults of the first twelve fields are pointsub's. A zero field
// takes its default; a negative one is an error that names the field.
type ServerConfig struct {
	// ReadTimeout is how long a request that arrives in parts may make no progress before it is refused, and how long
	// Stop waits for handlers. If zero, 30 s.
	ReadTimeout time.Duration
	// WriteTimeout is how long a peer may take nothing of what is written to it before its carrier is dropped. If
	// zero, 30 s.
	WriteTimeout time.Duration
	// MaxBlockSize is the most bytes of one request, response or message, whichever side sends it; exactly as many pass. Of
	// both sides the smaller one holds. If zero, 32 MiB. At most 1 GiB.
	MaxBlockSize int
	// MaxConcurrentConns is the most calls that are served at once, and the most sessions that are open at once, over
	// all peers. What comes beyond is refused with ErrUnavailable and a hint when to try again. If zero, 1000. At
	// most 2^20.
	MaxConcurrentConns int
	// ConnectTimeout bounds the hello of a new carrier, and the arrival of an old peer's request header. If zero, 5 s.
	ConnectTimeout time.Duration
	// MaxRequestsPerConn is how many requests a session serves before it is drained; a Client goes on with a new one
	// unasked. If zero, 10000.
	MaxRequestsPerConn int
	// IdleTimeout drains the sessions of Start and Handle that nothing has moved on for that long, at most a quarter of it
	// late. If zero, 60 s.
	IdleTimeout time.Duration
	// BufferPoolSize caps the one-way messages that a session holds for their handler: each counts its bytes and 64 more.
	// While they are below the cap the peer may send another, of any size up to MaxBlockSize; at the cap its Send waits. If
	// zero, 1 MiB. At most 1 GiB.
	BufferPoolSize int
	// EnableCompression lets both sides compress what shrinks by it. DefaultServerConfig sets it.
	EnableCompression bool
	// CleanupInterval caps the time between two looks for idle sessions, of which there are four in the shorter one of
	// IdleTimeout and MaxIdleTime in any case, and at most one a millisecond. If zero, 5 min.
	CleanupInterval time.Duration
	// MaxIdleTime closes every session, of Listen too and also with streams open, on which nothing has moved for that
	// long, at most a quarter of it late; a call that is being handled is not idle. If zero, 30 min.
	MaxIdleTime time.Duration
	// MaxMemoryUsage is the most bytes that requests, messages and replies may hold, over all peers. A request or message
	// that comes beyond is refused with ErrUnavailable; a reply is not. If zero, 1 GiB.
	MaxMemoryUsage uint64

	// AllowPeers, if not nil, admits only these peers; others get ErrNotAllowed.
	AllowPeers []peer.ID
	// AdmitAll lets Listen serve every peer without a pre-shared key. Listen returns ErrModernPSKRequired unless a
	// key is in use, or AllowPeers or AdmitAll is set.
	AdmitAll bool
	// Heartbeat is the silence after which a session's peer is probed; after twice as long its carrier is lost. If zero, 5 s.
	Heartbeat time.Duration
	// ResumeWindow is how long a session outlives its connection while another is looked for; the shorter one of both sides
	// holds. If zero, 60 s. If negative, a session ends with its connection.
	ResumeWindow time.Duration
	// ReplayWindow caps what a session keeps for another connection until its peer has acknowledged it; what is to be sent
	// waits at the cap. If zero, 1 MiB. 4 KiB to 64 MiB.
	ReplayWindow int
	// CloseTimeout is how long Close of a session or a stream waits without progress for what was accepted to arrive; a slow link is
	// progress. If zero, 5 s.
	CloseTimeout time.Duration
	// OnState, if not nil, is called with each step of a session: connected, detached, resumed, migrated, ended. It must
	// not block.
	OnState func(*session.Session, session.StateChange)
	// Logger gets what a person should act on. If nil, nothing is logged.
	Logger *slog.Logger
}

// DefaultServerConfig returns the defaults, with compression on.
func DefaultServerConfig() *ServerConfig {
	c := ServerConfig{EnableCompression: true}.withDefaults()
	return &c
}

// Validate returns an error that matches ErrInvalid and names the first field that is out of range, or nil.
func (c *ServerConfig) Validate() error {
	for i, pid := range c.AllowPeers {
		if err := pid.Validate(); err != nil {
			return invalidf("ServerConfig.AllowPeers[%d]: %w", i, err)
		}
	}
	if err := validateReplayWindow("ServerConfig.ReplayWindow", c.ReplayWindow); err != nil {
		return err
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
	setDefault(&c.ReadTimeout, 30*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.MaxBlockSize, 32<<20)
	setDefault(&c.MaxConcurrentConns, 1000)
	setDefault(&c.ConnectTimeout, 5*time.Second)
	setDefault(&c.MaxRequestsPerConn, 10000)
	setDefault(&c.IdleTimeout, time.Minute)
	setDefault(&c.BufferPoolSize, 1<<20)
	setDefault(&c.CleanupInterval, 5*time.Minute)
	setDefault(&c.MaxIdleTime, 30*time.Minute)
	setDefault(&c.MaxMemoryUsage, 1<<30)
	setDefault(&c.Heartbeat, 5*time.Second)
	setDefault(&c.ResumeWindow, time.Minute)
	setDefault(&c.ReplayWindow, 1<<20)
	setDefault(&c.CloseTimeout, 5*time.Second)
	return c
}

// sessionConfig returns what the sessions of one tag are made with.
func (c *ServerConfig) sessionConfig(mux *session.Mux, quota *session.Quota) session.Config {
	return session.Config{
		Mux: mux, Quota: quota, Logger: c.Logger, Agent: agent,
		HandshakeTimeout: c.ConnectTimeout, ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout,
		RequestTimeout: c.ReadTimeout, Heartbeat: c.Heartbeat, CloseTimeout: c.CloseTimeout,
		ResumeWindow: c.ResumeWindow, ReplayWindow: c.ReplayWindow,
		MaxMessage: c.MaxBlockSize, MessageWindow: c.BufferPoolSize, MaxRequests: c.MaxRequestsPerConn,
		MaxInFlight:        min(max(4096, c.MaxConcurrentConns+1), 1<<20), // so that too many calls are refused, and not queued
		DisableCompression: !c.EnableCompression,
	}
}
