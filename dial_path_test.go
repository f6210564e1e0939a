package peerlane

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// atOnce is how long a refusal may take that needs nothing but a look. On an idle machine it takes a few milliseconds.
const atOnce = 500 * time.Millisecond

// Row: F7. A plain libp2p NewStream waits for its whole ctx here.
// Claim: peerlane.ErrRelayOnly
func TestARelayOnlyPeerIsRefusedAtOnce(t *testing.T) {
	for _, policy := range []PathPolicy{PathAuto, DirectOnly} {
		for name, connected := range map[string]bool{"connected": true, "addresses only": false} {
			t.Run(policy.String()+" "+name, func(t *testing.T) {
				a, b := testnet.Pair(t, testnet.LimitedRelay)
				mustListen(t, b, testTag, ListenConfig{})
				if connected {
					ctx := network.WithAllowLimitedConn(testContext(t), "test")
					require.NoError(t, a.Connect(ctx, peer.AddrInfo{ID: b.ID()}))
				}
				d := Dialer{Host: a, Tag: testTag, Path: policy}
				var err error
				fastest := time.Hour
				for range 3 { // one of three, for a busy machine; whoever waits, waits each time
					started := time.Now()
					_, err = d.Dial(testContext(t), b.ID())
					fastest = min(fastest, time.Since(started))
				}
				require.Less(t, fastest, atOnce)
				requireDialError(t, err, a, b.ID())
				require.ErrorIs(t, err, ErrRelayOnly)
				require.ErrorContains(t, err, "Dialer.Path is "+policy.String())
				require.ErrorContains(t, err, "AllowRelay")
				if connected {
					require.ErrorContains(t, err, "limited to 131072 bytes each way and 2m0s")
				}
				requireNoStreams(t, testTag, a, b)
			})
		}
	}
}

// Row: C2. A relay that cuts is used only by who asked for it.
// Claim: peerlane.Dialer.Path
func TestPathPoliciesOverARelay(t *testing.T) {
	for _, tr := range []testnet.Transport{testnet.Relay, testnet.LimitedRelay} {
		a, b := testnet.Pair(t, tr)
		mustListen(t, b, testTag, ListenConfig{})
		for policy, taken := range map[PathPolicy]bool{
			PathAuto: tr == testnet.Relay, DirectOnly: false, PreferDirect: true, AllowRelay: true,
		} {
			d := Dialer{Host: a, Tag: testTag, Path: policy}
			c, err := d.Dial(testContext(t), b.ID())
			if !taken {
				require.ErrorIs(t, err, ErrRelayOnly, "%s %v", tr, policy)
				continue
			}
			require.NoError(t, err, "%s %v", tr, policy)
			require.True(t, c.Path().Relayed)
			require.Equal(t, tr == testnet.LimitedRelay, c.Path().Limited)
			require.NoError(t, c.Close())
		}
	}
}

// relayedAndDirect returns a host that is connected to b over a limited relay only, while it knows a direct address.
func relayedAndDirect(t *testing.T) (a, b host.Host) {
	t.Helper()
	a, b = testnet.Host(t, testnet.LimitedRelay), testnet.Host(t, testnet.LimitedRelay)
	circuit := testnet.NewRelay(t, testnet.LimitedRelay).Reserve(b)
	ctx := network.WithAllowLimitedConn(testContext(t), "test")
	require.NoError(t, a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: circuit}))
	require.NoError(t, b.Network().Listen(ma.StringCast("/ip4/127.0.0.1/tcp/0")))
	peerlanetest.Teach(a, b.ID(), b.Network().ListenAddresses()...)
	return a, b
}

