package peerlane

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// Further addresses, which are no home's.
const (
	atFirst  = "11.0.0.3"
	atSecond = "11.0.0.4"
)

// strangerID is the Peer ID of a host that does not run.
const strangerID = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

// A place is hosts on a network in memory, in virtual time: those at homeOfAlice and homeOfBob are behind hard NATs.
type place struct {
	t   *testing.T
	net *peerlanetest.Network
}

// inPlace runs a test in a place.
func inPlace(t *testing.T, f func(*testing.T, *place)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &place{t, peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})}
		p.net.AddNAT(peerlanetest.HardNAT, "11.0.0.10", homeOfAlice)
		p.net.AddNAT(peerlanetest.HardNAT, "11.0.0.20", homeOfBob)
		f(t, p)
	})
}

// at starts a host of package node.
func (p *place) at(ip string, o node.Options) *node.Node {
	p.t.Helper()
	o.ListenAddrs, o.NoWide = []string{quicAt(ip).String()}, true
	o.Libp2p = append(p.net.Options(ip), o.Libp2p...)
	n, err := node.New(p.t.Context(), &o)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { require.NoError(p.t, n.Close()) })
	return n
}

func quicAt(ip string) ma.Multiaddr { return peerlanetest.QUICAddr(ip + ":4001") }

// via returns the address of a peer behind a relay.
func via(r *node.Node) ma.Multiaddr {
	return quicAt(atRelay).Encapsulate(ma.StringCast("/p2p/" + r.ID().String() + "/p2p-circuit"))
}

// client returns a client on a host.
func (p *place) client(h host.Host, set func(*ClientConfig)) *Client {
	p.t.Helper()
	cfg := DefaultClientConfig()
	cfg.AdmitAll = true
	if set != nil {
		set(cfg)
	}
	return newClient(p.t, h, cfg)
}

// server returns a server on a host.
func (p *place) server(h host.Host, set func(*ServerConfig)) *Server {
	p.t.Helper()
	cfg := DefaultServerConfig()
	cfg.AdmitAll = true
	if set != nil {
		set(cfg)
	}
	return newServer(p.t, h, cfg)
}

// serve starts a server on a host.
func (p *place) serve(h host.Host, set func(*ServerConfig)) {
	p.t.Helper()
	require.NoError(p.t, p.server(h, set).Start(testTag, echoHandler))
}

// two returns two hosts. The first knows the address of the second.
func (p *place) two() (a, b *node.Node) {
	a, b = p.at(atFirst, node.Options{}), p.at(atSecond, node.Options{})
	a.Remember(b.Info())
	return a, b
}

// reserved starts a relay, and Bob, who is reached through it.
func (p *place) reserved(service *node.RelayService, o node.Options) (r, b *node.Node) {
	p.t.Helper()
	r = p.at(atRelay, node.Options{RelayService: service})
	o.Relays = r.Addrs()
	b = p.at(homeOfBob, o)
	_, err := b.AwaitReservation(p.t.Context())
	require.NoError(p.t, err)
	return r, b
}

// explainAt returns what a new client on n reports about a peer with these addresses.
func (p *place) explainAt(n *node.Node, pid peer.ID, addrs ...ma.Multiaddr) *Explanation {
	p.t.Helper()
	n.Remember(peer.AddrInfo{ID: pid, Addrs: addrs})
	return explained(p.t.Context(), p.client(n.Host(), nil), pid)
}

// explained returns what a client reports about a peer.
func explained(ctx context.Context, c *Client, pid peer.ID) *Explanation {
	return c.ExplainForDiagnostics(ctx, pid.String(), string(testTag))
}

func stranger(t *testing.T) peer.ID {
	t.Helper()
	id, err := peer.Decode(strangerID)
	require.NoError(t, err)
	return id
}

// A fault is something that keeps a peer from being reached.
type fault struct {
	plant  func(*place) *Explanation
	reason string
	by     string
	says   []string // in the text
	do     string   // in what helps
}

