package punch

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/internal/pause"
)

// exchange begins an exchange with the peer, and dials it.
func (s *Service) exchange(p *seeker, try int, protocols []protocol.ID) error {
	if err := s.beginning(p); err != nil {
		return err
	}
	defer s.began(p)
	ctx, cancel := context.WithTimeout(s.ctx, exchangeTime)
	defer cancel()
	ctx = network.WithNoDial(network.WithAllowLimitedConn(ctx, "peerlane"), "peerlane")
	stream, err := s.host.NewStream(ctx, p.id, protocols...)
	if err != nil {
		return err
	}
	if !isRelayed(stream.Conn()) {
		return stream.Reset()
	}
	done, err := s.limits.slot(s.limits.begun, relayOf(stream.Conn()))
	if err != nil {
		return errors.Join(err, stream.Reset())
	}
	defer done()
	stop := context.AfterFunc(s.ctx, func() { _ = stream.Reset() })
	defer stop()
	m, err := begin(stream, s.own(stream.Conn()))
	if err != nil {
		_ = stream.Reset() // the first error tells
		if begins := s.beginning(p); begins != nil {
			return errors.Join(err, begins) // the peer has begun, and refused
		}
		p.refused = stream.Protocol() == wideProtocol
		return err
	}
	_ = stream.Close()    // everything is said
	m.client = try%2 == 1 // then both are: where TCP comes in, the one that dials has the client's part
	return s.meet(p, m, stream.Protocol() == wideProtocol)
}

// mayWide reports whether an attempt with many holes may be begun with the peer, or answered.
func (s *Service) mayWide(p *seeker) bool {
	here := s.observer.Network()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.wideIn != here {
		p.wideIn, p.wides = here, 0
	}
	return p.mayWideLocked() && s.limits.mayWide()
}

func (p *seeker) mayWideLocked() bool {
	return !p.service.noWide && p.wides < wideMost && (p.wideAt.IsZero() || time.Since(p.wideAt) >= wideAgain)
}

// wideBegins counts an attempt with many holes. It reports false when there may be none.
func (s *Service) wideBegins(p *seeker, m meeting) (ends func(through bool), ok bool) {
	addr, target := wideTarget(m.addrs)
	if addr == nil {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.mayWideLocked() { // several exchanges may have come so far at once
		return nil, false
	}
	if ends, ok = s.limits.wide(target.Addr()); ok {
		p.wides++
		p.wideAt = time.Now()
	}
	return ends, ok
}

// meet dials the peer as both sides have agreed. With many, both try many holes when one does not do.
func (s *Service) meet(p *seeker, m meeting, many bool) error {
	if !many {
		return s.dial(s.ctx, p, m)
	}
	ends, ok := s.wideBegins(p, m)
	if !ok {
		return s.dial(s.ctx, p, m)
	}
	defer func() { ends(s.isDirect(p.id)) }()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var single sync.WaitGroup
	single.Go(func() { _ = s.dial(ctx, p, m) }) // isDirect tells
	defer func() { cancel(); single.Wait() }()
	if err := pause.For(s.ctx, m.wait+wideAfter); err != nil || s.isDirect(p.id) {
		return err
	}
	err := s.punchWide(s.ctx, p, m)
	if s.isDirect(p.id) {
		return nil
	}
	if errors.Is(err, errNotThrough) {
		s.vain(p) // as with one hole before
	}
	return err
}

// beginning says that this side begins an exchange, unless the peer has begun one.
func (s *Service) beginning(p *seeker) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.answers > 0 {
		return errPeerBegins
	}
	p.begun = true
	return nil
}

func (s *Service) began(p *seeker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.begun = false
}

// yield says that the peer begins an exchange. Of two that begin at once the one with the lower Peer ID gives way.
func (s *Service) yield(pid peer.ID, proto protocol.ID) (*seeker, error) {
	if proto == wideProtocol && !s.mayWide(s.seeker(pid)) {
		return nil, errors.New("punch: many holes were tried shortly before")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dialing := 0
	for _, p := range s.peers {
		dialing += p.answers
	}
	p := s.seekerLocked(pid)
	if dialing >= maxDialing || p.answers >= perPeer {
		return nil, errBusy
	}
	now := time.Now()
	if p.asked.wait(now, perMinute) > 0 {
		return nil, errTooMany
	}
	if p.begun && proto != dcutr && strings.Compare(string(s.host.ID()), string(pid)) > 0 {
		return nil, errors.New("punch: this side has begun")
	}
	p.answers++
	p.asked.add(now)
	return p, nil
}

func (s *Service) answered(p *seeker, err error) {
	here := s.observer.Network()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.answers--
	if errors.Is(err, errNotThrough) {
		p.vainLocked(here)
	}
}
