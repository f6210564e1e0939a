package peerlane

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
)

// How an http.Transport uses conns: many at once, closed and opened all the time, under libp2p's default limits.

// churnHTTP makes callers post count requests each, and returns how many conns were dialed for that. None may fail.
func churnHTTP(t *testing.T, a, b host.Host, callers, count, idle int) int {
	client, url, dials := serveHTTP(t, a, b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body)
	}))
	client.Timeout = 3 * patience
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = idle // zero: 2
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for j := range count {
				sent := noise(1000 * j)
				resp, err := client.Post(url, "application/octet-stream", bytes.NewReader(sent))
				if err != nil {
					t.Errorf("post: %v", err)
					continue
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || !bytes.Equal(sent, got) {
					t.Errorf("answer: %d of %d bytes: %v", len(got), len(sent), err)
				}
				_ = resp.Body.Close() // was read to the end
			}
		})
	}
	wg.Wait()
	return int(dials.Load())
}

// 70 callers are more than the slots that are sure, and conns that are not idle are closed and dialed again.
func TestHTTPWithTheDefaultTransportLosesNoRequest(t *testing.T) {
	onEach(t, []testnet.Transport{testnet.TCPTLS, testnet.QUIC}, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const callers, count = 70, 12
		dials := churnHTTP(t, a, b, callers, count, 0)
		t.Logf("%d dials for %d requests", dials, callers*count)
	})
}

func TestHTTPKeepsItsConnsWithMaxIdleConnsPerHost(t *testing.T) {
	onEach(t, []testnet.Transport{testnet.TCPTLS, testnet.QUIC}, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const callers, count = 40, 12
		dials := churnHTTP(t, a, b, callers, count, startSlots)
		require.LessOrEqual(t, dials, 4*callers, "of %d requests", callers*count)
	})
}

// Of a hundred dials at once, each that returns nil has been accepted, and the others wait for those before them.
func TestDialsBeyondTheLimitWaitForTheConnsBefore(t *testing.T) {
	onEach(t, []testnet.Transport{testnet.TCPTLS, testnet.QUIC}, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const dials = 100
		l, err := ListenConfig{}.Serve(b, testTag, func(c *Conn) {
			_, _ = c.Write([]byte("x"))
			_, _ = io.Copy(io.Discard, c)
		})
		require.NoError(t, err)
		var open atomic.Int32
		enough := make(chan struct{})
		errs := make(chan error, dials)
		for range dials {
			go func() {
				c, err := Dial(testContext(t), a, b.ID(), testTag)
				if err != nil {
					errs <- err
					return
				}
				_, err = io.ReadFull(c, make([]byte, 1))
				if open.Add(1) == startSlots {
					close(enough)
				}
				<-enough
				errs <- errors.Join(err, c.Close())
			}()
		}
		for range dials {
			require.NoError(t, <-errs)
		}
		require.NoError(t, l.Shutdown(testContext(t)))
		requireNoStreams(t, testTag, a, b)
	})
}

// limitedPair returns two hosts of which the second takes so many conns on a tag from the first.
func limitedPair(t *testing.T, tr testnet.Transport, conns int) (a, b host.Host) {
	a = testnet.Host(t, tr)
	b = testnet.Host(t, tr, limited(t, rcmgr.PartialLimitConfig{
		ProtocolPeerDefault: rcmgr.ResourceLimits{StreamsInbound: rcmgr.LimitVal(conns)},
	}))
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	return a, b
}

// refusalTime is enough for a refusal at any load that the tests bear. A dial spends all of it on waiting for a place.
const refusalTime = 2 * time.Second

// dialRefused dials, beyond the peer's limit, until a Dial itself fails, and returns its error. On a slow machine a refusal may come
// later than Dial looks for it; then it comes at the first Read, and that is right too.
func dialRefused(t *testing.T, d *Dialer, l *Listener) error {
	t.Helper()
	for {
		c, err := d.Dial(testContext(t), l.host.ID())
		if err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, ErrUnavailable)
		require.NoError(t, c.Close())
	}
}

func TestADialWaitsForAPlaceAndSaysWhyItGotNone(t *testing.T) {
	t.Parallel() // it waits for real
	for _, tr := range testnet.Direct() {
		t.Run(string(tr), func(t *testing.T) {
			t.Parallel()
			a, b := limitedPair(t, tr, 2)
			l := mustListen(t, b, testTag, ListenConfig{})
			near, far := connPair(t, a, l)
			connPair(t, a, l)
			d := &Dialer{Host: a, Tag: testTag, Timeout: refusalTime}
			require.ErrorIs(t, dialRefused(t, d, l), ErrUnavailable)
			err := dialRefused(t, d, l)
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "2 conns to it are open or closing")
			require.ErrorContains(t, err, "node.Options.ConnsPerPeer")
			var typed *Error
			require.ErrorAs(t, err, &typed)
			require.Equal(t, codes.Unavailable, typed.Code)

			d.Timeout = 0
			got := make(chan error, 1)
			go func() { got <- dialServed(d, b.ID()) }()
			_, _ = near.Close(), far.Close()
			accepted, err := l.accept()
			require.NoError(t, err)
			_, err = accepted.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, within(t, patience, "Dial", func() error { return <-got }))
			require.NoError(t, accepted.Close())
		})
	}
}

