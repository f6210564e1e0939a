package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	relay "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/transfer"
)

// hostFlags say as whom, and where, a command can be reached.
type hostFlags struct {
	Key    string   `placeholder:"FILE" help:"Key file of the identity; if none, a new one each time."`
	Listen []string `placeholder:"ADDR" help:"Multiaddr to listen on, as in /ip4/0.0.0.0/tcp/4001; may be repeated. If none, TCP and QUIC on all interfaces."`
	Relay  []string `placeholder:"ADDR" help:"Relay to be reached through from behind a NAT; may be repeated."`
	secretFlags
}

// endpoint answers transfers.
type endpoint struct {
	node     *node.Node
	server   *peerlane.Server
	service  *transfer.Service
	circuits []ma.Multiaddr // through relays
}

// maxPeers is how many peers may be connected to an endpoint.
const maxPeers = 100

// open returns an endpoint that serves who has the secret, or everybody if it is nil. Where there is a relay, it waits until the host can be reached through that.
func (f *hostFlags) open(ctx context.Context, secret []byte, allow []peer.ID, cfg *transfer.ServiceConfig) (*endpoint, error) {
	service, err := transfer.NewService(cfg)
	if err != nil {
		return nil, err
	}
	n, err := node.New(ctx, &node.Options{KeyFile: f.Key, ListenAddrs: f.Listen, Relays: f.Relay, HolePunch: len(f.Relay) > 0,
		Limits: &node.Limits{Peers: maxPeers}})
	if err != nil {
		return nil, err
	}
	conf := peerlane.DefaultServerConfig()
	conf.AllowPeers, conf.AdmitAll = allow, allow == nil
	server, err := peerlane.NewServer(n.Host(), conf)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	e := &endpoint{node: n, server: server, service: service}
	service.Handle(server)
	if secret != nil {
		err = peerlane.UseModernPSKServer(server, secret, nil)
	}
	if err == nil {
		err = server.Listen(transferTag)
	}
	if err == nil && len(f.Relay) > 0 {
		err = e.reserve(ctx, f.Relay)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// relayWait is how long a relay may take to let this host be reached.
const relayWait = 20 * time.Second

// errNoRelay: a relay does not let this host be reached.
var errNoRelay = errors.New("--relay")

// reserve asks the relays to let this host be reached through them, of which one has to. libp2p does so too, but tells neither why one
// does not, nor of relays with private addresses.
func (e *endpoint) reserve(ctx context.Context, relays []string) error {
	limited, cancel := context.WithTimeout(ctx, relayWait)
	defer cancel()
	var refused []error
	for _, s := range relays {
		info, err := node.ParsePeer(s)
		if err == nil {
			_, err = relay.Reserve(limited, e.node.Host(), info)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("%w: %s: %w", errNoRelay, info.ID, err))
			continue
		}
		circuit := ma.StringCast("/p2p/" + info.ID.String() + "/p2p-circuit")
		for _, a := range info.Addrs {
			e.circuits = append(e.circuits, a.Encapsulate(circuit))
		}
	}
	if len(e.circuits) == 0 {
		return errors.Join(refused...)
	}
	return nil
}

// addrs returns where the host can be reached, loopback and all.
func (e *endpoint) addrs() []ma.Multiaddr {
	return ma.Unique(append(e.node.Host().Addrs(), e.circuits...))
}

// goodbye is how long peers may take to hear that an endpoint goes away.
const goodbye = time.Second

// close ends the transfers that run, and the host.
func (e *endpoint) close() error {
	err := e.service.Close()
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = e.server.Shutdown(ctx) // who has not heard it sees it
	return errors.Join(err, e.node.Close())
}
