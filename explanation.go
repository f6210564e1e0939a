package peerlane

import (
	"time"

	"github.com/peerlane/peerlane/internal/advice"
	"github.com/peerlane/peerlane/internal/registry"
)

// An Explanation says why a peer can or cannot be reached. It has the known facts about the peer, the failed dials, and advice. diagnostics.Explain
// returns one. If a Dial, Send, Connect or Keep fails to connect, its *Error carries one too, which errors.As finds. Texts are printable and have at
// most 512 bytes; lists are short.
type Explanation struct {
	Version int       `json:"version"` // 1; within a version, fields are only added
	Taken   time.Time `json:"taken,omitzero"`
	Host    string    `json:"host,omitempty"` // the Peer ID of this host
	Peer    string    `json:"peer"`
	Tag     string    `json:"tag,omitempty"`

	Reached bool   `json:"reached"`           // there is a session, or one could be opened
	Partial bool   `json:"partial,omitempty"` // the time was up before everything had been tried
	Reason  Reason `json:"reason"`            // why, in a word
	What    string `json:"what"`              // the same as a sentence
	Do      string `json:"do,omitempty"`      // what helps; empty if the peer was reached
	By      string `json:"by,omitempty"`      // the side that refused: "local", "peer" or "relay"; empty if none did
	Text    string `json:"text,omitempty"`    // the error as text

	Took registry.Duration `json:"took_ms"`
	Path string            `json:"path,omitempty"`   // of the session, or of the connection on which none could be opened: see Path.String
	RTT  registry.Duration `json:"rtt_ms,omitempty"` // round trip of the session

	Addrs     []ExplainedAddr  `json:"addrs,omitempty"`      // known addresses of the peer
	MoreAddrs int              `json:"more_addrs,omitempty"` // how many are left out of Addrs
	Dials     []ExplainedDial  `json:"dials,omitempty"`      // failed dials of the peer and its relays
	Relays    []ExplainedRelay `json:"relays,omitempty"`     // that lead to the peer
	Punching  string           `json:"punching,omitempty"`   // "on", "off" or "unknown": whether this host punches holes for a direct path; empty without a relay
	Punches   []ExplainedPunch `json:"punches,omitempty"`    // the last attempts to find a direct path, the oldest first
	Limit     *ExplainedLimit  `json:"limit,omitempty"`      // the limit that was reached

	Agent  string   `json:"agent,omitempty"`  // the peer's software, as reported by the peer
	Serves []string `json:"serves,omitempty"` // tags that the peer serves, as reported by the peer
	Keys   []string `json:"keys,omitempty"`   // the ids of this side's pre-shared keys

	cause error // nil if the error carries the Explanation
}

// A Reason is why a peer can or cannot be reached, such as "reached" or "psk-mismatch". docs/DIAGNOSTICS.md lists them.
type Reason = advice.Reason

// An ExplainedAddr is a known address of a peer.
type ExplainedAddr struct {
	Addr string `json:"addr"`
	From string `json:"from"` // its sources, such as "given, reached"
}

// An ExplainedDial is a failed dial of an address. libp2p dials several addresses at the same time and does not report when each one failed. Took is
// the time of the whole dial.
type ExplainedDial struct {
	Addr  string            `json:"addr,omitempty"`  // empty if libp2p names none
	Relay bool              `json:"relay,omitempty"` // the dial was one of a relay, and not of the peer
	At    time.Time         `json:"at,omitzero"`
	Took  registry.Duration `json:"took_ms"`
	Times int               `json:"times"` // how often it was tried; the rest is of the last time
	Error string            `json:"error"`
}

// An ExplainedRelay is a relay that leads to a peer. Its limits are known once there is a connection to the peer through it.
type ExplainedRelay struct {
	Relay     string            `json:"relay"`                 // its Peer ID
	Connected bool              `json:"connected,omitempty"`   // this host is connected to it
	Used      bool              `json:"used,omitempty"`        // there is a connection to the peer through it, or was one that has failed
	Data      int64             `json:"data,omitempty"`        // bytes that it passes each way; 0 if it sets no limit
	Left      int64             `json:"left,omitempty"`        // the approximate rest of Data
	Duration  registry.Duration `json:"duration_ms,omitempty"` // how long it keeps a connection; 0 if it sets no limit
}

// An ExplainedPunch is an attempt to find a direct path.
type ExplainedPunch struct {
	At    time.Time         `json:"at,omitzero"`
	Took  registry.Duration `json:"took_ms"`
	Error string            `json:"error,omitempty"` // empty if it has led to a direct connection
}

// An ExplainedLimit is a limit that was reached.
type ExplainedLimit struct {
	By    string            `json:"by"`                 // the side whose limit it is, as in Explanation.By
	Name  string            `json:"name"`               // the limited resource, such as "sessions", or the scope in a resource manager, such as "system"
	Text  string            `json:"text,omitempty"`     // the text of the refusal
	Retry registry.Duration `json:"retry_ms,omitempty"` // when to try again, as far as the peer says
}

// The values of Explanation.By.
const (
	byLocal = "local"
	byPeer  = "peer"
	byRelay = "relay"
)

// The values of Explanation.Punching.
const (
	punchingOn      = "on"
	punchingOff     = "off"
	punchingUnknown = "unknown"
)

// explanationVersion is Explanation.Version.
const explanationVersion = 1

// Error returns String. An Explanation is an error so that errors.As finds it.
func (e *Explanation) Error() string { return e.String() }

// Unwrap returns why the peer could not be reached, or nil: the Explanation in an error has no other error in it.
func (e *Explanation) Unwrap() error { return e.cause }
