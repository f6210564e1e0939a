// Package dialaddr compares the address that a connection reports with those that were dialed: a transport leaves out what
// it needed only for the handshake, and libp2p resolves names before it dials.
package dialaddr

import (
	ma "github.com/multiformats/go-multiaddr"
)

// Bare returns a without what a connection's RemoteMultiaddr leaves out: certificate hashes and TLS server names. It
// writes /wss as /tls/ws.
func Bare(a ma.Multiaddr) ma.Multiaddr {
	out := make(ma.Multiaddr, 0, len(a)+1)
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_CERTHASH, ma.P_SNI:
		case ma.P_WSS:
			out = append(out, tls, ws)
		default:
			out = append(out, c)
		}
	}
	return out
}

var tls, ws = component("tls"), component("ws")

func component(protocol string) ma.Component {
	c, err := ma.NewComponent(protocol, "")
	if err != nil {
		panic("BUG: dialaddr: " + err.Error()) // the protocols are in go-multiaddr's table
	}
	return *c
}

// LeadsTo reports whether a dial of a may have made a connection that reports remote: both are the same but for what
// Bare leaves out, and a may have a DNS name where remote has an IP address. A /dnsaddr may lead anywhere.
func LeadsTo(a, remote ma.Multiaddr) bool {
	if len(a) == 0 || len(remote) == 0 {
		return false
	}
	at := remote[0].Protocol().Code
	switch a[0].Protocol().Code {
	case ma.P_DNSADDR:
		return true
	case ma.P_DNS:
		return (at == ma.P_IP4 || at == ma.P_IP6) && Bare(a[1:]).Equal(Bare(remote[1:]))
	case ma.P_DNS4:
		return at == ma.P_IP4 && Bare(a[1:]).Equal(Bare(remote[1:]))
	case ma.P_DNS6:
		return at == ma.P_IP6 && Bare(a[1:]).Equal(Bare(remote[1:]))
	}
	return Bare(a).Equal(Bare(remote))
}

// IsWhole reports whether a connection that reports remote can be dialed again by that alone: WebTransport and WebRTC
// need certificate hashes as well.
func IsWhole(remote ma.Multiaddr) bool {
	needs, has := false, false
	for _, c := range remote {
		switch c.Protocol().Code {
		case ma.P_WEBTRANSPORT, ma.P_WEBRTC_DIRECT, ma.P_WEBRTC:
			needs = true
		case ma.P_CERTHASH:
			has = true
		}
	}
	return has || !needs
}
