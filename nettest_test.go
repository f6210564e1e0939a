package peerlane

import (
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"golang.org/x/net/nettest"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

// Row: P4.
func TestConnPassesNettestOnEveryTransport(t *testing.T) {
	t.Parallel()
	onEach(t, append(everyPath(), testnet.WebTransport), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		t.Parallel() // it waits for real
		l := mustListen(t, b, testTag, ListenConfig{})
		for range *nettestCount {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				dialed, accepted := connPair(t, a, l)
				return dialed, accepted, func() { _, _ = dialed.Close(), accepted.Close() }, nil
			})
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				dialed, accepted := connPair(t, a, l)
				return accepted, dialed, func() { _, _ = dialed.Close(), accepted.Close() }, nil
			})
		}
	})
}
