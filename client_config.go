package peerlane

import (
	"log/slog"
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/session"
)

// ClientConfig is the configuration of NewClient. Start from DefaultClientConfig: in a ClientConfig of your own, MaxRetries and
// EnableCompression are off unless you set them, as in pointsub. The names, types and defaults of the first nine fields are pointsub's. A zero
// field takes its default, except these two. A negative MaxRetries is an error that names the field.
type ClientConfig struct {
	// ReadTimeout bounds every Send, connecting and retries included, and every call on a session of Connect or Keep. A ctx that ends
	// earlier takes precedence. If zero, 30 s.
	ReadTimeout time.Duration
	// WriteTimeout is how long a peer may accept none of the data written to it before its carrier is dropped. If zero, 30 s.
	WriteTimeout time.Duration
	// ConnectTimeout bounds the time without progress while connecting to a peer and opening a session: the wait for a connection, and then
	// each step on it. libp2p dials eight addresses of a peer at a time, and waits 5 s for a private and 15 s for a public one. The wait
	// grows by as much for every further eight addresses, so that each is dialed. All tries of a Send share one wait, 1+MaxRetries times as
	// long, and a dial under way is not restarted. A Keeper, and a session that looks for another connection, wait as long as libp2p dials.
	// It is also the longest RetryAfter of a peer that refuses a session to which the client keeps. If zero, 5 s.
	ConnectTimeout time.Duration
	// MaxRetries is how often a Send is retried when the request is known not to have been sent: see Send. DefaultClientConfig sets 3.
	MaxRetries int
	// RetryInterval is the wait before the first retry. It doubles each time, up to tenfold, and each wait is shortened at
	// random by up to a half. If zero, 1 s.
	RetryInterval time.Duration
	// MaxBlockSize is the size limit of one request, response or message in either direction; a block of exactly this size passes. The
	// smaller of both sides' limits applies. If zero, 32 MiB. At most 1 GiB.
	MaxBlockSize int
	// EnableCompression lets both sides compress data that shrinks. DefaultClientConfig sets it. See ServerConfig for its bounds.
	EnableCompression bool
	// MaxIdleConns is the maximum number of idle sessions kept open, over all peers. The one idle for the longest closes first. If zero,
	// 100. At most 2^20.
	MaxIdleConns int
	// IdleConnTimeout closes a session that has been idle for this long. If zero, 5 min.
	IdleConnTimeout time.Duration

	// Path sets the paths on which sessions may run. If zero, PathAuto.
	Path PathPolicy
	// DirectWait bounds the wait for a direct connection: see PathPolicy. If zero, 5 s, or ConnectTimeout if that is
	// shorter.
	DirectWait time.Duration
	// AdmitAll lets Connect open sessions without a pre-shared key; Connect returns ErrModernPSKRequired otherwise.
	AdmitAll bool
	// Heartbeat is the silence after which a session's peer is probed; after twice as long its carrier is lost. If zero, 5 s.
	Heartbeat time.Duration
	// ResumeWindow is how long a session outlives its connection while it looks for another one. The shorter window of both sides applies.
	// If zero, 60 s. If negative, a session ends with its connection.
	ResumeWindow time.Duration
	// ReplayWindow bounds the unacknowledged data that a session keeps for another connection. Sending waits when it is full. If zero, 1
	// MiB. 4 KiB to 64 MiB.
	ReplayWindow int
	// CloseTimeout is how long Close of the client, a keeper, a session or a stream waits without progress for accepted work to arrive. A
	// slow link counts as progress. If zero, 5 s.
	CloseTimeout time.Duration
	// OnState, if not nil, is called with each step of a session: connected, detached, resumed, migrated, ended. It must
	// not block.
	OnState func(*session.Session, session.StateChange)
	// OnPath, if not nil, is called with the path of a session when it is open, and each time it is on another connection: over another relay,
	// or directly. When the session has lost its connection and looks for another, it is called with the zero Path. The calls for one session
	// are in order, after those of OnState. It must not block either: that holds up the session's further calls of both, and its care for a
	// better connection, though not its data, nor other sessions. The round trip may not have been measured yet.
	OnPath func(*session.Session, Path)
	// OnUndelivered, if not nil, is called with the failure of each one-way message. It must not block.
	OnUndelivered func(*Error)
	// Hooks, if not nil, are called when something happens to a session of the client, or to what runs on it. OnState and OnPath are not in order
	// with them.
	Hooks *Hooks
	// Logger receives events that an operator may need to act on. If nil, nothing is logged.
	Logger *slog.Logger
}

