package node

import (
	"fmt"
	"log/slog"
	"math"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/invalid"
)

// ErrInvalid reports an option or an argument with an invalid value. The text names it.
var ErrInvalid = invalid.Err

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// Reachability is whether other peers can dial this host.
type Reachability uint8

// The reachabilities.
const (
	// ReachabilityAuto asks connected peers (AutoNAT), which needs several of them and takes some minutes.
	ReachabilityAuto Reachability = 0
	// ReachabilityPublic means that the host has a public address.
	ReachabilityPublic Reachability = 1
	// ReachabilityPrivate means that the host is behind a NAT or a firewall.
	ReachabilityPrivate Reachability = 2
)

// Options are options for New. The zero value, and nil, is a host with a new identity that listens on TCP and QUIC, on all interfaces, with
// libp2p's default limits.
type Options struct {
	// KeyFile is the file of the identity. New creates it if it does not exist: see LoadKey. If empty, the identity is new each time and
	// not stored.
	KeyFile string

	// ListenAddrs are the multiaddrs to listen on. Listening must succeed on each of them. If nil, TCP and QUIC on Port, over IPv4 and, if
	// the system supports it, IPv6. /unix/run/app.sock is a Unix domain socket, for processes of the same machine; the permissions of its
	// folder control access.
	ListenAddrs []string
	// Port is the TCP and UDP port to listen on if ListenAddrs is nil. If zero, the system chooses.
	Port uint16
	// Loopback listens on 127.0.0.1 only, if ListenAddrs is nil.
	Loopback bool
	// NoListen does not listen: the host can dial, and be reached over a relay.
	NoListen bool

	// WebTransport and WebRTC let the host dial peers over these transports, the only ones that peers in browsers have. They
	// are implied if ListenAddrs has an address of the transport.
	WebTransport, WebRTC bool

	// Limits sizes the resource manager, the connection manager and the limits per address. If nil, libp2p's defaults apply: about 160
	// peers, 8 connections from one address.
	Limits *Limits

	// ConnsPerPeer sets how many streams each way one peer may have open on a tag, such as conns of peerlane.Listen, by
	// tag; the limits above a tag grow with it. libp2p's default is 64, and 4 more for each 8 GiB of memory; that of Limits
	// is StreamsPerPeer. Set it on both hosts: that of the dialing one limits the conns that it opens, and an HTTP client
	// without MaxConnsPerHost opens as many as it has requests. One QUIC connection carries 256 streams at most. Each must be at least 1, and all together at
	// most 1,000,000.
	ConnsPerPeer map[protocol.ID]int

	// HolePunch upgrades relayed connections to direct ones through NATs: see docs/NAT.md. It also works with hosts that have libp2p's own
	// hole punching (DCUtR).
	HolePunch bool
	// NoWide makes HolePunch try one hole at a time. Otherwise, if a single hole fails, the host may send up to 2,816 small packets to a
	// peer's NAT: to one address at most once a minute and five times an hour, and in all at most eight times a minute.
	NoWide bool
	// Relays are peers, as for ParsePeer, through which this host can be reached: see Reservations. If empty, none. Dialing others through
	// relays needs no option.
	Relays []string
	// FindRelays is the number of relays, found by Discovery, through which this host can be reached: see Reservations. A relay that is
	// lost for 10 s, or within its first 10 s, is replaced. If zero, none. It needs a RelaySource in Discovery, and excludes Relays. At
	// most 16.
	FindRelays int
	// RelayService makes this host a relay for others, and marks it as public in libp2p. If nil, the host is not a relay.
	RelayService *RelayService
	// NetworkHelper answers hosts that check their network (Network, peerlane doctor). It reports the addresses at which it sees them, and
	// sends packets and dials to those addresses, within narrow limits: see docs/NAT.md. RelayService implies it.
	NetworkHelper bool
	// PortMap asks the router for a port (UPnP, NAT-PMP).
	PortMap bool
	// Reachability is whether others can dial this host. If zero, libp2p finds out, except that Relays and FindRelays make the host
	// private, and RelayService makes it public.
	Reachability Reachability

	// Discovery finds addresses of a peer if none is known, or if none works within a second. If empty, the host can dial only peers whose
	// addresses it knows: see Node.Remember. A Discovery belongs to one host. New starts it, and Node.Close closes it.
	Discovery []Discovery
	// Peers are peers, as for ParsePeer, whose addresses the host knows from the start.
	Peers []string
	// AddrFile keeps working addresses of peers for the next process: at most 256 peers, with 4 addresses each. The host looks them up like
	// those of Discovery. New creates the file if it does not exist, for its owner only; the folder must exist. Only one process at a time
	// should use it. If empty, none.
	AddrFile string
	// Logger receives events that an operator may need to know about: an AddrFile that cannot be read or written, which is not an error. If
	// nil, none.
	Logger *slog.Logger

	// UserAgent is the name that peers see. If empty, "peerlane".
	UserAgent string

	// Libp2p are further options for libp2p.New, applied last.
	Libp2p []libp2p.Option
}

