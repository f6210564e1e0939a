package peerlane

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Network is what Addr.Network returns, and the Net of every *net.OpError of this package.
const Network = "libp2p"

// An AddrStyle says how a conn or a listener names its two ends.
type AddrStyle uint8

// The address styles. All but AddrSocket yield an Addr.
const (
	// AddrPeer is the bare Peer ID, as in "12D3KooW...".
	AddrPeer AddrStyle = 0
	// AddrPeerPort is "<peer id>:<port>", for code that calls net.SplitHostPort: net/http, and the known_hosts
	// callback of x/crypto/ssh. The port is the one given to Dialer.DialContext, else 0.
	AddrPeerPort AddrStyle = 1
	// AddrSocket is the real socket under the conn as a *net.TCPAddr or *net.UDPAddr, for source-address rules. A
	// conn that has none of its own (relayed, loopback, a browser's WebRTC) falls back to AddrPeerPort, so that
	// the relay's address is never taken for the peer's.
	AddrSocket AddrStyle = 2
)

func (s AddrStyle) validate(field string) error {
	if s > AddrSocket {
		return invalidf("%s: unknown address style %d", field, s)
	}
	return nil
}

// An Addr is the address of a peer: its Peer ID. It is comparable.
type Addr struct {
	Peer peer.ID // whom
	Port uint16  // libp2p has none; see AddrPeerPort. 0 without WithPort

	// WithPort makes String return "<peer id>:<port>" instead of the bare Peer ID.
	WithPort bool
}

// Network returns "libp2p".
func (a Addr) Network() string { return Network }

// String returns the Peer ID, followed by ":" and the port if WithPort is set.
func (a Addr) String() string {
	if !a.WithPort {
		return a.Peer.String()
	}
	return net.JoinHostPort(a.Peer.String(), strconv.Itoa(int(a.Port)))
}

// styledAddr returns the address of pid in the given style; at is the multiaddr of that end, nil if there is none.
func styledAddr(style AddrStyle, pid peer.ID, port uint16, at ma.Multiaddr) net.Addr {
	if style == AddrSocket {
		if a := socketAddr(at); a != nil {
			return a
		}
	}
	if style == AddrPeer {
		return Addr{Peer: pid}
	}
	return Addr{Peer: pid, Port: port, WithPort: true}
}

// socketAddr returns the TCP or UDP socket that a direct multiaddr starts with, nil if it starts with none.
func socketAddr(at ma.Multiaddr) net.Addr {
	var ip netip.Addr
	var found net.Addr
	relayed := false
	ma.ForEach(at, func(c ma.Component) bool {
		switch c.Protocol().Code {
		case ma.P_IP4, ma.P_IP6:
			ip, _ = netip.AddrFromSlice(c.RawValue())
		case ma.P_TCP, ma.P_UDP:
			found = newSocketAddr(ip, c)
		case ma.P_CIRCUIT:
			relayed = true
		}
		return true
	})
	if relayed {
		return nil
	}
	return found
}

func newSocketAddr(ip netip.Addr, c ma.Component) net.Addr {
	port, err := strconv.ParseUint(c.Value(), 10, 16)
	if err != nil || !ip.IsValid() {
		return nil
	}
	at := netip.AddrPortFrom(ip, uint16(port))
	if c.Protocol().Code == ma.P_UDP {
		return net.UDPAddrFromAddrPort(at)
	}
	return net.TCPAddrFromAddrPort(at)
}

// splitAddr parses "<peer id>" or "<peer id>:<port>".
func splitAddr(address string) (peer.ID, uint16, error) {
	id, port := address, uint64(0)
	if h, p, err := net.SplitHostPort(address); err == nil {
		if port, err = strconv.ParseUint(p, 10, 16); err != nil {
			return "", 0, invalidf("address %q: port is not a number from 0 to 65535", address)
		}
		id = h
	}
	pid, err := peer.Decode(id)
	if err != nil {
		return "", 0, invalidf("address %q: want \"<peer id>\" or \"<peer id>:<port>\": %w", address, err)
	}
	return pid, uint16(port), nil
}