var faults = map[string]fault{
	"wrong PSK": {func(p *place) *Explanation {
		a, b := p.two()
		s, c := p.server(b.Host(), nil), p.client(a.Host(), nil)
		require.NoError(p.t, UseModernPSKClient(c, []byte("the key of alice"), cheapPSK))
		require.NoError(p.t, UseModernPSKServer(s, []byte("the key of bob"), cheapPSK))
		require.NoError(p.t, s.Start(testTag, echoHandler))
		return explained(p.t.Context(), c, b.ID())
	}, "psk-mismatch", "peer", []string{"different pre-shared keys", "\nkeys     ", "\npath     direct, quic-v1"}, "UseModernPSKServer"},
	"a PSK on this side alone": {func(p *place) *Explanation {
		a, b := p.two()
		c := p.client(a.Host(), nil)
		require.NoError(p.t, UseModernPSKClient(c, []byte("the key of alice"), cheapPSK))
		p.serve(b.Host(), nil)
		return explained(p.t.Context(), c, b.ID())
	}, "psk-required", "peer", []string{"only one side uses a pre-shared key: this one"}, "UseModernPSKServer"},
	"a PSK at the peer alone": {func(p *place) *Explanation {
		a, b := p.two()
		s := p.server(b.Host(), nil)
		require.NoError(p.t, UseModernPSKServer(s, []byte("the key of bob"), cheapPSK))
		require.NoError(p.t, s.Start(testTag, echoHandler))
		return p.explainAt(a, b.ID())
	}, "psk-required", "peer", []string{"only one side uses a pre-shared key: the peer"}, "UseModernPSKClient"},
	"no admission": {func(p *place) *Explanation {
		a, b := p.two()
		p.serve(b.Host(), func(c *ServerConfig) { c.AllowPeers = []peer.ID{b.ID()} })
		return p.explainAt(a, b.ID())
	}, "not-allowed", "peer", []string{"does not admit this host"}, "AllowPeers"},
	"a hook of this side": {func(p *place) *Explanation {
		a, b := p.two()
		p.serve(b.Host(), nil)
		c := p.client(a.Host(), func(c *ClientConfig) {
			c.Hooks = &Hooks{OnOpen: func(*session.Session) error { return &Error{Code: codes.NotFound, Text: "no time"} }}
		})
		return explained(p.t.Context(), c, b.ID())
	}, "own-hook", "local", []string{"OnOpen of this side's Hooks", "not found: \"no time\""}, "OnOpen"},
	"unknown tag": {func(p *place) *Explanation {
		a, b := p.two()
		s := p.server(b.Host(), nil)
		require.NoError(p.t, s.Start("/another/1.0.0", echoHandler))
		require.NoError(p.t, s.Start("/third/1.0.0", echoHandler))
		return p.explainAt(a, b.ID())
	}, "not-served", "peer", []string{"\nserves   /another/1.0.0 /third/1.0.0\n", "\nagent    \"peerlane\"\n"}, "compare the tag"},
	"peer off": {func(p *place) *Explanation {
		r := p.at(atRelay, node.Options{RelayService: &node.RelayService{}})
		return p.explainAt(p.at(homeOfAlice, node.Options{}), stranger(p.t), via(r))
	}, "not-at-relay", "relay", []string{"NO_RESERVATION", ", within 120 ms", ", connected", "\npunch    off", "(given)"}, "check that the peer runs"},
	"only a relay": {func(p *place) *Explanation {
		r, b := p.reserved(&node.RelayService{}, node.Options{HolePunch: true})
		p.serve(b.Host(), nil)
		return p.explainAt(p.at(homeOfAlice, node.Options{HolePunch: true}), b.ID(), via(r))
	}, "relay-only", "local", []string{"passes 128 KiB each way", "\npunch    punch: no way through"}, "AllowRelay"},
	"relay budget spent": {func(p *place) *Explanation {
		limit := relay.DefaultLimit()
		limit.Data = 2 << 10
		h := peerlanetest.NewHosts(p.t, &peerlanetest.HostsOptions{Relayed: true, RelayLimit: limit, Delay: time.Millisecond})
		p.serve(h.Bob, nil)
		return explained(p.t.Context(), p.client(h.Alice, func(c *ClientConfig) { c.Path = AllowRelay }), h.Bob.ID())
	}, "relay-spent", "relay", []string{"used up, or too low", "passes 2 KiB", "\npunch    unknown"}, "Data and Duration"},
	"per-peer share spent": {func(p *place) *Explanation {
		a, b := p.two()
		other := p.at("12.0.0.1", node.Options{})
		other.Remember(b.Info())
		p.serve(b.Host(), func(c *ServerConfig) { c.MaxConcurrentConns = 32 })
		for _, n := range []*node.Node{a, other} {
			c := p.client(n.Host(), nil)
			for range 33 {
				if _, err := c.Connect(p.t.Context(), b.ID(), testTag); err != nil {
					break
				}
			}
		}
		return explained(p.t.Context(), p.client(a.Host(), nil), b.ID())
	}, "peer-share", "peer", []string{"\nlimit    of the peer: sessions: \"this peer's share", "try again after 100 ms"}, "close sessions"},
	"no room at the peer": {func(p *place) *Explanation {
		a, b := p.two()
		p.serve(b.Host(), func(c *ServerConfig) { c.MaxConcurrentConns = 1 })
		_, err := p.client(a.Host(), nil).Connect(p.t.Context(), b.ID(), testTag)
		require.NoError(p.t, err)
		return explained(p.t.Context(), p.client(a.Host(), nil), b.ID())
	}, "peer-full", "peer", []string{"\nlimit    of the peer: sessions: \"too many sessions open"}, "MaxConcurrentConns"},
	"version mismatch, in the hello": {func(p *place) *Explanation {
		a, b := p.two()
		refuseHellos(b.Host(), frame.Failure{Code: codes.Version, Text: "I speak version 7"})
		return p.explainAt(a, b.ID())
	}, "other-version", "peer", []string{"another version", "I speak version 7"}, "upgrade"},
	"version mismatch, of the protocol": {func(p *place) *Explanation {
		a, b := p.two()
		b.Host().SetStreamHandler(testTag+"/peerlane/2", func(s network.Stream) { _ = s.Reset() })
		return p.explainAt(a, b.ID())
	}, "other-version", "peer", []string{"another version", "\nserves   " + string(testTag) + "/peerlane/2\n"}, "upgrade"},
	"firewall drop": {func(p *place) *Explanation {
		a, b := p.two()
		p.serve(b.Host(), nil)
		p.net.VanishBetween(atFirst, atSecond, true)
		return p.explainAt(a, b.ID())
	}, "no-answer-udp", "", []string{"which a firewall may drop", "\ndial     /ip4/11.0.0.4/udp/4001/quic-v1: no answer, within 5.0 s"}, "TCP"},
	"self dial": {func(p *place) *Explanation {
		a, _ := p.two()
		return p.explainAt(a, a.ID())
	}, "self", "local", []string{"is this host's own"}, "KeyFile"},
	"an address of the host itself": {func(p *place) *Explanation {
		a, _ := p.two()
		return p.explainAt(a, stranger(p.t), quicAt(atFirst))
	}, "self", "local", []string{"dial to self attempted"}, "KeyFile"},
	"stale address, where nobody is now": {func(p *place) *Explanation {
		a, b := p.two()
		p.serve(b.Host(), nil)
		c := p.client(a.Host(), nil)
		_, err := c.Send(p.t.Context(), b.ID(), testTag, nil)
		require.NoError(p.t, err)
		require.NoError(p.t, b.Close())
		time.Sleep(2 * time.Minute)
		return explained(p.t.Context(), c, b.ID())
	}, "stale-address", "", []string{"quic-v1 (given, reached)", "where it has been reached before"}, "prints now"},
	"stale address, where another peer is now": {func(p *place) *Explanation {
		a, _ := p.two()
		return p.explainAt(a, stranger(p.t), quicAt(atSecond))
	}, "other-peer", "", []string{"another peer is at that address"}, "new Peer ID"},
	"the relay is full": {func(p *place) *Explanation {
		r, b := p.reserved(&node.RelayService{Circuits: 1}, node.Options{})
		first := p.at(atFirst, node.Options{})
		ctx := network.WithAllowLimitedConn(p.t.Context(), "test")
		require.NoError(p.t, first.Host().Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{via(r)}}))
		return p.explainAt(p.at(homeOfAlice, node.Options{}), b.ID(), via(r))
	}, "relay-full", "relay", []string{"\nlimit    of the relay: connections: \"error opening relay circuit: RESOURCE_LIMIT_EXCEEDED"}, "Circuits"},
	"both relays are down": {func(p *place) *Explanation {
		a, b := p.two()
		r := p.at(atRelay, node.Options{})
		require.NoError(p.t, errors.Join(b.Close(), r.Close()))
		return p.explainAt(a, stranger(p.t), via(b), via(r))
	}, "relay-gone", "relay", []string{"\ndial     relay /ip4/11.0.0.1/udp/4001/quic-v1: no answer", ", not connected"}, "check that the relay runs"},
	"it is no relay": {func(p *place) *Explanation {
		a, b := p.two()
		return p.explainAt(a, stranger(p.t), via(b))
	}, "relay-gone", "relay", []string{"protocols not supported", ", connected"}, "check that the relay runs"},
	"no address": {func(p *place) *Explanation {
		a, _ := p.two()
		return explained(p.t.Context(), p.client(a.Host(), nil), stranger(p.t))
	}, "no-address", "", []string{"no address of the peer is known"}, "Discovery"},
	"a closed client": {func(p *place) *Explanation {
		a, b := p.two()
		c := p.client(a.Host(), nil)
		require.NoError(p.t, c.Close())
		return explained(p.t.Context(), c, b.ID())
	}, "client-closed", "local", []string{"quic-v1 (given)"}, "another client"},
	"a closed host": {func(p *place) *Explanation {
		a, b := p.two()
		c := p.client(a.Host(), nil)
		require.NoError(p.t, a.Close())
		return explained(p.t.Context(), c, b.ID())
	}, "host-closed", "local", nil, "another host"},
}

