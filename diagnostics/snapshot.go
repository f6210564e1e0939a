package diagnostics

import (
	"time"

	"github.com/peerlane/peerlane/internal/cause"
)

// Version is the version of the snapshots: see the package's documentation.
const Version = 1

// Recent is how many ended sessions, and how many that were not opened, a Client or Server remembers.
const Recent = 32

// A ClientSnapshot is a Client as it stands.
type ClientSnapshot struct {
	Version int       `json:"version"` // Version
	Taken   time.Time `json:"taken,omitzero"`
	Host    string    `json:"host"` // the Peer ID of the client's host

	// Keys are the ids of the pre-shared keys in force, the current one first. An id names a key, and says nothing about the secret to those
	// who do not have it.
	Keys     []string          `json:"keys,omitempty"`
	Totals   Totals            `json:"totals,omitzero"`
	Sessions []SessionSnapshot `json:"sessions,omitempty"`
	Keepers  []KeeperSnapshot  `json:"keepers,omitempty"`
	Limits   []Limit           `json:"limits,omitempty"`
	Ended    []Event           `json:"ended,omitempty"`  // the last Recent sessions that have ended, the oldest first
	Failed   []Event           `json:"failed,omitempty"` // the last Recent sessions that could not be opened, the oldest first
}

// A ServerSnapshot is a Server as it stands.
type ServerSnapshot struct {
	Version int       `json:"version"` // Version
	Taken   time.Time `json:"taken,omitzero"`
	Host    string    `json:"host"` // the Peer ID of the server's host

	Keys     []string          `json:"keys,omitempty"` // as in ClientSnapshot
	Tags     []string          `json:"tags,omitempty"` // those that are served
	Totals   Totals            `json:"totals,omitzero"`
	Sessions []SessionSnapshot `json:"sessions,omitempty"`
	Calls    []CallSnapshot    `json:"calls,omitempty"` // of pointsub v0.0.2 peers, which have no sessions
	Limits   []Limit           `json:"limits,omitempty"`
	Ended    []Event           `json:"ended,omitempty"`   // the last Recent sessions that have ended, the oldest first
	Refused  []Event           `json:"refused,omitempty"` // the last Recent connections of peers that were refused, the oldest first
}

// A SessionSnapshot is an open session as it stands. One that has lost its connection and waits for another is a session too: its State is
// session.StateDetached, and it has no Path.
type SessionSnapshot struct {
	ID       string `json:"id"`
	Peer     string `json:"peer"`
	Tag      string `json:"tag"`
	Agent    string `json:"agent,omitempty"`    // the peer's software, as reported by the peer
	Dialer   bool   `json:"dialer"`             // this side opened the session
	Sealed   bool   `json:"sealed"`             // a pre-shared key is in force
	Draining bool   `json:"draining,omitempty"` // accepts no new work
	Idle     bool   `json:"idle"`               // nothing is in flight

	Started    time.Time `json:"started,omitzero"`
	LastActive time.Time `json:"last_active,omitzero"` // when the application last sent or received something
	LastHeard  time.Time `json:"last_heard,omitzero"`  // when the connection last gave a sign of life
	// LastReceived is when something of the peer last arrived on the session.
	LastReceived time.Time     `json:"last_received,omitzero"`
	RTT          Duration      `json:"rtt_ms"` // last measured round trip; 0 before there is one
	State        string        `json:"state"`  // a session.State
	StateSince   time.Time     `json:"state_since,omitzero"`
	Path         *PathSnapshot `json:"path,omitempty"` // nil while the session has no connection

	Carriers []CarrierSnapshot `json:"carriers,omitempty"` // the last 8, the oldest first; the current one has no Until

	Resumable    bool   `json:"resumable"`     // outlives its connection
	Resumes      uint64 `json:"resumes"`       // how often it has resumed after its connection was lost
	Migrations   uint64 `json:"migrations"`    // how often it has moved from a live connection
	Resent       uint64 `json:"resent"`        // bytes that were sent again on another connection
	ReplayUsed   int    `json:"replay_used"`   // bytes that are kept for another connection
	ReplayWindow int    `json:"replay_window"` // bounds ReplayUsed; 0 if the session is not resumable
	PeerMemory   int64  `json:"peer_memory"`   // bytes of the limit "memory" that all sessions of the peer hold

	BytesIn     uint64 `json:"bytes_in"` // of frames, before the seal
	BytesOut    uint64 `json:"bytes_out"`
	RequestsIn  uint64 `json:"requests_in"` // begun
	RequestsOut uint64 `json:"requests_out"`
	MessagesIn  uint64 `json:"messages_in"` // one-way messages begun
	MessagesOut uint64 `json:"messages_out"`
	InFlightIn  int    `json:"in_flight_in"` // requests not yet answered
	InFlightOut int    `json:"in_flight_out"`
	Undelivered uint64 `json:"undelivered"` // one-way messages that failed
	Late        uint64 `json:"late"`        // replies that arrived after their callers had given up
	Refused     uint64 `json:"refused"`     // requests, messages and streams of the peer that were refused
	Cancelled   uint64 `json:"cancelled"`   // requests that the peer cancelled

	// What runs on the session. A lane of package record or bulk is listed as such, and its streams among Streams too. A transfer is listed
	// on each session that it runs on; one that looks for its peer is on none, and transfer.Registry lists it.
	Streams   []StreamSnapshot   `json:"streams,omitempty"`
	Records   []RecordSnapshot   `json:"records,omitempty"`
	Bulk      []BulkSnapshot     `json:"bulk,omitempty"`
	Transfers []TransferSnapshot `json:"transfers,omitempty"`
}

