package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/punch"
)

// A Node is a libp2p host with what belongs to it. It is safe for concurrent use.
type Node struct {
	host  host.Host
	punch *punch.Service // nil: it punches no holes

	care         *care
	reservations *reservations // nil: it has no relays
}

// New starts a host. Nil opts mean the zero Options. New fails with an error that matches ErrInvalid and names the option, with
// one of LoadKey's, or with the cause why it cannot listen. When ctx is over before it began, it returns ctx's error.
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
	dials := newRanker()
	if o.HolePunch {
		all = append(all, punch.Transports)
	}
	h, err := libp2p.New(append(all, dials.option())...)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	dials.follow(h.Network())
	if err := o.listen(h); err != nil {
		return nil, errors.Join(fmt.Errorf("node: %w", err), h.Close())
	}
	n := &Node{host: h, care: newCare(h)}
	if o.HolePunch {
		if n.punch, err = punch.New(h, &punch.Options{NoWide: o.NoWide}); err != nil {
			return nil, errors.Join(fmt.Errorf("node: %w", err), h.Close())
		}
	}
	if len(o.Relays) > 0 {
		if n.reservations, err = reserve(h, o.relays()); err != nil {
			return nil, errors.Join(fmt.Errorf("node: %w", err), n.Close())
		}
	}
	return n, nil
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

// listen makes h listen. libp2p.New could, but is content when one address of many works, and leaves goroutines behind
// when none does. Only IPv6 may be missing, and only where the caller did not ask for it.
func (o Options) listen(h host.Host) error {
	if o.NoListen {
		return nil
	}
	explicit := o.ListenAddrs != nil
	for _, s := range o.withDefaults().ListenAddrs {
		addr := ma.StringCast(s) // validate has parsed it
		_, version6 := addr.ValueForProtocol(ma.P_IP6)
		err := h.Network().Listen(addr)
		if err != nil && (explicit || version6 != nil) {
			return fmt.Errorf("listen on %s: %w", s, err)
		}
	}
	return nil
}

// key returns the identity to use.
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
	all = append(all, o.nat()...)
	limits, err := o.limits()
	if err != nil {
		return nil, err
	}
	all = append(all, limits...)
	return append(all, o.Libp2p...), nil
}

// nat returns the options that make the host reachable behind a NAT.
func (o Options) nat() []libp2p.Option {
	var all []libp2p.Option
	if o.RelayService != nil {
		all = append(all, o.RelayService.option())
	}
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

// Host returns the libp2p host, for peerlane.Dial, Listen, NewServer and NewClient.
func (n *Node) Host() host.Host { return n.host }

// ID returns the host's Peer ID.
func (n *Node) ID() peer.ID { return n.host.ID() }

// Info returns the host's Peer ID and the addresses it can be reached at now, for Remember on another node of the same
// program. Between programs, Addrs and ParsePeer do the same in text.
func (n *Node) Info() peer.AddrInfo { return peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()} }

// Remember keeps a peer's addresses until the host is closed, so that it can be dialed by its Peer ID.
func (n *Node) Remember(info peer.AddrInfo) {
	n.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
}

// Close closes the host and everything on it. A second Close returns nil.
func (n *Node) Close() error {
	var errs []error
	n.care.close()
	if n.reservations != nil {
		errs = append(errs, n.reservations.close())
	}
	if n.punch != nil {
		errs = append(errs, n.punch.Close())
	}
	return errors.Join(append(errs, n.host.Close())...)
}
