package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/dht"
)

// relayCmd is the command peerlane relay.
type relayCmd struct {
	Key          string        `placeholder:"FILE" help:"Key file of the identity; if none, a new one each time, so that users of the relay need its new address."`
	Port         uint16        `xor:"where" placeholder:"4001" help:"TCP and UDP port to listen on."`
	Listen       []string      `xor:"where" placeholder:"ADDR" help:"Multiaddr to listen on, as in /ip4/0.0.0.0/tcp/4001; may be repeated."`
	Data         string        `default:"128KiB" help:"Amount that a relayed connection passes in each direction before it is cut, as in 128KiB or 10MB; none for no limit."`
	Duration     time.Duration `default:"2m" help:"How long a relayed connection lasts. It has no effect with --data none."`
	Reservations int           `default:"128" help:"How many peers can be reached through the relay at a time."`
	Circuits     int           `default:"16" help:"How many relayed connections each of them may have at a time."`
	Allow        []string      `placeholder:"PEER" help:"Only this peer can be reached through the relay; may be repeated."`
	Peers        int           `default:"1000" help:"How many peers may be connected at once."`
	monitorFlags
	DHT dhtFlag `name:"dht" help:"Serve a private DHT in which peers find each other and this relay: --dht=none starts one, --dht=ADDR joins the DHT of the relay at ADDR; may be repeated."`
}

// relayPort is the default port of a relay.
const relayPort = 4001

// Run relays until ctx ends.
func (c *relayCmd) Run(ctx context.Context, std stdio) (err error) {
	service, err := c.service()
	if err != nil {
		return err
	}
	if c.DHT.on && !c.DHT.own {
		return fmt.Errorf("%w: --dht: want --dht=none to start a DHT, or --dht=ADDR to join one; a relay cannot serve the public DHT", errUsage)
	}
	o := &node.Options{KeyFile: c.Key, ListenAddrs: c.Listen, RelayService: service, Limits: &node.Limits{Peers: c.Peers}}
	if c.DHT.on {
		table := c.DHT.options()
		table.Server, table.NoAnnounce = true, true
		o.Discovery = append(o.Discovery, dht.New(table))
	}
	if o.Port = c.Port; c.Port == 0 && c.Listen == nil {
		o.Port = relayPort
	}
	n, err := node.New(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	fmt.Fprintf(std.out, "peer     %s\n", n.ID())
	if c.Key == "" {
		fmt.Fprintln(std.out, "key      none: the Peer ID is new each time; --key FILE keeps it")
	}
	m, err := c.monitor(std, "relay", servedBy())
	if err != nil {
		return err
	}
	defer m.close()
	addrs, far := byReach(n.Addrs())
	for _, a := range addrs {
		fmt.Fprintf(std.out, "address  %s\n", a)
	}
	if !far {
		fmt.Fprintf(std.err, "warning  other networks cannot reach any of these addresses: run the relay on a machine with a public address, or forward "+
			"a port to this one, TCP and UDP, and give --relay /ip4/ADDRESS/tcp/PORT/p2p/%s with the outside address and port\n", n.ID())
	}
	if len(addrs) > 0 {
		fmt.Fprintf(std.out, "use it   --relay %s\n", addrs[0])
		if c.DHT.on {
			fmt.Fprintf(std.out, "find by  --dht=%s\n", addrs[0])
		}
	}
	fmt.Fprintln(std.out, "ready")
	if err := std.failed(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// service returns the limits that the flags set.
func (c *relayCmd) service() (*node.RelayService, error) {
	if c.Reservations < 1 || c.Circuits < 1 || c.Duration <= 0 {
		return nil, fmt.Errorf("%w: --reservations, --circuits and --duration must be over 0", errUsage)
	}
	s := &node.RelayService{Duration: c.Duration, Reservations: c.Reservations, Circuits: c.Circuits}
	if c.Data == "none" {
		s.Data, s.Duration = -1, 0
	} else {
		var data size
		if err := data.UnmarshalText([]byte(c.Data)); err != nil {
			return nil, fmt.Errorf("%w: --data: want an amount as in 128KiB or 10MB, or none: %q", errUsage, c.Data)
		}
		s.Data = int64(data)
	}
	for _, text := range c.Allow {
		info, err := node.ParsePeer(text)
		if err != nil {
			return nil, fmt.Errorf("--allow: %w", err)
		}
		s.Allow = append(s.Allow, info.ID)
	}
	return s, nil
}

// How far an address reaches.
const (
	reachesFar = iota // it may be reached from other networks
	reachesLAN
	reachesLink // one network segment: 169.254.x.x, fe80:...
	reachesHost // this machine
)

// reachOf returns how far an address reaches.
func reachOf(a ma.Multiaddr) int {
	if _, err := a.ValueForProtocol(ma.P_UNIX); err == nil {
		return reachesHost
	}
	ip, err := manet.ToIP(a)
	switch {
	case err == nil && ip.IsLoopback():
		return reachesHost
	case err == nil && ip.IsLinkLocalUnicast():
		return reachesLink
	case manet.IsPrivateAddr(a):
		return reachesLAN
	}
	return reachesFar
}

// byReach returns addresses of a node with those first that reach farthest, IPv4 before IPv6 and TCP before UDP, and whether one of them may be
// reached from other networks.
func byReach(addrs []string) (sorted []string, far bool) {
	reach := func(text string) int {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return reachesHost // none of a node's
		}
		return reachOf(a)
	}
	has := func(text, part string) int { return strings.Count(text, part) }
	sorted = slices.SortedStableFunc(slices.Values(addrs), func(a, b string) int {
		return cmp.Or(cmp.Compare(reach(a), reach(b)), has(a, "/ip6/")-has(b, "/ip6/"), has(a, "/udp/")-has(b, "/udp/"))
	})
	return sorted, len(sorted) > 0 && reach(sorted[0]) == reachesFar
}
