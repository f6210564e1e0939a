package punch

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// The times and limits of a seeker.
const (
	dialTime    = 2 * time.Second        // for a direct dial of the addresses that are known
	publicFirst = time.Second            // of dialTime, before holes are punched, when one of them is public: it may be open
	atOnce      = 300 * time.Millisecond // the same at the first attempt
	localFirst  = 150 * time.Millisecond // the same when all of them are in the local network
	ownTime     = time.Second            // for the relays to say where they see this host
	punchTime   = 3 * time.Second        // for the dials of both sides
	pingTime    = time.Second            // for a direct connection to answer that the peer has none of
	pingNew     = 4 * time.Second        // for one that is new, at most: the peer may have begun before it was made
	pingRTTs    = 4                      // for one that is new, round trips over the relay
	isNew       = 10 * time.Second       // how long a connection is new
	giveWay     = time.Second            // that the side that the relayed connection came in at has to begin
	firstPause  = time.Second / 2        // between two attempts; it doubles
	lastPause   = 5 * time.Minute
	soonFor     = 5 * time.Minute // after a direct connection was lost, pauses last soonPause at most: the path may be back soon
	soonPause   = 4 * time.Second
	perRound    = 2                // failed exchanges after which calls of Direct fail
	failedFor   = 10 * time.Minute // that a failure is remembered in the same network
	maxSeekers  = 4096             // peers that are remembered
)

// A seeker looks for a direct connection to one peer, in a goroutine that lives while there is a relayed connection and no direct one.
//
//	idle ──relayed connection──> seeking ──direct connection──> idle
//	                               │  ^
//	                     an attempt fails │ a pause is over, or a network has changed
//	                               v  │
//	                              pausing ──no relayed connection──> idle
//
// Its fields are guarded by Service.mu.
type seeker struct {
	id       peer.ID
	seeking  bool
	inbound  bool          // the relayed connection came in: this side begins
	tries    int           // attempts that have failed since something changed
	attempts window        // of the last minute
	asked    window        // exchanges that the peer began in the last minute
	used     time.Time     // when the seeker was last looked up
	waiting  int           // calls of Direct
	vain     int           // attempts in which both sides have dialed in vain since something changed
	wake     chan struct{} // of capacity 1: ends a pause
	round    chan struct{} // closed when a direct connection exists or perRound attempts have failed; may be nil
	begun    bool          // an exchange that this side began is under way
	answers  int           // exchanges that the peer began
	lostAt   time.Time     // when the last direct connection was lost
	failedIn string        // the network in which a round has failed
	failedAt time.Time
	dialing  context.CancelFunc     // of the direct dial; nil: none
	dialed   chan struct{}          // closed when it is over
	punches  map[*punching]struct{} // the dials of exchanges
	wides    int                    // attempts with many holes, in the network wideIn
	wideIn   string
	wideAt   time.Time // of the last of them
	refused  bool      // the peer has refused an attempt with many holes: the next one is with one; pursue's
	last     []Attempt // at most maxAttempts
	service  *Service
}

// seek makes a seeker look for a direct connection, at once.
func (s *Service) seek(pid peer.ID, dir network.Direction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	p := s.seekerLocked(pid)
	p.inbound = dir == network.DirInbound
	if p.seeking {
		p.wakeLocked()
		return
	}
	p.seeking, p.tries, p.vain = true, 0, 0
	s.running.Go(func() { s.pursue(p) })
}

func (s *Service) seeker(pid peer.ID) *seeker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seekerLocked(pid)
}

func (s *Service) seekerLocked(pid peer.ID) *seeker {
	p := s.peers[pid]
	if p == nil {
		if len(s.peers) >= maxSeekers {
			s.forgetLocked()
		}
		p = &seeker{id: pid, wake: make(chan struct{}, 1), punches: make(map[*punching]struct{}), service: s}
		s.peers[pid] = p
	}
	p.used = time.Now()
	return p
}

// forgetLocked forgets the idle peer that was used the longest ago.
func (s *Service) forgetLocked() {
	var oldest *seeker
	for _, p := range s.peers {
		if !p.seeking && p.waiting == 0 && p.answers == 0 && (oldest == nil || p.used.Before(oldest.used)) {
			oldest = p
		}
	}
	if oldest != nil { // the others have connections, which the host bounds
		delete(s.peers, oldest.id)
	}
}

func (p *seeker) wakeLocked() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// directLocked says that there is a direct connection. Nobody waits any more, and what still dials is given up.
func (p *seeker) directLocked() {
	p.overLocked()
	p.wakeLocked()
	for d := range p.punches {
		d.cancel()
	}
}

// retryAll makes every seeker try again at once: a network has changed.
func (s *Service) retryAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		p.tries, p.vain, p.failedIn = 0, 0, ""
		p.wakeLocked()
	}
}

// Direct waits for a direct connection to a peer that is connected over a relay. It fails with ErrNoDirect if attempts have failed in this
// network, now or in the last ten minutes, although the service keeps trying. It fails with network.ErrNoConn if there is no relayed connection,
// and with ctx's error when ctx ends: a peer that refuses every exchange can delay it until then.
func (s *Service) Direct(ctx context.Context, pid peer.ID) error {
	defer s.wait(pid)()
	for {
		over := s.join(s.seeker(pid)) // before looking: a later connection closes it
		if s.isDirect(pid) {
			return nil
		}
		c := s.relayed(pid)
		if c == nil {
			return network.ErrNoConn
		}
		if s.hopeless(pid) {
			return ErrNoDirect
		}
		s.seek(pid, c.Stat().Direction)
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return errors.New("punch: the service is closed")
		}
	}
}

