package peerlane

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
)

// What the tests of the net layer share.

const testTag protocol.ID = "/peerlane-test/1.0.0"

// patience bounds whatever a test waits for; it is reached only by a test that fails.
const patience = 20 * time.Second

// loopback stands for a pair that is one host.
const loopback testnet.Transport = loopbackTransport

// everyPath is every way a conn can run, limited relays excepted.
func everyPath() []testnet.Transport { return append(testnet.All(), loopback) }

// onEach runs a test on each transport, with a fresh pair of hosts.
func onEach(t *testing.T, trs []testnet.Transport, test func(t *testing.T, a, b host.Host, tr testnet.Transport)) {
	for _, tr := range trs {
		t.Run(string(tr), func(t *testing.T) {
			a, b := testHosts(t, tr)
			test(t, a, b, tr)
		})
	}
}

// inBubble runs a test of bounds on time on a pair of hosts in memory, so that no load of the machine counts.
func inBubble(t *testing.T, test func(t *testing.T, a, b host.Host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
		test(t, hosts.Alice, hosts.Bob)
	})
}

// testHost returns one host, for tests that need no network: it can dial itself.
func testHost(t testing.TB) host.Host { return testnet.Host(t, testnet.TCPTLS) }

func testHosts(t testing.TB, tr testnet.Transport) (a, b host.Host) {
	if tr == loopback {
		h := testHost(t)
		return h, h
	}
	return testnet.Pair(t, tr)
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// mustListen listens until the test ends.
func mustListen(t testing.TB, h host.Host, tag protocol.ID, config ListenConfig) *Listener {
	t.Helper()
	l, err := config.Listen(h, tag)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// connPair returns both ends of one conn, closed when the test ends.
func connPair(t testing.TB, a host.Host, l *Listener) (dialed, accepted *Conn) {
	t.Helper()
	d := Dialer{Host: a, Tag: l.tag, Path: AllowRelay}
	dialed, err := d.Dial(testContext(t), l.host.ID())
	require.NoError(t, err)
	accepted, err = l.accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = dialed.Close(), accepted.Close() })
	return dialed, accepted
}

// newPair is connPair on a listener of its own.
func newPair(t testing.TB, a, b host.Host) (dialed, accepted *Conn) {
	t.Helper()
	return connPair(t, a, mustListen(t, b, testTag, ListenConfig{}))
}

// within runs f on a goroutine and fails the test if it does not return in time; it returns f's error.
func within(t testing.TB, limit time.Duration, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		require.FailNow(t, "still blocked", "%s after %v", what, limit)
		return nil
	}
}

// readAll reads to the end within the test's patience.
func readAll(t testing.TB, c net.Conn) []byte {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	return b
}

// writeUntilError writes until the conn does not take more.
func writeUntilError(c net.Conn) error {
	chunk := make([]byte, 32<<10)
	for {
		if _, err := c.Write(chunk); err != nil {
			return err
		}
	}
}

// streamCount counts the streams a host has open to anyone on a tag.
func streamCount(h host.Host, tag protocol.ID) int {
	n := 0
	for _, c := range h.Network().Conns() {
		for _, s := range c.GetStreams() {
			if s.Protocol() == tag {
				n++
			}
		}
	}
	return n
}

// requireNoStreams waits until neither host has a stream on the tag.
func requireNoStreams(t testing.TB, tag protocol.ID, hosts ...host.Host) {
	t.Helper()
	for _, h := range hosts {
		require.Eventually(t, func() bool { return streamCount(h, tag) == 0 }, patience, time.Millisecond,
			"streams of %s on %s", tag, h.ID())
	}
}

// fakeConn is an established connection as far as a Conn looks at it.
type fakeConn struct {
	network.Conn

	closed bool
	addr   ma.Multiaddr
	stat   network.ConnStats
}

func (f *fakeConn) IsClosed() bool                { return f.closed }
func (f *fakeConn) Stat() network.ConnStats       { return f.stat }
func (f *fakeConn) RemoteMultiaddr() ma.Multiaddr { return f.addr }
func (f *fakeConn) ConnState() network.ConnectionState {
	return network.ConnectionState{Transport: "fake"}
}
