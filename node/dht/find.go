package dht

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"
)

// A lookupHost is the host as libp2p's DHT has it: a lookup does not dial the peer that is looked up. It would give that dial up at once,
// because the lookup ends with the first answer, and libp2p fails a dial through a relay that begins while another one to the same peer,
// though given up, is still under way.
type lookupHost struct{ host.Host }

// Connect connects as the host does, except to the peer that is looked up.
func (h lookupHost) Connect(ctx context.Context, info peer.AddrInfo) error {
	if info.ID == ctx.Value(lookedUp{}) {
		return errLookedUp
	}
	return h.Host.Connect(ctx, info)
}

// lookedUp is the context key of the ID of the peer that is looked up.
type lookedUp struct{}

var errLookedUp = errors.New("dht: a lookup does not dial the peer")

// ErrUnknownPeer means that the DHT was reached and has no address of the peer.
var ErrUnknownPeer = errors.New("no queried server knows the peer")

// FindPeer finds a peer that has announced itself, or that was recently connected to a server of the DHT. It returns the addresses that
// arrive within a second of the first ones. If there are none, the error matches routing.ErrNotFound, and also ErrUnknownPeer, or ErrNoServer
// if the DHT cannot be reached.
func (d *Discovery) FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	if err := d.entered(ctx); err != nil {
		return peer.AddrInfo{}, err
	}
	var asked sync.WaitGroup
	defer asked.Wait()
	ctx, cancel := context.WithCancel(context.WithValue(ctx, lookedUp{}, id))
	defer cancel()
	answers := make(chan []ma.Multiaddr, 2)
	asked.Go(func() { answers <- d.contacts(ctx, id) })
	asked.Go(func() { answers <- d.announced(ctx, id) })
	info := peer.AddrInfo{ID: id}
	var late <-chan time.Time
	for range cap(answers) {
		select {
		case addrs := <-answers:
			info.Addrs = append(info.Addrs, d.options.filter()(addrs)...)
		case <-late:
			return info, nil
		}
		if late == nil && len(info.Addrs) > 0 {
			late = time.After(moreTime)
		}
	}
	switch {
	case len(info.Addrs) > 0:
		return info, nil
	case ctx.Err() != nil:
		return peer.AddrInfo{}, notFound{ctx.Err()}
	}
	return peer.AddrInfo{}, notFound{ErrUnknownPeer}
}

// contacts returns the addresses at which a server of the DHT recently saw a peer, or at which the host knows it as a server, if any.
func (d *Discovery) contacts(ctx context.Context, id peer.ID) (addrs []ma.Multiaddr) {
	var looking sync.WaitGroup
	defer looking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// libp2p's FindPeer returns when its query has ended. The query events contain the servers' answers.
	seen, events := routing.RegisterForQueryEvents(ctx)
	looking.Go(func() {
		defer cancel()
		if info, err := d.dht.FindPeer(seen, id); err == nil {
			routing.PublishQueryEvent(seen, &routing.QueryEvent{Responses: []*peer.AddrInfo{&info}})
		}
	})
	for e := range events { // closed when ctx ends
		for _, info := range e.Responses {
			if info != nil && info.ID == id && len(info.Addrs) > 0 && addrs == nil {
				addrs = info.Addrs
				cancel()
			}
		}
	}
	return addrs
}

// announced returns the addresses that a peer has announced, if any.
func (d *Discovery) announced(ctx context.Context, id peer.ID) (addrs []ma.Multiaddr) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for info := range d.dht.FindProvidersAsync(ctx, keyOf(id), 0) { // closed when ctx ends
		if info.ID == id && len(info.Addrs) > 0 && addrs == nil {
			addrs = info.Addrs
			cancel()
		}
	}
	return addrs
}
