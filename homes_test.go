package peerlane

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// Addresses behind the NATs of two homes, and that of a relay.
const (
	homeOfAlice = "192.168.1.2"
	homeOfBob   = "192.168.2.2"
	atRelay     = "11.0.0.1"
)

// homes are two hosts behind NATs, with a relay, and a session from Alice to Bob, in virtual time. The internal/test/reach package has the same
// with real sockets, and bounds that leave room for a busy machine.
type homes struct {
	t          *testing.T
	net        *peerlanetest.Network
	key        string // the file of the relay's
	relay      *node.Node
	service    *node.RelayService
	calls      bool          // Alice has no reservation: she only calls
	delay      time.Duration // of a packet, from one host to another; 0: 20 ms
	alice, bob *node.Node
	session    *session.Session
}

// run runs f with a session through two NATs of a kind.
func (w homes) run(t *testing.T, kind peerlanetest.NAT, f func(*testing.T, *homes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &w
		w.t, w.key = t, filepath.Join(t.TempDir(), "key")
		w.net = peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: cmp.Or(w.delay, 20*time.Millisecond)})
		w.net.AddNAT(kind, "11.0.0.10", homeOfAlice)
		w.net.AddNAT(kind, "11.0.0.20", homeOfBob)
		w.startRelay()
		at := w.relay.Addrs()
		w.bob = w.open(homeOfBob, node.Options{HolePunch: true, NoWide: true, Relays: at})
		if w.calls {
			at = nil
		}
		w.alice = w.open(homeOfAlice, node.Options{HolePunch: true, NoWide: true, Relays: at})
		reached, err := w.bob.AwaitReservation(t.Context())
		require.NoError(t, err)
		peerlanetest.Teach(w.alice.Host(), w.bob.ID(), reached[0].Addrs...)
		const longest = time.Hour
		server, err := NewServer(w.bob.Host(), &ServerConfig{AdmitAll: true, IdleTimeout: longest, MaxIdleTime: longest, MaxRequestsPerConn: 1 << 30})
		require.NoError(t, err)
		require.NoError(t, server.Start(testTag, echoHandler))
		client, err := NewClient(w.alice.Host(), &ClientConfig{AdmitAll: true, Path: AllowRelay, IdleConnTimeout: longest})
		require.NoError(t, err)
		defer func() { require.NoError(t, errors.Join(client.Close(), server.Stop())) }()
		w.session, err = client.Connect(t.Context(), w.bob.ID(), testTag)
		require.NoError(t, err)
		f(t, w)
		require.NoError(t, w.session.Err(), "one session for all")
	})
}

func (w *homes) open(ip string, o node.Options) *node.Node {
	w.t.Helper()
	o.ListenAddrs, o.Libp2p = []string{peerlanetest.QUICAddr(ip + ":4001").String()}, w.net.Options(ip)
	n, err := node.New(w.t.Context(), &o)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, n.Close()) })
	return n
}

func (w *homes) startRelay() {
	w.relay = w.open(atRelay, node.Options{KeyFile: w.key, RelayService: w.service})
}

// call makes a call, and returns how long it took.
func (w *homes) call() time.Duration {
	w.t.Helper()
	began := time.Now()
	_, err := w.session.Call(w.t.Context(), "", []byte("hello"))
	require.NoError(w.t, err)
	return time.Since(began)
}

// untilDirect makes calls until one goes over a direct path, and returns how long that took.
func (w *homes) untilDirect() time.Duration {
	w.t.Helper()
	began := time.Now()
	for {
		w.call()
		if !PathOf(w.session).Relayed {
			return time.Since(began)
		}
		require.Less(w.t, time.Since(began), time.Hour)
		time.Sleep(50 * time.Millisecond)
	}
}

// cut loses what goes directly between the two, or ends that.
func (w *homes) cut(on bool) { w.net.VanishBetween(homeOfAlice, homeOfBob, on) }

// For how long a session of two peers 40 ms apart may stand still.
const (
	goesOnWithin = 3 * time.Second  // over the relay, when the direct path is cut
	directWithin = 10 * time.Second // over the direct path, when that is healed
	backWithin   = 2 * time.Second  // over the relay, when that is back
)

