package node

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// fakeDiscovery is a Discovery made of functions, any of which may be nil.
type fakeDiscovery struct {
	start  func(host.Host) error
	find   func(context.Context, peer.ID) (peer.AddrInfo, error)
	asked  atomic.Int32
	closed atomic.Int32
}

func (d *fakeDiscovery) Start(h host.Host) error {
	if d.start == nil {
		return nil
	}
	return d.start(h)
}

func (d *fakeDiscovery) FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	d.asked.Add(1)
	if d.find == nil {
		return peer.AddrInfo{}, routing.ErrNotFound
	}
	return d.find(ctx, id)
}

func (d *fakeDiscovery) Close() error { d.closed.Add(1); return nil }

// answering returns a discovery that answers every query with addrs, after a delay.
func answering(after time.Duration, addrs ...string) *fakeDiscovery {
	return &fakeDiscovery{find: func(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return peer.AddrInfo{}, ctx.Err()
		}
		info := peer.AddrInfo{ID: id}
		for _, a := range addrs {
			info.Addrs = append(info.Addrs, ma.StringCast(a))
		}
		return info, nil
	}}
}

const (
	addrOfA = "/ip4/11.0.0.1/udp/4001/quic-v1"
	addrOfB = "/ip4/11.0.0.2/udp/4001/quic-v1"
	nowhere = "/ip4/11.0.0.9/udp/4001/quic-v1"
)

// inFind runs f in virtual time with a host that has discoveries, and the ID of a host at addrOfB.
func inFind(t *testing.T, f func(t *testing.T, a *finder, b host.Host), kinds ...Discovery) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
		a, b := net.Host("11.0.0.1:4001"), net.Host("11.0.0.2:4001")
		found := newFinder(a, kinds)
		t.Cleanup(func() { require.NoError(t, found.close()) })
		f(t, found, b)
	})
}

// Claim: node.Options.Discovery
func TestAPeerIsFoundByItsPeerIDAlone(t *testing.T) {
	b, err := New(t.Context(), &Options{Loopback: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	b.Host().SetStreamHandler("/echo", func(s network.Stream) { _ = s.Close() })
	var on host.Host
	d := &fakeDiscovery{
		start: func(h host.Host) error { on = h; return nil },
		find:  func(context.Context, peer.ID) (peer.AddrInfo, error) { return b.Info(), nil },
	}
	a, err := New(t.Context(), &Options{NoListen: true, Discovery: []Discovery{d}})
	require.NoError(t, err)
	require.NotSame(t, a.Host(), on, "a discovery's own connections do not start a search")
	require.Equal(t, a.ID(), on.ID())
	s, err := a.Host().NewStream(t.Context(), b.ID(), "/echo")
	require.NoError(t, err)
	_, err = s.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, a.Host().Network().ClosePeer(b.ID()))
	_, err = a.Host().NewStream(network.WithNoDial(t.Context(), "test"), b.ID(), "/echo")
	require.Error(t, err)
	require.NoError(t, a.Close())
	require.EqualValues(t, 1, d.asked.Load())
	require.EqualValues(t, 1, d.closed.Load())
	require.NoError(t, a.Close())
	require.EqualValues(t, 1, d.closed.Load())
}

func TestAPeerWhoseAddressWorksIsNotSearchedFor(t *testing.T) {
	d := answering(0, nowhere)
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}))
		require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.Zero(t, d.asked.Load())
	}, d)
}

// A silent address delays the search by a second, not until libp2p gives up.
func TestAPeerThatHasMovedIsSearchedAfterASecond(t *testing.T) {
	d := answering(100*time.Millisecond, addrOfB)
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		a.Peerstore().AddAddr(b.ID(), ma.StringCast(nowhere), peerstore.PermanentAddrTTL)
		began := time.Now()
		require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.GreaterOrEqual(t, time.Since(began), searchAfter)
		require.Less(t, time.Since(began), searchAfter+time.Second)
	}, d)
}

// If an address refuses immediately, the search starts immediately.
func TestAPeerWhoseAddressRefusesIsSearchedForAtOnce(t *testing.T) {
	d := answering(0, addrOfB)
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		began := time.Now()
		refused := ma.StringCast("/ip4/11.0.0.2/tcp/1/ws") // the host has no transport for it
		require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{refused}}))
		require.Less(t, time.Since(began), searchAfter)
	}, d)
}

