package peerlane

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// quicDialTime is how long QUIC itself waits for an address that does not answer.
const quicDialTime = 5 * time.Second

// blackHoles teaches h addresses of a peer, with low ports, that swallow what they are sent.
func blackHoles(h host.Host, pid peer.ID, prefix string, n int) {
	for i := range n {
		peerlanetest.Teach(h, pid, peerlanetest.QUICAddr(fmt.Sprintf("%s%d:%d", prefix, i+1, 1000+i)))
	}
}

// closeConns ends all connections of h.
func closeConns(h host.Host) {
	for _, c := range h.Network().Conns() {
		_ = c.Close()
	}
}

// timed returns how long f takes.
func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// Nine black holes beside one good address cost one round of libp2p's dialing once, then nothing: it dials eight addresses at
// a time, the lowest ports first.
func TestBlackHolesCostOneRoundOnce(t *testing.T) {
	procs.Alone(t)
	for name, prefix := range map[string]string{"private": "10.1.0.", "public": "1.2.3."} {
		for _, policy := range []PathPolicy{PathAuto, DirectOnly, PreferDirect, AllowRelay} {
			t.Run(fmt.Sprint(name, policy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					sim := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 10 * time.Millisecond})
					a, b := sim.Host(prefix+"100:9000"), sim.Host(prefix+"200:9000")
					peerlanetest.Teach(a, b.ID(), b.Addrs()...)
					blackHoles(a, b.ID(), prefix, 9)
					require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
					c := newClient(t, a, &ClientConfig{Path: policy})
					send := func() {
						_, err := c.Send(t.Context(), b.ID(), callTag, nil)
						require.NoError(t, err)
					}
					first := timed(send)
					require.GreaterOrEqual(t, first, quicDialTime)
					require.Less(t, first, quicDialTime+2*time.Second)
					for range 3 {
						closeConns(a)
						require.Less(t, timed(send), time.Second)
					}
				})
			})
		}
	}
}

// The address that worked is dead, and the peer is at another one, which has its turn as if nothing had been known.
func TestAHeadStartIsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const prefix = "10.1.0."
		sim := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 10 * time.Millisecond})
		key, pid := newIdentity(t)
		a, b := sim.Host(prefix+"100:9000"), sim.Host(prefix+"200:9000", libp2p.Identity(key))
		peerlanetest.Teach(a, pid, b.Addrs()...)
		require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
		c := newClient(t, a, &ClientConfig{ResumeWindow: -1, MaxRetries: 3})
		_, err := c.Send(t.Context(), pid, callTag, nil)
		require.NoError(t, err)
		require.NoError(t, b.Close())
		closeConns(a)
		synctest.Wait() // the session is lost
		b = sim.Host(prefix+"201:9001", libp2p.Identity(key))
		require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
		blackHoles(a, pid, prefix, 9)
		peerlanetest.Teach(a, pid, b.Addrs()...)
		took := timed(func() {
			_, err = c.Send(t.Context(), pid, callTag, nil)
			require.NoError(t, err)
		})
		require.Less(t, took, quicDialTime+2*time.Second)
	})
}

// ConnectTimeout counts from the last progress: behind a round of black holes the next addresses have theirs.
func TestConnectTimeoutIsOfProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const prefix = "10.1.0."
		sim := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 10 * time.Millisecond})
		a, b := sim.Host(prefix+"100:9000"), sim.Host(prefix+"200:9000")
		require.NoError(t, newServer(t, b, &ServerConfig{AdmitAll: true}).Listen(callTag))
		c := newClient(t, a, &ClientConfig{AdmitAll: true, ConnectTimeout: time.Second})
		_, absent := newIdentity(t)
		connect := func(pid peer.ID) (err error) {
			_, err = c.Connect(t.Context(), pid, callTag)
			return err
		}
		for n, want := range map[int]time.Duration{1: time.Second, 8: time.Second, 9: quicDialTime + time.Second} {
			a.Peerstore().ClearAddrs(absent)
			blackHoles(a, absent, prefix, n)
			took := timed(func() {
				err := connect(absent)
				require.ErrorIs(t, err, ErrUnreachable)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
			require.Equal(t, want, took, "%d addresses", n)
		}
		peerlanetest.Teach(a, b.ID(), b.Addrs()...)
		blackHoles(a, b.ID(), prefix, 20) // two rounds, and a third with the good one
		require.Less(t, timed(func() { require.NoError(t, connect(b.ID())) }), 2*quicDialTime+2*time.Second)
	})
}

