// Package dht finds peers and relays in a distributed hash table, libp2p's Kademlia DHT. Both sides must use the same DHT.
//
//	n, err := node.New(ctx, &node.Options{Discovery: []node.Discovery{dht.New(nil)}, FindRelays: 2})
//
// The default is the public DHT of IPFS. Any of its members can see which hosts announce themselves, with which addresses, and which hosts
// are looked up. With Options.Prefix, the DHT is a private one that consists of the hosts with Options.Server.
//
// A lookup in the public DHT takes some seconds, longer on a host that has just started. The ConnectTimeout of a ClientConfig must leave
// time for it; its default is 5 s.
//
// # What is sent
//
// A host announces itself when it starts, when its addresses change, and every hour. A lookup queries up to some tens of servers.
// Otherwise, a host that is not a server only keeps its connections alive.
package dht

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/invalid"
	"github.com/peerlane/peerlane/internal/pause"
)

// Options are options for New. The zero value, and nil, is a client of the public DHT that announces itself.
type Options struct {
	// Bootstrap are servers that the host connects to first. If nil, the servers in libp2p's public list, or none if Prefix is set. If
	// empty, none: other hosts must connect to this one.
	Bootstrap []peer.AddrInfo
	// Prefix is the beginning of the DHT's protocol ID, as in "/chat". Hosts with the same Prefix form a DHT of their own. It does not keep
	// others out. If empty, the public DHT is used.
	Prefix protocol.ID
	// Server answers queries and stores announcements. It needs a Prefix, and an address that other hosts can reach.
	Server bool
	// NoAnnounce does not announce this host, so that other hosts do not find it.
	NoAnnounce bool
}

// Times of entering a DHT, announcing and finding.
const (
	enterFirst    = 500 * time.Millisecond // between attempts to reach a bootstrap peer; it doubles
	enterLast     = time.Minute            // at most
	enterTime     = 10 * time.Second       // for one attempt
	announceEvery = time.Hour
	announceAfter = time.Second     // since the last change of the host's addresses
	announceAgain = 5 * time.Second // after a failure
	announceTime  = time.Minute     // for one announcement
	moreTime      = time.Second     // for further answers, after the first
	lookEvery     = 50 * time.Millisecond
	refusedTime   = 3 * time.Second // for a lookup to wait while no bootstrap peer can be reached
)

// A Discovery finds peers in a DHT. It belongs to one host: pass it to node.Options.Discovery of one node, and make another one for the
// next node.
type Discovery struct {
	options Options
	err     error // of the options

	used    atomic.Bool // by Start or Close
	closed  atomic.Bool
	host    host.Host
	dht     *kad.IpfsDHT
	ctx     context.Context
	cancel  context.CancelFunc
	events  event.Subscription
	running sync.WaitGroup // enter, announce

	mu       sync.Mutex
	enterErr error // why no bootstrap peer could be reached last; nil at first
}

// New returns a Discovery. Nil o means the zero Options. If the options are invalid, Start returns the error.
func New(o *Options) *Discovery {
	if o == nil {
		o = &Options{}
	}
	d := &Discovery{options: *o}
	if o.Bootstrap == nil && o.Prefix == "" {
		d.options.Bootstrap = kad.GetDefaultBootstrapPeerAddrInfos()
	}
	if o.Server && o.Prefix == "" {
		d.err = fmt.Errorf("dht: %w: Options.Server: needs a Prefix; the public DHT has its own servers", invalid.Err)
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Start starts to enter the DHT, in the background. A second Start, or one after Close, fails: the error matches node.ErrInvalid.
func (d *Discovery) Start(h host.Host) error {
	if d.err != nil {
		return d.err
	}
	if d.used.Swap(true) {
		return fmt.Errorf("dht: %w: Discovery: it is for one host, and is in use or was closed: make another one with dht.New", invalid.Err)
	}
	events, err := h.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("peerlane/dht"))
	if err != nil {
		return fmt.Errorf("dht: %w", err)
	}
	d.host, d.events = h, events
	if d.dht, err = kad.New(d.ctx, lookupHost{h}, d.kad(h)...); err != nil {
		d.dht = nil
		return errors.Join(fmt.Errorf("dht: %w", err), d.Close())
	}
	d.running.Go(d.enter)
	if !d.options.NoAnnounce {
		d.running.Go(d.announce)
	}
	return nil
}

// kad returns the options of libp2p's DHT.
func (d *Discovery) kad(h host.Host) []kad.Option {
	all := []kad.Option{kad.Mode(kad.ModeClient), kad.ProviderStore(newBook())}
	if !d.options.Server {
		all = append(all, kad.DisableAutoRefresh()) // a query finds further servers
	} else {
		all = append(all, kad.Mode(kad.ModeServer))
	}
	if d.options.Prefix != "" {
		return append(all, kad.ProtocolPrefix(d.options.Prefix), kad.DisableValues(), kad.AddressFilter(d.options.filter()))
	}
	// as in libp2p's DHT for the internet
	return append(all, kad.QueryFilter(kad.PublicQueryFilter), kad.RoutingTableFilter(kad.PublicRoutingTableFilter),
		kad.RoutingTablePeerDiversityFilter(kad.NewRTPeerDiversityFilter(h, 2, 3)), kad.AddressFilter(d.options.filter()))
}

// filter returns the function that drops addresses that members of the DHT cannot dial, from announcements and answers.
func (o *Options) filter() func([]ma.Multiaddr) []ma.Multiaddr {
	if o.Prefix == "" {
		return public
	}
	return usable
}

// public returns the addresses that can be dialed from anywhere.
func public(all []ma.Multiaddr) []ma.Multiaddr { return ma.FilterAddrs(all, manet.IsPublicAddr) }

// usable returns the addresses that other hosts can dial. Loopback addresses are included only if there are no others.
func usable(all []ma.Multiaddr) []ma.Multiaddr {
	others := ma.FilterAddrs(all, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) && !manet.IsIP6LinkLocal(a) })
	if len(others) > 0 {
		return others
	}
	return all
}

