package peerlane

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A forwardedPair is a host and one that announces only an address at which nobody is reached, as behind a port forward.
// The former is told the outer address, as libp2p's examples do.
type forwardedPair struct {
	a, b   host.Host
	server *Server
}

func newForwardedPair(t *testing.T, tr testnet.Transport, opts ...libp2p.Option) *forwardedPair {
	t.Helper()
	inner := ma.StringCast("/ip4/127.0.0.1/tcp/1")
	announce := libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return []ma.Multiaddr{inner} })
	p := &forwardedPair{a: testnet.Host(t, tr, append(opts, libp2p.NoListenAddrs)...), b: testnet.Host(t, tr, announce)}
	p.server = newServer(t, p.b, &ServerConfig{AdmitAll: true})
	p.server.SetLink("echo", func(m *session.Message) { _ = m.Reply(m.Value) })
	require.NoError(t, p.server.Start(callTag, echoHandler))
	mustListen(t, p.b, testTag, ListenConfig{})
	require.NoError(t, p.a.Connect(testContext(t), peer.AddrInfo{ID: p.b.ID(), Addrs: p.b.Network().ListenAddresses()}))
	return p
}

// forget ends the connections, and leaves a without any address of b.
func (p *forwardedPair) forget() {
	closeConns(p.a)
	p.a.Peerstore().ClearAddrs(p.b.ID())
}

// The address that worked is one that the peer does not announce: the session, Send, a Keeper and Dial find it again.
func TestAnAddressThatWorkedIsRemembered(t *testing.T) {
	for _, tr := range muxes {
		t.Run(string(tr), func(t *testing.T) {
			p := newForwardedPair(t, tr)
			c := newClient(t, p.a, &ClientConfig{AdmitAll: true})
			s, err := c.Connect(t.Context(), p.b.ID(), callTag)
			require.NoError(t, err)
			for range 3 {
				p.forget()
				_, err = s.SendWait(testContext(t), "echo", nil)
				require.NoError(t, err, "the session resumes")
			}
			p.forget()
			_, err = c.Send(t.Context(), p.b.ID(), callTag, nil)
			require.NoError(t, err, "Send")
			p.forget()
			conn, err := Dial(testContext(t), p.a, p.b.ID(), testTag)
			require.NoError(t, err, "Dial, beside a session")
			require.NoError(t, conn.Close())

			k, _ := keep(t, c, p.b.ID(), KeeperConfig{})
			kept, err := k.Get(testContext(t))
			require.NoError(t, err)
			for range 2 {
				p.forget()
				require.NoError(t, kept.Close())
				<-kept.Done()
				kept, err = k.Get(testContext(t))
				require.NoError(t, err, "a Keeper")
			}
		})
	}
}

// The book is the host's as long as a client is: after Close nothing of it is left.
func TestTheAddressBookEndsWithItsClients(t *testing.T) {
	p := newForwardedPair(t, testnet.TCPTLS)
	one, two := newClient(t, p.a, nil), newClient(t, p.a, nil)
	require.Nil(t, bookOf(p.a), "a client that has done nothing needs none")
	for _, c := range []*Client{one, two} {
		_, err := c.Send(t.Context(), p.b.ID(), callTag, nil)
		require.NoError(t, err)
	}
	require.Same(t, one.pool.book, two.pool.book)
	require.NoError(t, one.Close())
	p.forget()
	_, err := two.Send(t.Context(), p.b.ID(), callTag, nil)
	require.NoError(t, err)
	require.NoError(t, two.Close())
	require.Nil(t, bookOf(p.a))
	p.forget()
	_, err = Dial(testContext(t), p.a, p.b.ID(), testTag)
	require.ErrorIs(t, err, ErrUnreachable)
}

// A closed host takes its book with it, though its clients have not been closed.
func TestTheAddressBookEndsWithItsHost(t *testing.T) {
	p := newForwardedPair(t, testnet.TCPTLS)
	c := newClient(t, p.a, nil)
	_, err := c.Send(t.Context(), p.b.ID(), callTag, nil)
	require.NoError(t, err)
	require.NotNil(t, bookOf(p.a))
	require.NoError(t, p.a.Close())
	c.pool.tasks.Wait()
	require.Nil(t, bookOf(p.a))
}

