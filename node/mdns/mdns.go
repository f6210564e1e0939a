// Package mdns finds peers in the local network by multicast DNS. It needs no server and no internet connection. It follows libp2p's
// specification (discovery/mdns.md), so it also finds hosts of other libp2p implementations, and they find this host.
//
//	n, err := node.New(ctx, &node.Options{Discovery: []node.Discovery{mdns.New(nil)}})
//
// It sends messages only to look up a peer, to answer a query, and when the host's addresses change. An answer contains the addresses of
// the network interface on which it is sent. Answers about other peers than those being looked up are ignored.
//
// A host that listens on loopback addresses only, as with node.Options.Loopback, is not found, not even by others on the same machine: no
// network interface has its addresses.
package mdns

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	random "math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/invalid"
)

// Options are options for New. The zero value, and nil, is a Discovery that finds peers and announces the host.
type Options struct {
	// NoAnnounce ignores queries from other hosts, so that they cannot find this one.
	NoAnnounce bool

	medium medium // for tests; nil: sockets
}

// Times and limits of queries and answers.
const (
	lookEvery   = 15 * time.Second       // for new network interfaces
	answerEvery = time.Second            // at least between two answers; RFC 6762, 6
	answerDelay = 100 * time.Millisecond // at most, at random, so that many hosts do not answer at once
	askEvery    = 500 * time.Millisecond // between two queries
	findTime    = 1500 * time.Millisecond
	maxPerTime  = 256 // packets to process in a second
)

// A Discovery finds peers in the local network. It belongs to one host: pass it to node.Options.Discovery of one node, and make another
// one for the next node.
type Discovery struct {
	noAnnounce bool
	medium     medium
	label      string // the host's name in messages; random
	known      *table
	asked      chan struct{} // a query has arrived
	ask        chan struct{} // a query must be sent

	used    atomic.Bool // by Start or Close
	closed  atomic.Bool
	host    host.Host
	ctx     context.Context
	cancel  context.CancelFunc
	events  event.Subscription
	running sync.WaitGroup // run

	mu      sync.Mutex
	packets int // in the current second
	second  time.Time
}

// New returns a Discovery. Nil o means the zero Options.
func New(o *Options) *Discovery {
	if o == nil {
		o = &Options{}
	}
	d := &Discovery{noAnnounce: o.NoAnnounce, medium: o.medium, label: strings.ToLower(rand.Text() + rand.Text()), known: newTable(),
		asked: make(chan struct{}, 1), ask: make(chan struct{}, 1)}
	if d.medium == nil {
		d.medium = &sockets{}
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Start starts to answer queries, unless NoAnnounce is set. It succeeds even without a network, which may come up later. A second Start,
// or one after Close, fails: the error matches node.ErrInvalid.
func (d *Discovery) Start(h host.Host) error {
	if d.used.Swap(true) {
		return fmt.Errorf("mdns: %w: Discovery: it is for one host, and is in use or was closed: make another one with mdns.New", invalid.Err)
	}
	events, err := h.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("peerlane/mdns"))
	if err != nil {
		return fmt.Errorf("mdns: %w", err)
	}
	d.host, d.events = h, events
	d.medium.open(d.handle)
	d.running.Go(d.run)
	return nil
}

// Close notifies the local network that this host is leaving, and stops the Discovery. A second Close returns nil.
func (d *Discovery) Close() error {
	d.used.Store(true)
	if d.closed.Swap(true) {
		return nil
	}
	d.cancel()
	if d.events == nil { // not started
		return nil
	}
	d.running.Wait()
	return errors.Join(d.events.Close(), d.medium.close())
}

// FindPeer queries the local network for a peer, and returns the first answer. If there is no answer within 1.5 s, or no network to query,
// the error matches routing.ErrNotFound and names the reason.
func (d *Discovery) FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	if !d.known.want(id) {
		return peer.AddrInfo{}, notFound("too many peers are being looked up")
	}
	defer d.known.release(id)
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		addrs, changed := d.known.addrs(id)
		if len(addrs) > 0 {
			return peer.AddrInfo{ID: id, Addrs: addrs}, nil
		}
		signal(d.ask)
		select {
		case <-changed:
		case <-again.C:
		case <-d.ctx.Done():
			return peer.AddrInfo{}, notFound("the host is closed")
		case <-ctx.Done():
			if err := d.medium.failed(); err != nil {
				return peer.AddrInfo{}, notFound(err.Error())
			}
			return peer.AddrInfo{}, notFound("no answer from the local network")
		}
	}
}