// defaultUserAgent is the default of Options.UserAgent.
const defaultUserAgent = "peerlane"

func (o Options) withDefaults() Options {
	if o.UserAgent == "" {
		o.UserAgent = defaultUserAgent
	}
	switch {
	case o.Reachability != ReachabilityAuto:
	case len(o.Relays) > 0, o.FindRelays > 0:
		o.Reachability = ReachabilityPrivate
	case o.RelayService != nil:
		o.Reachability = ReachabilityPublic
	}
	if o.ListenAddrs == nil {
		o.ListenAddrs = o.defaultListenAddrs()
	}
	if o.Limits != nil {
		limits := o.Limits.withDefaults()
		o.Limits = &limits
	}
	return o
}

// defaultListenAddrs returns TCP and QUIC on o.Port.
func (o Options) defaultListenAddrs() []string {
	ips := []string{"/ip4/0.0.0.0", "/ip6/::"}
	if o.Loopback {
		ips = []string{"/ip4/127.0.0.1"}
	}
	var all []string
	for _, ip := range ips {
		all = append(all, fmt.Sprintf("%s/tcp/%d", ip, o.Port), fmt.Sprintf("%s/udp/%d/quic-v1", ip, o.Port))
	}
	return all
}

// validate returns an error that names the invalid field. It checks the caller's values, before defaults.
func (o Options) validate() error {
	explicit := o.ListenAddrs != nil
	switch {
	case explicit && len(o.ListenAddrs) == 0:
		return invalidf("Options.ListenAddrs: empty; use nil for the default, or NoListen")
	case explicit && o.NoListen:
		return invalidf("Options.NoListen: ListenAddrs is set too")
	case explicit && o.Loopback:
		return invalidf("Options.Loopback: ListenAddrs is set too")
	case explicit && o.Port != 0:
		return invalidf("Options.Port: ListenAddrs is set too")
	case o.NoListen && (o.Loopback || o.Port != 0):
		return invalidf("Options.NoListen: Loopback or Port is set too")
	case o.Reachability > ReachabilityPrivate:
		return invalidf("Options.Reachability: unknown value %d", o.Reachability)
	case strings.ContainsAny(o.UserAgent, "\r\n"):
		return invalidf("Options.UserAgent: %q has a line break", o.UserAgent)
	}
	for _, s := range o.ListenAddrs {
		if _, err := ma.NewMultiaddr(s); err != nil {
			return invalidf("Options.ListenAddrs: %q is not a multiaddr such as /ip4/0.0.0.0/tcp/4001: %w", s, err)
		}
	}
	if err := o.validatePeers(); err != nil {
		return err
	}
	if o.RelayService != nil {
		if err := o.RelayService.validate(); err != nil {
			return err
		}
	}
	if err := o.validateConns(); err != nil {
		return err
	}
	if o.Limits != nil {
		return o.Limits.validate()
	}
	return nil
}

// maxConnsPerPeer bounds the sum of Options.ConnsPerPeer.
const maxConnsPerPeer = 1_000_000

