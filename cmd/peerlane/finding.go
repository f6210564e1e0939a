package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/node/mdns"
)

// findFlags are flags for finding peers, and for being found by them.
type findFlags struct {
	DHT   dhtFlag `name:"dht" help:"Find peers and relays in the public DHT, or with --dht=ADDR in the DHT of the peerlane relay --dht at ADDR; may be repeated. Both sides need it."`
	Local bool    `help:"Use the local network only: no relay, no DHT, and no connection to or from other networks. Relays and DHTs of the environment and the configuration file do not count then."`
}

// What the commands say in their help about two sides behind NATs.
const (
	calleeHelp = "If both sides are behind NATs, this side needs --relay, or both need --dht. In one local network neither is needed."
	callerHelp = "If both sides are behind NATs, the other side needs --relay, or both need --dht. In one local network neither is needed."
)

const (
	dhtPrefix   = "/peerlane" // of a DHT that peerlane relay serves
	dhtNone     = "none"      // the value of --dht without bootstrap peers
	dhtPublic   = "public"    // the value of --dht in the configuration file
	foundRelays = 2           // relays from a DHT to use
)

// dhtFlag is --dht or --dht=ADDR.
type dhtFlag struct {
	on        bool
	own       bool // not the public DHT
	bootstrap []peer.AddrInfo
}

// IsBool tells kong that the flag needs no value.
func (f *dhtFlag) IsBool() bool { return true }

// Decode parses a value, if there is one.
func (f *dhtFlag) Decode(ctx *kong.DecodeContext) error {
	f.on = true
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		return nil
	}
	value := ctx.Scan.Pop().String()
	switch value {
	case dhtPublic:
		return nil
	case dhtNone:
		f.own = true
		return nil
	}
	f.own = true
	for one := range strings.SplitSeq(value, ",") {
		info, err := parseReachable(one)
		if err != nil {
			return fmt.Errorf("--dht=ADDR: %w", err)
		}
		f.bootstrap = append(f.bootstrap, info)
	}
	return nil
}

// parseReachable is node.ParsePeer for a peer that must have an address.
func parseReachable(s string) (peer.AddrInfo, error) {
	info, err := node.ParsePeer(s)
	if err == nil && len(info.Addrs) == 0 {
		err = fmt.Errorf("%q has no address", s)
	}
	return info, err
}

// isNone reports whether the flag is --dht=none.
func (f *dhtFlag) isNone() bool { return f.own && len(f.bootstrap) == 0 }

// options returns the options for package dht.
func (f *dhtFlag) options() *dht.Options {
	o := &dht.Options{Bootstrap: f.bootstrap}
	if f.own {
		o.Prefix = dhtPrefix
	}
	return o
}

// dhtConnectTimeout leaves a host time to enter the DHT and look up the peer.
const dhtConnectTimeout = 20 * time.Second

// AfterApply returns an error if flags on the command line contradict --local. Relays and DHTs from elsewhere are ignored with it.
func (f *findFlags) AfterApply(parsed *kong.Context) error {
	for _, p := range parsed.Path {
		if !f.Local || p.Flag == nil || p.Resolved {
			continue
		}
		if name := p.Flag.Name; name == "relay" || name == "dht" && !f.DHT.isNone() {
			return fmt.Errorf("--local keeps to the local network: give either --local or --%s", name)
		}
	}
	return nil
}

// usesDHT reports whether to use a DHT.
func (f *findFlags) usesDHT() bool { return f.DHT.on && !f.DHT.isNone() && !f.Local }

// connectTimeout returns the ConnectTimeout of a client, 0 for the default.
func (f *findFlags) connectTimeout() time.Duration {
	if f.usesDHT() {
		return dhtConnectTimeout
	}
	return 0
}

// caller returns the options of a host that dials peers. It searches for a peer if none of its addresses works.
func (f *findFlags) caller(key string, peers ...peer.AddrInfo) *node.Options {
	relayed := f.usesDHT()
	for _, info := range peers {
		relayed = relayed || viaRelay(info)
	}
	relayed = relayed && !f.Local
	o := &node.Options{KeyFile: key, NoListen: !relayed, HolePunch: relayed}
	return f.add(o, true)
}

// callee completes the options of a host that peers dial and search for.
func (f *findFlags) callee(o *node.Options) *node.Options {
	if f.Local {
		o.Relays = nil
	} else if f.findsRelays(o.Relays) {
		o.FindRelays = foundRelays
	}
	o.HolePunch = len(o.Relays) > 0 || o.FindRelays > 0
	return f.add(o, false)
}

// findsRelays reports whether to find relays, because none is given.
func (f *findFlags) findsRelays(given []string) bool { return f.usesDHT() && len(given) == 0 }

// add adds the discoveries of the flags. A host that others search for announces itself.
func (f *findFlags) add(o *node.Options, noAnnounce bool) *node.Options {
	o.Discovery = append(o.Discovery, mdns.New(&mdns.Options{NoAnnounce: noAnnounce}))
	switch {
	case f.Local:
		o.Libp2p = append(o.Libp2p, libp2p.ConnectionGater(localNetwork{}))
	case f.usesDHT():
		table := f.DHT.options()
		table.NoAnnounce = noAnnounce
		o.Discovery = append(o.Discovery, dht.New(table))
	}
	return o
}

// checkLocal returns an error if none of the addresses of a peer is allowed.
func (f *findFlags) checkLocal(info peer.AddrInfo) error {
	if !f.Local || len(info.Addrs) == 0 {
		return nil
	}
	if slices.ContainsFunc(info.Addrs, isOnLAN) {
		return nil
	}
	return fmt.Errorf("%w: --local: the peer's address is not in a network of this machine: give only its Peer ID", errUsage)
}
