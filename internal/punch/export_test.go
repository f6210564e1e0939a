package punch

import (
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
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
