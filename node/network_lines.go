package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A NetworkLine is one finding of a report, as text.
type NetworkLine struct {
	Topic string // one word, such as "mapping"
	Text  string // the finding, and its effect on direct paths
	Do    string // the remedy; empty if there is none
}

// Lines returns the report as text, as peerlane doctor prints it. The last line is a summary: which peers get a direct path.
func (r NetworkReport) Lines() []NetworkLine {
	var all []NetworkLine
	for _, ip := range []struct {
		name string
		IP   NetworkIP
	}{{"IPv4", r.IPv4}, {"IPv6", r.IPv6}} {
		all = append(all, r.linesOf(ip.name, ip.IP)...)
	}
	all = append(all, r.routerLine())
	for _, relay := range r.Relays {
		all = append(all, relay.line())
	}
	for _, h := range r.Helpers {
		all = append(all, helperLine(h))
	}
	return append(all, r.punchLine(), r.buffersLine(), r.clockLine(), r.summary())
}

// linesOf returns the findings for one version of IP.
func (r NetworkReport) linesOf(name string, ip NetworkIP) []NetworkLine {
	isNAT64 := name == "IPv4" && r.NAT64.IsValid()
	if len(ip.Local) == 0 && ip.TCP.Asked+ip.UDP.Asked == 0 && !isNAT64 {
		line := NetworkLine{Topic: "local", Text: name + ": this machine has no address"}
		if name == "IPv6" {
			line.Text += "; between two machines with IPv6 there is no NAT"
			line.Do = "turn on IPv6 in the router, if the provider offers it"
		}
		return []NetworkLine{line}
	}
	all := []NetworkLine{{Topic: "local", Text: name + ": " + texts(ip.Local)}}
	switch {
	case isNAT64 && ip.TCP.Answered+ip.UDP.Answered > 0:
		all[0].Text = fmt.Sprintf("IPv4: this machine has no address; peers with IPv4 are reached through a NAT64, %s", r.NAT64)
	case isNAT64:
		all[0].Text = fmt.Sprintf("IPv4: this machine has no address; peers with IPv4 are dialed at %s, where a NAT64 may be", r.NAT64)
	}
	all = append(all, passLine("udp", name, ip.UDP, ip.TCP), passLine("tcp", name, ip.TCP, ip.UDP))
	if len(r.Helpers) == 0 {
		return all
	}
	if ip.UDP.Answered > 0 {
		all = append(all, mappingLine(name+", UDP", ip.UDP), filterLine(name, ip.UDP))
	}
	if ip.TCP.Answered > 0 {
		all = append(all, mappingLine(name+", TCP", ip.TCP))
	}
	if ip.UDP.Hairpin != Unknown {
		all = append(all, hairpinLine(name, ip.UDP.Hairpin))
	}
	if ip.UDP.Answered+ip.TCP.Answered > 0 {
		all = append(all, reachLine(name, ip))
	}
	return all
}

func texts[T fmt.Stringer](all []T) string {
	var s []string
	for _, one := range all {
		s = append(s, one.String())
	}
	return strings.Join(s, ", ")
}

// passLine describes whether a transport passes. other is the other transport, over the same version of IP.
func passLine(topic, name string, t, other NetworkTransport) NetworkLine {
	line := NetworkLine{Topic: topic}
	over := map[string]string{"udp": "QUIC", "tcp": "TCP"}
	count := fmt.Sprintf("%s to %d of %d helpers", over[topic], t.Answered, t.Asked)
	switch {
	case t.Answered > 0:
		line.Text = fmt.Sprintf("%s: passes: %s, %s", name, count, milliseconds(t.RTT))
	case t.Asked == 0:
		line.Text = fmt.Sprintf("%s: unknown: needs a helper with an address of %s", name, over[topic])
	case other.Answered == 0:
		line.Text = fmt.Sprintf("%s: unknown: no helper answers", name)
	case topic == "udp":
		line.Text = fmt.Sprintf("%s: does not pass: %s, TCP to %d: direct paths use TCP only", name, count, other.Answered)
		line.Do = "allow outgoing UDP in the firewall of this machine or its network"
	default:
		line.Text = fmt.Sprintf("%s: does not pass: %s, QUIC to %d: direct paths use QUIC only", name, count, other.Answered)
	}
	return line
}

// mappingLine describes a NAT's mapping. For "easy" and "hard", see docs/NAT.md.
func mappingLine(name string, t NetworkTransport) NetworkLine {
	line := NetworkLine{Topic: "mapping"}
	port := "a different port than here"
	if t.PortKept == Yes {
		port = "the same port as here"
	}
	switch t.Mapping {
	case NoNAT:
		line.Text = "no NAT: others see this machine at its own address"
	case EndpointIndependent:
		line.Text = fmt.Sprintf(`endpoint-independent ("easy"): one outside address for all peers, with %s: holes can be punched`, port)
	case AddressDependent, AddressAndPortDependent, Dependent:
		line.Text = string(t.Mapping) + ` ("hard"): a different outside port for each peer: no direct path with peers behind such NATs`
		line.Do = openPort
	case NotPortDependent:
		line.Text = "unknown: needs a second helper at another address; the same for two ports of one helper, with " + port
	default:
		line.Text = "unknown: needs a second helper at another address"
	}
	line.Text = name + ": " + line.Text
	return line
}

