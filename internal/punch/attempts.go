package punch

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// An Attempt is one to find a direct connection to a peer.
type Attempt struct {
	At   time.Time
	Took time.Duration
	Why  string // why it has failed; empty if there is a direct connection
}

const (
	maxAttempts = 4   // that are remembered of a peer
	maxWhy      = 200 // bytes of Attempt.Why
)

// Attempts returns the last attempts with a peer, the oldest first.
func (s *Service) Attempts(pid peer.ID) []Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[pid]; p != nil {
		return slices.Clone(p.last)
	}
	return nil
}

// note remembers an attempt, unless it gave way to one of the peer.
func (s *Service) note(p *seeker, began time.Time, err error) {
	a := Attempt{At: began, Took: time.Since(began)}
	if !s.isDirect(p.id) {
		if err == nil || errors.Is(err, errPeerBegins) {
			return
		}
		a.Why, _, _ = strings.Cut(err.Error(), "\n") // libp2p lists the addresses below
		a.Why = strings.ToValidUTF8(a.Why[:min(len(a.Why), maxWhy)], "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(p.last) == maxAttempts {
		p.last = slices.Delete(p.last, 0, 1)
	}
	p.last = append(p.last, a)
}
