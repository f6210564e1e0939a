package peerlanetest_test

import (
	"fmt"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// arrives sends a packet, and returns from where it seems to come, or nil if it does not arrive.
func arrives(t *testing.T, from net.PacketConn, to net.Addr, at net.PacketConn) net.Addr {
	t.Helper()
	_, err := from.WriteTo([]byte("hello"), to)
	require.NoError(t, err)
	require.NoError(t, at.SetReadDeadline(time.Now().Add(time.Second)))
	b := make([]byte, 10)
	_, seen, err := at.ReadFrom(b)
	if err != nil {
		return nil
	}
	return seen
}

func TestNATsBetweenHosts(t *testing.T) {
	for _, test := range []struct {
		nat            peerlanetest.NAT
		same, stranger bool // a second peer sees the same address; a stranger's packet comes in
	}{
		{peerlanetest.EasiestNAT, true, true}, {peerlanetest.EasyNAT, true, false}, {peerlanetest.HardNAT, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := peerlanetest.NewNetwork(t, nil)
			n.AddNAT(test.nat, "11.0.0.10", "192.168.1.2", "192.168.1.3")
			inside, neighbour := n.ListenUDP("192.168.1.2"), n.ListenUDP("192.168.1.3")
			one, two := n.ListenUDP("11.0.0.1"), n.ListenUDP("11.0.0.2")

			require.Equal(t, inside.LocalAddr(), arrives(t, inside, neighbour.LocalAddr(), neighbour), "behind one NAT")
			require.Nil(t, arrives(t, one, inside.LocalAddr(), inside), "an inside address means nothing outside")

			seen := arrives(t, inside, one.LocalAddr(), one)
			require.Equal(t, "11.0.0.10", seen.(*net.UDPAddr).IP.String())
			require.NotNil(t, arrives(t, one, seen, inside))
			require.Equal(t, test.stranger, arrives(t, two, seen, inside) != nil)
			require.Equal(t, test.same, seen.String() == arrives(t, inside, two.LocalAddr(), two).String())

			n.RestartNATs()
			require.Nil(t, arrives(t, one, seen, inside))
			require.NotEqual(t, seen, arrives(t, inside, one.LocalAddr(), one))
		})
	}
}

// A failing test records the text of Fatalf.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// A wrong address is the test's mistake.
func TestWrongAddressesOfNATs(t *testing.T) {
	for name, wrong := range map[string]func(*peerlanetest.Network){
		"kind":    func(n *peerlanetest.Network) { n.AddNAT(0, "11.0.0.10") },
		"outside": func(n *peerlanetest.Network) { n.AddNAT(peerlanetest.EasyNAT, "outside") },
		"inside":  func(n *peerlanetest.Network) { n.AddNAT(peerlanetest.EasyNAT, "11.0.0.10", "inside") },
		"between": func(n *peerlanetest.Network) { n.VanishBetween("11.0.0.1", "nowhere", true) },
		"socket":  func(n *peerlanetest.Network) { n.ListenUDP("nowhere") },
	} {
		f, done := &failing{TB: t}, make(chan struct{})
		go func() { // Fatalf ends it
			defer close(done)
			wrong(peerlanetest.NewNetwork(f, nil))
		}()
		<-done
		require.Contains(t, f.said, "peerlanetest: ", name)
	}
}