func TestADirectAddressIsDialedThoughARelayIsConnected(t *testing.T) {
	for _, policy := range []PathPolicy{PathAuto, DirectOnly, PreferDirect} {
		t.Run(policy.String(), func(t *testing.T) {
			a, b := relayedAndDirect(t)
			mustListen(t, b, testTag, ListenConfig{})
			d := Dialer{Host: a, Tag: testTag, Path: policy}
			c, err := d.Dial(testContext(t), b.ID())
			require.NoError(t, err)
			require.Equal(t, Path{Transport: "tcp"}, c.Path())
			require.NoError(t, c.Close())
		})
	}
	t.Run("AllowRelay", func(t *testing.T) {
		a, b := relayedAndDirect(t)
		mustListen(t, b, testTag, ListenConfig{})
		c, err := (&Dialer{Host: a, Tag: testTag, Path: AllowRelay}).Dial(testContext(t), b.ID())
		require.NoError(t, err)
		require.True(t, c.Path().Limited)
		require.NoError(t, c.Close())
	})
}

// claimHolePunching makes both hosts look as if they could punch holes; nothing does, so that the test decides.
func claimHolePunching(t *testing.T, a, b host.Host) {
	t.Helper()
	a.SetStreamHandler(holepunch.Protocol, func(s network.Stream) { _ = s.Reset() })
	require.NoError(t, a.Peerstore().AddProtocols(b.ID(), holepunch.Protocol))
}

// Claim: peerlane.Dialer.DirectWait
func TestDirectWaitBoundsTheWaitForAHolePunch(t *testing.T) {
	t.Parallel() // it waits for real
	for policy, taken := range map[PathPolicy]bool{PathAuto: false, PreferDirect: true} {
		t.Run(policy.String(), func(t *testing.T) {
			a, b := testnet.Pair(t, testnet.LimitedRelay)
			mustListen(t, b, testTag, ListenConfig{})
			ctx := network.WithAllowLimitedConn(testContext(t), "test")
			require.NoError(t, a.Connect(ctx, peer.AddrInfo{ID: b.ID()}))
			claimHolePunching(t, a, b)
			const wait = 100 * time.Millisecond
			d := Dialer{Host: a, Tag: testTag, Path: policy, DirectWait: wait}
			started := time.Now()
			c, err := d.Dial(testContext(t), b.ID())
			require.GreaterOrEqual(t, time.Since(started), wait)
			if !taken {
				require.ErrorIs(t, err, ErrRelayOnly)
				return
			}
			require.NoError(t, err)
			require.True(t, c.Path().Limited)
			require.NoError(t, c.Close())
		})
	}
}

func TestADirectConnectionThatComesMeanwhileIsTaken(t *testing.T) {
	for _, policy := range []PathPolicy{PathAuto, PreferDirect} {
		t.Run(policy.String(), func(t *testing.T) {
			a, b := testnet.Pair(t, testnet.LimitedRelay)
			mustListen(t, b, testTag, ListenConfig{})
			ctx := network.WithAllowLimitedConn(testContext(t), "test")
			require.NoError(t, a.Connect(ctx, peer.AddrInfo{ID: b.ID()}))
			claimHolePunching(t, a, b)
			require.NoError(t, a.Network().Listen(ma.StringCast("/ip4/127.0.0.1/tcp/0")))
			direct := peer.AddrInfo{ID: a.ID(), Addrs: a.Network().ListenAddresses()}

			dialed := make(chan *Conn, 1)
			errs := make(chan error, 1)
			go func() {
				d := Dialer{Host: a, Tag: testTag, Path: policy, DirectWait: patience}
				c, err := d.Dial(testContext(t), b.ID())
				dialed <- c
				errs <- err
			}()
			waitBlocked(t, "(*Dialer).awaitDirect", 1)
			require.NoError(t, b.Connect(network.WithForceDirectDial(testContext(t), "test"), direct))
			require.NoError(t, within(t, patience, "Dial", func() error { return <-errs }))
			c := <-dialed
			require.Equal(t, Path{Transport: "tcp"}, c.Path())
			require.NoError(t, c.Close())
		})
	}
}