// Close leaves the DHT. A second Close returns nil.
func (d *Discovery) Close() error {
	d.used.Store(true)
	if d.closed.Swap(true) {
		return nil
	}
	d.cancel()
	d.running.Wait()
	var errs []error
	if d.events != nil {
		errs = append(errs, d.events.Close())
	}
	if d.dht != nil {
		errs = append(errs, d.dht.Close())
	}
	return errors.Join(errs...)
}

// enter connects to bootstrap peers while no server is known. It ends when d is closed.
func (d *Discovery) enter() {
	if len(d.options.Bootstrap) == 0 {
		return
	}
	for wait := enterFirst; d.ctx.Err() == nil; {
		if d.dht.RoutingTable().Size() > 0 {
			_ = pause.For(d.ctx, enterLast) // the loop looks at ctx, here and below
			continue
		}
		err := d.connect()
		d.mu.Lock()
		if d.enterErr == nil || !errors.Is(err, swarm.ErrDialBackoff) { // which says nothing about the cause
			d.enterErr = err
		}
		d.mu.Unlock()
		_ = pause.For(d.ctx, wait)
		if wait = min(2*wait, enterLast); err == nil {
			wait = enterFirst
		}
	}
}

// connect connects to all bootstrap peers in parallel, and returns an error if none can be reached.
func (d *Discovery) connect() error {
	ctx, cancel := context.WithTimeout(d.ctx, enterTime)
	defer cancel()
	errs := make([]error, len(d.options.Bootstrap))
	var all sync.WaitGroup
	for i, info := range d.options.Bootstrap {
		all.Go(func() { errs[i] = d.host.Connect(ctx, info) })
	}
	all.Wait()
	if slices.Contains(errs, nil) {
		return nil
	}
	return errors.Join(errs...)
}

// ErrNoServer means that no server of the DHT can be reached. Errors of FindPeer and FindRelays match it, and name the cause.
var ErrNoServer = errors.New("no server answers")

// entered waits until a server is known. It returns an error earlier than ctx ends if the bootstrap peers do not answer.
func (d *Discovery) entered(ctx context.Context) error {
	for began := time.Now(); d.dht.RoutingTable().Size() == 0; { // the routing table has no event for this
		err, patience := d.outside()
		if ctx.Err() != nil || d.ctx.Err() != nil || time.Since(began) >= patience {
			return notFound{err}
		}
		_ = pause.For(ctx, lookEvery) // ctx is looked at above
	}
	return nil
}

// outside returns why no server is known, and how long a lookup waits for one.
func (d *Discovery) outside() (why error, patience time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case len(d.options.Bootstrap) == 0:
		return errors.New("no server is known"), math.MaxInt64
	case d.enterErr != nil:
		return fmt.Errorf("%w: %w", ErrNoServer, d.enterErr), refusedTime
	}
	return fmt.Errorf("%w: the bootstrap peers have not, or do not serve this DHT", ErrNoServer), enterTime + refusedTime
}

// notFound is the reason why a peer was not found. It matches routing.ErrNotFound.
type notFound struct{ error }

func (e notFound) Error() string { return "dht: " + e.error.Error() }

func (e notFound) Unwrap() []error { return []error{routing.ErrNotFound, e.error} }
