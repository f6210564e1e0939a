package peerlane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// requireDialError checks what every error of a dial has, and returns its typed part.
func requireDialError(t *testing.T, err error, a host.Host, pid peer.ID) *Error {
	t.Helper()
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "dial", op.Op)
	require.Equal(t, Network, op.Net)
	require.Equal(t, Addr{Peer: a.ID()}, op.Source)
	require.Equal(t, Addr{Peer: pid}, op.Addr)
	var typed *Error
	require.ErrorAs(t, err, &typed)
	require.Equal(t, pid.String(), typed.Peer)
	want := session.NotSent
	if typed.Remote {
		want = session.Rejected
	}
	require.Equal(t, want, typed.Outcome)
	return typed
}

// Row: P2, D21.
// Claim: peerlane.ErrNotServed
func TestDialOfATagThatNobodyServesFailsAtOnce(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, tr testnet.Transport) {
		_, err := Dial(testContext(t), a, b.ID(), testTag)
		typed := requireDialError(t, err, a, b.ID())
		require.ErrorIs(t, err, ErrNotServed)
		require.ErrorIs(t, err, ErrNotFound)
		require.True(t, typed.Remote)
		require.Equal(t, codes.NotFound, typed.Code)
		require.Equal(t, string(testTag), typed.Link)
		requireNoStreams(t, "", a, b)
	})
}

// Row: P2.
// Claim: peerlane.ErrUnreachable
func TestDialOfAnUnreachablePeerWrapsTheCause(t *testing.T) {
	a, gone := testnet.Pair(t, testnet.TCPTLS)
	require.NoError(t, gone.Close())
	_, err := Dial(testContext(t), a, gone.ID(), testTag)
	typed := requireDialError(t, err, a, gone.ID())
	require.Equal(t, "connect", typed.Op)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)

	stranger := decodePeer(t, somePeer)
	_, err = Dial(testContext(t), a, stranger, testTag)
	requireDialError(t, err, a, stranger)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorIs(t, err, swarm.ErrNoAddresses)
}

func TestAnExplicitDialIgnoresTheDialBackoff(t *testing.T) {
	a, gone := testnet.Pair(t, testnet.TCPTLS)
	require.NoError(t, gone.Close())
	ctx := testContext(t)
	require.Error(t, a.Connect(ctx, peer.AddrInfo{ID: gone.ID()}))
	require.ErrorIs(t, a.Connect(ctx, peer.AddrInfo{ID: gone.ID()}), swarm.ErrDialBackoff)
	for range 2 {
		_, err := Dial(ctx, a, gone.ID(), testTag)
		require.NotErrorIs(t, err, swarm.ErrDialBackoff)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
}

// muteStreams makes h swallow new streams without a word; it returns them as they come.
func muteStreams(h host.Host) <-chan network.Stream {
	swallowed := make(chan network.Stream, 8)
	h.Network().SetStreamHandler(func(s network.Stream) { swallowed <- s })
	return swallowed
}

func TestDialReturnsWhenItsContextEndsInTheNegotiation(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		require.NoError(t, a.Connect(testContext(t), peer.AddrInfo{ID: b.ID()}))
		swallowed := muteStreams(b)
		ctx, cancel := context.WithCancel(testContext(t))
		errs := make(chan error, 1)
		go func() { _, err := Dial(ctx, a, b.ID(), testTag); errs <- err }()
		s := <-swallowed
		cancel()
		err := within(t, time.Second, "Dial", func() error { return <-errs })
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrUnreachable)
		typed := requireDialError(t, err, a, b.ID())
		require.Equal(t, "negotiate", typed.Op)
		requireNoStreams(t, "", a)
		require.NoError(t, s.Reset())
	})
}

func TestDialReturnsAtOnceIfItsContextIsOver(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Dial(ctx, a, b.ID(), testTag)
		require.ErrorIs(t, err, context.Canceled)
		requireDialError(t, err, a, b.ID())
		require.Zero(t, l.Stats().Pending)
	})
}

