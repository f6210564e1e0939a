package netcheck

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/visit"
)

// newHost returns a host on TCP and QUIC at a loopback address.
func newHost(t *testing.T, ip string, opts ...libp2p.Option) host.Host {
	t.Helper()
	listen := libp2p.ListenAddrStrings("/ip4/"+ip+"/tcp/0", "/ip4/"+ip+"/udp/0/quic-v1")
	h, err := libp2p.New(append(opts, listen)...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	if len(h.Network().ListenAddresses()) < 2 {
		t.Skip("there is one loopback address here")
	}
	return h
}

// newServer returns a host with a Server.
func newServer(t *testing.T, ip string) (host.Host, *Server) {
	t.Helper()
	h := newHost(t, ip)
	s := Serve(h)
	t.Cleanup(s.Close)
	return h, s
}

// addrOf returns an address of a host over a transport.
func addrOf(t *testing.T, h host.Host, over byte) ma.Multiaddr {
	t.Helper()
	for _, a := range h.Addrs() {
		if o, ok := transportOf(a); ok && o == over {
			return a
		}
	}
	require.FailNow(t, "no such address")
	return nil
}

// reach opens a connection to a host as a survey does.
func reach(t *testing.T, h host.Host, over byte) transport.CapableConn {
	t.Helper()
	tr, err := visit.TCP(nil)
	require.NoError(t, err)
	dial := tr.Dial
	if over == overQUIC {
		s, err := newSocket("udp4")
		require.NoError(t, err)
		t.Cleanup(s.Close)
		dial = s.dial
	}
	c, err := dial(t.Context(), addrOf(t, h, over), h.ID())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestSeeReturnsTheObservedAddress(t *testing.T) {
	h, _ := newServer(t, "127.0.0.1")
	for _, over := range []byte{overTCP, overQUIC} {
		c := reach(t, h, over)
		seen, ahead, trip, err := see(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, netip.MustParseAddr("127.0.0.1"), endpoint(seen).Addr())
		require.Equal(t, h.Network().ConnsToPeer(c.LocalPeer())[0].RemoteMultiaddr(), seen)
		require.Less(t, ahead.Abs(), 10*time.Second)
		require.Positive(t, trip)
	}
}

func TestSendComesFromAnotherPort(t *testing.T) {
	t.Parallel() // it waits
	h, _ := newServer(t, "127.0.0.1")
	s, err := newSocket("udp4")
	require.NoError(t, err)
	defer s.Close()
	c, err := s.dial(t.Context(), addrOf(t, h, overQUIC), h.ID())
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()

	nonce := newNonce()
	came := s.expect(nonce)
	stream, port, err := sendMe(t.Context(), c, 0, nonce)
	require.NoError(t, err)
	from := <-came
	require.Equal(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), from)
	require.NotEqual(t, endpoint(addrOf(t, h, overQUIC)).Port(), port)
	s.send(t.Context(), newNonce(), from) // another nonce
	s.send(t.Context(), nonce, from)
	a, err := readAnswer(stream)
	require.NoError(t, err)
	require.Equal(t, statusDone, a.status)
	require.Equal(t, s.port(), endpoint(a.seen).Port())
	_ = stream.Close() // the other side may have reset it

	stream, _, err = sendMe(t.Context(), c, 0, newNonce())
	require.NoError(t, err)
	a, err = readAnswer(stream)
	require.NoError(t, err)
	require.Equal(t, statusMissed, a.status, "no datagram arrived")
	_ = stream.Close() // the other side may have reset it
}

// Over TCP the client must name a port, because the connection's port is not a UDP port.
func TestSendOverTCP(t *testing.T) {
	h, _ := newServer(t, "127.0.0.1")
	c := reach(t, h, overTCP)
	_, _, err := sendMe(t.Context(), c, 0, newNonce())
	require.ErrorIs(t, err, errUnable)

	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer func() { require.NoError(t, socket.Close()) }()
	nonce := newNonce()
	stream, port, err := sendMe(t.Context(), c, portOf(socket.LocalAddr()), nonce)
	require.NoError(t, err)
	_ = stream.Close() // the other side may have reset it
	b := make([]byte, 100)
	require.NoError(t, socket.SetReadDeadline(time.Now().Add(30*time.Second)))
	for range datagrams {
		n, from, err := socket.ReadFromUDPAddrPort(b)
		require.NoError(t, err)
		require.Equal(t, port, from.Port())
		got, ok := nonceOf(b[:n])
		require.True(t, ok)
		require.Equal(t, nonce, got)
	}
}

// DIAL reports whether the named peer answers, and nothing about other peers.
func TestDialReachesOnlyTheNamedPeer(t *testing.T) {
	t.Parallel() // it waits
	h, helper := newServer(t, "127.0.0.1")
	helper.missed = 0
	self := newHost(t, "127.0.0.1")
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // not libp2p
		}
	}()
	defer func() { require.NoError(t, ln.Close()) }()
	c := reach(t, h, overTCP)
	for _, tt := range []struct {
		name string
		port uint16
		over byte
		peer peer.ID
		want bool
	}{
		{"TCP", endpoint(addrOf(t, self, overTCP)).Port(), overTCP, self.ID(), true},
		{"QUIC", endpoint(addrOf(t, self, overQUIC)).Port(), overQUIC, self.ID(), true},
		{"another peer", endpoint(addrOf(t, self, overTCP)).Port(), overTCP, aPeer(t), false},
		{"another peer over QUIC", endpoint(addrOf(t, self, overQUIC)).Port(), overQUIC, aPeer(t), false},
		{"no libp2p", portOf(ln.Addr()), overTCP, self.ID(), false},
		{"a closed port", 1, overTCP, self.ID(), false},
	} {
		through, err := dialMe(t.Context(), c, tt.port, tt.over, tt.peer)
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.want, through, tt.name)
	}
	require.Eventually(t, func() bool { return len(self.Network().Peers()) == 0 }, 30*time.Second, 10*time.Millisecond)
}

