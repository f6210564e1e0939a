package mdns

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/peerlanetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lan delivers each packet to all of its stations, as multicast does.
type lan struct {
	mu       sync.Mutex
	stations []*station
	packets  int
}

// A station is the medium of one host on a lan.
type station struct {
	lan    *lan
	ip     netip.Addr
	handle func([]byte, netip.Addr)
	down   bool // guarded by lan.mu
	err    error
}

func (s *station) open(handle func([]byte, netip.Addr)) {
	s.handle = handle
	s.lan.mu.Lock()
	defer s.lan.mu.Unlock()
	s.lan.stations = append(s.lan.stations, s)
}

func (s *station) look() bool { return false }

func (s *station) interfaces() []iface { return []iface{{addrs: []netip.Addr{s.ip}}} }

func (s *station) failed() error { return s.err }

func (s *station) send(_ iface, packet []byte) { s.lan.send(packet, s.ip) }

func (s *station) close() error {
	s.lan.mu.Lock()
	defer s.lan.mu.Unlock()
	s.lan.stations = slices.DeleteFunc(s.lan.stations, func(o *station) bool { return o == s })
	return nil
}

// send delivers a packet to all stations.
func (l *lan) send(packet []byte, from netip.Addr) {
	l.mu.Lock()
	l.packets++
	to := slices.DeleteFunc(slices.Clone(l.stations), func(s *station) bool { return s.down })
	l.mu.Unlock()
	for _, s := range to {
		s.handle(packet, from)
	}
}

// sent returns the number of packets so far.
func (l *lan) sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.packets
}

// A resident is a host on a lan, with its discovery.
type resident struct {
	host.Host
	*Discovery

	station *station
}

// inLAN runs f in virtual time with n hosts on a lan.
func inLAN(t *testing.T, hosts int, f func(t *testing.T, l *lan, all []*resident)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net, l := peerlanetest.NewNetwork(t, nil), &lan{}
		var all []*resident
		for i := range hosts {
			ip := netip.AddrFrom4([4]byte{192, 168, 0, byte(i + 1)})
			s := &station{lan: l, ip: ip}
			r := &resident{net.Host(netip.AddrPortFrom(ip, 4001).String()), New(&Options{medium: s}), s}
			require.NoError(t, r.Start(r.Host))
			t.Cleanup(func() { require.NoError(t, r.Discovery.Close()) })
			all = append(all, r)
		}
		time.Sleep(time.Minute) // until all hosts have announced themselves
		synctest.Wait()
		f(t, l, all)
	})
}