func TestTheFirstUsefulAnswerWins(t *testing.T) {
	other := &fakeDiscovery{find: func(context.Context, peer.ID) (peer.AddrInfo, error) {
		return peer.AddrInfo{ID: "another", Addrs: []ma.Multiaddr{ma.StringCast(addrOfB)}}, nil
	}}
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		began := time.Now()
		require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.Less(t, time.Since(began), time.Second)
	}, other, answering(0), answering(0, nowhere), answering(0, "/ip4/0.0.0.0/udp/4001/quic-v1"), answering(200*time.Millisecond, addrOfB),
		answering(time.Minute, addrOfB))
}

// Addresses of local networks may be those of another one, so the search continues, until an address of the internet is found or ctx ends.
func TestASearchThatFoundOnlyLocalAddressesContinues(t *testing.T) {
	const elsewhere = "/ip4/192.168.2.2/udp/4001/quic-v1"
	var d *fakeDiscovery
	find := func(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
		at := elsewhere
		switch n := d.asked.Load(); {
		case n == 2:
			return peer.AddrInfo{}, routing.ErrNotFound
		case n >= 4:
			at = addrOfB
		}
		return answering(0, at).find(ctx, id)
	}
	d = &fakeDiscovery{find: find}
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		began := time.Now()
		require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.Less(t, time.Since(began), 7*askAgain+time.Second, "after 1, 2 and 4 s")
		require.EqualValues(t, 4, d.asked.Load())
	}, d)

	local := answering(0, elsewhere)
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		err := a.Connect(ctx, peer.AddrInfo{ID: b.ID()})
		require.ErrorIs(t, err, swarm.ErrAllDialsFailed, "the reason is that of the last dial")
		require.ErrorContains(t, err, elsewhere)
		require.Equal(t, 20*time.Second, time.Since(began))
		require.EqualValues(t, 5, local.asked.Load(), "at once, and 1, 3, 7 and 15 s later")
		synctest.Wait()
		require.Empty(t, a.searches)

		began = time.Now()
		require.Error(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.LessOrEqual(t, time.Since(began), searchAfter+searchTime)
	}, local)
}

// The answer of a discovery in the local network ends a search, because its addresses are of use there.
func TestASearchInTheLocalNetworkEndsWithItsAnswer(t *testing.T) {
	d := &localDiscovery{answering(0, "/ip4/192.168.2.2/udp/4001/quic-v1")}
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		began := time.Now()
		require.Error(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.Less(t, time.Since(began), searchTime/2, "until the dial fails")
		require.EqualValues(t, 1, d.asked.Load())
	}, d)
}

type localDiscovery struct{ *fakeDiscovery }

func (localDiscovery) LocalOnly() bool { return true }

// After a search whose address did not work, the next one asks again.
func TestAnAddressThatFailedIsNoAnswerToTheNextSearch(t *testing.T) {
	d := &fakeDiscovery{}
	d.find = func(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
		return answering(0, []string{nowhere, addrOfB}[d.asked.Load()-1]).find(ctx, id)
	}
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		require.Error(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		began := time.Now()
		require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.Less(t, time.Since(began), searchAfter+time.Second)
	}, d)
}

// Once an address of the internet was found, no discovery is asked again, except one that waits to be.
func TestASearchThatFoundAnAddressOfTheInternetEnds(t *testing.T) {
	near, far := answering(0, "/ip4/192.168.2.2/udp/4001/quic-v1"), answering(askAgain/2, nowhere)
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		began := time.Now()
		require.Error(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.Less(t, time.Since(began), 10*time.Second, "until the dials fail")
		require.EqualValues(t, 1, far.asked.Load())
		require.LessOrEqual(t, near.asked.Load(), int32(2))
	}, near, far)
}

// A host with discoveries is asked for a peer as a discovery is. Dials of the peer that begin meanwhile share the search, and its addresses.
func TestAHostSearchesWithoutADial(t *testing.T) {
	d := answering(3*time.Second, addrOfB)
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := a.FindPeer(ctx, b.ID())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		synctest.Wait()

		found := make(chan peer.AddrInfo, 1)
		go func() {
			info, err := a.FindPeer(t.Context(), b.ID())
			require.NoError(t, err)
			found <- info
		}()
		for range 2 {
			short, cancel := context.WithTimeout(t.Context(), time.Second)
			require.Error(t, a.Connect(short, peer.AddrInfo{ID: b.ID()}))
			cancel()
		}
		info := <-found
		require.Equal(t, []ma.Multiaddr{ma.StringCast(addrOfB)}, info.Addrs)
		require.EqualValues(t, 2, d.asked.Load())
		require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		require.EqualValues(t, 2, d.asked.Load(), "the address is known")
	}, d)
}