// Claim: peerlane.Dialer.Timeout
func TestDialerTimeoutBoundsTheNegotiation(t *testing.T) {
	a, b := testnet.Pair(t, testnet.QUIC)
	require.NoError(t, a.Connect(testContext(t), peer.AddrInfo{ID: b.ID()}))
	swallowed := muteStreams(b)

	d := Dialer{Host: a, Tag: testTag, Timeout: 50 * time.Millisecond}
	_, err := d.Dial(context.Background(), b.ID())
	requireDialError(t, err, a, b.ID())
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())
	require.NoError(t, (<-swallowed).Reset())

	d.Timeout = -1 // the ctx alone bounds it
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = d.Dial(ctx, b.ID())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.GreaterOrEqual(t, time.Since(started), 100*time.Millisecond)
	require.NoError(t, (<-swallowed).Reset())
}

// A peer that was restarted, or a NAT that forgot us, leaves a connection that looks alive until it is used.
func TestDialTriesAgainWhereTheConnectionProvesDead(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		mustListen(t, b, testTag, ListenConfig{})
		require.NoError(t, a.Connect(testContext(t), peer.AddrInfo{ID: b.ID()}))
		serve := b.Network().(*swarm.Swarm).StreamHandler()
		b.Network().SetStreamHandler(func(s network.Stream) {
			b.Network().SetStreamHandler(serve)
			_ = s.Conn().Close()
		})
		c, err := Dial(testContext(t), a, b.ID(), testTag)
		require.NoError(t, err)
		require.NoError(t, c.Close())
	})
}

// limited returns the option for a resource manager with libp2p's default limits but for these.
func limited(t *testing.T, limits rcmgr.PartialLimitConfig) libp2p.Option {
	t.Helper()
	config := limits.Build(rcmgr.DefaultLimits.AutoScale())
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(config))
	require.NoError(t, err)
	return libp2p.ResourceManager(m)
}

// Row: C1. The limit of the other side shows at the first Read, or in Dial already if the reset overtakes it.
// Claim: peerlane.ErrUnavailable
func TestAResourceLimitOfThePeerIsNamed(t *testing.T) {
	t.Parallel() // it waits for real
	for _, tr := range testnet.Direct() {
		t.Run(string(tr), func(t *testing.T) {
			t.Parallel()
			a := testnet.Host(t, tr)
			b := testnet.Host(t, tr, limited(t, rcmgr.PartialLimitConfig{
				ProtocolPeerDefault: rcmgr.ResourceLimits{StreamsInbound: 2},
			}))
			peerlanetest.Teach(a, b.ID(), b.Addrs()...)
			l := mustListen(t, b, testTag, ListenConfig{})
			connPair(t, a, l)
			connPair(t, a, l)
			d := Dialer{Host: a, Tag: testTag, Timeout: refusalTime} // it waits for one of the two to end
			c, err := d.Dial(testContext(t), b.ID())
			if err == nil {
				_, err = c.Read(make([]byte, 1))
				require.NoError(t, c.Close())
			}
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorContains(t, err, "resource manager")
			require.ErrorContains(t, err, "node.Options.ConnsPerPeer")
			var typed *Error
			require.ErrorAs(t, err, &typed)
			require.True(t, typed.Remote)
			require.Equal(t, session.Rejected, typed.Outcome)
			var se *network.StreamError
			require.ErrorAs(t, err, &se)
			require.Equal(t, network.StreamResourceLimitExceeded, se.ErrorCode)
		})
	}
}

func TestAResourceLimitOfThisSideIsNamed(t *testing.T) {
	t.Parallel() // it waits for real
	a := testnet.Host(t, testnet.TCPTLS, limited(t, rcmgr.PartialLimitConfig{
		ProtocolPeerDefault: rcmgr.ResourceLimits{StreamsOutbound: 1},
	}))
	b := testnet.Host(t, testnet.TCPTLS)
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	connPair(t, a, mustListen(t, b, testTag, ListenConfig{}))
	_, err := (&Dialer{Host: a, Tag: testTag, Timeout: refusalTime}).Dial(t.Context(), b.ID())
	typed := requireDialError(t, err, a, b.ID())
	require.False(t, typed.Remote)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, network.ErrResourceLimitExceeded)
	require.ErrorContains(t, err, "protocol:"+string(testTag)+".peer:", "the scope that refused is named")
}

