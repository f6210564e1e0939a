package session

import (
	"time"

	"github.com/peerlane/peerlane/internal/fair"
)

// A Snapshot is the state of a session at one moment. Byte counts are of frames, before the seal.
type Snapshot struct {
	ID         ID
	Peer       string
	Tag        string // Config.Tag
	Agent      string // the peer's software, as reported by the peer; untrusted
	Dialer     bool   // this side opened the session
	Sealed     bool   // a pre-shared key is in force
	Draining   bool   // accepts no new work
	Started    time.Time
	LastActive time.Time // when the application last sent or received something
	Idle       bool      // nothing is in flight
	LastHeard  time.Time // when the connection last gave a sign of life: bytes of the peer arrived, or a Write that had waited found room
	// LastReceived is when something of the peer last arrived on this session: see Session.LastReceived.
	LastReceived time.Time
	RTT          time.Duration // last measured; 0 before there is one

	State      State // the relation of the session to its carrier
	StateSince time.Time
	Resumable  bool   // outlives its carrier
	Resumes    uint64 // how often it has resumed after its carrier was lost
	Migrations uint64 // how often it has moved from a live carrier
	Resent     uint64 // bytes that were sent again on another carrier
	Unacked    int    // bytes kept for another carrier
	// ReplayWindow is Config.ReplayWindow, which bounds Unacked; 0 if the session is not Resumable.
	ReplayWindow int
	// PeerBytes is how much of Quota.MaxBytes the peer holds, with all its sessions that share the Quota.
	PeerBytes int64

	BytesIn, BytesOut       uint64 // frames, before the seal
	RequestsIn, RequestsOut uint64 // requests begun
	MessagesIn, MessagesOut uint64 // one-way messages begun
	InFlightIn, InFlightOut int    // requests not yet answered
	Streams                 int    // shared and dedicated, of both sides
	Undelivered             uint64 // one-way messages that failed
	Late                    uint64 // replies that arrived after their callers had given up, of both sides
	Refused                 uint64 // requests, messages and streams of the peer that were refused
	Cancelled               uint64 // requests that the peer cancelled
	HooksDropped            uint64 // calls of Hooks that were dropped because too many waited
}

// Snapshot returns the session's state and totals.
func (s *Session) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshotLocked()
}

func (s *Session) snapshotLocked() Snapshot {
	v := Snapshot{
		ID: s.id, Peer: s.peer, Tag: s.cfg.Tag, Agent: s.agent, Dialer: s.dialer, Sealed: s.cfg.Keys != nil,
		Draining: s.end.ours > phaseOpen || s.end.theirs > phaseOpen || s.err != nil,
		Started:  s.started, LastActive: s.activeAt(), LastHeard: s.lastHeard(), LastReceived: s.LastReceived(), Idle: !s.busyLocked(), RTT: s.RTT(),
		State: s.carriers.state, StateSince: s.carriers.since, Resumes: s.stats.resumes, Migrations: s.stats.migrations,
		BytesIn: s.stats.bytesIn.Load(), BytesOut: s.stats.bytesOut.Load(),
		RequestsIn: s.stats.requestsIn.Load(), RequestsOut: s.stats.requestsOut.Load(),
		MessagesIn: s.stats.messagesIn.Load(), MessagesOut: s.stats.messagesOut.Load(),
		InFlightIn: len(s.requests.open), InFlightOut: int(s.calls.inFlight), Streams: len(s.shared.open) + len(s.dedicated.open),
		Undelivered: s.stats.undelivered.Load(), Late: s.stats.late.Load(),
		Refused: s.stats.refused.Load(), Cancelled: s.stats.cancelled.Load(),
		PeerBytes: s.part.holder.Used(fair.Bytes),
	}
	if s.events.line != nil {
		v.HooksDropped = s.events.line.missed()
	}
	if s.carriers.flow != nil {
		v.Resumable, v.ReplayWindow = true, s.cfg.ReplayWindow
		v.Unacked, v.Resent = s.carriers.flow.Kept()
	}
	return v
}