func TestDialReturnsWhenItsContextEndsInTheWaitForADirectConnection(t *testing.T) {
	a, b := testnet.Pair(t, testnet.LimitedRelay)
	actx := network.WithAllowLimitedConn(testContext(t), "test")
	require.NoError(t, a.Connect(actx, peer.AddrInfo{ID: b.ID()}))
	claimHolePunching(t, a, b)
	ctx, cancel := context.WithCancel(testContext(t))
	errs := make(chan error, 1)
	go func() { _, err := Dial(ctx, a, b.ID(), testTag); errs <- err }()
	waitBlocked(t, "(*Dialer).awaitDirect", 1)
	cancel()
	err := within(t, time.Second, "Dial", func() error { return <-errs })
	require.ErrorIs(t, err, context.Canceled)
	requireDialError(t, err, a, b.ID())
}

// Claim: peerlane.Dialer.MinRelayData
func TestMinRelayDataRefusesARelayWithASmallerLimit(t *testing.T) {
	a, b := testnet.Pair(t, testnet.LimitedRelay)
	mustListen(t, b, testTag, ListenConfig{})
	for _, policy := range []PathPolicy{PreferDirect, AllowRelay} {
		d := Dialer{Host: a, Tag: testTag, Path: policy, MinRelayData: 128<<10 + 1}
		_, err := d.Dial(testContext(t), b.ID())
		require.ErrorIs(t, err, ErrRelayOnly)
		require.ErrorContains(t, err, "Dialer.MinRelayData is 131073")
		requireNoStreams(t, "", a)

		d.MinRelayData = 128 << 10
		c, err := d.Dial(testContext(t), b.ID())
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
}

func TestDirectOnlyToAPeerWithoutAnyAddressIsUnreachable(t *testing.T) {
	a := testHost(t)
	d := Dialer{Host: a, Tag: testTag, Path: DirectOnly}
	_, err := d.Dial(testContext(t), decodePeer(t, somePeer))
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorIs(t, err, swarm.ErrNoAddresses)
	require.NotErrorIs(t, err, ErrRelayOnly)
}

func TestAHolePunchNeedsBothSides(t *testing.T) {
	public := libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr {
		return []ma.Multiaddr{ma.StringCast("/ip4/1.2.3.4/tcp/4001")}
	})
	for name, test := range map[string]struct {
		remote []protocol.ID
		local  bool
		opts   []libp2p.Option
		want   bool
	}{
		"a peer not identified yet":          {want: true},
		"a peer without DCUtR":               {remote: []protocol.ID{"/x"}, local: true},
		"neither DCUtR nor a public address": {remote: []protocol.ID{holepunch.Protocol}},
		"both with DCUtR":                    {remote: []protocol.ID{holepunch.Protocol}, local: true, want: true},
		"a public address here":              {remote: []protocol.ID{holepunch.Protocol}, opts: []libp2p.Option{public}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			h := testnet.Host(t, testnet.TCPTLS, test.opts...)
			pid := decodePeer(t, somePeer)
			require.NoError(t, h.Peerstore().AddProtocols(pid, test.remote...))
			if test.local {
				h.SetStreamHandler(holepunch.Protocol, func(s network.Stream) { _ = s.Reset() })
			}
			d := Dialer{Host: h}
			require.Equal(t, test.want, d.canPunch(pid))
		})
	}
}

func TestPathPoliciesHaveNames(t *testing.T) {
	for want, p := range map[string]PathPolicy{
		"PathAuto": PathAuto, "DirectOnly": DirectOnly, "PreferDirect": PreferDirect, "AllowRelay": AllowRelay,
		"PathPolicy(9)": 9,
	} {
		require.Equal(t, want, p.String())
	}
}

// closeFirst makes h close the first n connections to pid as soon as they are made; it returns how many that were.
func closeFirst(t *testing.T, h host.Host, pid peer.ID, n int32) *atomic.Int32 {
	t.Helper()
	var closed atomic.Int32
	gate := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == pid && !pathOf(c).Relayed && closed.Add(1) <= n {
			_ = c.Close()
		}
	}}
	h.Network().Notify(gate)
	t.Cleanup(func() { h.Network().StopNotify(gate) })
	return &closed
}

