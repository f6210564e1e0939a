package node

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// home is the report of a machine behind an easy NAT, and behind a firewall for IPv6.
func home() NetworkReport {
	way := NetworkTransport{Asked: 2, Answered: 2, RTT: 12 * time.Millisecond,
		Outside: []netip.AddrPort{netip.MustParseAddrPort("11.0.0.9:4001")}, PortKept: Yes, Mapping: EndpointIndependent, Filtering: AddressAndPortDependent, Hairpin: No, Reachable: No}
	six := way
	six.Mapping, six.Hairpin = NoNAT, Unknown
	return NetworkReport{
		IPv4:      NetworkIP{Local: []netip.Addr{netip.MustParseAddr("192.168.1.2")}, UDP: way, TCP: way},
		IPv6:      NetworkIP{Local: []netip.Addr{netip.MustParseAddr("2600:11::1")}, UDP: six, TCP: six},
		Helpers:   []NetworkHelper{{ID: "a", Full: true, RTT: time.Millisecond}, {ID: "b", Full: true, RTT: time.Millisecond}},
		Relays:    []NetworkRelay{{ID: "a", RTT: time.Millisecond, Reserved: true, Data: 128 << 10, Duration: 2 * time.Minute}},
		HolePunch: true,
	}
}

// Claim: node.NetworkLine.Topic
// Claim: node.NetworkLine.Text
// Claim: node.NetworkLine.Do
// Claim: node.NetworkReport.IPv6
// Claim: node.NetworkReport.NAT64
// Claim: node.NetworkReport.Router
// Claim: node.NetworkReport.UDPBuffers
// Claim: node.NetworkRouter.Gateway
// Claim: node.NetworkRouter.UPnP
// Claim: node.NetworkRouter.NATPMP
// Claim: node.NetworkRouter.PCP
// Claim: node.NetworkRouter.Outside
// Claim: node.NetworkIP.Local
func TestLinesDescribeAReport(t *testing.T) {
	both := func(r *NetworkReport, f func(*NetworkTransport)) {
		f(&r.IPv4.UDP)
		f(&r.IPv4.TCP)
	}
	const easy = "direct with peers that can be dialed, and with those behind easy or hard NATs once they have met through a relay"
	const hard = "direct with peers that can be dialed or are behind easy NATs; through a relay with those behind hard NATs"
	for _, tt := range []struct {
		name    string
		change  func(*NetworkReport)
		want    NetworkLine
		summary string
	}{
		{"easy", func(*NetworkReport) {}, NetworkLine{Topic: "mapping",
			Text: `IPv4, UDP: endpoint-independent ("easy"): one outside address for all peers, ` +
				"with the same port as here: holes can be punched"}, easy},
		{"hard", func(r *NetworkReport) { both(r, func(t *NetworkTransport) { t.Mapping = AddressAndPortDependent }) },
			NetworkLine{Topic: "mapping", Do: openPort,
				Text: `IPv4, UDP: address-and-port-dependent ("hard"): a different outside port for each peer: ` +
					"no direct path with peers behind such NATs"},
			hard + "; direct with every peer that has IPv6"},
		{"hard, and IPv6 does not pass", func(r *NetworkReport) {
			both(r, func(t *NetworkTransport) { t.Mapping = Dependent })
			r.IPv6.UDP.Answered, r.IPv6.TCP.Answered = 0, 0
		}, NetworkLine{Topic: "udp", Text: "IPv6: unknown: no helper answers"}, hard},
		{"one helper", func(r *NetworkReport) {
			both(r, func(t *NetworkTransport) { t.Mapping, t.PortKept = NotPortDependent, No })
		},
			NetworkLine{Topic: "mapping", Text: "IPv4, UDP: unknown: needs a second helper at another address; " +
				"the same for two ports of one helper, with a different port than here"},
			"direct with peers that can be dialed; unknown for peers behind NATs: needs a second helper"},
		{"one libp2p host", func(r *NetworkReport) {
			both(r, func(t *NetworkTransport) {
				t.Mapping, t.Filtering, t.Reachable = UnknownBehavior, UnknownBehavior, Unknown
			})
			r.Helpers = []NetworkHelper{{RTT: time.Millisecond}}
		}, NetworkLine{Topic: "helper", Text: ": 1.0 ms, reports only where it sees this machine: peerlane relay answers everything"},
			"direct with peers that can be dialed; unknown for peers behind NATs: needs a second helper"},
		{"dialable", func(r *NetworkReport) { r.IPv4.TCP.Reachable = Yes },
			NetworkLine{Topic: "reach", Text: "IPv4: can others dial this machine? QUIC: no, TCP: yes: every peer with IPv4 gets a direct path"},
			"direct with every peer: this machine can be dialed"},
		{"perhaps dialable", func(r *NetworkReport) { r.IPv4.UDP.Reachable = Unknown },
			NetworkLine{Topic: "reach", Text: "IPv4: can others dial this machine? QUIC: unknown, TCP: no: " +
				"needs a second helper of peerlane, at an address that this machine has not sent to"}, easy},
		{"UDP blocked", func(r *NetworkReport) { r.IPv4.UDP = NetworkTransport{Asked: 2} },
			NetworkLine{Topic: "udp", Text: "IPv4: does not pass: QUIC to 0 of 2 helpers, TCP to 2: direct paths use TCP only",
				Do: "allow outgoing UDP in the firewall of this machine or its network"},
			"direct over TCP with peers that can be dialed or are behind easy NATs; through a relay with those behind hard NATs"},
		{"UDP blocked, hard", func(r *NetworkReport) { r.IPv4.UDP, r.IPv4.TCP.Mapping = NetworkTransport{Asked: 2}, Dependent },
			NetworkLine{Topic: "punch", Text: "ready, one hole at a time: many need QUIC over IPv4"},
			"direct over TCP with peers that can be dialed; with others perhaps only through a relay"},
		{"TCP blocked", func(r *NetworkReport) { r.IPv4.TCP = NetworkTransport{Asked: 2} },
			NetworkLine{Topic: "tcp", Text: "IPv4: does not pass: TCP to 0 of 2 helpers, QUIC to 2: direct paths use QUIC only"}, easy},
		{"no QUIC", func(r *NetworkReport) { r.IPv4.UDP = NetworkTransport{} },
			NetworkLine{Topic: "udp", Text: "IPv4: unknown: needs a helper with an address of QUIC"},
			"direct over TCP with peers that can be dialed or are behind easy NATs; through a relay with those behind hard NATs"},
		{"only IPv6", func(r *NetworkReport) { r.IPv4 = NetworkIP{} },
			NetworkLine{Topic: "local", Text: "IPv4: this machine has no address"},
			"direct with peers that have IPv6; with others through a relay that has both"},
		{"NAT64", func(r *NetworkReport) { r.IPv4.Local, r.NAT64 = nil, netip.MustParsePrefix("64:ff9b::/96") },
			NetworkLine{Topic: "local", Text: "IPv4: this machine has no address; peers with IPv4 are reached through a NAT64, 64:ff9b::/96"}, easy},
		{"NAT64, router", func(r *NetworkReport) { r.IPv4.Local, r.NAT64 = nil, netip.MustParsePrefix("64:ff9b::/96") },
			NetworkLine{Topic: "router", Text: "no port mapping: the ports outside of a NAT64 are its operator's"}, easy},
		{"perhaps NAT64", func(r *NetworkReport) { r.IPv4, r.NAT64 = NetworkIP{}, netip.MustParsePrefix("64:ff9b::/96") },
			NetworkLine{Topic: "local", Text: "IPv4: this machine has no address; peers with IPv4 are dialed at 64:ff9b::/96, where a NAT64 may be"},
			"direct with peers that have IPv6; with others through a relay that has both"},
		{"no IPv6", func(r *NetworkReport) { r.IPv6 = NetworkIP{} },
			NetworkLine{Topic: "local", Text: "IPv6: this machine has no address; between two machines with IPv6 there is no NAT",
				Do: "turn on IPv6 in the router, if the provider offers it"}, easy},
		{"hairpin", func(r *NetworkReport) { r.IPv4.UDP.Hairpin = Yes },
			NetworkLine{Topic: "hairpin", Text: "IPv4: passes: two machines behind this router can also connect at its outside address"}, easy},
		{"filter, all", func(r *NetworkReport) { r.IPv4.UDP.Filtering = EndpointIndependent },
			NetworkLine{Topic: "filter", Text: "IPv4, UDP: endpoint-independent: lets in every peer that knows the address"}, easy},
		{"filter, address", func(r *NetworkReport) { r.IPv4.UDP.Filtering = AddressDependent },
			NetworkLine{Topic: "filter",
				Text: "IPv4, UDP: address-dependent: lets in addresses that this machine has sent to, from any port"}, easy},
		{"filter, one helper", func(r *NetworkReport) { r.IPv4.UDP.Filtering = NotPortDependent },
			NetworkLine{Topic: "filter",
				Text: "IPv4, UDP: lets in other ports of a helper; unknown for other addresses: needs a second helper of peerlane"}, easy},
		{"router", func(*NetworkReport) {},
			NetworkLine{Topic: "router", Text: "no answer to UPnP, NAT-PMP or PCP: ports must be forwarded by hand"}, easy},
		{"router, no NAT", func(r *NetworkReport) { r.IPv4.UDP.Mapping = NoNAT },
			NetworkLine{Topic: "router", Text: "no port mapping is needed"}, easy},
		{"router with port mapping", func(r *NetworkReport) {
			r.Router = NetworkRouter{Gateway: netip.MustParseAddr("192.168.1.1"), UPnP: true, NATPMP: true, PCP: true,
				Outside: netip.MustParseAddr("11.0.0.9")}
		}, NetworkLine{Topic: "router",
			Text: "speaks UPnP, NAT-PMP, PCP: a program can map a port (node.Options.PortMap), and then all peers can dial it"}, easy},
		{"router behind a NAT", func(r *NetworkReport) {
			r.Router = NetworkRouter{NATPMP: true, Outside: netip.MustParseAddr("10.0.0.9")}
		},
			NetworkLine{Topic: "router",
				Text: "speaks NAT-PMP, but its outside address 10.0.0.9 is not where others see this machine: " +
					"behind another NAT, a mapped port is useless"}, easy},
		{"relay", func(r *NetworkReport) { r.Relays[0].Circuits = 2 },
			NetworkLine{Topic: "relay", Text: "2g: 1.0 ms, others can reach this machine through it, 128 KiB and 2m0s for a connection, " +
				"enough to find a direct path; 2 connections now"}, easy},
		{"relay without a limit", func(r *NetworkReport) { r.Relays[0].Data = 0 },
			NetworkLine{Topic: "relay", Text: "2g: 1.0 ms, others can reach this machine through it, without a limit"}, easy},
		{"relay that refuses", func(r *NetworkReport) { r.Relays[0].Reserved, r.Relays[0].Err = false, "no place\nat all" },
			NetworkLine{Topic: "relay", Text: "2g: no peer can reach this machine through it: no place",
				Do: "check its address, that it runs, and which peers it allows"}, easy},
		{"helper that is gone", func(r *NetworkReport) { r.Helpers[1] = NetworkHelper{ID: "b"} },
			NetworkLine{Topic: "helper", Text: "2h: does not answer: no answer", Do: "check its address, and that it runs"}, easy},
		{"private helper", func(r *NetworkReport) { r.Helpers[1].Private = true },
			NetworkLine{Topic: "helper", Text: "2h: 1.0 ms, at a private address: it describes that network, not the internet"}, easy},
		{"private helpers", func(r *NetworkReport) { r.Helpers[0].Private, r.Helpers[1].Private = true, true },
			NetworkLine{Topic: "clock", Text: "agrees with the helpers' clocks within 1ms"},
			"nothing is known about the internet: all helpers that answer have private addresses"},
		{"no holes", func(r *NetworkReport) { r.HolePunch = false },
			NetworkLine{Topic: "punch", Text: "off: direct paths only with peers that can be dialed, or that can dial this machine",
				Do: "set node.Options.HolePunch"}, "direct with peers that can be dialed"},
		{"buffers", func(r *NetworkReport) { r.UDPBuffers = "sysctl -w x=1" },
			NetworkLine{Topic: "buffers", Text: "UDP buffers are small: direct paths over QUIC lose packets at full speed",
				Do: "sysctl -w x=1"}, easy},
		{"clock", func(r *NetworkReport) { r.Helpers[0].Ahead, r.Helpers[1].Ahead = -time.Hour, -time.Hour },
			NetworkLine{Topic: "clock", Text: "1h0m0s off: reservations seem to end too early or too late",
				Do: "set the clock of this machine"}, easy},
		{"no helper answers", func(r *NetworkReport) {
			r.IPv6 = NetworkIP{}
			both(r, func(t *NetworkTransport) { *t = NetworkTransport{Asked: 2} })
			r.Helpers = []NetworkHelper{{ID: "a", Err: "refused"}}
		}, NetworkLine{Topic: "punch", Text: "ready; whether holes can be punched is unknown: needs a helper"},
			"no helper answers: this machine has no internet access, or the helpers do not run"},
		{"no helper", func(r *NetworkReport) { *r = NetworkReport{IPv4: NetworkIP{Local: r.IPv4.Local}} },
			NetworkLine{Topic: "clock", Text: "unknown: needs a relay or a node of peerlane as helper"},
			"the network cannot be checked without a helper"},
	} {
		r := home()
		tt.change(&r)
		lines := r.Lines()
		require.Contains(t, lines, tt.want, tt.name)
		require.Equal(t, "summary", last(r).Topic)
		require.Equal(t, tt.summary, last(r).Text, tt.name)
	}
}