// openPort is the advice for hard NATs.
const openPort = "forward a UDP port of the router to this machine and listen on it, or use IPv6"

// filterLine describes which packets a NAT or a firewall lets in.
func filterLine(name string, t NetworkTransport) NetworkLine {
	text := "unknown: needs a relay or a node of peerlane as helper"
	switch t.Filtering {
	case EndpointIndependent:
		text = "endpoint-independent: lets in every peer that knows the address"
	case AddressDependent:
		text = "address-dependent: lets in addresses that this machine has sent to, from any port"
	case AddressAndPortDependent:
		text = "address-and-port-dependent: lets in endpoints that this machine has sent to: both sides must dial, as in hole punching"
	case NotPortDependent:
		text = "lets in other ports of a helper; unknown for other addresses: needs a second helper of peerlane"
	}
	return NetworkLine{Topic: "filter", Text: name + ", UDP: " + text}
}

func hairpinLine(name string, passes Answer) NetworkLine {
	text := "does not pass: two machines behind this router connect only at their local addresses"
	if passes == Yes {
		text = "passes: two machines behind this router can also connect at its outside address"
	}
	return NetworkLine{Topic: "hairpin", Text: name + ": " + text}
}

// reachLine describes whether others can dial this host.
func reachLine(name string, ip NetworkIP) NetworkLine {
	line := NetworkLine{Topic: "reach"}
	line.Text = fmt.Sprintf("%s: can others dial this machine? QUIC: %s, TCP: %s", name, ip.UDP.Reachable, ip.TCP.Reachable)
	switch {
	case ip.UDP.Reachable == Yes || ip.TCP.Reachable == Yes:
		line.Text += ": every peer with " + name + " gets a direct path"
	case ip.UDP.Reachable == Unknown || ip.TCP.Reachable == Unknown:
		line.Text += ": needs a second helper of peerlane, at an address that this machine has not sent to"
	default:
		line.Text += ": peers must first connect through a relay"
	}
	return line
}

// routerLine describes the router's support for port mapping.
func (r NetworkReport) routerLine() NetworkLine {
	line := NetworkLine{Topic: "router"}
	var speaks []string
	for _, p := range []struct {
		name string
		is   bool
	}{{"UPnP", r.Router.UPnP}, {"NAT-PMP", r.Router.NATPMP}, {"PCP", r.Router.PCP}} {
		if p.is {
			speaks = append(speaks, p.name)
		}
	}
	seen := seenAt(r.IPv4)
	switch {
	case len(speaks) == 0 && r.IPv4.UDP.Mapping == NoNAT:
		line.Text = "no port mapping is needed"
	case len(speaks) == 0 && r.NAT64.IsValid():
		line.Text = "no port mapping: the ports outside of a NAT64 are its operator's"
	case len(speaks) == 0:
		line.Text = "no answer to UPnP, NAT-PMP or PCP: ports must be forwarded by hand"
	case r.Router.Outside.IsValid() && seen.IsValid() && seen != r.Router.Outside:
		line.Text = fmt.Sprintf("speaks %s, but its outside address %s is not where others see this machine: "+
			"behind another NAT, a mapped port is useless", strings.Join(speaks, ", "), r.Router.Outside)
	default:
		line.Text = "speaks " + strings.Join(speaks, ", ") +
			": a program can map a port (node.Options.PortMap), and then all peers can dial it"
	}
	return line
}

// line describes a relay.
func (r NetworkRelay) line() NetworkLine {
	line := NetworkLine{Topic: "relay", Text: r.ID.String() + ": "}
	if !r.Reserved {
		line.Text += "no peer can reach this machine through it: " + firstLine(r.Err)
		line.Do = "check its address, that it runs, and which peers it allows"
		return line
	}
	limit := "without a limit"
	if r.Data > 0 {
		limit = fmt.Sprintf("%d KiB and %s for a connection, enough to find a direct path", r.Data>>10, r.Duration)
	}
	line.Text += fmt.Sprintf("%s, others can reach this machine through it, %s", milliseconds(r.RTT), limit)
	if r.Circuits > 0 {
		line.Text += fmt.Sprintf("; %d connections now", r.Circuits)
	}
	return line
}

// helperLine describes how a helper answered.
func helperLine(h NetworkHelper) NetworkLine {
	line := NetworkLine{Topic: "helper", Text: h.ID.String() + ": "}
	switch {
	case h.RTT == 0:
		line.Text += "does not answer: " + firstLine(h.Err)
		line.Do = "check its address, and that it runs"
	case h.Private:
		line.Text += milliseconds(h.RTT) + ", at a private address: it describes that network, not the internet"
	case h.Full:
		line.Text += milliseconds(h.RTT)
	default:
		line.Text += milliseconds(h.RTT) + ", reports only where it sees this machine: peerlane relay answers everything"
	}
	return line
}