// A connection that is made is progress: each of its steps has ConnectTimeout.
func TestConnectTimeoutIsOfEachStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 400 * time.Millisecond})
		a, b := sim.Host("10.1.0.100:9000"), sim.Host("10.1.0.200:9000")
		peerlanetest.Teach(a, b.ID(), b.Addrs()...)
		require.NoError(t, newServer(t, b, &ServerConfig{AdmitAll: true, ConnectTimeout: 10 * time.Second}).Listen(callTag))
		c := newClient(t, a, &ClientConfig{AdmitAll: true, ConnectTimeout: time.Second})
		took := timed(func() {
			_, err := c.Connect(t.Context(), b.ID(), callTag)
			require.NoError(t, err)
		})
		require.Greater(t, took, 2*time.Second)
	})
}

// The tries of a Send share one bound: ConnectTimeout for each of them, of which one dial may use all.
func TestRetriesShareOneBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const prefix = "10.1.0."
		sim := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 10 * time.Millisecond})
		a := sim.Host(prefix + "100:9000")
		_, absent := newIdentity(t)
		blackHoles(a, absent, prefix, 1)
		for retries, most := range map[int]time.Duration{0: time.Second, 2: 3 * time.Second} {
			c := newClient(t, a, &ClientConfig{MaxRetries: retries, ConnectTimeout: time.Second})
			took := timed(func() {
				_, err := c.Send(t.Context(), absent, callTag, nil)
				require.ErrorIs(t, err, ErrUnreachable)
				requireTyped(t, err, session.NotSent)
			})
			require.Equal(t, most, took, "%d retries", retries)
		}
		blackHoles(a, absent, prefix, 9)
		c := newClient(t, a, nil)
		took := timed(func() {
			_, err := c.Send(t.Context(), absent, callTag, nil)
			require.ErrorIs(t, err, ErrUnreachable)
		})
		pauses := 3 * c.cfg.RetryInterval // the first two, at their longest
		require.LessOrEqual(t, took, 4*c.cfg.ConnectTimeout+quicDialTime+pauses)
	})
}

// How much longer a caller waits is reckoned by the peer's addresses that can be dialed, and by libp2p's bounds.
func TestProgressCountsRounds(t *testing.T) {
	a, _ := testnet.Pair(t, testnet.TCPTLS)
	c := newClient(t, a, nil)
	_, absent := newIdentity(t)
	const left = time.Hour
	more := func() time.Duration {
		return c.pool.progress(absent, time.Now(), left).Round(time.Second) - left
	}
	teach := func(format string, from, to int) {
		for i := from; i < to; i++ {
			a.Peerstore().AddAddr(absent, ma.StringCast(fmt.Sprintf(format, i)), peerstore.PermanentAddrTTL)
		}
	}
	require.Zero(t, more(), "no address")
	teach("/ip4/10.0.0.1/tcp/%d", 1, 9)
	teach("/ip4/10.0.0.1/udp/%d/quic-v1", 1, 9) // for which a has no transport
	require.Zero(t, more(), "eight addresses")
	teach("/ip4/10.0.0.1/tcp/%d", 9, 10)
	require.Equal(t, privateDialTime, more(), "nine private ones")
	teach("/ip4/10.0.0.1/tcp/%d", 10, 17)
	teach("/ip4/1.2.3.4/tcp/%d", 1, 2)
	require.Equal(t, 2*publicDialTime, more(), "17, one of them public")
	require.Equal(t, time.Duration(1<<63-1), (&ClientConfig{ConnectTimeout: 1 << 62}).newWait(4).left())
}