// names resolves names of hosts for a libp2p host.
type names struct {
	mu sync.Mutex
	ip map[string]string
}

func (n *names) set(name, ip string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ip == nil {
		n.ip = make(map[string]string)
	}
	n.ip[name] = ip
}

func (n *names) ResolveDNSAddr(context.Context, peer.ID, ma.Multiaddr, int, int) ([]ma.Multiaddr, error) {
	return nil, nil
}

func (n *names) ResolveDNSComponent(_ context.Context, a ma.Multiaddr, _ int) ([]ma.Multiaddr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ip, ok := n.ip[a[0].Value()]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: a[0].Value(), IsNotFound: true}
	}
	return []ma.Multiaddr{ma.Join(ma.StringCast("/ip4/"+ip), a[1:])}, nil
}

// Of a peer that was dialed by its DNS name the name is remembered: it may have another address next time.
func TestANameThatWorkedIsRemembered(t *testing.T) {
	dns := &names{}
	dns.set("peer.example", "127.0.0.1")
	p := newForwardedPair(t, testnet.TCPTLS, libp2p.MultiaddrResolver(dns))
	p.forget()
	at := p.b.Network().ListenAddresses()[0]
	_, port := ma.SplitFirst(at)
	name := ma.Join(ma.StringCast("/dns4/peer.example"), port)
	c := newClient(t, p.a, &ClientConfig{AdmitAll: true})
	peerlanetest.Teach(p.a, p.b.ID(), name)
	_, err := c.Send(t.Context(), p.b.ID(), callTag, nil)
	require.NoError(t, err)
	book := bookOf(p.a)
	require.Equal(t, fmt.Sprint([]ma.Multiaddr{name, at}), fmt.Sprint(book.addrs(p.b.ID())))

	// The peer moves: its name leads to it, and its old address to nobody.
	book.mu.Lock()
	book.peers[p.b.ID()].addrs[1] = ma.StringCast("/ip4/127.0.0.1/tcp/1")
	book.mu.Unlock()
	p.forget()
	_, err = c.Send(t.Context(), p.b.ID(), callTag, nil)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint([]ma.Multiaddr{name, at, ma.StringCast("/ip4/127.0.0.1/tcp/1")}), fmt.Sprint(book.addrs(p.b.ID())))
}

// A relay through which the peer was reached is remembered as well.
func TestARelayThatWorkedIsRemembered(t *testing.T) {
	for _, tr := range []testnet.Transport{testnet.Relay, testnet.LimitedRelay} {
		t.Run(string(tr), func(t *testing.T) {
			a, b := testnet.Pair(t, tr)
			require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
			c := newClient(t, a, &ClientConfig{Path: AllowRelay})
			for range 3 {
				_, err := c.Send(t.Context(), b.ID(), callTag, nil)
				require.NoError(t, err)
				closeConns(a)
				a.Peerstore().ClearAddrs(b.ID())
			}
		})
	}
}

// bookedConn is a connection to a peer as an addrBook looks at it.
type bookedConn struct {
	network.Conn

	peer peer.ID
	addr ma.Multiaddr
	dir  network.Direction
}

func (c *bookedConn) RemotePeer() peer.ID           { return c.peer }
func (c *bookedConn) RemoteMultiaddr() ma.Multiaddr { return c.addr }
func (c *bookedConn) IsClosed() bool                { return false }
func (c *bookedConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Direction: c.dir}}
}

