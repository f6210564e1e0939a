package main

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/transfer"
)

// hostFlags say as whom, and where, a command can be reached.
type hostFlags struct {
	Key    string   `placeholder:"FILE" help:"Key file of the identity; if none, a new one each time."`
	Listen []string `placeholder:"ADDR" help:"Multiaddr to listen on, as in /ip4/0.0.0.0/tcp/4001; may be repeated. If none, TCP and QUIC on all interfaces."`
	Relay  []string `env:"PEERLANE_RELAY" placeholder:"ADDR" help:"Relay to be reached through from behind a NAT; may be repeated."`
	findFlags
	secretFlags
	monitorFlags
}

// Help is shown by --help.
func (*hostFlags) Help() string { return calleeHelp }

// endpoint answers transfers.
type endpoint struct {
	node     *node.Node
	server   *peerlane.Server
	service  *transfer.Service
	circuits []ma.Multiaddr // through relays
	guests   *guests        // nil: all may stay
}

// maxPeers is how many peers may be connected to an endpoint.
const maxPeers = 100

// open returns an endpoint that serves who has the secret, or everybody if it is nil. Where there is a relay, it waits until the host can
// be reached through that. guests, if not nil, bounds the sessions of peers that have not shown a ticket.
func (f *hostFlags) open(
	ctx context.Context, d *display, secret []byte, allow []peer.ID, cfg *transfer.ServiceConfig, guests *guests,
) (*endpoint, error) {
	service, err := transfer.NewService(cfg)
	if err != nil {
		return nil, err
	}
	n, err := node.New(ctx, f.callee(&node.Options{KeyFile: f.Key, ListenAddrs: f.Listen, Relays: f.Relay,
		Limits: &node.Limits{Peers: maxPeers}}))
	if err != nil {
		return nil, err
	}
	conf := peerlane.DefaultServerConfig()
	conf.AllowPeers, conf.AdmitAll = allow, allow == nil
	d.paths = newPaths(d, true)
	conf.OnPath = d.paths.onPath
	if guests != nil {
		conf.OnState = guests.onState
	}
	server, err := peerlane.NewServer(n.Host(), conf)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	e := &endpoint{node: n, server: server, service: service, guests: guests}
	service.Handle(server)
	if secret != nil {
		err = peerlane.UseModernPSKServer(server, secret, pskOptions)
	}
	if err == nil {
		err = server.Listen(transferTag)
	}
	if err == nil {
		e.circuits, err = reserve(ctx, n, f.findsRelays(f.Relay), func(warning string) { d.printf("%s", warning) })
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// addrs returns where the host can be reached, loopback and all.
func (e *endpoint) addrs() []ma.Multiaddr {
	return ma.Unique(append(e.node.Host().Addrs(), e.circuits...))
}

// goodbye is how long peers may take to hear that this side goes away.
const goodbye = time.Second

// close ends the transfers that run, and the host.
func (e *endpoint) close() error {
	err := e.service.Close()
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = e.server.Shutdown(ctx) // who has not heard it sees it
	if e.guests != nil {
		e.guests.close()
	}
	return errors.Join(err, e.node.Close())
}
