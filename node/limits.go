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

// connsPerPeer allows for moments in which a peer has several connections: TCP and QUIC, direct and relayed, new and lost.
const connsPerPeer = 8

// slack is the reserve in the limits for relays, NAT services and other short-lived peers.
const slack = 64

// trimGrace is how long a new connection is protected from trimming.
const trimGrace = time.Minute

// highWater returns the number of peers above which the connection manager trims down to Peers.
func (l Limits) highWater() int { return l.Peers + l.Peers/4 + 1 }

// conns returns the most connections: two for each peer up to the high-water mark.
func (l Limits) conns() int { return 2*l.highWater() + slack }

// streams returns the most streams, over all peers and both directions.
func (l Limits) streams() int { return 2 * l.highWater() * l.StreamsPerPeer }

// limits returns the libp2p options that apply Limits and ConnsPerPeer, or none if both are unset. Defaults are filled in.
func (o Options) limits() ([]libp2p.Option, error) {
	switch {
	case o.Limits != nil:
		return o.Limits.options(o.ConnsPerPeer)
	case len(o.ConnsPerPeer) == 0:
		return nil, nil
	}
	defaults := rcmgr.DefaultLimits // as in libp2p.New
	libp2p.SetDefaultServiceLimits(&defaults)
	manager, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(raise(defaults.AutoScale(), o.ConnsPerPeer)), o.rates()...)
	if err != nil {
		return nil, err
	}
	return []libp2p.Option{libp2p.ResourceManager(manager)}, nil
}

// withRates is the option of libp2p that puts rates in force, unless a resource manager is set. It comes after the caller's options.
func (o Options) withRates(cfg *libp2p.Config) error {
	if cfg.ResourceManager != nil || !o.HolePunch {
		return nil
	}
	defaults := rcmgr.DefaultLimits // those of libp2p.New
	libp2p.SetDefaultServiceLimits(&defaults)
	manager, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(defaults.AutoScale()), o.rates()...)
	if err != nil {
		return err
	}
	return cfg.Apply(libp2p.ResourceManager(manager))
}

// The connections a second with one address, in and out together, of a host that punches holes, and how many at once. libp2p's are 0.2 and
// 16, and a peer's NAT is one address: after some attempts in vain the host would refuse its own dials. How often it dials is punch's to bound.
const (
	punchRate  = 2
	punchBurst = 64
)

// rates returns the rates at which connections may be made, where libp2p's are too low.
func (o Options) rates() []rcmgr.Option {
	if !o.HolePunch {
		return nil
	}
	return []rcmgr.Option{rcmgr.WithConnRateLimiters(perAddress(rate.Limit{RPS: punchRate, Burst: punchBurst}))}
}

// options returns the libp2p options that apply l, with the conns that one peer may have on some tags. Defaults are filled in.
func (l Limits) options(conns map[protocol.ID]int) ([]libp2p.Option, error) {
	manager, err := l.resourceManager(conns)
	if err != nil {
		return nil, err
	}
	trimmer, err := connmgr.NewConnManager(l.Peers, l.highWater(), connmgr.WithGracePeriod(trimGrace))
	if err != nil {
		_ = manager.Close() // the first error counts
		return nil, err
	}
	return []libp2p.Option{libp2p.ResourceManager(manager), libp2p.ConnectionManager(trimmer)}, nil
}

// raise returns base with the conns that one peer may have on some tags. It raises the limits over all tags by the same number, so that
// other tags do not lose any streams.
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

// addStreams returns limits with n more streams in each direction, and the memory that they reserve.
func addStreams(limits rcmgr.ResourceLimits, n int) rcmgr.ResourceLimits {
	limits.StreamsInbound += rcmgr.LimitVal(n)
	limits.StreamsOutbound += rcmgr.LimitVal(n)
	limits.Streams += rcmgr.LimitVal(2 * n)
	limits.Memory += rcmgr.LimitVal64(2*n) * memoryPerStream
	return limits
}

// resourceManager returns libp2p's resource manager with l's limits. The limits of libp2p's own services grow with the memory, as in
// libp2p's defaults.
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

// connRate lets an address open 2*ConnsPerIP connections in a burst, and then ConnsPerIP more every ten seconds, or as many as hole punching
// needs.
func (l Limits) connRate() *rate.Limiter {
	return perAddress(rate.Limit{RPS: max(punchRate, float64(l.ConnsPerIP)/10), Burst: max(punchBurst, 2*l.ConnsPerIP)})
}

// perAddress returns a limiter for each IPv4 address and IPv6 /56. A loopback address is not limited, as in libp2p.
func perAddress(limit rate.Limit) *rate.Limiter {
	perIP := func(bits int) []rate.SubnetLimit {
		return []rate.SubnetLimit{{PrefixLength: bits, Limit: limit}}
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
