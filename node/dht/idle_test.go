package dht_test

import (
	"flag"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/test/heap"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/peerlanetest"
)

// idleFor is how long, in virtual time, TestIdlePeersCostLittleAndGrowNothing watches idle peers. `make nightly` watches for 24 hours.
var idleFor = flag.Duration("idle.for", 15*time.Minute, "virtual time that idle peers are watched for")

// Two peers behind NATs have a session and leave it alone. Over a direct path and over a relay, with a DHT and without, nothing grows:
// goroutines, memory, packets an hour.
func TestIdlePeersCostLittleAndGrowNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		nat     peerlanetest.NAT
		relayed bool
		dht     bool    // the relay serves one, in which the two are clients and find each other
		packets float64 // in an hour, of both peers and the relay, at most
	}{
		"direct":         {peerlanetest.EasyNAT, false, false, 15_000},
		"relayed":        {peerlanetest.HardNAT, true, false, 45_000},
		"direct, in DHT": {peerlanetest.EasyNAT, false, true, 20_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
				net.AddNAT(tt.nat, "11.0.0.10", "192.168.1.2")
				net.AddNAT(tt.nat, "11.0.0.20", "192.168.2.2")
				open := func(ip string, opts node.Options) *node.Node {
					opts.ListenAddrs = []string{peerlanetest.QUICAddr(ip + ":4001").String()}
					opts.Libp2p = net.Options(ip)
					n, err := node.New(t.Context(), &opts)
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, n.Close()) })
					return n
				}
				inDHT := func(o *dht.Options) []node.Discovery {
					if !tt.dht {
						return nil
					}
					o.Prefix = "/idle"
					return []node.Discovery{dht.New(o)}
				}
				relay := open("11.0.0.1", node.Options{RelayService: &node.RelayService{Data: -1},
					Discovery: inDHT(&dht.Options{Server: true, Bootstrap: []peer.AddrInfo{}})})
				at := relay.Addrs()
				client := func(ip string) *node.Node {
					return open(ip, node.Options{HolePunch: true, NoWide: true, Relays: at,
						Discovery: inDHT(&dht.Options{Bootstrap: []peer.AddrInfo{{ID: relay.ID(), Addrs: relay.Host().Addrs()}}})})
				}
				a, b := client("192.168.1.2"), client("192.168.2.2")
				reached, err := b.AwaitReservation(t.Context())
				require.NoError(t, err)
				if tt.dht {
					time.Sleep(time.Minute) // it has announced itself
				} else {
					peerlanetest.Teach(a.Host(), b.ID(), reached[0].Addrs...)
				}

				const longest = 1000 * time.Hour
				const tag = "/idle/1"
				serving, calling := peerlane.DefaultServerConfig(), peerlane.DefaultClientConfig()
				serving.AdmitAll, serving.IdleTimeout, serving.MaxIdleTime = true, longest, longest
				calling.AdmitAll, calling.IdleConnTimeout = true, longest
				calling.ConnectTimeout = 20 * time.Second // to look the peer up, as the command has with --dht
				s, err := peerlane.NewServer(b.Host(), serving)
				require.NoError(t, err)
				defer s.Shutdown(t.Context())
				require.NoError(t, s.Listen(tag))
				c, err := peerlane.NewClient(a.Host(), calling)
				require.NoError(t, err)
				defer c.Close()
				session, err := c.Connect(t.Context(), b.ID(), tag)
				require.NoError(t, err)

				time.Sleep(15 * time.Minute) // caches fill, attempts to punch holes become rare
				require.Equal(t, tt.relayed, peerlane.PathOf(session).Relayed)
				goroutines, memory := runtime.NumGoroutine(), heap.InUse()
				packets, bytes := net.Sent()
				time.Sleep(*idleFor)
				packetsThen, bytesThen := net.Sent()
				hourly := float64(packetsThen-packets) / idleFor.Hours()
				t.Logf("%.0f packets and %.0f KiB an hour; goroutines %d, then %d; heap %d KiB, then %d KiB", hourly,
					float64(bytesThen-bytes)/idleFor.Hours()/1024, goroutines, runtime.NumGoroutine(), memory>>10, heap.InUse()>>10)
				require.LessOrEqual(t, hourly, tt.packets)
				require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+5)
				require.LessOrEqual(t, heap.InUse(), memory+memory/10+1<<20)
				_, err = session.Ping(t.Context())
				require.NoError(t, err)
			})
		})
	}
}
