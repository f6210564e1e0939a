package node

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// tcpPort returns the TCP port on which a node listens.
func tcpPort(t *testing.T, n *Node) string {
	t.Helper()
	for _, a := range n.Host().Network().ListenAddresses() {
		if port, err := a.ValueForProtocol(ma.P_TCP); err == nil {
			return port
		}
	}
	require.Fail(t, "it does not listen on TCP")
	return ""
}

// A TCP port on which another process listens is an error, though libp2p could share it. When that process has ended, the port is free at
// once, whatever connections there were.
func TestATCPPortInUseIsAnError(t *testing.T) {
	for _, ip := range []string{"/ip4/127.0.0.1", "/ip4/0.0.0.0", "/ip6/::1"} {
		t.Run(ip, func(t *testing.T) {
			if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
				require.NoError(t, l.Close())
			} else if strings.HasPrefix(ip, "/ip6") {
				t.Skip("no IPv6 here")
			}
			first := start(t, Options{ListenAddrs: []string{ip + "/tcp/0"}})
			port := tcpPort(t, first)
			for _, suffix := range []string{"", "/ws"} {
				_, err := New(t.Context(), &Options{ListenAddrs: []string{ip + "/tcp/" + port + suffix}})
				require.ErrorIs(t, err, syscall.EADDRINUSE)
				require.ErrorContains(t, err, "listen on "+ip+"/tcp/"+port)
			}
			other := start(t, Options{ListenAddrs: []string{ip + "/tcp/0"}})
			require.NoError(t, other.Host().Connect(t.Context(), first.Info()))
			require.NoError(t, first.Close())
			start(t, Options{ListenAddrs: []string{ip + "/tcp/" + port}})
		})
	}
}

// A port may be named by several of a host's own addresses.
func TestAddressesOfOneHostMayShareATCPPort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	start(t, Options{ListenAddrs: []string{
		fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port), fmt.Sprintf("/ip4/0.0.0.0/tcp/%d", port),
	}})
}