// When the direct path is cut, calls go on over the relay, and over the direct path soon after it is healed: however long the session was idle
// before, and however long the cut lasts.
func TestCallsGoOnOverTheRelayAndBack(t *testing.T) {
	procs.Alone(t)
	homes{service: &node.RelayService{}}.run(t, peerlanetest.EasyNAT, func(t *testing.T, w *homes) {
		w.untilDirect()
		cuts := []time.Duration{0, 7 * time.Second, 20 * time.Second, time.Minute, 4 * time.Minute}
		var slowest, latest time.Duration
		for i := range 10 {
			w.untilDirect()
			idle := time.Duration(i) * 370 * time.Millisecond
			time.Sleep(idle)
			w.cut(true)
			goesOn := w.call()
			require.Less(t, goesOn, goesOnWithin, "idle for %v", idle)
			require.True(t, PathOf(w.session).Relayed)
			length := cuts[i%len(cuts)]
			time.Sleep(length)
			w.call()
			w.cut(false)
			direct := w.untilDirect()
			require.Less(t, direct, directWithin, "cut for %v", length)
			slowest, latest = max(slowest, goesOn), max(latest, direct)
		}
		t.Logf("calls go on after %v at most, directly %v after the cut is healed", slowest, latest)
	})
}

// A session that sends much from the start gets its direct path, though a circuit of the relay's is used up before the hole is agreed on.
func TestMuchDataDoesNotKeepASessionOnTheRelay(t *testing.T) {
	procs.Alone(t)
	homes{service: &node.RelayService{Data: 64 << 10}, delay: 300 * time.Millisecond}.run(t, peerlanetest.EasyNAT, func(t *testing.T, w *homes) {
		var calls sync.WaitGroup
		for range 16 {
			calls.Go(func() {
				for range 4 {
					_, err := w.session.Call(t.Context(), "", noise(64<<10))
					assert.NoError(t, err)
				}
			})
		}
		took := w.untilDirect()
		calls.Wait()
		require.Less(t, took, 20*time.Second, "never, over circuits that are left at once")
	})
}

// A relay that is restarted, and is the only path, is used again soon, with or without a goodbye, and however long it was away.
func TestASessionIsBackWithItsRelay(t *testing.T) {
	procs.Alone(t)
	for _, calls := range []bool{false, true} {
		for _, killed := range []bool{false, true} {
			for _, away := range []time.Duration{
				346 * time.Millisecond, 1384 * time.Millisecond, 2941 * time.Millisecond, 3114 * time.Millisecond, 7 * time.Second, 25 * time.Second,
			} {
				t.Run(fmt.Sprintf("calls %v, killed %v, away for %v", calls, killed, away), func(t *testing.T) {
					homes{service: &node.RelayService{Data: -1}, calls: calls}.run(t, peerlanetest.HardNAT, func(t *testing.T, w *homes) {
						took := w.restartRelay(killed, away)
						t.Logf("%v", took)
						require.Less(t, took, backWithin)
						w.call()
					})
				})
			}
		}
	}
}

// restartRelay stops the relay, with or without a goodbye, and starts it again. It returns how long after that a call is answered which was made
// meanwhile. Bob has his reservation then.
func (w *homes) restartRelay(killed bool, away time.Duration) time.Duration {
	w.t.Helper()
	time.Sleep(100 * time.Second) // attempts to punch holes are rare by then
	require.True(w.t, PathOf(w.session).Relayed)
	vanish := func(on bool) {
		w.net.VanishBetween(homeOfAlice, atRelay, on)
		w.net.VanishBetween(homeOfBob, atRelay, on)
	}
	vanish(killed)
	require.NoError(w.t, w.relay.Close())
	answered := make(chan time.Time, 1)
	go func() {
		_, _ = w.session.Call(w.t.Context(), "", []byte("hello")) // its time tells
		answered <- time.Now()
	}()
	time.Sleep(away)
	vanish(false)
	w.startRelay()
	back := time.Now()
	took := (<-answered).Sub(back)
	require.NotNil(w.t, w.bob.Reservations()[0].Addrs)
	require.Equal(w.t, network.Connected, w.bob.Host().Network().Connectedness(w.relay.ID()))
	return took
}
