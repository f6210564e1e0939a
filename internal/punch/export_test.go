package punch

import (
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// WakeAtTheEnd makes the seeker of a peer end while something wakes it. It reports whether the seeker goes on.
func (s *Service) WakeAtTheEnd(pid peer.ID) bool {
	p := s.seeker(pid)
	s.mu.Lock()
	p.seeking = true
	s.mu.Unlock()
	s.seek(pid, network.DirInbound)
	return !s.rest(p)
}

// DropDead closes the direct connections to a peer that do not answer.
func (s *Service) DropDead(pid peer.ID) { s.dropDead(pid, s.relayed(pid)) }

// PingLimit returns how long a new direct connection to a peer has to answer.
func (s *Service) PingLimit(pid peer.ID) time.Duration { return s.pingLimit(s.relayed(pid)) }

// Dial dials a peer as for an exchange with one hole.
func (s *Service) Dial(pid peer.ID, at ma.Multiaddr) error {
	return s.dial(s.ctx, s.seeker(pid), meeting{addrs: []ma.Multiaddr{at}})
}

// UntilWide returns how long the seeker of a peer waits at most, because many holes were tried so often in a network and so long ago.
func (s *Service) UntilWide(pid peer.ID, times int, in, here string, ago time.Duration) time.Duration {
	p := s.seeker(pid)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.wides, p.wideIn, p.wideAt = times, in, time.Now().Add(-ago)
	return p.untilWideLocked(here)
}
