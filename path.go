package peerlane

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

// A Path says over what a conn runs. A conn never changes its path.
type Path struct {
	Relayed bool    // through a circuit relay
	Limited bool    // the relay cuts the connection after RelayData or RelayDuration
	Relay   peer.ID // which relay; empty on a direct path

	// Transport is how the next hop is reached: "tcp", "ws", "wss", "quic-v1", "webtransport", "webrtc-direct", or
	// "loopback" within one host.
	Transport string

	RelayData     int64         // bytes the relay lets through each way, overhead included; 0 if it sets no limit
	RelayDuration time.Duration // how long the relay keeps the connection; 0 if it sets no limit
	Expires       time.Time     // when RelayDuration is over; zero if it sets no limit
}

// String says over what the conn runs, for people: "direct, quic-v1", "relayed by 12D3KooW..., tcp" or "relayed by 12D3KooW..., tcp, which
// passes 131072 bytes each way in 2m0s".
func (p Path) String() string {
	if p.Transport == "" {
		return "no path"
	}
	if !p.Relayed {
		return "direct, " + p.Transport
	}
	text := fmt.Sprintf("relayed by %s, %s", p.Relay, p.Transport)
	switch {
	case p.RelayData > 0 && p.RelayDuration > 0:
		text += fmt.Sprintf(", which passes %d bytes each way in %v", p.RelayData, p.RelayDuration)
	case p.RelayData > 0:
		text += fmt.Sprintf(", which passes %d bytes each way", p.RelayData)
	case p.RelayDuration > 0:
		text += fmt.Sprintf(", which lasts %v", p.RelayDuration)
	case p.Limited:
		text += ", which has limits"
	}
	return text
}

// loopbackTransport is the Path.Transport of a conn within one host.
const loopbackTransport = "loopback"

// Path returns over what the conn runs. The relay's limits are those of the whole connection, which other conns to the
// same peer share.
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
	}
	if d, ok := stat.Extra[client.StatLimitDuration].(time.Duration); ok && d > 0 {
		p.RelayDuration = d
		p.Expires = stat.Opened.Add(d)
	}
	return p
}

// relayOf returns the relay a connection goes through, and whether it goes through one.
func relayOf(under network.Conn) (peer.ID, bool) { return relayIn(under.RemoteMultiaddr()) }

// relayIn returns the relay that an address leads through, and whether it leads through one.
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

// transportOf returns the last transport component before a relay or a Peer ID, so that "/ip4/1.2.3.4/tcp/80/ws" is ws.
func transportOf(under network.Conn) string {
	name := ""
	ma.ForEach(under.RemoteMultiaddr(), func(c ma.Component) bool {
		switch code := c.Protocol().Code; code {
		case ma.P_TCP, ma.P_QUIC_V1, ma.P_WS, ma.P_WSS, ma.P_WEBTRANSPORT, ma.P_WEBRTC_DIRECT:
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
