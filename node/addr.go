package node

import (
	"strings"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Addrs returns the addresses at which the host can be reached now, each with its Peer ID at the end, ready for ParsePeer on the other
// side. Addresses that other machines cannot dial, those of loopback interfaces and Unix domain sockets, are omitted if there are others.
// It is empty while the host does not listen and has no relay.
func (n *Node) Addrs() []string {
	return pasteable(n.host.ID(), n.Info().Addrs)
}

func pasteable(pid peer.ID, addrs []ma.Multiaddr) []string {
	self := ma.StringCast("/p2p/" + pid.String())
	var remote, local []string
	for _, a := range addrs {
		switch {
		case isSocket(a): // its path would swallow the rest
			local = append(local, self.Encapsulate(a).String())
		case manet.IsIPLoopback(a):
			local = append(local, a.Encapsulate(self).String())
		default:
			remote = append(remote, a.Encapsulate(self).String())
		}
	}
	if len(remote) > 0 {
		return remote
	}
	return local
}

// ParsePeer returns the peer in s: a multiaddr that ends in /p2p/<peer id>, a bare Peer ID, or several of them for the same peer, separated
// by commas or spaces. The address of a Unix domain socket begins with the Peer ID, because a path has no end: /p2p/<peer
// id>/unix/run/app.sock. A bare Peer ID has no addresses. The error matches ErrInvalid and names the missing part.
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

// exampleAddr is an example of an address, for errors.
const exampleAddr = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooW..."

// parseOne parses a multiaddr or a Peer ID.
func parseOne(s string) (peer.AddrInfo, error) {
	if !strings.HasPrefix(s, "/") {
		pid, err := peer.Decode(s)
		switch {
		case err != nil && (strings.HasPrefix(s, "12D3") || strings.HasPrefix(s, "Qm")):
			return peer.AddrInfo{}, invalidf("peer: the Peer ID %q is cut off or mistyped", s)
		case err != nil:
			return peer.AddrInfo{}, invalidf("peer: %q is neither a Peer ID nor an address such as %s", s, exampleAddr)
		}
		return peer.AddrInfo{ID: pid}, nil
	}
	addr, err := ma.NewMultiaddr(s)
	if err != nil {
		if pid := wrongID(s); pid != "" {
			return peer.AddrInfo{}, invalidf("peer: the Peer ID %q in %q is cut off or mistyped", pid, s)
		}
		return peer.AddrInfo{}, invalidf("peer: %q is not a multiaddr: %w", s, err)
	}
	if info, ok := parseSocket(addr); ok {
		return info, nil
	}
	at, pid := peer.SplitAddr(addr)
	switch {
	case pid == "" && isSocket(addr):
		return peer.AddrInfo{}, invalidf("peer: %q does not begin with a Peer ID: the Peer ID comes before a path, as in "+
			"/p2p/12D3KooW.../unix/run/app.sock", s)
	case pid == "":
		return peer.AddrInfo{}, invalidf("peer: %q has no Peer ID: it must end in /p2p/<peer id>", s)
	case len(at) > 0 && manet.IsIPUnspecified(at):
		return peer.AddrInfo{}, invalidf("peer: %q is an address to listen on, not one to dial", s)
	case len(at) == 0:
		return peer.AddrInfo{ID: pid}, nil
	}
	return peer.AddrInfo{ID: pid, Addrs: []ma.Multiaddr{at}}, nil
}

// wrongID returns the first text after a /p2p/ in an address that is not a Peer ID, if any.
func wrongID(addr string) string {
	for _, rest := range strings.Split(addr, "/p2p/")[1:] {
		text, _, _ := strings.Cut(rest, "/")
		if _, err := peer.Decode(text); err != nil {
			return text
		}
	}
	return ""
}

// parseSocket returns the peer and the socket of an address such as /p2p/<peer id>/unix/run/app.sock, and whether s is such an address.
func parseSocket(addr ma.Multiaddr) (info peer.AddrInfo, ok bool) {
	if len(addr) != 2 || addr[0].Protocol().Code != ma.P_P2P || !isSocket(addr[1:]) {
		return peer.AddrInfo{}, false
	}
	pid, err := peer.IDFromBytes(addr[0].RawValue())
	return peer.AddrInfo{ID: pid, Addrs: []ma.Multiaddr{addr[1:]}}, err == nil
}