// A connection that dies right after dialing, where there is no relay, leaves a peer unreachable and not "relay only": it is
// dialed again, and Send tries again.
func TestAConnectionThatDiesAtOnceIsDialedAgain(t *testing.T) {
	t.Parallel() // it waits for real
	const always = 1 << 20
	for _, policy := range []PathPolicy{PathAuto, DirectOnly, PreferDirect, AllowRelay} {
		for _, tr := range muxes {
			t.Run(fmt.Sprint(policy, tr), func(t *testing.T) {
				a, b := testnet.Pair(t, tr)
				mustListen(t, b, testTag, ListenConfig{})
				require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
				d := Dialer{Host: a, Tag: testTag, Path: policy}
				closeFirst(t, a, b.ID(), maxOpens-2)
				c, err := d.Dial(testContext(t), b.ID())
				require.NoError(t, err)
				require.NoError(t, c.Close())
				require.NoError(t, a.Network().ClosePeer(b.ID()))

				closed := closeFirst(t, a, b.ID(), maxOpens)
				client := newClient(t, a, &ClientConfig{Path: policy, MaxRetries: 1, RetryInterval: time.Millisecond})
				_, err = client.Send(testContext(t), b.ID(), callTag, nil)
				require.NoError(t, err)
				require.Greater(t, closed.Load(), int32(maxOpens))
				require.NoError(t, client.Close()) // it would dial too
				require.NoError(t, a.Network().ClosePeer(b.ID()))

				closeFirst(t, a, b.ID(), always)
				_, err = d.Dial(testContext(t), b.ID())
				requireDialError(t, err, a, b.ID())
				require.ErrorIs(t, err, ErrUnreachable)
				require.NotErrorIs(t, err, ErrRelayOnly)
				requireTyped(t, err, session.NotSent)
			})
		}
	}
}

// The same beside a relay that lives on: the direct connection is dialed again before the relay is said to be all there is.
func TestADirectConnectionThatDiesAtOnceIsDialedAgainBesideARelay(t *testing.T) {
	for _, policy := range []PathPolicy{PathAuto, DirectOnly} {
		t.Run(policy.String(), func(t *testing.T) {
			a, b := relayedAndDirect(t)
			mustListen(t, b, testTag, ListenConfig{})
			closeFirst(t, a, b.ID(), maxOpens-2)
			d := Dialer{Host: a, Tag: testTag, Path: policy}
			c, err := d.Dial(testContext(t), b.ID())
			require.NoError(t, err)
			require.False(t, c.Path().Relayed)
			require.NoError(t, c.Close())
		})
	}
}

// A QUIC connection carries 256 streams. A further conn waits for one of them to end, and says so when its time is up.
func TestAFullQUICConnectionIsNamed(t *testing.T) {
	t.Parallel()
	a, b := testnet.Pair(t, testnet.QUIC, libp2p.ResourceManager(&network.NullResourceManager{}))
	l := mustListen(t, b, testTag, ListenConfig{})
	go func() { // until l is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // until the conn ends
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	d := &Dialer{Host: a, Tag: l.tag, Timeout: patience}
	var conns []net.Conn
	for len(conns) < quicStreams-1 { // identify may have one
		c, err := d.Dial(testContext(t), b.ID())
		require.NoError(t, err, "conn %d", len(conns)+1)
		conns = append(conns, c)
	}
	d.Timeout = 2 * time.Second
	var err error
	for err == nil && len(conns) <= quicStreams {
		var c net.Conn
		if c, err = d.Dial(testContext(t), b.ID()); err == nil {
			conns = append(conns, c)
		}
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorContains(t, err, "a QUIC connection carries 256 streams at most, and 256 are open")
	d.Timeout = patience
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	c, err := d.Dial(testContext(t), b.ID())
	require.NoError(t, err)
	require.NoError(t, c.Close())
}
