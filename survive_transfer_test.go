package peerlane

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// A gate refuses direct connections but to the relay until it is open.
type gate struct {
	open  atomic.Bool
	relay peer.ID
}

func (g *gate) lets(pid peer.ID, a ma.Multiaddr) bool {
	return g.open.Load() || pid == g.relay || isCircuit(a)
}

func (g *gate) InterceptPeerDial(peer.ID) bool                                  { return true }
func (g *gate) InterceptAddrDial(pid peer.ID, a ma.Multiaddr) bool              { return g.lets(pid, a) }
func (g *gate) InterceptAccept(network.ConnMultiaddrs) bool                     { return true }
func (g *gate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
func (g *gate) InterceptSecured(_ network.Direction, pid peer.ID, c network.ConnMultiaddrs) bool {
	return g.lets(pid, c.RemoteMultiaddr())
}

// behindNATs returns two hosts behind NATs of most homes, which punch holes once the gate is open, and teaches the first where the relay of
// the second is.
func behindNATs(t *testing.T, g *gate) (a, b host.Host) {
	t.Helper()
	n := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 10 * time.Millisecond, Rate: 2 << 20})
	n.AddNAT(peerlanetest.EasyNAT, "11.0.0.10", "192.168.1.2")
	n.AddNAT(peerlanetest.EasyNAT, "11.0.0.20", "192.168.2.2")
	resources := relay.DefaultResources()
	resources.Limit = nil
	r := peerlanetest.NewRelay(t, resources, func(opts ...libp2p.Option) host.Host {
		return n.Host("11.0.0.1:4001", append(opts, libp2p.ForceReachabilityPublic())...)
	})
	g.relay = r.Host().ID()
	open := func(at string) host.Host {
		h := n.Host(at, libp2p.EnableRelay(), libp2p.ForceReachabilityPrivate(), libp2p.ConnectionGater(g), punch.QUIC)
		ip, _, _ := strings.Cut(at, ":")
		s, err := punch.New(h, &punch.Options{Socket: func() (net.PacketConn, error) { return n.ListenUDP(ip), nil }})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return h
	}
	a, b = open("192.168.1.2:4001"), open("192.168.2.2:4001")
	peerlanetest.Teach(a, b.ID(), r.Reserve(b)...)
	return a, b
}

// A transfer that has begun over a relay without limits goes through the hole that is punched on the way, with all that is left of it,
// whichever side asked for it. It is on one session, and nothing crosses twice.
func TestATransferGoesThroughAHoleThatIsPunchedOnTheWay(t *testing.T) {
	const size = 32 << 20 // 16 s
	from := filepath.Join(t.TempDir(), "file")
	body := noise(size)
	require.NoError(t, os.WriteFile(from, body, 0o600))
	for _, way := range []string{"push", "fetch"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := new(gate)
				a, b := behindNATs(t, g)
				to := t.TempDir()
				tree, err := source.Walk(t.Context(), []string{from}, nil)
				require.NoError(t, err)
				defer func() { require.NoError(t, tree.Close()) }()
				service, err := transfer.NewService(&transfer.ServiceConfig{
					Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
						return &transfer.Destination{Dir: to}, nil
					},
				})
				require.NoError(t, err)
				server := newServer(t, b, &ServerConfig{AdmitAll: true})
				service.Handle(server)
				require.NoError(t, server.Listen(callTag))
				s, err := newClient(t, a, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), callTag)
				require.NoError(t, err)
				require.True(t, PathOf(s).Relayed)
				onRelay := s.Conn().(*carrier).traffic

				dial := func(context.Context) (*session.Session, error) { return s, nil }
				var run *transfer.Transfer
				if way == "push" {
					run = transfer.Push(t.Context(), dial, tree, nil)
				} else {
					share, err := service.Share(tree, nil)
					require.NoError(t, err)
					run = transfer.Fetch(t.Context(), []transfer.Dialer{dial}, share.Ref(), to, nil)
				}
				time.AfterFunc(time.Second, func() { g.open.Store(true) })
				result, err := run.Wait()
				require.NoError(t, err)
				require.False(t, PathOf(s).Relayed)
				require.EqualValues(t, 1, s.Snapshot().Migrations)
				require.NoError(t, service.Close())
				t.Logf("%d of %d bytes over the relay", onRelay.used(), size)
				require.Greater(t, onRelay.used(), int64(size/64))
				require.Less(t, onRelay.used(), int64(size/2), "the hole is tried again every few seconds")
				require.Less(t, result.Progress.Crossed, int64(size+size/100))
				got, err := os.ReadFile(filepath.Join(to, "file"))
				require.NoError(t, err)
				require.True(t, bytes.Equal(body, got))
			})
		})
	}
}