func TestALimitThatAllowsNoStreamAtAllIsNamed(t *testing.T) {
	t.Parallel() // it waits for real
	a := testnet.Host(t, testnet.TCPTLS, limited(t, rcmgr.PartialLimitConfig{
		PeerDefault: rcmgr.ResourceLimits{StreamsOutbound: rcmgr.BlockAllLimit},
	}))
	b := testnet.Host(t, testnet.TCPTLS)
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	_, err := Dial(testContext(t), a, b.ID(), testTag)
	typed := requireDialError(t, err, a, b.ID())
	require.Equal(t, "open stream", typed.Op)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "peer:"+b.ID().String())
}

func TestAStreamThatCannotBeOpenedSaysWhy(t *testing.T) {
	ctx := t.Context()
	err := openFailed(ctx, network.ErrNoConn)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorIs(t, err, network.ErrNoConn)
	err = openFailed(ctx, &network.ConnError{ErrorCode: network.ConnShutdown, Remote: true})
	require.ErrorIs(t, err, ErrGoingAway)
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// refuseAll is a gater that lets this host dial nobody.
type refuseAll struct{}

func (refuseAll) InterceptPeerDial(peer.ID) bool               { return false }
func (refuseAll) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }
func (refuseAll) InterceptAccept(network.ConnMultiaddrs) bool  { return true }
func (refuseAll) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (refuseAll) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

func TestAGaterThatRefusesThePeerIsNamed(t *testing.T) {
	a := testnet.Host(t, testnet.TCPTLS, libp2p.ConnectionGater(refuseAll{}))
	b := testnet.Host(t, testnet.TCPTLS)
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	_, err := Dial(testContext(t), a, b.ID(), testTag)
	requireDialError(t, err, a, b.ID())
	require.ErrorIs(t, err, ErrNotAllowed)
	require.ErrorIs(t, err, swarm.ErrGaterDisallowedConnection)
}

func TestOpenTakesTheFirstTagThatIsServed(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const first, second, third protocol.ID = "/first", "/second", "/third"
		d := Dialer{Host: a}
		mustListen(t, b, third, ListenConfig{})
		for _, want := range []protocol.ID{third, second, first} {
			if want != third {
				mustListen(t, b, want, ListenConfig{})
			}
			c, tag, err := d.open(testContext(t), b.ID(), first, second, third)
			require.NoError(t, err)
			require.Equal(t, want, tag)
			require.Equal(t, want, c.Tag())
			require.NoError(t, c.Close())
		}
	})
}

// Claim: peerlane.Dialer.Host, peerlane.Dialer.Tag, peerlane.ErrInvalid
func TestDialerNamesTheInvalidField(t *testing.T) {
	h := testHost(t)
	ok := Dialer{Host: h, Tag: testTag}
	for field, change := range map[string]func(*Dialer){
		"Dialer.Host":                func(d *Dialer) { d.Host = nil },
		"Dialer.Tag":                 func(d *Dialer) { d.Tag = "" },
		"Dialer.Tag: \"a\\nb":        func(d *Dialer) { d.Tag = "a\nb" },
		"Dialer.Tag: \"na\"":         func(d *Dialer) { d.Tag = "na" },
		"Dialer.Tag: \"/multistream": func(d *Dialer) { d.Tag = multistream.ProtocolID },
		"Dialer.Tag: 1024 bytes":     func(d *Dialer) { d.Tag = protocol.ID(strings.Repeat("x", 1024)) },
		"Dialer.Path":                func(d *Dialer) { d.Path = 4 },
		"Dialer.DirectWait":          func(d *Dialer) { d.DirectWait = -1 },
		"Dialer.MinRelayData":        func(d *Dialer) { d.MinRelayData = -1 },
		"Dialer.AddrStyle":           func(d *Dialer) { d.AddrStyle = 3 },
	} {
		d := ok
		change(&d)
		_, err := d.Dial(t.Context(), h.ID())
		require.ErrorIs(t, err, ErrInvalid, field)
		require.ErrorContains(t, err, field)
	}
	_, err := ok.Dial(t.Context(), "")
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "peer:")
	_, _, err = ok.open(t.Context(), h.ID())
	require.ErrorContains(t, err, "no tag")
}

