package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/origin"
	"github.com/peerlane/peerlane/internal/pause"
)

// A Discovery finds peers by their Peer ID, and may announce the host to others. Packages node/mdns and node/dht implement it. A Discovery
// belongs to one host. Its methods are safe for concurrent use.
type Discovery interface {
	// New calls Start once, when the host listens. Connections that the Discovery opens on h are not subject to discovery. If Start fails,
	// it leaves nothing open. A second Start must fail: its error should match ErrInvalid.
	Start(h host.Host) error
	// FindPeer returns addresses of a peer. It returns when ctx ends, at the latest. If it finds none, the error matches
	// routing.ErrNotFound of libp2p. While all addresses that were found are of local networks, and none has led to the peer, it is called
	// again for newer ones, unless the Discovery has a method LocalOnly() bool that returns true, as that of node/mdns.
	FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error)
	// Node.Close calls Close once, before it closes the host. New calls it if it fails after Start has succeeded.
	Close() error
}

// A RelaySource is a Discovery that finds relays as well: see Options.FindRelays.
type RelaySource interface {
	Discovery

	// FindRelays returns up to n peers that relay connections (circuit relay v2), with addresses. Repeated calls return different ones if
	// possible. It returns when ctx ends, at the latest.
	FindRelays(ctx context.Context, n int) ([]peer.AddrInfo, error)
}

// Limits of a search.
const (
	searchTime    = 30 * time.Second
	searchAfter   = time.Second // from the first dial of known addresses to the start of a search
	askAgain      = time.Second // from an answer to the next question to the same discovery; it doubles
	askAgainLast  = 8 * time.Second
	maxSearches   = 64  // at a time; further ones wait
	maxFoundAddrs = 64  // per peer
	maxAddrLen    = 512 // bytes of an address; longer ones are ignored
)

// A finder is a host that asks its discoveries for a peer's addresses if it has none, or if none works within a second. It asks all
// discoveries in parallel. Answers are only candidates to dial: the peer still proves its identity with its key. Addresses of local networks
// may be those of another network than this host's, so they do not end a search. A peer that has just started may have announced only
// these: the ones through its relays follow.
type finder struct {
	host.Host

	kinds   []Discovery     // those that have started
	file    *addrFile       // one of the discoveries; nil: none
	origins *origin.Table   // of the addresses that are found
	ctx     context.Context // done when the finder is closed
	cancel  context.CancelFunc
	running sync.WaitGroup // search.run
	slots   chan struct{}  // one for each search

	mu       sync.Mutex
	searches map[peer.ID]*search
	closed   bool
}

var _ routing.PeerRouting = (*finder)(nil) // package peerlane searches with it

