package peerlane

import (
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/dialaddr"
)

// An addrBook remembers the addresses at which a host has reached peers, for the next dial. The peerstore forgets them: identify removes
// addresses that the peer does not announce, such as the outer address of a port forward, and the addresses of a disconnected peer expire.
//
// A host has one book while at least one Client follows the host; Keepers and Dialers on it use the same one.
type addrBook struct {
	host  host.Host
	conns *network.NotifyBundle
	users int // clients; guarded by books

	mu    sync.Mutex
	peers map[peer.ID]*knownPeer
	free  int                             // peers without holds
	dials map[network.Conn][]ma.Multiaddr // how to dial a live connection again, where its own address is not enough
	turn  uint64                          // counts uses
}

// A knownPeer is what an addrBook knows about one peer.
type knownPeer struct {
	addrs []ma.Multiaddr // the newest first
	last  network.Conn   // connection that addrs was last taken from; nil once it is closed
	holds int            // sessions with and keepers of the peer
	used  uint64         // turn of the last use
}

const (
	maxKnownAddrs = 8    // of one peer
	maxKnownPeers = 1024 // without a session or a keeper
)

// books holds the addrBook of each host that has one. The key is the Network because several host.Host values may share one.
var books struct {
	sync.Mutex

	byHost map[network.Network]*addrBook
}

// openBook returns the host's book for one more client. The client must call close.
func openBook(h host.Host) *addrBook {
	books.Lock()
	defer books.Unlock()
	b := books.byHost[h.Network()]
	if b == nil {
		b = &addrBook{host: h, peers: make(map[peer.ID]*knownPeer), dials: make(map[network.Conn][]ma.Multiaddr)}
		b.conns = &network.NotifyBundle{
			ConnectedF:    func(_ network.Network, c network.Conn) { b.onConnected(c) },
			DisconnectedF: func(_ network.Network, c network.Conn) { b.onDisconnected(c) },
		}
		h.Network().Notify(b.conns)
		if books.byHost == nil {
			books.byHost = make(map[network.Network]*addrBook)
		}
		books.byHost[h.Network()] = b
	}
	b.users++
	return b
}

// bookOf returns the host's book, or nil.
func bookOf(h host.Host) *addrBook {
	books.Lock()
	defer books.Unlock()
	return books.byHost[h.Network()]
}

// close ends one client's use of the book. The last client's close ends the book.
func (b *addrBook) close() {
	books.Lock()
	defer books.Unlock()
	if b.users--; b.users > 0 {
		return
	}
	delete(books.byHost, b.host.Network())
	b.host.Network().StopNotify(b.conns)
}

// onConnected records the addresses by which a connection was dialed, because the peerstore still has them while the connection is new. It
// must not block.
func (b *addrBook) onConnected(c network.Conn) {
	if c.Stat().Direction != network.DirOutbound {
		return
	}
	addrs := b.dialedAs(c)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !c.IsClosed() && !(len(addrs) == 1 && addrs[0].Equal(c.RemoteMultiaddr())) {
		b.dials[c] = addrs
	}
}

func (b *addrBook) onDisconnected(c network.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.dials, c)
	if k := b.peers[c.RemotePeer()]; k != nil && k.last == c {
		k.last = nil
	}
}

// dialedAs returns the addresses by which a connection dialed by this host can be dialed again: the names and certificate hashes known to
// lead there, and its own address.
func (b *addrBook) dialedAs(c network.Conn) []ma.Multiaddr {
	remote := b.dialable(c.RemoteMultiaddr())
	var out []ma.Multiaddr
	for _, a := range append(b.addrs(c.RemotePeer()), b.host.Peerstore().Addrs(c.RemotePeer())...) {
		if len(out) < maxKnownAddrs-1 && !a.Equal(remote) && dialaddr.LeadsTo(a, remote) && !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	if dialaddr.IsWhole(remote) {
		out = append(out, remote)
	}
	return out
}

// dialable returns the address of a dialed connection in a form that can be dialed again. If the relay of a circuit has dialed this host,
// the relay's own port is not known.
func (b *addrBook) dialable(remote ma.Multiaddr) ma.Multiaddr {
	hop, circuit := ma.SplitFunc(remote, func(c ma.Component) bool { return c.Protocol().Code == ma.P_P2P })
	if len(circuit) == 0 || !isCircuit(remote) {
		return remote
	}
	relay, err := peer.IDFromBytes(circuit[0].RawValue())
	if err != nil {
		return remote
	}
	for _, c := range b.host.Network().ConnsToPeer(relay) {
		if c.Stat().Direction == network.DirInbound && c.RemoteMultiaddr().Equal(hop) {
			return circuit
		}
	}
	return remote
}

// remember records that a connection has carried a stream. Only a connection dialed by this host shows where the peer can be dialed.
func (b *addrBook) remember(c network.Conn) {
	if b == nil || c.Stat().Direction != network.DirOutbound {
		return
	}
	pid := c.RemotePeer()
	b.mu.Lock()
	k, addrs := b.peers[pid], b.dials[c]
	known := k != nil && k.last == c
	b.mu.Unlock()
	if known {
		return
	}
	if addrs == nil {
		addrs = b.dialedAs(c)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k = b.knownLocked(pid)
	for _, a := range slices.Backward(addrs) {
		k.addrs = slices.DeleteFunc(k.addrs, a.Equal)
		k.addrs = slices.Insert(k.addrs, 0, a)
	}
	k.addrs = k.addrs[:min(len(k.addrs), maxKnownAddrs)]
	if !c.IsClosed() {
		k.last = c
	}
}

// addrs returns the addresses at which a peer has been reached, the newest first.
func (b *addrBook) addrs(pid peer.ID) []ma.Multiaddr {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.peers[pid]
	if k == nil {
		return nil
	}
	b.turn++
	k.used = b.turn
	return slices.Clone(k.addrs)
}

// hold keeps the entry of a peer until release.
func (b *addrBook) hold(pid peer.ID) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.knownLocked(pid)
	if k.holds++; k.holds == 1 {
		b.free--
	}
}

func (b *addrBook) release(pid peer.ID) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.peers[pid]
	if k.holds--; k.holds == 0 {
		b.free++
		b.trimLocked()
	}
}

// knownLocked returns the peer's entry, and creates it if needed. b.mu is held.
func (b *addrBook) knownLocked(pid peer.ID) *knownPeer {
	b.turn++
	k := b.peers[pid]
	if k == nil {
		k = &knownPeer{used: b.turn}
		b.peers[pid] = k
		b.free++
		b.trimLocked()
	}
	k.used = b.turn
	return k
}

// trimLocked forgets the least recently used peer without holds, if there are too many. b.mu is held.
func (b *addrBook) trimLocked() {
	if b.free <= maxKnownPeers {
		return
	}
	var oldest peer.ID
	used := b.turn + 1
	for pid, k := range b.peers {
		if k.holds == 0 && k.used < used {
			oldest, used = pid, k.used
		}
	}
	delete(b.peers, oldest)
	b.free--
}