// takeConns makes a host take the first n conns on testTag, and refuse the others as its resource manager would.
func takeConns(h host.Host, n int32) {
	var taken atomic.Int32
	h.SetStreamHandler(testTag, func(s network.Stream) {
		if taken.Add(1) > n {
			_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		}
	})
}

// A dial that gets its turn just before its time is over says the same, and not that the negotiation took too long.
func TestADialWhoseTurnComesLateSaysWhyItGotNoPlace(t *testing.T) {
	procs.Alone(t)
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		takeConns(hosts.Bob, 2)
		d := &Dialer{Host: hosts.Alice, Tag: testTag}
		for range 2 {
			c, err := d.Dial(t.Context(), hosts.Bob.ID())
			require.NoError(t, err)
			defer func() { require.NoError(t, c.Reset()) }()
		}
		refused := func(timeout time.Duration) {
			d.Timeout = timeout
			_, err := d.Dial(t.Context(), hosts.Bob.ID())
			require.ErrorIs(t, err, ErrUnavailable, timeout)
			require.ErrorContains(t, err, "node.Options.ConnsPerPeer", timeout)
		}
		refused(time.Second)
		key := slotKey{from: hosts.Alice.Network(), to: hosts.Bob.ID(), tag: testTag}
		for late := time.Duration(0); late <= 100*time.Millisecond; late += 5 * time.Millisecond {
			dialSlots.mu.Lock()
			turn := time.Until(dialSlots.row(key).tryAt)
			dialSlots.mu.Unlock()
			refused(turn + late)
			refused(3 * maxSlotBackoff)
		}
	})
}

// dialServed dials until a conn is served a byte: a refusal may come after Dial has looked for it.
func dialServed(d *Dialer, to peer.ID) error {
	for {
		c, err := d.Dial(context.Background(), to)
		if err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		if err = errors.Join(err, c.Close()); !errors.Is(err, ErrUnavailable) {
			return err
		}
	}
}

func TestADialThatWaitsEndsWithItsHost(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		takeConns(b, 1)
		d := &Dialer{Host: a, Tag: testTag, Timeout: time.Second}
		c, err := d.Dial(t.Context(), b.ID())
		require.NoError(t, err)
		_, err = d.Dial(t.Context(), b.ID())
		require.ErrorIs(t, err, ErrUnavailable)
		d.Timeout = -1
		errs := make(chan error, 1)
		go func() { _, err := d.Dial(context.Background(), b.ID()); errs <- err }()
		waitBlocked(t, "(*slotTable).take", 1)
		require.NoError(t, a.Close())
		require.ErrorIs(t, within(t, patience, "Dial", func() error { return <-errs }), ErrStopped)
		_ = c.Close() // its connection is gone
	})
}

// Sessions have an answer of their own to a limit, and do not wait.
func TestAnOpenForASessionDoesNotWaitForAPlace(t *testing.T) {
	a, b := limitedPair(t, testnet.QUIC, 1)
	l := mustListen(t, b, testTag, ListenConfig{})
	connPair(t, a, l)
	c, _, err := (&Dialer{Host: a}).open(testContext(t), b.ID(), testTag)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, c.Close())
	}
	require.ErrorIs(t, err, ErrUnavailable)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
}

// heldSlots counts the slots that a host holds at another on testTag.
func heldSlots(a, b host.Host) int {
	dialSlots.mu.Lock()
	defer dialSlots.mu.Unlock()
	s := dialSlots.rows[slotKey{from: a.Network(), to: b.ID(), tag: testTag}]
	if s == nil {
		return 0
	}
	return len(s.held)
}

func TestAConnHoldsItsSlotUntilBothSidesHaveEnded(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		ends := map[string]func(c, far *Conn){
			"closed, then by the peer": func(c, far *Conn) {
				require.NoError(t, c.Close())
				require.Empty(t, readAll(t, far))
				require.Equal(t, 1, heldSlots(a, b))
				require.NoError(t, far.Close())
			},
			"ended by the peer, then closed": func(c, far *Conn) {
				require.NoError(t, far.Close())
				require.Empty(t, readAll(t, c))
				require.Equal(t, 1, heldSlots(a, b))
				require.NoError(t, c.Close())
			},
			"ended both ways and not closed": func(c, far *Conn) {
				require.NoError(t, errors.Join(c.CloseWrite(), far.CloseWrite()))
				require.Empty(t, readAll(t, c))
			},
			"reset here": func(c, _ *Conn) { require.NoError(t, c.Reset()) },
			"reset by the peer, and read": func(c, far *Conn) {
				require.NoError(t, far.Reset())
				_, err := c.Read(make([]byte, 1))
				require.ErrorIs(t, err, syscall.ECONNRESET)
			},
			"the peer sends after the close": func(c, far *Conn) {
				require.NoError(t, c.Close())
				require.Error(t, within(t, patience, "Write", func() error { return writeUntilError(far) }))
			},
		}
		for name, end := range ends {
			c, far := connPair(t, a, l)
			require.Equal(t, 1, heldSlots(a, b), name)
			end(c, far)
			require.Eventually(t, func() bool { return heldSlots(a, b) == 0 }, patience, time.Millisecond, name)
			_, _ = c.Close(), far.Close()
		}
	})
}
