package peerlane

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/choice"
	"github.com/peerlane/peerlane/session"
)

// A Path describes how a conn reaches the peer. The path of a conn never changes.
type Path struct {
	Relayed bool    // through a circuit relay
	Limited bool    // the relay cuts the connection after RelayData bytes or RelayDuration
	Relay   peer.ID // the relay; empty on a direct path

	// Transport is the transport of the next hop: "tcp", "ws", "wss", "quic-v1", "webtransport", "webrtc-direct", "unix", or "loopback"
	// within one host.
	Transport string

	RTT time.Duration // the last measured round trip of the connection; 0 if unknown

	RelayData     int64         // bytes that the relay passes in each direction, including overhead; 0 if it sets no limit
	RelayLeft     int64         // the approximate rest of RelayData after this process's traffic; 0 if there is no limit
	RelayDuration time.Duration // how long the relay keeps the connection; 0 if it sets no limit
	Expires       time.Time     // when RelayDuration ends; zero if it sets no limit
}

// String returns the path as text: "direct, quic-v1, 12 ms", "relayed by 12D3KooW..., tcp, 80 ms" or "relayed by 12D3KooW..., tcp, 80 ms,
// 128 KiB left". It omits a round trip that has not been measured. The zero Path is "no path".
func (p Path) String() string {
	if p.Transport == "" {
		return "no path"
	}
	text := "direct, "
	if p.Relayed {
		text = fmt.Sprintf("relayed by %s, ", p.Relay)
	}
	text += p.Transport
	switch {
	case p.RTT >= 10*time.Millisecond:
		text += fmt.Sprintf(", %d ms", p.RTT.Round(time.Millisecond).Milliseconds())
	case p.RTT > 0:
		text += fmt.Sprintf(", %.1f ms", p.RTT.Seconds()*1000)
	}
	switch {
	case p.RelayData > 0:
		text += fmt.Sprintf(", %d KiB left", p.RelayLeft>>10)
	case !p.Expires.IsZero():
		text += ", until " + p.Expires.Format(time.TimeOnly)
	case p.Limited:
		text += ", with limits"
	}
	return text
}

// loopbackTransport is the Path.Transport of a conn within one host.
const loopbackTransport = "loopback"

// Path returns the conn's path. The relay's limits apply to the whole connection, which the conn shares with other conns to the same peer.
func (c *Conn) Path() Path {
	if c.under == nil {
		return Path{Transport: loopbackTransport}
	}
	return pathOf(c.under)
}

func pathOf(under network.Conn) Path {
	stat := under.Stat()
	p := Path{Limited: stat.Limited, Transport: transportOf(under)}
	p.Relay, p.Relayed = relayOf(under)
	if n, ok := stat.Extra[client.StatLimitData].(uint64); ok {
		p.RelayData = int64(min(n, 1<<63-1))
		p.RelayLeft = p.RelayData
	}
	if d, ok := stat.Extra[client.StatLimitDuration].(time.Duration); ok && d > 0 {
		p.RelayDuration = d
		p.Expires = stat.Opened.Add(d)
	}
	if t := knownTraffic(under); t != nil {
		p.RTT = time.Duration(t.rtt.Load())
		p.RelayLeft = max(p.RelayData-t.used(), 0)
	}
	return p
}

// Paths returns the paths of the host's live connections to a peer, the best first: direct before relayed, unlimited before limited, then
// by round trip. PathOf returns the path of a session.
func Paths(h host.Host, pid peer.ID) []Path {
	var all []Path
	for _, c := range h.Network().ConnsToPeer(pid) {
		if !c.IsClosed() {
			all = append(all, pathOf(c))
		}
	}
	slices.SortStableFunc(all, func(a, b Path) int {
		x, y := a.forChoice(), b.forChoice()
		switch {
		case x.Less(y):
			return -1
		case y.Less(x):
			return 1
		}
		return cmp.Compare(cmp.Or(a.RTT, math.MaxInt64), cmp.Or(b.RTT, math.MaxInt64))
	})
	return all
}

// forChoice returns the path in the form that package choice uses.
func (p Path) forChoice() *choice.Path {
	isStream := p.Transport == "tcp" || p.Transport == "ws" || p.Transport == "wss"
	return &choice.Path{Relayed: p.Relayed, Limited: p.Limited, Stream: isStream}
}

// subnetOf names the network that a peer comes from, which quotas count as one: its IP address's or, behind a relay, where addresses are not
// known, the relay's. All relays in one network are one: Peer IDs are free, and any peer can pose as a relay. It returns "" where there is no
// connection, or one without an IP address.
func subnetOf(under network.Conn) string {
	if under == nil {
		return ""
	}
	subnet := ""
	if ip, err := manet.ToIP(under.RemoteMultiaddr()); err == nil {
		addr, _ := netip.AddrFromSlice(ip)
		subnet = session.SubnetOf(addr)
	}
	if relay, ok := relayOf(under); ok {
		return "relay " + cmp.Or(subnet, relay.String())
	}
	return subnet
}

// relayOf returns the relay of a connection, and whether the connection is relayed.
func relayOf(under network.Conn) (peer.ID, bool) { return relayIn(under.RemoteMultiaddr()) }

// relayIn returns the relay in an address, and whether it has one.
func relayIn(a ma.Multiaddr) (peer.ID, bool) {
	var hop peer.ID
	relayed := false
	ma.ForEach(a, func(c ma.Component) bool {
		switch c.Protocol().Code {
		case ma.P_P2P:
			hop, _ = peer.IDFromBytes(c.RawValue())
		case ma.P_CIRCUIT:
			relayed = true
		}
		return !relayed
	})
	if !relayed {
		return "", false
	}
	return hop, true
}

// transportOf returns the last transport component before a relay or a Peer ID: "ws" for "/ip4/1.2.3.4/tcp/80/ws".
func transportOf(under network.Conn) string {
	name := ""
	ma.ForEach(under.RemoteMultiaddr(), func(c ma.Component) bool {
		switch code := c.Protocol().Code; code {
		case ma.P_UNIX, ma.P_TCP, ma.P_QUIC_V1, ma.P_WS, ma.P_WSS, ma.P_WEBTRANSPORT, ma.P_WEBRTC_DIRECT:
			name = c.Protocol().Name
		case ma.P_P2P, ma.P_CIRCUIT:
			return false
		}
		return true
	})
	if name == "" {
		return under.ConnState().Transport
	}
	return name
}