// DefaultClientConfig returns the defaults, with three retries and compression on.
func DefaultClientConfig() *ClientConfig {
	c := ClientConfig{MaxRetries: 3, EnableCompression: true}.withDefaults()
	return &c
}

// Validate returns an error that matches ErrInvalid and names the first field that is out of range, or nil. A nil
// config is valid: it has the defaults.
func (c *ClientConfig) Validate() error {
	if c == nil {
		return nil
	}
	if err := c.Path.validate("ClientConfig.Path"); err != nil {
		return err
	}
	if err := validateReplayWindow("ClientConfig.ReplayWindow", c.ReplayWindow); err != nil {
		return err
	}
	if err := c.Hooks.Validate(); err != nil {
		return invalidf("ClientConfig.%w", err)
	}
	return validateFields("ClientConfig", []durationField{
		{"ReadTimeout", c.ReadTimeout}, {"WriteTimeout", c.WriteTimeout}, {"ConnectTimeout", c.ConnectTimeout},
		{"RetryInterval", c.RetryInterval}, {"IdleConnTimeout", c.IdleConnTimeout}, {"DirectWait", c.DirectWait},
		{"Heartbeat", c.Heartbeat}, {"CloseTimeout", c.CloseTimeout},
	}, []sizeField{
		{"MaxRetries", c.MaxRetries, 1 << 20}, {"MaxBlockSize", c.MaxBlockSize, maxBlockSize},
		{"MaxIdleConns", c.MaxIdleConns, 1 << 20},
	})
}

func (c ClientConfig) withDefaults() ClientConfig {
	defaults.Set(&c.ReadTimeout, defaults.Read)
	defaults.Set(&c.WriteTimeout, defaults.Write)
	defaults.Set(&c.ConnectTimeout, defaults.Handshake)
	defaults.Set(&c.RetryInterval, time.Second)
	defaults.Set(&c.MaxBlockSize, defaults.MaxMessage)
	defaults.Set(&c.MaxIdleConns, 100)
	defaults.Set(&c.IdleConnTimeout, 5*time.Minute)
	defaults.Set(&c.DirectWait, min(defaultDirectWait, c.ConnectTimeout))
	defaults.Set(&c.Heartbeat, defaults.Heartbeat)
	defaults.Set(&c.ResumeWindow, defaults.ResumeWindow)
	defaults.Set(&c.ReplayWindow, defaults.ReplayWindow)
	defaults.Set(&c.CloseTimeout, defaults.Close)
	return c
}

// sessionConfig returns the configuration of the client's sessions.
func (c *ClientConfig) sessionConfig(mux *session.Mux) session.Config {
	return session.Config{
		Mux: mux, Logger: c.Logger, Agent: agent, OnUndelivered: c.OnUndelivered, Hooks: c.Hooks,
		HandshakeTimeout: c.ConnectTimeout, ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout,
		RequestTimeout: c.ReadTimeout, Heartbeat: c.Heartbeat, CloseTimeout: c.CloseTimeout,
		ResumeWindow: c.ResumeWindow, ReplayWindow: c.ReplayWindow, MaxMessage: c.MaxBlockSize,
		DisableCompression: !c.EnableCompression,
	}
}