// How long it takes to miss the peer does not tell whether there is anything else at the port.
func TestAnAnswerThatNobodyWasThereTakesItsTime(t *testing.T) {
	t.Parallel() // it waits
	h, _ := newServer(t, "127.0.0.1")
	began := time.Now()
	through, err := dialMe(t.Context(), reach(t, h, overTCP), 1, overTCP, aPeer(t))
	require.NoError(t, err)
	require.False(t, through)
	require.GreaterOrEqual(t, time.Since(began), dialTime)
}

// A connection over WebSocket may come from a proxy in front of the helper.
func TestAServerDoesNothingForAConnectionThatAProxyMayHaveOpened(t *testing.T) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0/ws"))
	require.NoError(t, err)
	defer func() { require.NoError(t, h.Close()) }()
	helper := Serve(h)
	defer helper.Close()
	asker := newHost(t, "127.0.0.1")
	require.NoError(t, asker.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}))
	for _, r := range []request{{kind: kindSend, port: 7}, {kind: kindDial, port: 7, over: overTCP, peer: asker.ID()}} {
		s, err := asker.NewStream(t.Context(), h.ID(), Protocol)
		require.NoError(t, err)
		_, err = s.Write(encodeRequest(r))
		require.NoError(t, err)
		a, err := readAnswer(s)
		require.NoError(t, err)
		require.Equal(t, statusUnable, a.status)
		require.NoError(t, s.Close())
	}
}

func TestAServerReportsThatItIsBusy(t *testing.T) {
	h, helper := newServer(t, "127.0.0.1")
	helper.missed = 0
	c := reach(t, h, overTCP)
	for range maxOfPeer {
		_, err := dialMe(t.Context(), c, 1, overTCP, aPeer(t))
		require.NoError(t, err)
	}
	_, err := dialMe(t.Context(), c, 1, overTCP, aPeer(t))
	require.ErrorIs(t, err, errBusy)
	_, _, err = sendMe(t.Context(), c, 7, newNonce())
	require.ErrorIs(t, err, errBusy)
	_, _, _, err = see(t.Context(), c)
	require.NoError(t, err, "SEE is not limited")
}

func TestAServerResetsMalformedRequests(t *testing.T) {
	h, _ := newServer(t, "127.0.0.1")
	c := reach(t, h, overTCP)
	s, err := visit.Open(t.Context(), c, Protocol)
	require.NoError(t, err)
	_, err = s.Write([]byte{9, 0, 0})
	require.NoError(t, err)
	_, err = readAnswer(s)
	require.ErrorIs(t, err, network.ErrReset)
	_ = s.Close() // already reset
}

// Over a relay, the client's address is unknown: the connection has the relay's.
func TestAServerRefusesRequestsOverARelay(t *testing.T) {
	relay := newHost(t, "127.0.0.1", libp2p.EnableRelayService(), libp2p.ForceReachabilityPublic())
	helper, _ := newServer(t, "127.0.0.1")
	asker := newHost(t, "127.0.0.1")
	at := peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}
	require.NoError(t, helper.Connect(t.Context(), at))
	_, err := client.Reserve(t.Context(), helper, at)
	require.NoError(t, err)
	circuit := ma.Join(addrOf(t, relay, overTCP), ma.StringCast("/p2p/"+relay.ID().String()+"/p2p-circuit"))
	ctx := network.WithAllowLimitedConn(t.Context(), "test")
	require.NoError(t, asker.Connect(ctx, peer.AddrInfo{ID: helper.ID(), Addrs: []ma.Multiaddr{circuit}}))
	s, err := asker.NewStream(ctx, helper.ID(), Protocol)
	require.NoError(t, err)
	_, err = s.Write(encodeRequest(request{kind: kindSee}))
	require.NoError(t, err)
	_, err = readAnswer(s)
	require.ErrorIs(t, err, network.ErrReset)
}

// Close ends a running request, and resets a stream that arrives later.
func TestCloseEndsRunningRequests(t *testing.T) {
	h, s := newServer(t, "127.0.0.1")
	c := reach(t, h, overTCP)
	open, err := visit.Open(t.Context(), c, Protocol)
	require.NoError(t, err)
	_, err = open.Write([]byte{byte(kindSend)})
	require.NoError(t, err)
	s.Close()
	_, err = io.ReadFull(open, make([]byte, 1))
	require.Error(t, err)
	_ = open.Close() // already reset
	_, _, _, err = see(t.Context(), c)
	require.ErrorIs(t, err, visit.ErrNotSupported)
	h.SetStreamHandler(Protocol, s.handle)
	_, _, _, err = see(t.Context(), c)
	require.ErrorIs(t, err, network.ErrReset)
	s.Close()
}

func TestOpenEndsWithItsContext(t *testing.T) {
	h, _ := newServer(t, "127.0.0.1")
	c := reach(t, h, overTCP)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := visit.Open(ctx, c, Protocol)
	require.NoError(t, err)
	cancel()
	_, err = readAnswer(s)
	require.Error(t, err)
	_ = s.Close() // already reset
}