// wait keeps the seeker of a peer until done is called.
func (s *Service) wait(pid peer.ID) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.seekerLocked(pid)
	p.waiting++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		p.waiting--
	}
}

// hopeless reports whether a round has failed in this network.
func (s *Service) hopeless(pid peer.ID) bool {
	here := s.observer.Network()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[pid]
	return p != nil && p.failedIn != "" && p.failedIn == here && time.Since(p.failedAt) < failedFor
}

// join returns a channel that is closed when the round is over.
func (s *Service) join(p *seeker) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.round == nil {
		p.round = make(chan struct{})
	}
	return p.round
}

// pursue seeks until there is a direct connection, or no relayed one.
func (s *Service) pursue(p *seeker) {
	for {
		var err error
		if !s.isDirect(p.id) && s.relayed(p.id) != nil {
			began := time.Now()
			err = s.try(p)
			s.note(p, began, err)
		}
		switch {
		case s.isDirect(p.id):
			s.succeeded(p)
		case s.relayed(p.id) == nil:
			s.gaveUp(p)
		default:
			if s.waitOut(p, err) == nil {
				continue
			}
			s.gaveUp(p)
		}
		if s.rest(p) {
			return
		}
	}
}

// rest ends the seeker, unless there is work for it. A change that comes meanwhile wakes it, and is not lost.
func (s *Service) rest(p *seeker) bool {
	again := s.relayed(p.id) != nil && !s.isDirect(p.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-p.wake:
		again = true
	default:
	}
	if again = again && s.ctx.Err() == nil; !again {
		p.seeking = false
	}
	return !again
}

func (s *Service) succeeded(p *seeker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.tries, p.vain, p.failedIn = 0, 0, ""
	p.overLocked()
}

func (s *Service) gaveUp(p *seeker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.overLocked()
}

func (p *seeker) overLocked() {
	if p.round != nil {
		close(p.round)
		p.round = nil
	}
}

// waitOut waits after a failed attempt, for longer each time, until something changes.
func (s *Service) waitOut(p *seeker, why error) error {
	here := s.observer.Network()
	s.mu.Lock()
	if !errors.Is(why, errPeerBegins) {
		p.tries++
	}
	if errors.Is(why, errNotThrough) || errors.Is(why, multistream.ErrNotSupported[protocol.ID]{}) {
		p.vainLocked(here)
	}
	most := lastPause
	if time.Since(p.lostAt) < soonFor {
		most = soonPause
	}
	wait := min(firstPause<<min(p.tries, 12), most)
	if until := p.untilWideLocked(here); until > 0 {
		wait = min(wait, until)
	}
	s.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.wake:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// untilWideLocked returns how long it takes until many holes may be tried that have not been tried in this network, because it is too soon
// after they were in another. It returns 0 if nothing has to be waited for.
func (p *seeker) untilWideLocked(here string) time.Duration {
	if p.service.noWide || p.wideAt.IsZero() || p.wideIn == here && p.wides > 0 {
		return 0
	}
	return max(0, time.Until(p.wideAt.Add(wideAgain+wideSlack)))
}

func (s *Service) vain(p *seeker) {
	here := s.observer.Network()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.vainLocked(here)
}

// vainLocked counts an attempt in which both sides have dialed in vain.
func (p *seeker) vainLocked(here string) {
	if p.vain++; p.vain >= perRound {
		p.failedIn, p.failedAt = here, time.Now()
		p.overLocked()
	}
}

// errNotThrough says that both sides have dialed, and neither came through.
var errNotThrough = errors.New("punch: no way through")

// errPeerBegins says that an attempt of this side had to give way to one of the peer.
var errPeerBegins = errors.New("punch: the peer begins")

// try makes one attempt: it dials the addresses that are known, and then punches holes.
func (s *Service) try(p *seeker) error {
	s.mu.Lock()
	inbound, try, answers := p.inbound, p.tries, p.answers
	s.mu.Unlock()
	if answers > 0 {
		return errPeerBegins // and libp2p would join the dials
	}
	if err := s.pace(p); err != nil {
		return err
	}
	wait, dialed := s.dialKnown(p, try == 0)
	defer p.stopDialing()
	var protocols []protocol.ID
	if s.mayWide(p) && !p.refused {
		protocols = append(protocols, wideProtocol)
	}
	p.refused = false
	protocols = append(protocols, Protocol)
	if inbound {
		protocols = append(protocols, dcutr)
	} else if try == 0 { // the other side has seen the connection come in, and begins
		wait, dialed = giveWay, nil
	}
	if s.await(p, wait, dialed) {
		return nil
	}
	return s.exchange(p, try, protocols)
}

// pace waits until another attempt with the peer is allowed: the peer can wake its seeker as often as it likes. It fails once no attempt is
// needed or possible.
func (s *Service) pace(p *seeker) error {
	for {
		s.mu.Lock()
		now := time.Now()
		wait := p.attempts.wait(now, perMinute)
		if wait == 0 {
			p.attempts.add(now)
		}
		s.mu.Unlock()
		if wait == 0 {
			return nil
		}
		if s.await(p, wait, nil) || s.relayed(p.id) == nil || s.ctx.Err() != nil {
			return errTooMany
		}
	}
}

// await waits for a direct connection for d, or until dialed is closed. It reports whether it has come.
func (s *Service) await(p *seeker, d time.Duration, dialed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !s.isDirect(p.id) {
		select {
		case <-p.wake:
		case <-dialed:
			return s.isDirect(p.id)
		case <-timer.C:
			return s.isDirect(p.id)
		case <-s.ctx.Done():
			return false
		}
	}
	return true
}