// A PathSnapshot is how a session reaches its peer: see peerlane.Path.
type PathSnapshot struct {
	Text      string    `json:"text"` // Path.String
	Transport string    `json:"transport"`
	Relayed   bool      `json:"relayed"`
	Relay     string    `json:"relay,omitempty"`      // the relay's Peer ID
	Limited   bool      `json:"limited,omitempty"`    // the relay cuts the connection
	RelayData int64     `json:"relay_data,omitempty"` // bytes that the relay passes in each direction; 0 if it sets no limit
	RelayLeft int64     `json:"relay_left,omitempty"` // the approximate rest of RelayData
	Expires   time.Time `json:"expires,omitzero"`     // when the relay cuts the connection, if it says that
}

// A CarrierSnapshot is a connection that a session is or was on.
type CarrierSnapshot struct {
	Path  string    `json:"path"` // as Path.String, at the end of it
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`  // zero while the session is on it
	Moved bool      `json:"moved,omitempty"` // the session left it for a better one
	// Phase is how far this side was on the way to the end of the session when the carrier ended: "open", "draining", "closing", "over" or
	// "gave up".
	Phase string `json:"phase,omitempty"`
	Why   *Cause `json:"why,omitempty"` // why it ended; nil while it has not, and if Moved
}

// A Cause is why something ended or was refused.
type Cause struct {
	By   string `json:"by"`             // ByLocal, ByPeer or ByNetwork
	Code string `json:"code,omitempty"` // a codes.Code as text; empty if there is none
	Text string `json:"text"`           // the error, or its first 512 bytes
}

// The values of Cause.By.
const (
	ByLocal   = cause.Local   // this side
	ByPeer    = cause.Peer    // the peer, which said why
	ByNetwork = cause.Network // neither: a connection broke, fell silent, or could not be opened
)

// A KeeperSnapshot is a Keeper as it stands.
type KeeperSnapshot struct {
	Peer    string `json:"peer"`
	Tag     string `json:"tag"`
	Want    int    `json:"want"`          // sessions to keep open
	Open    int    `json:"open"`          // sessions that are open
	Opening int    `json:"opening"`       // attempts under way
	Why     *Cause `json:"why,omitempty"` // why the last attempt failed; nil if it did not
}

// A CallSnapshot is a call of a pointsub v0.0.2 peer.
type CallSnapshot struct {
	Peer     string    `json:"peer"`
	Tag      string    `json:"tag"`
	Path     string    `json:"path"`
	Began    time.Time `json:"began,omitzero"`
	BytesIn  uint64    `json:"bytes_in"`
	BytesOut uint64    `json:"bytes_out"`
}

// A Limit is a bound, and how much of it is in use.
type Limit struct {
	// Name is one of
	//   - "sessions": those that peers have open, against ServerConfig.MaxConcurrentConns
	//   - "calls": handlers that run, against the same; on a Client, of calls that peers make back
	//   - "memory": bytes held for peers, against ServerConfig.MaxMemoryUsage
	//   - "pool": sessions of Client.Send, against ClientConfig.MaxIdleConns, which bounds the idle ones among them
	//   - "old-calls": calls of a Client to Peer, which only knows pointsub v0.0.2, that run on Tag at once
	//   - "slots": conns and sessions that this host has open at Peer on Tag, against how many are known to be let through. It grows while the
	//     peer refuses none.
	Name    string `json:"name"`
	Peer    string `json:"peer,omitempty"`
	Tag     string `json:"tag,omitempty"`
	Used    int64  `json:"used"`
	Max     int64  `json:"max"`
	Refused uint64 `json:"refused,omitempty"` // of "memory": calls and messages that were refused for lack of any of the first three
	Warning bool   `json:"warning,omitempty"` // at least 80 % are in use
}

// An Event is the end of a session, or a session that was not opened.
type Event struct {
	At      time.Time `json:"at,omitzero"`
	Peer    string    `json:"peer"`
	Tag     string    `json:"tag"`
	Session string    `json:"session,omitempty"` // its id; empty if it was not opened
	Path    string    `json:"path,omitempty"`    // the last one; empty if there was none
	Why     *Cause    `json:"why,omitempty"`
}
