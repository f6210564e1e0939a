package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/manifest"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/staging"
)

// transferTag is the tag of send, get, push and receive.
const transferTag = "/peerlane/transfer/1.0.0"

// treeFlags say what is sent, and how.
type treeFlags struct {
	Path     []string `arg:"" help:"File or folder to send, with all that is in it."`
	Rate     size     `placeholder:"N" help:"Bytes per second at most, as in 500k or 10MB."`
	Symlinks bool     `help:"Send symlinks that lead to inside of what is sent. Otherwise they are left out."`
	Compress bool     `help:"Compress what shrinks by it; the other side has to allow it too."`
}

// mostLeftOut is how many files that are left out are named, each on a line.
const mostLeftOut = 20

// walk finds what is to be sent, and says what is left out.
func (f *treeFlags) walk(ctx context.Context, d *display) (*source.Tree, error) {
	left := 0
	tree, err := source.Walk(ctx, f.Path, &source.Options{
		Rules: manifest.Rules{Symlinks: f.Symlinks},
		Skip: func(path string, reason error) {
			if left++; left > mostLeftOut {
				return
			}
			if e := (*source.Error)(nil); errors.As(reason, &e) && e.Text != "" {
				reason = errors.New(e.Text)
			}
			d.printf("left out %q: %s", path, safe(oneLine(reason)))
		},
	})
	if left > mostLeftOut {
		d.printf("left out %d more", left-mostLeftOut)
	}
	return tree, err
}

func (f *treeFlags) options(d *display) transfer.Options {
	return transfer.Options{Rate: int(f.Rate), Compress: f.Compress, Event: d.event}
}

// placeFlags say how what comes is kept.
type placeFlags struct {
	Overwrite bool   `help:"Replace files that are there and differ; never a folder."`
	Symlinks  bool   `help:"Take symlinks that lead to inside of what comes."`
	Rate      size   `placeholder:"N" help:"Bytes per second at most, as in 500k or 10MB."`
	Lanes     int    `default:"0" help:"Connections' worth of data lanes at most, 1 to 16; 0 for 4."`
	Verify    string `enum:"sample,all,none" default:"sample" help:"How much of what an earlier run has left is read again: sample, all or none."`
	Sync      string `enum:"batch,none,each" default:"batch" help:"How much the disk is asked for: batch (every 2 s), none or each (piece)."`
	Compress  bool   `help:"Allow the data to be compressed."`
}

var (
	verifies = map[string]transfer.Verify{"sample": transfer.VerifySample, "all": transfer.VerifyAll, "none": transfer.VerifyNothing}
	syncs    = map[string]staging.SyncPolicy{"batch": staging.SyncBatch, "none": staging.SyncNone, "each": staging.SyncEach}
)

func (f *placeFlags) options(d *display) transfer.ReceiveOptions {
	rules := manifest.LocalRules()
	rules.Symlinks = f.Symlinks
	return transfer.ReceiveOptions{
		Options:   transfer.Options{Rate: int(f.Rate), Lanes: f.Lanes, Compress: f.Compress, Event: d.event},
		Rules:     &rules,
		Overwrite: f.Overwrite, Sync: syncs[f.Sync], Verify: verifies[f.Verify],
	}
}

// hostFlags say as whom, and where, a command can be reached.
type hostFlags struct {
	Key    string   `placeholder:"FILE" help:"Key file of the identity; if none, a new one each time."`
	Listen []string `placeholder:"ADDR" help:"Multiaddr to listen on, as in /ip4/0.0.0.0/tcp/4001; may be repeated. If none, TCP and QUIC on all interfaces."`
	Relay  []string `placeholder:"ADDR" help:"Relay to be reached through from behind a NAT; may be repeated."`
}

// endpoint answers transfers.
type endpoint struct {
	node    *node.Node
	server  *peerlane.Server
	service *transfer.Service
}

// maxPeers is how many peers may be connected to an endpoint.
const maxPeers = 100

// open returns an endpoint that serves. Where there is a relay, it waits until the host can be reached through that.
func (f *hostFlags) open(ctx context.Context, allow []peer.ID, cfg *transfer.ServiceConfig) (*endpoint, error) {
	service, err := transfer.NewService(cfg)
	if err != nil {
		return nil, err
	}
	n, err := node.New(ctx, node.Options{KeyFile: f.Key, ListenAddrs: f.Listen, Relays: f.Relay, HolePunch: len(f.Relay) > 0,
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
	e := &endpoint{n, server, service}
	service.Handle(server)
	if err = server.Listen(transferTag); err == nil && len(f.Relay) > 0 {
		err = e.awaitRelay(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// relayWait is how long a relay may take to let this host be reached.
const relayWait = 20 * time.Second

var errNoRelay = fmt.Errorf("%w: --relay: the relay does not let this host be reached through it", errFailed)

// awaitRelay returns when one of the host's addresses is through a relay.
func (e *endpoint) awaitRelay(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, relayWait, errNoRelay)
	defer cancel()
	sub, err := e.node.Host().EventBus().Subscribe(new(event.EvtLocalAddressesUpdated))
	if err != nil {
		return err
	}
	defer func() { _ = sub.Close() }() // it has nothing to report
	for {
		for _, a := range e.node.Host().Addrs() {
			if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err == nil {
				return nil
			}
		}
		select {
		case <-sub.Out():
		case <-time.After(time.Second): // not all changes are told
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// goodbye is how long peers may take to hear that an endpoint goes away.
const goodbye = 2 * time.Second

// close ends the transfers that run, and the host.
func (e *endpoint) close() error {
	err := e.service.Close()
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_ = e.server.Shutdown(ctx) // who has not heard it sees it
	return errors.Join(err, e.node.Close())
}

// dialFlags say as whom a command calls.
type dialFlags struct {
	Key        string `placeholder:"FILE" help:"Key file of the own identity."`
	AllowRelay bool   `help:"Let data pass a relay that cuts off after some bytes; otherwise only a direct way does."`
}

// connectTimeout bounds one attempt to reach a peer.
const connectTimeout = 30 * time.Second

// dialPeers returns a host, and a Dialer for each peer.
func dialPeers(ctx context.Context, key string, peers []peer.AddrInfo) (*client, []transfer.Dialer, error) {
	relayed := false
	for _, info := range peers {
		relayed = relayed || viaRelay(info)
	}
	n, err := node.New(ctx, node.Options{KeyFile: key, NoListen: !relayed, HolePunch: relayed})
	if err != nil {
		return nil, nil, err
	}
	c, err := newClient(n, nil, connectTimeout, 0)
	if err != nil {
		return nil, nil, errors.Join(err, n.Close())
	}
	var dialers []transfer.Dialer
	for _, info := range peers {
		if info.ID == n.ID() {
			err := fmt.Errorf("%w: this is the own Peer ID: the two sides need different --key files", errUsage)
			return nil, nil, errors.Join(err, c.Close(), n.Close())
		}
		n.Remember(info)
		dialers = append(dialers, func(ctx context.Context) (*session.Session, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return c.Connect(ctx, info.ID, transferTag)
		})
	}
	return &client{Client: c, node: n}, dialers, nil
}
