package peerlane

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/peerlanetest"
)

// deadRelays makes a host believe that a peer can be reached through relays that do not answer either, which libp2p tries first.
func deadRelays(t *testing.T, h host.Host, pid peer.ID) {
	t.Helper()
	for range 3 {
		id := test.RandPeerIDFatal(t)
		peerlanetest.Teach(h, pid, ma.StringCast("/ip4/10.0.0.77/udp/1/quic-v1/p2p/"+id.String()+"/p2p-circuit"))
	}
}

// dialTime opens a conn to Bob and returns how long that took.
func dialTime(t *testing.T, h *peerlanetest.Hosts, path PathPolicy) (*Conn, time.Duration) {
	t.Helper()
	began := time.Now()
	c, err := (&Dialer{Host: h.Alice, Tag: testTag, Path: path}).Dial(t.Context(), h.Bob.ID())
	require.NoError(t, err)
	return c, time.Since(began)
}

// Each dead relay costs a dial of libp2p's 5 s if it is tried before the one that answers.
func TestDeadRelaysDoNotDelayADial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: 20 * time.Millisecond})
		deadRelays(t, h.Alice, h.Bob.ID())
		require.NoError(t, h.Alice.Network().ClosePeer(h.Relay.Host().ID()))
		mustListen(t, h.Bob, testTag, ListenConfig{})
		c, took := dialTime(t, h, AllowRelay)
		require.True(t, c.Path().Relayed)
		require.Less(t, took, time.Second)
		require.NoError(t, c.Close())
	})
}

// A peer that can be dialed does not wait for its relays, dead or alive; and one whose direct addresses are dead does not wait for them.
func TestRelaysAndDirectAddressesAreDialedSideBySide(t *testing.T) {
	for _, alive := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: 20 * time.Millisecond})
			deadRelays(t, h.Alice, h.Bob.ID())
			require.NoError(t, h.Alice.Network().ClosePeer(h.Relay.Host().ID()))
			if alive {
				peerlanetest.Teach(h.Alice, h.Bob.ID(), h.Bob.Network().ListenAddresses()...)
			} else {
				peerlanetest.Teach(h.Alice, h.Bob.ID(), peerlanetest.QUICAddr("10.0.0.78:4001"))
			}
			mustListen(t, h.Bob, testTag, ListenConfig{})
			c, took := dialTime(t, h, AllowRelay)
			require.Equal(t, !alive, c.Path().Relayed)
			require.Less(t, took, time.Second)
			require.NoError(t, c.Close())
		})
	}
}

// When no relay answers, the dial fails as libp2p's would.
func TestADialThroughDeadRelaysFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		stranger := test.RandPeerIDFatal(t)
		deadRelays(t, h.Alice, stranger)
		began := time.Now()
		_, err := (&Dialer{Host: h.Alice, Tag: testTag, Path: AllowRelay}).Dial(t.Context(), stranger)
		require.ErrorIs(t, err, ErrUnreachable)
		require.Less(t, time.Since(began), 8*time.Second, "5 s for all of them together")
	})
}

// A dial that failed while the network was away does not keep relays from being dialed once it is back: libp2p waits for 5 s.
func TestARelayIsDialedAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: 20 * time.Millisecond})
		require.NoError(t, h.Alice.Network().ClosePeer(h.Relay.Host().ID()))
		mustListen(t, h.Bob, testTag, ListenConfig{})
		h.Alice.Network().(*swarm.Swarm).Backoff().AddBackoff(h.Relay.Host().ID(), h.Relay.Host().Addrs()[0])
		c, took := dialTime(t, h, AllowRelay)
		require.Less(t, took, time.Second)
		require.NoError(t, c.Close())
	})
}

// A dial through a relay that was given up is still under way at the relay. libp2p fails the next one to the same peer when that succeeds.
func TestADialAfterOneThatWasGivenUpSucceeds(t *testing.T) {
	procs.Alone(t)
	for after := 5 * time.Millisecond; after < 200*time.Millisecond; after += 10 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: 20 * time.Millisecond})
			mustListen(t, h.Bob, testTag, ListenConfig{})
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			d := &Dialer{Host: h.Alice, Tag: testTag, Path: AllowRelay}
			if c, err := d.Dial(ctx, h.Bob.ID()); err == nil {
				require.NoError(t, c.Close())
				return
			}
			c, err := d.Dial(t.Context(), h.Bob.ID())
			require.NoError(t, err, "the first was given up after %v", after)
			require.NoError(t, c.Close())
		})
	}
}