func tcpAddr(port int) ma.Multiaddr { return ma.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", port)) }

func newTestBook(t *testing.T) (*addrBook, peer.ID) {
	t.Helper()
	h := testHost(t)
	b := openBook(h)
	t.Cleanup(b.close)
	_, pid := newIdentity(t)
	return b, pid
}

func TestAnAddressBookKeepsTheNewestAddressesOfDialedConnections(t *testing.T) {
	b, pid := newTestBook(t)
	require.Empty(t, b.addrs(pid))
	for port := range maxKnownAddrs + 2 {
		b.remember(&bookedConn{peer: pid, addr: tcpAddr(port + 1), dir: network.DirOutbound})
	}
	b.remember(&bookedConn{peer: pid, addr: tcpAddr(99), dir: network.DirInbound}) // its port is of the moment
	again := &bookedConn{peer: pid, addr: tcpAddr(5), dir: network.DirOutbound}
	b.remember(again)
	b.remember(again)
	got := b.addrs(pid)
	require.Len(t, got, maxKnownAddrs)
	require.Equal(t, []ma.Multiaddr{tcpAddr(5), tcpAddr(10), tcpAddr(9), tcpAddr(8)}, got[:4])
	b.onDisconnected(again)
	require.Nil(t, b.peers[pid].last)
	require.Empty(t, b.dials)
}

// What is needed to dial beside what a connection says of itself comes from the peerstore.
func TestAnAddressBookKeepsCertificateHashes(t *testing.T) {
	b, pid := newTestBook(t)
	reported := ma.StringCast("/ip4/192.0.2.1/udp/1/quic-v1/webtransport")
	dialed := ma.Join(reported, ma.StringCast("/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g"))
	c := &bookedConn{peer: pid, addr: reported, dir: network.DirOutbound}
	b.remember(c)
	require.Empty(t, b.addrs(pid), "it cannot be dialed by that")
	peerlanetest.Teach(b.host, pid, dialed, tcpAddr(1))
	c = &bookedConn{peer: pid, addr: reported, dir: network.DirOutbound}
	b.onConnected(c)
	b.host.Peerstore().ClearAddrs(pid) // as identify does in the meantime
	b.remember(c)
	require.Equal(t, []ma.Multiaddr{dialed}, b.addrs(pid))
}

// Through a relay that has dialed this host, the relay's port is of the moment.
func TestAnAddressBookNamesARelayThatHasDialedUsByItsPeerID(t *testing.T) {
	b, pid := newTestBook(t)
	relay := testHost(t)
	require.NoError(t, relay.Connect(testContext(t), peer.AddrInfo{ID: b.host.ID(), Addrs: b.host.Addrs()}))
	require.Eventually(t, func() bool { return len(b.host.Network().ConnsToPeer(relay.ID())) == 1 }, patience, atOnce/100)
	hop := b.host.Network().ConnsToPeer(relay.ID())[0].RemoteMultiaddr()
	circuit := ma.StringCast("/p2p/" + relay.ID().String() + "/p2p-circuit")
	b.remember(&bookedConn{peer: pid, addr: ma.Join(hop, circuit), dir: network.DirOutbound})
	require.Equal(t, []ma.Multiaddr{circuit}, b.addrs(pid))
	other := ma.Join(tcpAddr(1), circuit)
	b.remember(&bookedConn{peer: pid, addr: other, dir: network.DirOutbound})
	require.Equal(t, []ma.Multiaddr{other, circuit}, b.addrs(pid))
}

// Peers to which there is a session or a keeper are kept, however many; the others are bounded, the newest ones kept.
func TestAnAddressBookIsBounded(t *testing.T) {
	b, held := newTestBook(t)
	pids := make([]peer.ID, maxKnownPeers+10)
	see := func(pid peer.ID) {
		b.remember(&bookedConn{peer: pid, addr: tcpAddr(1), dir: network.DirOutbound})
	}
	see(held)
	b.hold(held)
	b.hold(held)
	b.release(held)
	for i := range pids {
		pids[i] = peer.ID(fmt.Sprint("peer ", i))
		see(pids[i])
		if i >= maxKnownPeers-1 {
			require.NotEmpty(t, b.addrs(pids[0]), "a peer that is dialed stays")
		}
	}
	require.Len(t, b.peers, maxKnownPeers+1)
	require.NotEmpty(t, b.addrs(held))
	require.Empty(t, b.addrs(pids[1]))
	require.NotEmpty(t, b.addrs(pids[len(pids)-1]))
	b.release(held)
	require.Len(t, b.peers, maxKnownPeers)
	var none *addrBook // of a host without clients
	none.hold(held)
	none.release(held)
	none.remember(&bookedConn{})
	require.Empty(t, none.addrs(held))
}