// refuseHellos makes a host refuse each session, in words that no server of ours has.
func refuseHellos(h host.Host, why frame.Failure) {
	h.SetStreamHandler(sessionTag(testTag), func(s network.Stream) {
		defer func() { _ = s.Close() }()
		if _, err := frame.ReadHello(s); err == nil {
			_ = frame.WriteHello(s, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindRefuse, Failure: &why}))
		}
	})
}

// check compares an Explanation with the fault.
func (f fault) check(t *testing.T, why *Explanation) {
	t.Helper()
	text := why.String()
	t.Logf("\n%s", text)
	require.False(t, why.Reached)
	require.False(t, why.Partial)
	require.Equal(t, f.reason, string(why.Reason), text)
	require.Equal(t, f.by, why.By, text)
	for _, part := range f.says {
		require.Contains(t, text, part)
	}
	require.Contains(t, why.Do, f.do)
	require.Contains(t, text, "\ndo       "+why.Do+"\n")
	require.Equal(t, why.Reason, ReasonOf(fmt.Errorf("around: %w", why)))
}

// Each fault has its own reason, and the text names the facts and the remedy.
//
// Claim: peerlane.Explanation.Reached, peerlane.Explanation.Partial, peerlane.Explanation.Reason, peerlane.Explanation.By, peerlane.Explanation.Do
func TestExplainNamesEachFault(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			inPlace(t, func(t *testing.T, p *place) { f.check(t, f.plant(p)) })
		})
	}
}