// LocalOnly returns true: the addresses are of networks that this host is in. See node.Discovery.
func (d *Discovery) LocalOnly() bool { return true }

// notFound is the reason why a peer was not found. It matches routing.ErrNotFound.
type notFound string

func (e notFound) Error() string { return "mdns: " + string(e) }

func (e notFound) Is(target error) bool { return target == routing.ErrNotFound }

// signal wakes up the receiver of c.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// handle processes a packet from the IP address from. The medium calls it for one packet at a time per IP version.
func (d *Discovery) handle(packet []byte, from netip.Addr) {
	if d.isFlooded() {
		return
	}
	asks, claims := parse(packet)
	if asks && !d.noAnnounce {
		signal(d.asked)
	}
	for _, c := range claims {
		d.known.learn(c, from)
	}
}

// isFlooded counts a packet, and reports whether there were too many in this second.
func (d *Discovery) isFlooded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.second) >= time.Second {
		d.second, d.packets = now, 0
	}
	d.packets++
	return d.packets > maxPerTime
}

// run sends queries and answers. It ends when d is closed.
func (d *Discovery) run() {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	answerAt, askAt := newDue(answerEvery), newDue(askEvery)
	defer answerAt.stop()
	defer askAt.stop()
	answerAt.in(0)
	left := 1 // announcements after the next one; RFC 6762, 8.3
	for {
		select {
		case <-d.ctx.Done():
			if !d.noAnnounce {
				d.announce(goodbye)
			}
			return
		case <-d.events.Out():
			d.medium.look()
			left = 1
			answerAt.in(0)
		case <-look.C:
			if d.medium.look() {
				left = 1
				answerAt.in(0)
			}
		case <-d.asked:
			answerAt.in(random.N(answerDelay))
		case <-d.ask:
			askAt.in(0)
		case <-askAt.timer.C:
			askAt.done()
			d.query()
		case <-answerAt.timer.C:
			if answerAt.done(); !d.noAnnounce {
				d.announce(lifetime)
			}
			if left > 0 {
				left--
				answerAt.in(answerEvery)
			}
		}
	}
}

// query sends a query on all interfaces.
func (d *Discovery) query() {
	packet, err := question()
	if err != nil {
		panic("BUG: " + err.Error()) // the message is constant
	}
	for _, i := range d.medium.interfaces() {
		d.medium.send(i, packet)
	}
}

// announce sends, on each interface, the host's addresses there.
func (d *Discovery) announce(ttl uint32) {
	d.medium.look()
	for _, i := range d.medium.interfaces() {
		addrs := addrsOn(i, d.host.Network().ListenAddresses())
		if len(addrs) == 0 {
			continue
		}
		packet, err := answer(d.label, d.host.ID(), addrs, ttl)
		if err != nil {
			panic("BUG: " + err.Error()) // the message's parts are bounded
		}
		d.medium.send(i, packet)
	}
}

// addrsOn returns the addresses that a host listening on listen has on an interface. libp2p could resolve them too, but learns of new
// addresses of the machine a minute late.
func addrsOn(i iface, listen []ma.Multiaddr) []ma.Multiaddr {
	var all []ma.Multiaddr
	for _, a := range listen {
		ip, ok := ipOf(a)
		for _, own := range i.addrs {
			if !ok || ip != own && !(ip.IsUnspecified() && ip.Is4() == own.Is4()) {
				continue
			}
			at, err := manet.FromIP(own.AsSlice())
			if err != nil {
				continue
			}
			if at = append(at, a[1:]...); isLocal(at) {
				all = append(all, at)
			}
		}
	}
	return all
}

// A due is a timer for an action that runs at most once per period.
type due struct {
	timer *time.Timer
	every time.Duration
	last  time.Time
	set   bool
}

func newDue(every time.Duration) *due {
	d := &due{timer: time.NewTimer(time.Hour), every: every}
	d.timer.Stop()
	return d
}

// in schedules the action after wait, or later if it ran recently. It does nothing if the action is already scheduled.
func (d *due) in(wait time.Duration) {
	if d.set {
		return
	}
	d.set = true
	d.timer.Reset(max(wait, d.every-time.Since(d.last)))
}

// done records that the action runs now.
func (d *due) done() { d.set, d.last = false, time.Now() }

func (d *due) stop() { d.timer.Stop() }
