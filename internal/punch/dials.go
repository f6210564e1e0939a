package punch

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/direct"
)

// A punching is a dial of an exchange.
type punching struct {
	cancel context.CancelFunc
	over   chan struct{} // closed when it is over
}

// punching keeps a dial until done is called.
func (p *seeker) punching(cancel context.CancelFunc) (d *punching, done func()) {
	s := p.service
	s.mu.Lock()
	defer s.mu.Unlock()
	d = &punching{cancel: cancel, over: make(chan struct{})}
	p.punches[d] = struct{}{}
	return d, func() {
		s.mu.Lock()
		delete(p.punches, d)
		s.mu.Unlock()
		cancel()
		close(d.over)
	}
}

// stopOthers gives up all dials but one, and waits until they are over: libp2p would join a new dial with those of the same address.
func (p *seeker) stopOthers(but *punching) {
	s := p.service
	s.mu.Lock()
	var others []*punching
	for d := range p.punches {
		if d != but {
			others = append(others, d)
			d.cancel()
		}
	}
	s.mu.Unlock()
	for _, d := range others {
		<-d.over
	}
	p.stopDialing()
}

// dialKnown dials the peer's direct addresses in the background, until stopDialing. It returns how long they may take to answer before
// other dials take over, and a channel that is closed when the dial is over.
func (s *Service) dialKnown(p *seeker, first bool) (wait time.Duration, dialed <-chan struct{}) {
	known := s.known(p.id)
	for _, a := range known {
		switch _, ok := kindOf(a); {
		case !ok:
		case manet.IsPublicAddr(a) && first:
			wait = atOnce
		case manet.IsPublicAddr(a):
			wait = publicFirst
		default:
			wait = max(wait, localFirst)
		}
	}
	if wait == 0 {
		return 0, nil
	}
	over, ok := s.limits.dial(known)
	if !ok {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, dialTime)
	done := make(chan struct{})
	begun := s.spawn(func() {
		defer close(done)
		defer func() { over(s.reached(p.id)) }()
		_ = direct.Connect(ctx, s.host, peer.AddrInfo{ID: p.id}) // isDirect tells
	})
	if !begun {
		cancel()
		return 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.dialing, p.dialed = cancel, done
	return wait, done
}

// stopDialing gives up the direct dial, and waits until it is over.
func (p *seeker) stopDialing() {
	s := p.service
	s.mu.Lock()
	cancel, done := p.dialing, p.dialed
	p.dialing = nil
	s.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}
