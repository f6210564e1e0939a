package peerlane

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/session"
)

// ConnectionInfo is one live connection: a session, or one call of an old peer. The first three fields are pointsub's.
type ConnectionInfo struct {
	RemoteAddr string        // the peer's ID
	LastActive time.Time     // when the application last sent or received something on it
	IdleTime   time.Duration // since LastActive

	Peer     peer.ID
	Tag      protocol.ID
	Path     Path          // direct or relayed, and over which transport
	Legacy   bool          // a call over pointsub's wire
	Sealed   bool          // a pre-shared key is in force
	BytesIn  uint64        // received, of frames
	BytesOut uint64        // sent, of frames
	Requests uint64        // served, or made by a Client
	InFlight int           // requests not yet answered
	Streams  int           // open streams of the session
	RTT      time.Duration // last measured; 0 before there is one
}

// sessionInfo returns a session as a connection.
func sessionInfo(s *session.Session, pid peer.ID, tag protocol.ID, now time.Time) ConnectionInfo {
	v := s.Snapshot()
	return ConnectionInfo{
		RemoteAddr: pid.String(), LastActive: v.LastActive, IdleTime: max(now.Sub(v.LastActive), 0),
		Peer: pid, Tag: tag, Path: PathOf(s), Sealed: v.Sealed,
		BytesIn: v.BytesIn, BytesOut: v.BytesOut, Requests: v.RequestsIn + v.RequestsOut,
		InFlight: v.InFlightIn + v.InFlightOut, Streams: v.Streams, RTT: v.RTT,
	}
}
