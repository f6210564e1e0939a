package node

import (
	"slices"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	webrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	webtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/nat64"
	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/internal/unixsock"
)

// transports returns the libp2p option that sets a host's transports, unless the caller's options have set any. It must come after those.
// The host dials only the sockets in sockets.
func (o Options) transports(sockets *unixsock.Paths) libp2p.Option {
	return func(cfg *libp2p.Config) error {
		if cfg.Transports != nil || cfg.PSK != nil {
			return nil
		}
		all := []libp2p.Option{libp2p.Transport(nat64.TCP), libp2p.Transport(nat64.WebSocket), libp2p.Transport(sockets.Transport)}
		if o.HolePunch {
			all = append(all, punch.QUIC)
		} else {
			all = append(all, libp2p.Transport(nat64.QUIC))
		}
		if o.WebTransport || o.listensOn(ma.P_WEBTRANSPORT) {
			all = append(all, libp2p.Transport(webtransport.New))
		}
		if o.WebRTC || o.listensOn(ma.P_WEBRTC_DIRECT) {
			all = append(all, libp2p.Transport(webrtc.New))
		}
		return cfg.Apply(all...)
	}
}

// listensOn reports whether one of ListenAddrs has the protocol.
func (o Options) listensOn(code int) bool {
	return slices.ContainsFunc(o.ListenAddrs, func(s string) bool {
		_, err := ma.StringCast(s).ValueForProtocol(code) // validate has parsed it
		return err == nil
	})
}

// withoutSockets is a libp2p option that removes Unix domain sockets from the announced addresses.
func withoutSockets(cfg *libp2p.Config) error {
	factory := cfg.AddrsFactory
	cfg.AddrsFactory = func(addrs []ma.Multiaddr) []ma.Multiaddr {
		if factory != nil {
			addrs = factory(addrs)
		}
		_, rest := split(addrs, isSocket)
		return rest
	}
	return nil
}

// listensOnSockets returns the Unix domain sockets on which h listens.
func listensOnSockets(h host.Host) []ma.Multiaddr {
	sockets, _ := split(h.Network().ListenAddresses(), isSocket)
	return sockets
}

func isSocket(a ma.Multiaddr) bool {
	_, ok := unixsock.Path(a)
	return ok
}
