package punch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/alive"
	"github.com/peerlane/peerlane/internal/direct"
	"github.com/peerlane/peerlane/internal/pause"
)

// A Service finds direct connections for a host. It is safe for concurrent use. New starts it, and Close or the end of the host ends it.
type Service struct {
	host     host.Host
	observer *observer
	ctx      context.Context // is over when the service is closed
	cancel   context.CancelFunc
	conns    *network.NotifyBundle
	events   event.Subscription
	running  sync.WaitGroup // run, seekers, exchanges, questions
	noWide   bool
	socket   func() (net.PacketConn, error)
	limits   *limits

	mu     sync.Mutex
	peers  map[peer.ID]*seeker
	closed bool
}

// Options are for New.
type Options struct {
	// NoWide punches one hole at a time. Otherwise, if a single hole fails, up to 2,816 small packets may be sent to a peer's NAT: to one
	// address at most once a minute and five times an hour, and in all at most eight times a minute.
	NoWide bool
	// Socket opens a further UDP socket of the host, for IPv4. If nil, one of the system.
	Socket func() (net.PacketConn, error)
}

// metadata is where the peerstore of a host, which is in memory, keeps its service.
const metadata = "peerlane/punch"

// ErrNoDirect means that no direct connection could be made, and that none is expected while both sides stay in their networks.
var ErrNoDirect = errors.New("no direct connection: the NATs on the way let none through")

