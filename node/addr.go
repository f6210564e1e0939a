package node

import (
	"strings"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Addrs returns the addresses at which the host can be reached now, each with its Peer ID at the end, ready for ParsePeer
// on the other side. Loopback addresses are left out where there are others. It is empty while the host listens nowhere
// and has no relay.
func (n *Node) Addrs() []string {
	return pasteable(n.host.ID(), n.host.Addrs())
}

func pasteable(pid peer.ID, addrs []ma.Multiaddr) []string {
	self := ma.StringCast("/p2p/" + pid.String())
	var remote, local []string
	for _, a := range addrs {
		s := a.Encapsulate(self).String()
		if manet.IsIPLoopback(a) {
			local = append(local, s)
			continue
		}
		remote = append(remote, s)
	}
	if len(remote) > 0 {
		return remote
	}
	return local
}

// ParsePeer returns the peer that s names: a multiaddr that ends in /p2p/<peer id>, a bare Peer ID, or several of them
// of the same peer, with commas or spaces between. A bare Peer ID has no addresses. The error matches ErrInvalid and says
// what is missing.
func ParsePeer(s string) (peer.AddrInfo, error) {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	if len(parts) == 0 {
		return peer.AddrInfo{}, invalidf("peer: empty; want a Peer ID or an address such as " + exampleAddr)
	}
	var out peer.AddrInfo
	for _, part := range parts {
		info, err := parseOne(part)
		if err != nil {
			return peer.AddrInfo{}, err
		}
		if out.ID != "" && out.ID != info.ID {
			return peer.AddrInfo{}, invalidf("peer: addresses of two peers, %s and %s", out.ID, info.ID)
		}
		out.ID = info.ID
		for _, a := range info.Addrs {
			if !ma.Contains(out.Addrs, a) {
				out.Addrs = append(out.Addrs, a)
			}
		}
	}
	return out, nil
}

// exampleAddr shows the form of an address in errors.
const exampleAddr = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..."

// parseOne parses a multiaddr or a Peer ID.
func parseOne(s string) (peer.AddrInfo, error) {
	if !strings.HasPrefix(s, "/") {
		pid, err := peer.Decode(s)
		if err != nil {
			return peer.AddrInfo{}, invalidf("peer: %q is neither a Peer ID nor an address such as %s: %w", s, exampleAddr, err)
		}
		return peer.AddrInfo{ID: pid}, nil
	}
	addr, err := ma.NewMultiaddr(s)
	if err != nil {
		return peer.AddrInfo{}, invalidf("peer: %q is not a multiaddr: %w", s, err)
	}
	at, pid := peer.SplitAddr(addr)
	switch {
	case pid == "":
		return peer.AddrInfo{}, invalidf("peer: %q does not say who is there: it must end in /p2p/<peer id>", s)
	case len(at) > 0 && manet.IsIPUnspecified(at):
		return peer.AddrInfo{}, invalidf("peer: %q is an address to listen on, not one to dial", s)
	case len(at) == 0:
		return peer.AddrInfo{ID: pid}, nil
	}
	return peer.AddrInfo{ID: pid, Addrs: []ma.Multiaddr{at}}, nil
}
