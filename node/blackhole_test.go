package node

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// However many dials have failed, as those of peers behind NATs do, and those of a relay that is away: others are not refused for that.
func TestDialsInVainDoNotPreventOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, nil)
		open := func(ip string) *Node {
			n, err := New(t.Context(), &Options{ListenAddrs: []string{peerlanetest.QUICAddr(ip + ":4001").String()}, Libp2p: net.Options(ip)})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, n.Close()) })
			return n
		}
		a, b := open("11.0.0.1"), open("11.0.0.2")
		for i := range 30 { // four addresses each
			var dead []ma.Multiaddr
			for port := range 4 {
				dead = append(dead, peerlanetest.QUICAddr(fmt.Sprintf("11.0.1.%d:%d", i+1, port+1)))
			}
			require.Error(t, connect(t, a.Host(), peer.AddrInfo{ID: test.RandPeerIDFatal(t), Addrs: dead}))
		}
		require.NoError(t, connect(t, a.Host(), b.Info()))
	})
}

func connect(t *testing.T, h host.Host, to peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return h.Connect(ctx, to)
}