// New starts the service of a host, which must have none and not punch holes by itself (libp2p.EnableHolePunching). nil options are the zero
// ones.
func New(h host.Host, o *Options) (*Service, error) {
	if o == nil {
		o = &Options{}
	}
	events, err := h.EventBus().Subscribe([]any{new(event.EvtPeerIdentificationCompleted), new(event.EvtLocalAddressesUpdated)},
		eventbus.Name("peerlane/punch"), eventbus.BufSize(64))
	if err != nil {
		return nil, err
	}
	s := &Service{host: h, events: events, peers: make(map[peer.ID]*seeker), noWide: o.NoWide, socket: o.Socket, limits: newLimits()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.observer = newObserver(h, s.retryAll)
	s.conns = &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { s.connected(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { s.disconnected(c) },
	}
	h.Network().Notify(s.conns)
	if !o.NoWide {
		h.SetStreamHandler(wideProtocol, s.handle)
	}
	h.SetStreamHandler(Protocol, s.handle)
	h.SetStreamHandler(dcutr, s.handle)
	s.running.Go(s.run)
	if err := h.Peerstore().Put(h.ID(), metadata, s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Of returns the service of a host, or nil if it has none.
func Of(h host.Host) *Service {
	s, err := h.Peerstore().Get(h.ID(), metadata)
	if err != nil {
		return nil
	}
	service, _ := s.(*Service) // nil after Close
	return service
}

// Close ends all attempts, and waits for their goroutines.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.running.Wait()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.host.RemoveStreamHandler(wideProtocol)
	s.host.RemoveStreamHandler(Protocol)
	s.host.RemoveStreamHandler(dcutr)
	s.host.Network().StopNotify(s.conns)
	err := errors.Join(s.events.Close(), s.host.Peerstore().Put(s.host.ID(), metadata, nil))
	s.running.Wait()
	return err
}

// run follows what the host learns of itself. It ends when the service is closed, or the host is.
func (s *Service) run() {
	for {
		select {
		case e, open := <-s.events.Out():
			if !open {
				return
			}
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				s.identified(e)
			case event.EvtLocalAddressesUpdated:
				s.moved(e)
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// identified learns this host's address from a peer, and asks a relay for those that the connection to it does not show.
func (s *Service) identified(e event.EvtPeerIdentificationCompleted) {
	s.observer.identified(e)
	if slices.Contains(e.Protocols, proto.ProtoIDv2Hop) && !isRelayed(e.Conn) && e.Conn.Stat().Direction == network.DirOutbound {
		s.spawn(func() { s.observer.ask(s.ctx, e.Peer) })
	}
	if isRelayed(e.Conn) {
		s.seek(e.Peer, e.Conn.Stat().Direction)
	}
}

// moved forgets where the host was seen, when it has lost an address.
func (s *Service) moved(e event.EvtLocalAddressesUpdated) {
	lost := slices.ContainsFunc(e.Removed, func(a event.UpdatedAddress) bool {
		_, ok := kindOf(a.Address)
		return ok
	})
	if lost {
		s.observer.forget()
		s.askAll()
	}
	s.retryAll()
}

// askAll asks the relays that the host is connected to where they see it.
func (s *Service) askAll() {
	for _, pid := range s.host.Network().Peers() {
		if relays, err := s.host.Peerstore().SupportsProtocols(pid, proto.ProtoIDv2Hop); err == nil && len(relays) > 0 {
			s.spawn(func() { s.observer.ask(s.ctx, pid) })
		}
	}
}

func (s *Service) connected(c network.Conn) {
	if isRelayed(c) {
		return // identified comes later
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[c.RemotePeer()]; p != nil {
		p.directLocked()
	}
}

// disconnected begins anew when the direct connection to a peer is gone and a relayed one is left, and ends when none is.
func (s *Service) disconnected(c network.Conn) {
	pid, isDirect := c.RemotePeer(), s.isDirect(c.RemotePeer())
	if !isRelayed(c) && !isDirect {
		s.lost(pid)
	}
	if left := s.relayed(pid); left != nil && !isDirect {
		s.observer.suspect() // this host may be in another network, with the same address as in the last one
		s.seek(pid, left.Stat().Direction)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[pid]; p != nil {
		p.wakeLocked()
		if p.dialing != nil && !isDirect {
			p.dialing() // libp2p would join it and a dial over the relay, when that is back
		}
	}
}

// lost records that the last direct connection to a peer is gone.
func (s *Service) lost(pid peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[pid]; p != nil {
		p.lostAt = time.Now()
	}
}

// own returns this host's addresses for an exchange over c, after its relay has said where it sees the host.
func (s *Service) own(c network.Conn) []ma.Multiaddr {
	ctx, cancel := context.WithTimeout(s.ctx, ownTime)
	defer cancel()
	relay := relayOf(c)
	s.observer.ask(ctx, relay)
	s.observer.settled(ctx)
	return s.observer.candidates(relay)
}

// listenUDP opens a further socket of the host, from which to send to an address.
func (s *Service) listenUDP(to netip.Addr) (net.PacketConn, error) {
	if s.socket != nil {
		return s.socket()
	}
	return net.ListenUDP(udpFor(to), nil)
}

// udpFor returns the network of UDP that an address is in.
func udpFor(to netip.Addr) string {
	if to.Unmap().Is4() {
		return "udp4"
	}
	return "udp6"
}

// handle answers an exchange. It dials the peer, and returns when that is over.
func (s *Service) handle(stream network.Stream) {
	if !s.enter() {
		_ = stream.Reset()
		return
	}
	defer s.running.Done()
	if err := s.answer(stream); err != nil {
		_ = stream.Reset() // the peer tries again when it likes
	}
}

func (s *Service) answer(stream network.Stream) (err error) {
	c := stream.Conn()
	switch {
	case !isRelayed(c):
		return errors.New("punch: there is a direct connection")
	case stream.Protocol() == dcutr && c.Stat().Direction == network.DirInbound:
		return errors.New("punch: it is this side that begins")
	}
	if err := stream.Scope().SetService("peerlane.punch"); err != nil {
		return err
	}
	done, err := s.limits.slot(s.limits.answers, relayOf(c))
	if err != nil {
		return err
	}
	defer done()
	p, err := s.yield(c.RemotePeer(), stream.Protocol())
	if err != nil {
		return err
	}
	began := time.Now()
	defer func() {
		s.note(p, began, err)
		s.answered(p, err)
	}()
	s.dropDead(c.RemotePeer(), c)
	stop := context.AfterFunc(s.ctx, func() { _ = stream.Reset() })
	defer stop()
	m, err := answer(stream, func() []ma.Multiaddr { return s.own(c) })
	if err != nil {
		return err
	}
	_ = stream.Close() // everything is said
	return s.meet(p, m, stream.Protocol() == wideProtocol)
}

// dropDead closes the direct connections to a peer that do not answer a ping. A peer that begins an exchange, over c, has no direct connection
// left, but its message that closed the last one may have been lost. libp2p would notice after 30 s, and would not dial another one meanwhile. A
// connection that has just been made, over a slow path, has longer to answer.
func (s *Service) dropDead(pid peer.ID, c network.Conn) {
	conns := slices.DeleteFunc(s.host.Network().ConnsToPeer(pid), isRelayed)
	if len(conns) == 0 {
		return
	}
	newLimit := s.pingLimit(c)
	var all sync.WaitGroup
	for _, c := range conns {
		all.Go(func() {
			limit := pingTime
			if time.Since(c.Stat().Opened) < isNew {
				limit = newLimit
			}
			ctx, cancel := context.WithTimeout(s.ctx, limit)
			defer cancel()
			if errors.Is(alive.Ping(ctx, c), context.DeadlineExceeded) {
				_ = c.Close() // the other side has done so
			}
		})
	}
	all.Wait()
}

// pingLimit returns how long a new direct connection to a peer has to answer a ping: a few times as long as c, a relayed one, which leads
// over the same links.
func (s *Service) pingLimit(c network.Conn) time.Duration {
	ctx, cancel := context.WithTimeout(s.ctx, pingNew/pingRTTs)
	defer cancel()
	began := time.Now()
	_ = alive.Ping(ctx, c) // the time counts, however it ends
	return max(pingTime, pingRTTs*time.Since(began))
}

// dial dials the peer at the moment of the meeting, when other dials of the service to it have been given up: libp2p would join them.
func (s *Service) dial(ctx context.Context, p *seeker, m meeting) error {
	if err := pause.For(ctx, m.wait); err != nil {
		return err
	}
	p.stopDialing()
	done, ok := s.limits.dial(append(s.known(p.id), m.addrs...))
	if !ok {
		return errMuchVain
	}
	defer func() { done(s.reached(p.id)) }()
	ctx, cancel := context.WithTimeout(ctx, punchTime)
	_, over := p.punching(cancel)
	defer over()
	ctx = network.WithSimultaneousConnect(ctx, m.client, "peerlane")
	if err := direct.Connect(ctx, s.host, peer.AddrInfo{ID: p.id, Addrs: m.addrs}); err != nil && !s.isDirect(p.id) {
		return fmt.Errorf("%w: %w", errNotThrough, err)
	}
	return nil
}

// known returns the direct addresses of a peer in the peerstore, which libp2p dials besides those of a message. It removes those that exceed the
// bounds, because a peer can list hundreds and libp2p would dial them all.
func (s *Service) known(pid peer.ID) []ma.Multiaddr {
	all := slices.DeleteFunc(s.host.Peerstore().Addrs(pid), func(a ma.Multiaddr) bool {
		_, err := a.ValueForProtocol(ma.P_CIRCUIT)
		return err == nil
	})
	kept := atMostIPs(all, maxKnownIPs)
	kept = kept[:min(len(kept), maxKnown)]
	if len(kept) < len(all) {
		surplus := slices.DeleteFunc(all, func(a ma.Multiaddr) bool { return ma.Contains(kept, a) })
		s.host.Peerstore().SetAddrs(pid, surplus, 0)
	}
	return kept
}

// reached returns the network of a direct connection to a peer, or the zero one.
func (s *Service) reached(pid peer.ID) netip.Prefix {
	for _, c := range s.host.Network().ConnsToPeer(pid) {
		if !isRelayed(c) && !c.IsClosed() {
			return networkOf(ipOf(c.RemoteMultiaddr()))
		}
	}
	return netip.Prefix{}
}

// enter reports whether the service is open, and if so keeps Close waiting until running.Done.
func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

// spawn runs f in a goroutine that Close waits for. It reports false when the service is closed.
func (s *Service) spawn(f func()) bool {
	if !s.enter() {
		return false
	}
	go func() {
		defer s.running.Done()
		f()
	}()
	return true
}

// relayed returns a relayed connection to a peer, or nil.
func (s *Service) relayed(pid peer.ID) network.Conn {
	for _, c := range s.host.Network().ConnsToPeer(pid) {
		if isRelayed(c) && !c.IsClosed() {
			return c
		}
	}
	return nil
}

// isDirect reports whether there is a direct connection to a peer.
func (s *Service) isDirect(pid peer.ID) bool {
	return slices.ContainsFunc(s.host.Network().ConnsToPeer(pid), func(c network.Conn) bool { return !isRelayed(c) && !c.IsClosed() })
}

func isRelayed(c network.Conn) bool {
	_, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// relayOf returns the relay of a relayed connection.
func relayOf(c network.Conn) peer.ID {
	for _, part := range c.RemoteMultiaddr() {
		if part.Protocol().Code == ma.P_P2P {
			pid, _ := peer.IDFromBytes(part.RawValue()) // the connection is there, so it is valid
			return pid
		}
	}
	return ""
}