// An answer is only a candidate: a host with another key does not pass for the peer.
func TestAnAnswerMustLeadToThePeer(t *testing.T) {
	inFind(t, func(t *testing.T, a *finder, _ host.Host) {
		id := newPeerID(t)
		require.ErrorContains(t, a.Connect(t.Context(), peer.AddrInfo{ID: id}), "peer id mismatch")
	}, answering(0, addrOfB))
}

func TestAnUnknownPeerIsNotFound(t *testing.T) {
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()})
		require.ErrorIs(t, err, routing.ErrNotFound)
		require.ErrorContains(t, err, "no address of "+b.ID().String()+" is known, and none was found")
		require.ErrorContains(t, err, routing.ErrNotFound.Error()+"; "+routing.ErrNotFound.Error())
		_, err = a.NewStream(t.Context(), b.ID(), "/echo")
		require.ErrorIs(t, err, routing.ErrNotFound)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a.Peerstore().AddAddr(b.ID(), ma.StringCast(nowhere), peerstore.PermanentAddrTTL)
		err = a.Connect(ctx, peer.AddrInfo{ID: b.ID()})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Error(t, a.Connect(t.Context(), peer.AddrInfo{ID: a.ID()}), "a host cannot dial itself")
	}, &fakeDiscovery{}, answering(0))
}

// Parallel dials of one peer share one query to each discovery. The number of parallel searches for different peers is bounded.
func TestSearchesAreSharedAndBounded(t *testing.T) {
	const peers, each = 2 * maxSearches, 3
	d := &fakeDiscovery{find: func(ctx context.Context, _ peer.ID) (peer.AddrInfo, error) {
		<-ctx.Done()
		return peer.AddrInfo{}, ctx.Err()
	}}
	inFind(t, func(t *testing.T, a *finder, _ host.Host) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, peers*each)
		for range peers {
			id := newPeerID(t)
			for range each {
				go func() { done <- a.Connect(ctx, peer.AddrInfo{ID: id}) }()
			}
		}
		synctest.Wait()
		require.EqualValues(t, maxSearches, d.asked.Load())
		cancel()
		for range peers * each {
			require.ErrorIs(t, <-done, context.Canceled)
		}
		synctest.Wait()
		require.Empty(t, a.searches)
	}, d)
}

func TestASearchEndsAfterHalfAMinute(t *testing.T) {
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		began := time.Now()
		require.ErrorIs(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}), context.DeadlineExceeded)
		require.Equal(t, searchTime, time.Since(began))
	}, answering(time.Hour, addrOfB))
}

func TestCloseEndsSearches(t *testing.T) {
	inFind(t, func(t *testing.T, a *finder, b host.Host) {
		done := make(chan error)
		go func() { done <- a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}) }()
		synctest.Wait()
		require.NoError(t, a.close())
		require.ErrorIs(t, <-done, context.Canceled)
		require.ErrorIs(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID()}), errClosed)
	}, answering(time.Hour, addrOfB))
}

func TestADiscoveryThatCannotStartIsAnErrorOfNew(t *testing.T) {
	cannot := errors.New("cannot")
	first, second, third := &fakeDiscovery{}, &fakeDiscovery{start: func(host.Host) error { return cannot }}, &fakeDiscovery{}
	_, err := New(t.Context(), &Options{NoListen: true, Discovery: []Discovery{first, second, third}})
	require.ErrorIs(t, err, cannot)
	require.EqualValues(t, 1, first.closed.Load())
	require.Zero(t, second.closed.Load(), "it may belong to another host")
	require.Zero(t, third.closed.Load())
}

// Claim: node.Options.Peers
func TestThePeersOfTheOptionsAreKnown(t *testing.T) {
	n, err := New(t.Context(), &Options{NoListen: true, Peers: []string{addrOfA + "/p2p/" + testPeer}})
	require.NoError(t, err)
	id, err := peer.Decode(testPeer)
	require.NoError(t, err)
	require.Equal(t, []ma.Multiaddr{ma.StringCast(addrOfA)}, n.Host().Peerstore().Addrs(id))
	require.NoError(t, n.Close())
}

// newPeerID returns the ID of a peer that does not exist.
func newPeerID(t *testing.T) peer.ID {
	t.Helper()
	key, err := newKey()
	require.NoError(t, err)
	id, err := peer.IDFromPrivateKey(key)
	require.NoError(t, err)
	return id
}