func (o Options) validateConns() error {
	all := 0
	for tag, n := range o.ConnsPerPeer {
		switch {
		case tag == "":
			return invalidf("Options.ConnsPerPeer: empty tag")
		case n < 1 || n > maxConnsPerPeer-all:
			return invalidf("Options.ConnsPerPeer: %d for %q, want at least 1 and at most %d in all", n, tag, maxConnsPerPeer)
		}
		all += n
	}
	return nil
}

// validatePeers checks the fields that name or find other peers.
func (o Options) validatePeers() error {
	for _, s := range o.Relays {
		if err := validatePeer("Options.Relays", s); err != nil {
			return err
		}
	}
	for _, s := range o.Peers {
		if err := validatePeer("Options.Peers", s); err != nil {
			return err
		}
	}
	if err := validateAddrFile(o.AddrFile); err != nil {
		return err
	}
	for i, d := range o.Discovery {
		if d == nil {
			return invalidf("Options.Discovery: number %d is nil", i+1)
		}
	}
	switch {
	case o.FindRelays < 0 || o.FindRelays > maxFindRelays:
		return invalidf("Options.FindRelays: %d, want 0 to %d", o.FindRelays, maxFindRelays)
	case o.FindRelays > 0 && len(o.Relays) > 0:
		return invalidf("Options.FindRelays: Relays is set too")
	case o.FindRelays > 0 && len(relaySources(o.Discovery)) == 0:
		return invalidf("Options.FindRelays: no Discovery finds relays, as node/dht does")
	}
	return nil
}

// validatePeer returns an error unless s is a peer with an address.
func validatePeer(field, s string) error {
	info, err := ParsePeer(s)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	if len(info.Addrs) == 0 {
		return invalidf("%s: %q has no address", field, s)
	}
	return nil
}

// Limits is a preset of libp2p's limits, sized for a number of peers. It is bounded, and large enough for that number of peers to connect
// at once and from one address, as from an office behind a NAT.
type Limits struct {
	// Peers is how many peers may be connected at once. If there are a quarter more, the least useful ones are trimmed. It must
	// be at least 1, and at most 1,000,000.
	Peers int
	// StreamsPerPeer is how many streams in each direction one peer may have open. If zero, 256, which is also the limit of one QUIC
	// connection.
	StreamsPerPeer int
	// ConnsPerIP is how many connections one IPv4 address, or IPv6 /56, may have. If zero, all that the limits allow. libp2p's default is
	// 8.
	ConnsPerIP int
	// Memory is how many bytes libp2p may reserve for streams and connections. If zero, 512 KiB for each possible stream, double the
	// reservation of a yamux stream. The memory is reserved, not allocated.
	Memory int64
}

// The default and the bounds of Limits.
const (
	defaultStreamsPerPeer = 256
	maxPeers              = 1_000_000
	maxAllStreams         = 1 << 28 // Peers times StreamsPerPeer; 2.5 times this value still fits into 32 bits
	memoryPerStream       = 512 << 10
)

func (l Limits) withDefaults() Limits {
	if l.StreamsPerPeer == 0 {
		l.StreamsPerPeer = defaultStreamsPerPeer
	}
	if l.ConnsPerIP == 0 {
		l.ConnsPerIP = l.conns()
	}
	if l.Memory == 0 {
		l.Memory = int64(l.streams()) * memoryPerStream
	}
	return l
}

func (l Limits) validate() error {
	switch {
	case l.Peers < 1 || l.Peers > maxPeers:
		return invalidf("Limits.Peers: %d, want 1 to %d", l.Peers, maxPeers)
	case l.StreamsPerPeer < 0 || l.StreamsPerPeer > maxAllStreams/l.Peers:
		return invalidf("Limits.StreamsPerPeer: %d, want 0 to %d with this number of peers", l.StreamsPerPeer, maxAllStreams/l.Peers)
	case l.ConnsPerIP < 0 || l.ConnsPerIP > math.MaxInt32:
		return invalidf("Limits.ConnsPerIP: %d is out of range", l.ConnsPerIP)
	case l.Memory < 0:
		return invalidf("Limits.Memory: %d is negative", l.Memory)
	}
	return nil
}
