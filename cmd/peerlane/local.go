package main

import (
	"net"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// localNetwork lets connections be made within the networks of this machine alone, in either direction.
type localNetwork struct{}

func (localNetwork) InterceptPeerDial(peer.ID) bool { return true }

func (localNetwork) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool { return isOnLAN(a) }

func (localNetwork) InterceptAccept(c network.ConnMultiaddrs) bool {
	return isOnLAN(c.RemoteMultiaddr())
}

func (localNetwork) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}

func (localNetwork) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// isSocket reports whether an address is a Unix domain socket.
func isSocket(a ma.Multiaddr) bool { return len(a) == 1 && a[0].Protocol().Code == ma.P_UNIX }

// isOnLAN reports whether an address is of this machine, or of another one in its networks.
func isOnLAN(a ma.Multiaddr) bool {
	if isSocket(a) {
		return true
	}
	ip, err := manet.ToIP(a)
	if err != nil || viaRelay(peer.AddrInfo{Addrs: []ma.Multiaddr{a}}) {
		return false
	}
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return true
	}
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, n := range nets {
		if n, ok := n.(*net.IPNet); ok && n.Contains(ip) {
			return true
		}
	}
	return false
}
