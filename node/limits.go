package node

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/x/rate"
)

// connsPerPeer is for the moments in which a peer has several: TCP beside QUIC, direct beside relayed, new beside lost.
const connsPerPeer = 8

// slack is what limits leave for relays, NAT services and other peers that come and go.
const slack = 64

// trimGrace is how long a new connection is safe from being trimmed.
const trimGrace = time.Minute

// highWater returns the number of peers at which the connection manager begins to trim down to Peers.
func (l Limits) highWater() int { return l.Peers + l.Peers/4 + 1 }

// conns returns how many connections there may be: two for each peer up to the high-water mark.
func (l Limits) conns() int { return 2*l.highWater() + slack }

// streams returns how many streams there may be, over all peers and both directions.
func (l Limits) streams() int { return 2 * l.highWater() * l.StreamsPerPeer }

// options returns the libp2p options that put l in force. Defaults are filled in.
func (l Limits) options() ([]libp2p.Option, error) {
	manager, err := l.resourceManager()
	if err != nil {
		return nil, err
	}
	trimmer, err := connmgr.NewConnManager(l.Peers, l.highWater(), connmgr.WithGracePeriod(trimGrace))
	if err != nil {
		_ = manager.Close() // the first error tells
		return nil, err
	}
	return []libp2p.Option{libp2p.ResourceManager(manager), libp2p.ConnectionManager(trimmer)}, nil
}

// resourceManager returns libp2p's resource manager with l's limits. The limits of libp2p's own services grow with the
// memory, as they do by default.
func (l Limits) resourceManager() (network.ResourceManager, error) {
	all := rcmgr.ResourceLimits{
		Conns: rcmgr.LimitVal(l.conns()), ConnsInbound: rcmgr.LimitVal(l.conns()), ConnsOutbound: rcmgr.LimitVal(l.conns()),
		Streams: rcmgr.LimitVal(l.streams()), StreamsInbound: rcmgr.LimitVal(l.streams()),
		StreamsOutbound: rcmgr.LimitVal(l.streams()),
		FD:              rcmgr.LimitVal(l.conns() + slack), Memory: rcmgr.LimitVal64(l.Memory),
	}
	onePeer := rcmgr.ResourceLimits{
		Conns: connsPerPeer, ConnsInbound: connsPerPeer, ConnsOutbound: connsPerPeer, FD: connsPerPeer,
		Streams: rcmgr.LimitVal(2 * l.StreamsPerPeer), StreamsInbound: rcmgr.LimitVal(l.StreamsPerPeer),
		StreamsOutbound: rcmgr.LimitVal(l.StreamsPerPeer), Memory: rcmgr.LimitVal64(l.Memory),
	}
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)
	limits := rcmgr.PartialLimitConfig{
		System: all, Transient: all, ProtocolDefault: all, ServiceDefault: all,
		PeerDefault: onePeer, ProtocolPeerDefault: onePeer, ServicePeerDefault: onePeer,
	}.Build(defaults.Scale(l.Memory, l.conns()+slack))
	perIP := func(bits int) []rcmgr.ConnLimitPerSubnet {
		return []rcmgr.ConnLimitPerSubnet{{PrefixLength: bits, ConnCount: l.ConnsPerIP}}
	}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithLimitPerSubnet(perIP(32), perIP(56)), rcmgr.WithConnRateLimiters(l.connRate()))
}

// connRate lets one address open all its connections at once, twice over, and then as many again each ten seconds. A
// loopback address is not limited, as in libp2p.
func (l Limits) connRate() *rate.Limiter {
	perIP := func(bits int) []rate.SubnetLimit {
		return []rate.SubnetLimit{{PrefixLength: bits,
			Limit: rate.Limit{RPS: max(1, float64(l.ConnsPerIP)/10), Burst: 2 * l.ConnsPerIP}}}
	}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{
			{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: perIP(32), IPv6SubnetLimits: perIP(56), GracePeriod: time.Minute,
		},
	}
}
