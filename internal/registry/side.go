package registry

import (
	"net"
	"time"
)

// The types below carry data from the packages that package diagnostics shows. The ForDiagnostics methods of Session, Client and Server
// return them.

// A Session is a *session.Session as its lanes and package diagnostics see it.
type Session interface {
	// Show lists a lane that runs on the session until remove is called. kind and name are for hooks. snapshot returns the lane as it stands, or nil
	// if it is over. It is called without locks, and may be called once more after remove. count adds the lane's counts, which stay in the session's after remove.
	// It may be nil. It is called with a lock of the session held, and not after remove has returned.
	Show(kind, name string, snapshot func() any, count func(*Counts)) (remove func())

	// SetWatch makes the session and its lanes report durations to w. Nil ends that.
	SetWatch(w *Watch)

	// Watch returns what SetWatch has set, or nil.
	Watch() *Watch

	// Counts returns the counts of the session and its lanes since the session began.
	Counts() Counts

	// State returns the session as it stands.
	State() State
}

// A State is a session as it stands. All but the lanes is of one moment.
type State struct {
	Snapshot any       // a session.Snapshot
	Conn     net.Conn  // the carrier; nil while there is none
	Carriers []Carrier // the oldest first; the last one is the current, if the session is on one
	Streams  []Stream  // in no order
	Lanes    []any     // what their functions returned, in no order
}

// A Carrier is one that a session is or was on.
type Carrier struct {
	Path         string
	Since, Until time.Time // Until is zero while the session is on it
	Moved        bool      // the session left it alive for another
	Phase        string    // how far this side was to the end of the session when it ended
	Err          error     // why it ended; nil while it has not, and if the session moved
}

// A Stream is one of a session.
type Stream struct {
	ID      uint64 // on the wire; 0 if it has none yet, or none is exchanged
	Name    string
	Kind    string // "shared", "dedicated" or "resumable"
	Local   bool   // this side opened it
	Bulk    bool   // waits while the carrier is limited
	State   string
	Opened  time.Time
	In, Out uint64 // bytes received, for a dedicated stream read; bytes sent
	Credit  int    // bytes that the peer takes now; of shared streams
	Unread  int    // bytes received and not read; of shared streams
}

// A Side is a Client or a Server without its sessions.
type Side struct {
	Host     string   // the Peer ID
	Keys     []string // ids of the pre-shared keys in force, the current one first
	Tags     []string // that a Server serves
	Keepers  []Keeper
	Calls    []Call // of old peers, which a Server is serving
	Limits   []Limit
	Closes   []Event // sessions that have ended, the oldest first
	Refusals []Event // sessions and carriers that were not opened, the oldest first

	Counts  func() []TagCounts             // of each tag, in no order
	Observe func(o Observer) (stop func()) // Observers.Add of the Client or Server
}

// A Keeper is one of a Client.
type Keeper struct {
	Peer, Tag           string
	Want, Open, Opening int   // sessions
	Last                error // of the last attempt, if it failed
}

// A Call is one of a pointsub v0.0.2 peer.
type Call struct {
	Peer, Tag, Path string
	Began           time.Time
	In, Out         uint64 // bytes
}

// A Limit is a bound, and how much of it is used.
type Limit struct {
	Name      string
	Peer, Tag string // whose it is; empty: all peers'
	Used, Max int64  // Max is 0 if there is no bound
	Refused   uint64 // how often there was no room, where that is counted
}

// An Event is the end of a session, or the failure to open one.
type Event struct {
	At        time.Time
	Peer, Tag string
	Session   string // the id; empty if none was opened
	Path      string // the last one
	Err       error
}