func TestAZeroDialerHasFiniteTimes(t *testing.T) {
	d := Dialer{}
	used := d.withDefaults()
	require.Equal(t, 30*time.Second, used.Timeout)
	require.Equal(t, 5*time.Second, used.DirectWait)
	require.Zero(t, d.Timeout, "the dialer of the caller stays as it is")
}

func TestATagOfTheGreatestLengthIsCarried(t *testing.T) {
	a, b := testnet.Pair(t, testnet.QUIC)
	l := mustListen(t, b, protocol.ID(strings.Repeat("x", maxTagLen)), ListenConfig{})
	connPair(t, a, l)
}

func TestDialContextTakesAnAddressAsText(t *testing.T) {
	h := testHost(t)
	mustListen(t, h, testTag, ListenConfig{})
	d := &Dialer{Host: h, Tag: testTag}
	id := h.ID().String()
	for _, netw := range []string{"tcp", "tcp4", "tcp6", "libp2p"} {
		for _, addr := range []string{id, id + ":80", peer.ToCid(h.ID()).String()} {
			c, err := d.DialContext(t.Context(), netw, addr)
			require.NoError(t, err, "%s %s", netw, addr)
			require.NoError(t, c.Close())
		}
	}
	var unknown net.UnknownNetworkError
	for _, netw := range []string{"", "udp", "unix"} {
		_, err := d.DialContext(t.Context(), netw, id)
		require.ErrorAs(t, err, &unknown, netw)
	}
	_, err := d.DialContext(t.Context(), "tcp", "localhost:80")
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, `"localhost:80"`)
	_, err = d.DialContext(t.Context(), "tcp", somePeer)
	require.ErrorIs(t, err, ErrUnreachable)
}

func TestManyDialsAtOnceAllSucceed(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const dials = 30
		l := mustListen(t, b, testTag, ListenConfig{Backlog: dials})
		errs := make(chan error, dials)
		for range dials {
			go func() {
				c, err := Dial(testContext(t), a, b.ID(), testTag)
				if err == nil {
					err = c.Close()
				}
				errs <- err
			}()
		}
		for range dials {
			require.NoError(t, <-errs)
			c, err := l.Accept()
			require.NoError(t, err)
			require.NoError(t, c.Close())
		}
		requireNoStreams(t, testTag, a, b)
	})
}

func TestAnErrorOfADialReadsLikeOneOfPackageNet(t *testing.T) {
	h := testHost(t)
	_, err := Dial(t.Context(), h, h.ID(), testTag)
	id := h.ID().String()
	require.EqualError(t, err, "dial libp2p "+id+"->"+id+`: negotiate "/peerlane-test/1.0.0" at `+id+
		": remote: not found: the peer does not serve this tag (rejected)")
	require.False(t, errors.Is(err, ErrUnreachable))
}

// libp2p closes incoming QUIC connections if 16 are waiting to be accepted. The dialers try again a moment later.
func TestManyHostsDialOneAtTheSameMoment(t *testing.T) {
	procs.Alone(t)
	const many = 200
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
		host := net.Host("11.0.0.1:4001")
		mustListen(t, host, testTag, ListenConfig{Backlog: many})
		done := make(chan error, many)
		for i := range many {
			h := net.Host(fmt.Sprintf("11.0.1.%d:4001", i+1))
			peerlanetest.Teach(h, host.ID(), host.Addrs()...)
			go func() {
				c, err := Dial(t.Context(), h, host.ID(), testTag)
				if err == nil {
					err = c.Close()
				}
				done <- err
			}()
		}
		failed := 0
		for range many {
			if err := <-done; err != nil {
				failed++
				t.Log(err)
			}
		}
		require.Zero(t, failed)
	})
}
