package node

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
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

// limits returns the libp2p options that put Limits and ConnsPerPeer in force, none where both are unset. Defaults are
// filled in.
func (o Options) limits() ([]libp2p.Option, error) {
	switch {
	case o.Limits != nil:
		return o.Limits.options(o.ConnsPerPeer)
	case len(o.ConnsPerPeer) == 0:
		return nil, nil
	}
	defaults := rcmgr.DefaultLimits // those of libp2p.New
	libp2p.SetDefaultServiceLimits(&defaults)
	manager, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(raise(defaults.AutoScale(), o.ConnsPerPeer)))
	if err != nil {
		return nil, err
	}
	return []libp2p.Option{libp2p.ResourceManager(manager)}, nil
}

// options returns the libp2p options that put l in force, with the conns that one peer may have on some tags. Defaults are
// filled in.
func (l Limits) options(conns map[protocol.ID]int) ([]libp2p.Option, error) {
	manager, err := l.resourceManager(conns)
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

// raise returns base with the conns that one peer may have on some tags. What counts streams of all tags is raised by as
// many, so that other tags do not pay for it.
func raise(base rcmgr.ConcreteLimitConfig, conns map[protocol.ID]int) rcmgr.ConcreteLimitConfig {
	if len(conns) == 0 {
		return base
	}
	had, all := base.ToPartialLimitConfig(), 0
	more := rcmgr.PartialLimitConfig{
		Protocol: make(map[protocol.ID]rcmgr.ResourceLimits), ProtocolPeer: make(map[protocol.ID]rcmgr.ResourceLimits),
	}
	for tag, n := range conns {
		all += n
		more.Protocol[tag] = addStreams(had.ProtocolDefault, n)
		more.ProtocolPeer[tag] = rcmgr.ResourceLimits{
			StreamsInbound: rcmgr.LimitVal(n), StreamsOutbound: rcmgr.LimitVal(n), Streams: rcmgr.LimitVal(2 * n),
			Memory: had.ProtocolPeerDefault.Memory + rcmgr.LimitVal64(n)*memoryPerStream,
		}
	}
	more.System, more.Transient = addStreams(had.System, all), addStreams(had.Transient, all)
	more.PeerDefault = addStreams(had.PeerDefault, all)
	return more.Build(base)
}

// addStreams returns limits with n more streams each way, and the memory that they reserve.
func addStreams(limits rcmgr.ResourceLimits, n int) rcmgr.ResourceLimits {
	limits.StreamsInbound += rcmgr.LimitVal(n)
	limits.StreamsOutbound += rcmgr.LimitVal(n)
	limits.Streams += rcmgr.LimitVal(2 * n)
	limits.Memory += rcmgr.LimitVal64(2*n) * memoryPerStream
	return limits
}

// resourceManager returns libp2p's resource manager with l's limits. The limits of libp2p's own services grow with the
// memory, as they do by default.
func (l Limits) resourceManager(conns map[protocol.ID]int) (network.ResourceManager, error) {
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
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(raise(limits, conns)),
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
