package netcheck

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMappings(t *testing.T) {
	at := netip.MustParseAddrPort
	// The helpers a and b have the ports 1 and 2. They see ports of 11.0.0.9.
	see := func(to string, port uint16) sight {
		return sight{at(to), netip.AddrPortFrom(netip.MustParseAddr("11.0.0.9"), port)}
	}
	a1, a2, b1 := "11.0.0.1:1", "11.0.0.1:2", "11.0.0.2:1"
	for _, tt := range []struct {
		name    string
		sockets [][]sight
		want    Behavior
	}{
		{"nothing", nil, UnknownBehavior},
		{"one helper", [][]sight{{see(a1, 7)}}, UnknownBehavior},
		{"same outside port for two ports of one helper", [][]sight{{see(a1, 7), see(a2, 7)}}, NotPortDependent},
		{"other outside port for another port of one helper", [][]sight{{see(a1, 7), see(a2, 8)}}, AddressAndPortDependent},
		{"same outside port for two helpers", [][]sight{{see(a1, 7), see(b1, 7)}}, EndpointIndependent},
		{"other outside port for another helper", [][]sight{{see(a1, 7), see(b1, 8)}}, Dependent},
		{"other outside port for another helper only", [][]sight{{see(a1, 7), see(b1, 8)}, {see(a1, 9), see(a2, 9)}}, AddressDependent},
		{"other outside port for each", [][]sight{{see(a1, 7), see(b1, 8)}, {see(a1, 9), see(a2, 10)}}, AddressAndPortDependent},
		{"two sockets are not compared", [][]sight{{see(a1, 7)}, {see(b1, 8)}}, UnknownBehavior},
		{"two sights by the same endpoint", [][]sight{{see(a1, 7), see(a1, 8)}}, UnknownBehavior},
		{"no NAT", [][]sight{{{at(a1), at("11.0.0.3:5")}, {at(b1), at("11.0.0.3:5")}}}, None},
		{"no NAT, one helper", [][]sight{{{at(a1), at("11.0.0.3:5")}}}, None},
		{"no NAT towards one helper", [][]sight{{{at(a1), at("11.0.0.3:5")}, see(b1, 5)}}, Dependent},
	} {
		isLocal := func(a netip.AddrPort) bool { return a.Addr() == netip.MustParseAddr("11.0.0.3") }
		require.Equal(t, tt.want, mappingOf(isLocal, tt.sockets...), tt.name)
	}
}

func TestFilterings(t *testing.T) {
	for _, tt := range []struct {
		port, addr Answer
		want       Behavior
	}{
		{Unknown, Unknown, UnknownBehavior},
		{Unknown, No, UnknownBehavior},
		{Unknown, Yes, EndpointIndependent},
		{No, Yes, EndpointIndependent}, // a datagram was lost
		{No, No, AddressAndPortDependent},
		{No, Unknown, AddressAndPortDependent},
		{Yes, No, AddressDependent},
		{Yes, Unknown, NotPortDependent},
		{Yes, Yes, EndpointIndependent},
	} {
		require.Equal(t, tt.want, filteringOf(tt.port, tt.addr), "%v", tt)
	}
}