// The limits of libp2p's resource managers, and TCP, are those of real hosts.
func TestExplainNamesFaultsOfRealHosts(t *testing.T) {
	for name, f := range map[string]struct {
		limits rcmgr.PartialLimitConfig // of the first host if ours, and of the second if not
		ours   bool
		fault
	}{
		"resource limit, of this host": {rcmgr.PartialLimitConfig{System: rcmgr.ResourceLimits{ConnsOutbound: rcmgr.BlockAllLimit}}, true,
			fault{nil, "own-limit", "local", []string{"\nlimit    of this host: system: \"cannot reserve outbound connection\""}, "node.Options"}},
		"resource limit, of the peer": {rcmgr.PartialLimitConfig{ProtocolPeerDefault: rcmgr.ResourceLimits{StreamsInbound: rcmgr.BlockAllLimit}}, false,
			fault{nil, "peer-limit", "peer", []string{"\nlimit    of the peer: resource manager"}, "ConnsPerPeer"}},
		"peer off, over TCP": {rcmgr.PartialLimitConfig{}, true,
			fault{nil, "not-listening", "", []string{"connection refused, within ", "(peerstore of the host)"}, "check that the peer runs"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(f.limits.Build(rcmgr.InfiniteLimits)))
			require.NoError(t, err)
			opts := [2][]libp2p.Option{{libp2p.ResourceManager(m)}, nil}
			if !f.ours {
				opts[0], opts[1] = opts[1], opts[0]
			}
			a, b := testnet.Host(t, testnet.TCPTLS, opts[0]...), testnet.Host(t, testnet.TCPTLS, opts[1]...)
			peerlanetest.Teach(a, b.ID(), b.Addrs()...)
			p := &place{t: t}
			p.serve(b, nil)
			if f.reason == "not-listening" {
				require.NoError(t, b.Close())
			}
			f.check(t, explained(t.Context(), p.client(a, nil), b.ID()))
		})
	}
}

// libp2p's peerstore panics when it is asked for the protocols of no peer.
func TestASendToNobodyThatIsOutOfTimeIsNoPanic(t *testing.T) {
	c := newClient(t, testHost(t), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // the time may be up before or after the dial
		_, err := c.Send(ctx, "", "/x", nil)
		require.Error(t, err)
	}
	e := c.ExplainForDiagnostics(t.Context(), "", "/x")
	require.False(t, e.Reached)
}