func newFinder(h host.Host, kinds []Discovery) *finder {
	f := &finder{Host: h, kinds: kinds, slots: make(chan struct{}, maxSearches), searches: make(map[peer.ID]*search)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// close ends all searches and closes the discoveries.
func (f *finder) close() error {
	f.mu.Lock()
	again := f.closed
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.running.Wait()
	if again {
		return nil
	}
	var errs []error
	for _, d := range f.kinds {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// NewStream searches for the peer if necessary, and opens a stream as the host does.
func (f *finder) NewStream(ctx context.Context, id peer.ID, protocols ...protocol.ID) (network.Stream, error) {
	if noDial, _ := network.GetNoDial(ctx); !noDial {
		if err := f.Connect(ctx, peer.AddrInfo{ID: id}); err != nil {
			return nil, err
		}
	}
	return f.Host.NewStream(ctx, id, protocols...)
}

// Connect connects as the host does. If there is no connection, and no known address works, it searches for the peer.
func (f *finder) Connect(ctx context.Context, info peer.AddrInfo) error {
	err := f.connect(ctx, info)
	if err == nil && f.file != nil {
		f.file.remember(f.Network().ConnsToPeer(info.ID))
	}
	return err
}

func (f *finder) connect(ctx context.Context, info peer.AddrInfo) error {
	if f.Network().Connectedness(info.ID) != network.NotConnected || info.ID == f.ID() {
		return f.Host.Connect(ctx, info)
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &dialing{finder: f, ctx: ctx, id: info.ID, tried: f.Peerstore().Addrs(info.ID), done: make(chan error, maxFoundAddrs+1)}
	defer d.end(cancel)
	for _, a := range info.Addrs {
		d.add(a)
	}
	later := time.NewTimer(searchAfter)
	defer later.Stop()
	if len(d.tried) > 0 {
		d.dial(info.Addrs)
	}
	return d.run(later.C)
}

// FindPeer searches for a peer although addresses of it are known, until the search is over or ctx ends. Each address that is found is dialed by
// dials of the peer that begin from then on. FindPeer returns all of them. If there are none, the error is why.
func (f *finder) FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	s := f.join(id)
	defer f.leave(s)
	for {
		found, changed, err := s.state()
		f.Peerstore().AddAddrs(id, found, peerstore.TempAddrTTL)
		if err == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if len(found) == 0 {
			return peer.AddrInfo{}, err
		}
		return peer.AddrInfo{ID: id, Addrs: found}, nil
	}
}

// A dialing is one call of finder.Connect.
type dialing struct {
	*finder

	ctx    context.Context
	id     peer.ID
	tried  []ma.Multiaddr
	done   chan error // results of Host.Connect
	open   int        // outstanding results
	search *search
	err    error // of the last dial
}

// end cancels the dials in progress and waits for them.
func (d *dialing) end(cancel context.CancelFunc) {
	cancel()
	for ; d.open > 0; d.open-- {
		d.err = <-d.done // nobody reads it any more
	}
	if d.search != nil {
		d.leave(d.search)
	}
}

// add remembers an address, and reports whether it is new.
func (d *dialing) add(a ma.Multiaddr) bool {
	if ma.Contains(d.tried, a) {
		return false
	}
	d.tried = append(d.tried, a)
	return true
}

// dial dials addresses of the peer, together with those in the peerstore. libp2p joins parallel dials of one peer.
func (d *dialing) dial(addrs []ma.Multiaddr) {
	d.open++
	go func() { d.done <- d.Host.Connect(d.ctx, peer.AddrInfo{ID: d.id, Addrs: addrs}) }() // end waits for it
}

// run returns nil once a dial has succeeded, or an error when all dials have failed and the search is over.
func (d *dialing) run(later <-chan time.Time) error {
	for {
		if d.open == 0 && d.search == nil {
			d.search = d.join(d.id)
		}
		var changed <-chan struct{}
		if d.search != nil {
			found, next, err := d.search.state()
			if found = slices.DeleteFunc(found, func(a ma.Multiaddr) bool { return !d.add(a) }); len(found) > 0 {
				d.dial(found)
			}
			if changed = next; err != nil && d.open == 0 {
				return d.failed(err)
			}
		}
		select {
		case err := <-d.done:
			if d.open--; err == nil {
				return nil
			}
			d.err = err
		case <-changed:
		case <-later:
			if d.search == nil {
				d.search = d.join(d.id)
			}
		case <-d.ctx.Done():
			if d.open == 0 {
				return d.failed(d.ctx.Err())
			}
			d.open--
			return <-d.done // libp2p's error names the step
		}
	}
}

// failed returns the error of a Connect whose search ended with err.
func (d *dialing) failed(err error) error {
	if d.err != nil {
		return d.err
	}
	return fmt.Errorf("node: no address of %s is known, and none was found: %w", d.id, err)
}

// A search asks all discoveries for one peer, on behalf of all callers.
type search struct {
	cancel context.CancelFunc
	users  int // guarded by finder.mu

	mu      sync.Mutex
	found   []ma.Multiaddr
	err     error         // not nil once it is over
	changed chan struct{} // closed at the next change; nil once the search is over
}

// state returns the addresses found so far, and a channel that is closed on the next change, or an error once the search is over.
func (s *search) state() (found []ma.Multiaddr, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.found), s.changed, s.err
}

// join returns the running search for a peer, or starts one. The caller must call leave.
func (f *finder) join(id peer.ID) *search {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.searches[id]
	if s != nil && s.users > 0 {
		s.users++
		return s
	}
	s = &search{users: 1, changed: make(chan struct{})}
	if f.closed {
		s.err, s.changed, s.cancel = errClosed, nil, func() {}
		return s
	}
	ctx, cancel := context.WithTimeout(f.ctx, searchTime)
	s.cancel = cancel
	f.searches[id] = s
	f.running.Go(func() {
		defer cancel()
		s.run(ctx, f, id)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.searches[id] == s {
			delete(f.searches, id)
		}
	})
	return s
}

var errClosed = errors.New("node: the host is closed")

// leave ends a search that has no other users.
func (f *finder) leave(s *search) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.users--; s.users == 0 {
		s.cancel()
	}
}

// run asks all discoveries. It ends when all have answered and an address that was found is not of a local network, or when ctx ends.
func (s *search) run(ctx context.Context, f *finder, id peer.ID) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		s.end(ctx.Err())
		return
	}
	var asked sync.WaitGroup
	errs := make([]error, len(f.kinds))
	for i, d := range f.kinds {
		asked.Go(func() {
			errs[i] = s.ask(ctx, f, d, id)
			for wait := askAgain; errs[i] == nil && !isLocalOnly(d) && s.isLocal(); wait = min(2*wait, askAgainLast) {
				if pause.For(ctx, wait) != nil {
					return
				}
				_ = s.ask(ctx, f, d, id) // the first answer stands
			}
		})
	}
	asked.Wait()
	var all error
	for _, err := range errs {
		switch {
		case all == nil:
			all = err
		case err != nil:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	s.end(cmp.Or(all, routing.ErrNotFound)) // ErrNotFound: no more addresses
}

// ask asks one discovery.
func (s *search) ask(ctx context.Context, f *finder, d Discovery, id peer.ID) error {
	info, err := d.FindPeer(ctx, id)
	if err == nil && (info.ID != id || !s.add(id, info.Addrs)) {
		err = routing.ErrNotFound
	}
	if err == nil {
		f.origins.Note(nameOf(d), id, info.Addrs...)
	}
	return err
}

// nameOf returns what people call a discovery: the package of its type.
func nameOf(d Discovery) string {
	if _, ok := d.(*addrFile); ok {
		return "address file"
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(fmt.Sprintf("%T", d), "*"), ".")
	return name
}

// isLocalOnly reports whether a discovery finds addresses that are of use in this host's network, or none.
func isLocalOnly(d Discovery) bool {
	l, ok := d.(interface{ LocalOnly() bool })
	return ok && l.LocalOnly()
}

// isLocal reports whether all addresses found so far are of local networks.
func (s *search) isLocal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.found, func(a ma.Multiaddr) bool { return !manet.IsPrivateAddr(a) })
}

// add adds the addresses that a discovery found, and reports whether any of them can be dialed.
func (s *search) add(id peer.ID, addrs []ma.Multiaddr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	usable := false
	for _, a := range addrs {
		at, of := peer.SplitAddr(a)
		if len(at) == 0 || of != "" && of != id || len(at.Bytes()) > maxAddrLen || manet.IsIPUnspecified(at) {
			continue
		}
		usable = true
		if len(s.found) < maxFoundAddrs && !ma.Contains(s.found, at) {
			s.found = append(s.found, at)
		}
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return usable
}

func (s *search) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	close(s.changed)
	s.changed = nil
}