// firstLine returns the first line of an error's text.
func firstLine(s string) string {
	if s == "" {
		return "no answer"
	}
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// punchLine describes whether the host can punch holes.
func (r NetworkReport) punchLine() NetworkLine {
	line := NetworkLine{Topic: "punch"}
	switch {
	case !r.HolePunch:
		line.Text = "off: direct paths only with peers that can be dialed, or that can dial this machine"
		line.Do = "set node.Options.HolePunch"
	case r.answered() == 0:
		line.Text = "ready; whether holes can be punched is unknown: needs a helper"
	case r.IPv4.UDP.Answered > 0:
		line.Text = "ready, over QUIC and TCP; many holes if one fails"
	default:
		line.Text = "ready, one hole at a time: many need QUIC over IPv4"
	}
	return line
}

func (r NetworkReport) buffersLine() NetworkLine {
	if r.UDPBuffers == "" {
		return NetworkLine{Topic: "buffers", Text: "UDP buffers are large enough, or their size is unknown"}
	}
	return NetworkLine{Topic: "buffers", Text: "UDP buffers are small: direct paths over QUIC lose packets at full speed", Do: r.UDPBuffers}
}

// clockTolerance is the clock difference from which on a line is worthwhile: reservations and tickets expire in minutes.
const clockTolerance = 30 * time.Second

// clockLine compares the clock with the median of the helpers'.
func (r NetworkReport) clockLine() NetworkLine {
	var ahead []time.Duration
	for _, h := range r.Helpers {
		if h.Full {
			ahead = append(ahead, h.Ahead)
		}
	}
	if len(ahead) == 0 {
		return NetworkLine{Topic: "clock", Text: "unknown: needs a relay or a node of peerlane as helper"}
	}
	slices.Sort(ahead)
	off := ahead[len(ahead)/2]
	if off.Abs() < clockTolerance {
		return NetworkLine{Topic: "clock", Text: fmt.Sprintf("agrees with the helpers' clocks within %s", max(off.Abs(), time.Millisecond))}
	}
	return NetworkLine{Topic: "clock", Do: "set the clock of this machine",
		Text: fmt.Sprintf("%s off: reservations seem to end too early or too late", off.Abs())}
}

// answered returns how many helpers have answered.
func (r NetworkReport) answered() (n int) {
	for _, h := range r.Helpers {
		if h.RTT > 0 {
			n++
		}
	}
	return n
}

// milliseconds formats d with one decimal.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// seenAt returns the address at which others see this machine, or the zero Addr.
func seenAt(ip NetworkIP) netip.Addr {
	for _, t := range []NetworkTransport{ip.UDP, ip.TCP} {
		if len(t.Outside) > 0 {
			return t.Outside[0].Addr()
		}
	}
	return netip.Addr{}
}

// summary describes which peers get a direct path, and what to do.
func (r NetworkReport) summary() NetworkLine {
	line := NetworkLine{Topic: "summary"}
	udp, tcp := r.IPv4.UDP, r.IPv4.TCP
	six := r.IPv6.UDP.Answered+r.IPv6.TCP.Answered > 0
	switch {
	case len(r.Helpers) == 0:
		line.Text = "the network cannot be checked without a helper"
	case r.answered() == 0:
		line.Text = "no helper answers: this machine has no internet access, or the helpers do not run"
		line.Do = "check the network, and the helpers' addresses"
	case !slices.ContainsFunc(r.Helpers, func(h NetworkHelper) bool { return h.RTT > 0 && !h.Private }):
		line.Text = "nothing is known about the internet: all helpers that answer have private addresses"
	case udp.Reachable == Yes || tcp.Reachable == Yes:
		line.Text = "direct with every peer: this machine can be dialed"
	case !r.HolePunch:
		line.Text, line.Do = "direct with peers that can be dialed", "set node.Options.HolePunch"
	case udp.Answered > 0:
		line.Text, line.Do = holes(udp.Mapping)
	case tcp.Answered > 0 && (tcp.Mapping == NoNAT || tcp.Mapping == EndpointIndependent):
		line.Text = "direct over TCP with peers that can be dialed or are behind easy NATs; through a relay with those behind hard NATs"
	case tcp.Answered > 0:
		line.Text = "direct over TCP with peers that can be dialed; with others perhaps only through a relay"
	case six:
		line.Text = "direct with peers that have IPv6; with others through a relay that has both"
		return line
	}
	if six && line.Do == openPort {
		line.Text += "; direct with every peer that has IPv6"
	}
	return line
}

// holes describes with which peers hole punching over QUIC succeeds.
func holes(mapping NATBehavior) (text, do string) {
	switch mapping {
	case NoNAT, EndpointIndependent:
		return "direct with peers that can be dialed, and with those behind easy or hard NATs once they have met through a relay", ""
	case AddressDependent, AddressAndPortDependent, Dependent:
		return "direct with peers that can be dialed or are behind easy NATs; through a relay with those behind hard NATs", openPort
	}
	return "direct with peers that can be dialed; unknown for peers behind NATs: needs a second helper", ""
}
