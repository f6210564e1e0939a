package node

import (
	"fmt"
	"math"
	"strings"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/invalid"
)

// ErrInvalid says that an option or an argument has an invalid value; the text names it.
var ErrInvalid = invalid.Err

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// Reachability says whether other peers can dial this host.
type Reachability uint8

// The reachabilities.
const (
	// ReachabilityAuto finds out by asking connected peers (AutoNAT), which takes several of them and some minutes.
	ReachabilityAuto Reachability = 0
	// ReachabilityPublic says yes: the host has a public address.
	ReachabilityPublic Reachability = 1
	// ReachabilityPrivate says no: the host is behind a NAT or a firewall.
	ReachabilityPrivate Reachability = 2
)

// Options are for New. The zero value, and nil, is a host with a new identity, on TCP and QUIC, on all interfaces, with libp2p's
// own limits.
type Options struct {
	// KeyFile is where the identity is kept; it is made there if there is none: see LoadKey. If empty, the identity is
	// new each time and kept nowhere.
	KeyFile string

	// ListenAddrs are the multiaddrs to listen on, every one of them. If nil, TCP and QUIC on Port, over IPv4 and, where
	// the system has it, IPv6.
	ListenAddrs []string
	// Port is the TCP and UDP port to listen on where ListenAddrs is nil. If zero, the system chooses.
	Port uint16
	// Loopback listens on 127.0.0.1 only, where ListenAddrs is nil.
	Loopback bool
	// NoListen listens nowhere: the host can dial, and be reached over a relay.
	NoListen bool

	// Limits sizes the resource manager, the connection manager and the limits per address. If nil, libp2p's defaults
	// are in force: about 160 peers, 8 connections from one address.
	Limits *Limits

	// ConnsPerPeer sets how many streams each way one peer may have open on a tag, such as conns of peerlane.Listen, by
	// tag; the limits above a tag grow with it. libp2p's default is 64, and 4 more for each 8 GiB of memory; that of Limits
	// is StreamsPerPeer. Set it on the host that accepts the conns: an HTTP client without MaxConnsPerHost opens as many
	// as it has requests. One QUIC connection carries 256 streams at most. Each must be at least 1, and all together at
	// most 1,000,000.
	ConnsPerPeer map[protocol.ID]int

	// HolePunch upgrades relayed connections to direct ones through NATs: see docs/NAT.md. It is also spoken with hosts that
	// have libp2p's own (DCUtR).
	HolePunch bool
	// NoWide makes HolePunch try one hole at a time. Otherwise, if a single hole fails, up to 2,816 small packets may be sent
	// to a peer's NAT: to one address at most once a minute and five times an hour, and in all at most eight times a minute.
	NoWide bool
	// Relays are peers, as for ParsePeer, through which this host makes itself reachable: see Reservations. If empty, none;
	// dialing others through relays works anyway.
	Relays []string
	// RelayService makes this host a relay for others, and tells libp2p that it is public. If nil, it is none.
	RelayService *RelayService
	// PortMap asks the router for a port (UPnP, NAT-PMP).
	PortMap bool
	// Reachability says whether others can dial this host. If zero, it is found out, except that Relays make it private, and
	// RelayService public.
	Reachability Reachability

	// UserAgent is told to peers. If empty, "peerlane".
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
	case len(o.Relays) > 0:
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

// validate returns an error that names the field; it looks at what the caller wrote, before defaults.
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
	for _, s := range o.Relays {
		if err := validateRelay(s); err != nil {
			return err
		}
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

// validateRelay returns an error unless s is a peer with an address.
func validateRelay(s string) error {
	info, err := ParsePeer(s)
	if err != nil {
		return fmt.Errorf("Options.Relays: %w", err)
	}
	if len(info.Addrs) == 0 {
		return invalidf("Options.Relays: %q has no address", s)
	}
	return nil
}

// Limits is a preset of libp2p's limits, sized for a number of peers. What it lets in is bounded, and is enough for
// Peers of them that all come at once and from one address, as they do from an office behind a NAT.
type Limits struct {
	// Peers is how many peers may be connected at once. Those beyond are let in and then trimmed, the least useful
	// first, when there are a quarter more. It must be at least 1, and at most 1,000,000.
	Peers int
	// StreamsPerPeer is how many streams each way one peer may have open. If zero, 256, which is also what one QUIC
	// connection takes.
	StreamsPerPeer int
	// ConnsPerIP is how many connections one IPv4 address, or IPv6 /56, may have. If zero, as many as there may be at
	// all. libp2p's own is 8.
	ConnsPerIP int
	// Memory is how many bytes libp2p may reserve for streams and connections. If zero, 512 KiB for each stream that
	// may be open, twice what a yamux stream reserves; it is reserved, not allocated.
	Memory int64
}

// The default and the bounds of Limits.
const (
	defaultStreamsPerPeer = 256
	maxPeers              = 1_000_000
	maxAllStreams         = 1 << 28 // Peers times StreamsPerPeer; 2.5 times that still fits into 32 bits
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
		return invalidf("Limits.StreamsPerPeer: %d, want 0 to %d with so many peers", l.StreamsPerPeer, maxAllStreams/l.Peers)
	case l.ConnsPerIP < 0 || l.ConnsPerIP > math.MaxInt32:
		return invalidf("Limits.ConnsPerIP: %d is out of range", l.ConnsPerIP)
	case l.Memory < 0:
		return invalidf("Limits.Memory: %d is negative", l.Memory)
	}
	return nil
}
