package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"

	"github.com/peerlane/peerlane/internal/direct"
	"github.com/peerlane/peerlane/internal/netcheck"
	"github.com/peerlane/peerlane/internal/origin"
	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/internal/unixsock"
)

// A Node is a libp2p host and its services. It is safe for concurrent use.
type Node struct {
	host    host.Host
	finder  *finder        // the host with its discoveries; nil: none
	punch   *punch.Service // nil: no hole punching
	sockets unixsock.Paths // sockets that the host may dial
	origins *origin.Table  // of the addresses of peers

	care         *care
	reservations *reservations    // nil: no relays
	netcheck     *netcheck.Server // nil: does not help others
	relay        *relay.Relay     // nil: no relay for others
	replacer     *replacer        // nil: no relay for others
}

// New starts a host. Nil opts mean the zero Options. New returns an error that matches ErrInvalid and names the option, an error of
// LoadKey, or the reason why the host cannot listen. If ctx has already ended, New returns its error.
func New(ctx context.Context, opts *Options) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var o Options
	if opts != nil {
		o = *opts
	}
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	key, err := o.key()
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	all, err := o.withDefaults().libp2p(key)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	n := &Node{}
	dials := newRanker()
	h, err := libp2p.New(append(all, o.transports(&n.sockets), o.withRates, withoutSockets, dials.option())...)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	dials.follow(h.Network())
	if o.RelayService != nil {
		if n.relay, err = o.RelayService.serve(h); err != nil {
			return nil, errors.Join(fmt.Errorf("node: %w", err), h.Close())
		}
	}
	if err := o.listen(h); err != nil {
		return nil, errors.Join(fmt.Errorf("node: %w", err), n.closeRelay(), h.Close())
	}
	n.host, n.care = h, newCare(h)
	if n.origins, err = origin.New(h.Peerstore(), h.ID()); err != nil {
		return nil, errors.Join(fmt.Errorf("node: %w", err), n.Close())
	}
	for _, s := range o.Peers {
		info, _ := ParsePeer(s) // validate has parsed it
		n.Remember(info)
	}
	if o.HolePunch {
		if n.punch, err = punch.New(h, &punch.Options{NoWide: o.NoWide}); err != nil {
			return nil, errors.Join(fmt.Errorf("node: %w", err), n.Close())
		}
	}
	if o.NetworkHelper || o.RelayService != nil {
		n.netcheck = netcheck.Serve(h)
	}
	if o.RelayService != nil {
		n.replacer = newReplacer(h)
	}
	if err := n.discover(o); err != nil {
		return nil, errors.Join(fmt.Errorf("node: %w", err), n.Close())
	}
	switch {
	case len(o.Relays) > 0:
		n.reservations, err = reserve(h, o.relays())
	case o.FindRelays > 0:
		n.reservations, err = reserveFound(h, o.FindRelays, relaySources(o.Discovery))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("node: %w", err), n.Close())
	}
	return n, nil
}

// discover starts discoveries.
func (n *Node) discover(o Options) error {
	kinds := slices.Clone(o.Discovery)
	var file *addrFile
	if o.AddrFile != "" {
		file = newAddrFile(o.AddrFile, o.Logger)
		kinds = append(kinds, file)
	}
	if len(kinds) == 0 {
		return nil
	}
	n.finder = newFinder(n.host, nil)
	n.finder.file, n.finder.origins = file, n.origins
	for _, d := range kinds {
		if err := d.Start(n.host); err != nil {
			return err
		}
		n.finder.kinds = append(n.finder.kinds, d) // one that did not start may be another host's, and is not closed
	}
	return nil
}

// relays returns the peers of Options.Relays.
func (o Options) relays() []peer.AddrInfo {
	var all []peer.AddrInfo
	for _, s := range o.Relays {
		info, _ := ParsePeer(s) // validate has parsed it
		all = append(all, info)
	}
	return all
}

// key returns the host's identity.
func (o Options) key() (crypto.PrivKey, error) {
	if o.KeyFile == "" {
		return newKey()
	}
	key, _, err := LoadKey(o.KeyFile)
	return key, err
}

// libp2p returns the options for libp2p.New.
func (o Options) libp2p(key crypto.PrivKey) ([]libp2p.Option, error) {
	all := []libp2p.Option{libp2p.Identity(key), libp2p.UserAgent(o.UserAgent),
		libp2p.NoListenAddrs, libp2p.EnableRelay()} // listen comes later; NoListenAddrs alone turns relays off
	all = append(all, dialAlways()...)
	all = append(all, o.nat()...)
	limits, err := o.limits()
	if err != nil {
		return nil, err
	}
	all = append(all, limits...)
	return append(all, o.Libp2p...), nil
}

// dialAlways returns the options that make the host dial addresses of UDP and of IPv6 however many dials have failed. By default libp2p refuses
// nearly all of them after a hundred dials of which fewer than five led to a connection. Peers behind NATs, and a relay that is away, fail that
// often, and the refused dials would be those of other relays and peers.
func dialAlways() []libp2p.Option {
	return []libp2p.Option{libp2p.UDPBlackHoleSuccessCounter(nil), libp2p.IPv6BlackHoleSuccessCounter(nil)}
}

// nat returns the options that make the host reachable behind a NAT.
func (o Options) nat() []libp2p.Option {
	var all []libp2p.Option
	if o.PortMap {
		all = append(all, libp2p.NATPortMap())
	}
	switch o.Reachability {
	case ReachabilityPublic:
		all = append(all, libp2p.ForceReachabilityPublic())
	case ReachabilityPrivate:
		all = append(all, libp2p.ForceReachabilityPrivate())
	}
	return all
}

// Host returns the libp2p host, for peerlane.Dial, Listen, NewServer and NewClient. With Options.Discovery, its Connect and NewStream find
// peers by their Peer ID.
func (n *Node) Host() host.Host {
	if n.finder != nil {
		return n.finder
	}
	return n.host
}

// ID returns the host's Peer ID.
func (n *Node) ID() peer.ID { return n.host.ID() }

// Info returns the host's Peer ID and the addresses at which it can be reached now, for Remember on another node of the same program.
// Between programs, use Addrs and ParsePeer. Info and Addrs include Unix domain sockets. The host does not announce those to peers, because
// they are useless on other machines.
func (n *Node) Info() peer.AddrInfo {
	return peer.AddrInfo{ID: n.host.ID(), Addrs: append(n.host.Addrs(), listensOnSockets(n.host)...)}
}

// Remember keeps a peer's addresses until the host is closed, so that it can be dialed by its Peer ID. The host dials only those Unix
// domain sockets that were passed to Remember: a peer cannot make it connect to a socket by announcing one.
func (n *Node) Remember(info peer.AddrInfo) {
	n.sockets.Allow(info.Addrs...)
	n.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
	n.origins.Note("given", info.ID, info.Addrs...)
}

// Close closes the host and everything on it. A second Close returns nil.
func (n *Node) Close() error {
	var errs []error
	n.care.close()
	if n.netcheck != nil {
		n.netcheck.Close()
	}
	if n.replacer != nil {
		n.replacer.close()
	}
	if n.reservations != nil {
		errs = append(errs, n.reservations.close())
	}
	if n.finder != nil {
		errs = append(errs, n.finder.close())
	}
	if n.punch != nil {
		errs = append(errs, n.punch.Close())
	}
	direct.Settle(n.host)
	return errors.Join(append(errs, n.closeRelay(), n.host.Close())...)
}

func (n *Node) closeRelay() error {
	if n.relay == nil {
		return nil
	}
	return n.relay.Close()
}
