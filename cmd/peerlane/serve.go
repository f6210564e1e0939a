package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
)

// serveCmd is peerlane serve.
type serveCmd struct {
	Key    string   `placeholder:"FILE" help:"Key file of the identity; if none, a new one each time."`
	Listen []string `placeholder:"ADDR" help:"Multiaddr to listen on, as in /ip4/0.0.0.0/tcp/4001; may be repeated. If none, TCP and QUIC on all interfaces."`
	Tag    string   `default:"${tag}" help:"Tag to serve."`
	Allow  []string `placeholder:"PEER" help:"Serve only this peer; may be repeated."`
	findFlags
	secretFlags
	monitorFlags
	Peers   int           `default:"1000" help:"How many peers may be connected at once."`
	Relay   []string      `env:"PEERLANE_RELAY" placeholder:"ADDR" help:"Relay to be reached through from behind a NAT; may be repeated."`
	Drain   time.Duration `default:"30s" help:"How long to wait for calls in progress when interrupted; a second signal cuts them off."`
	Verbose bool          `short:"v" help:"Log one line per peer that comes and goes, and what is refused."`

	Echo    bool     `xor:"what" help:"Answer each call with its own request (the default)."`
	Exec    bool     `xor:"what" help:"Answer each call with the output of COMMAND, which gets the request as its input."`
	Command []string `arg:"" optional:"" passthrough:"partial" help:"Command for --exec, with its arguments."`
}

// Help is shown by --help.
func (*serveCmd) Help() string { return calleeHelp }

// Run serves until ctx ends, which is the first signal, and then drains.
func (c *serveCmd) Run(ctx context.Context, std stdio) (err error) {
	cfg, err := c.config(std)
	if err != nil {
		return err
	}
	handler, done, err := c.handler()
	if err != nil {
		return err
	}
	defer done()
	secret, err := c.load()
	if err != nil {
		return err
	}
	n, err := node.New(ctx, c.options())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if c.Verbose {
		stop, err := logPeers(n.Host(), cfg.Logger)
		if err != nil {
			return err
		}
		defer stop()
	}
	server, err := c.start(n, cfg, handler, secret)
	if err != nil {
		return err
	}
	c.introduce(std, n)
	m, err := c.monitor(std, "serve", servedBy(server))
	if err != nil {
		return errors.Join(err, server.Stop())
	}
	defer m.close()
	circuits, err := reserve(ctx, n, c.findsRelays(c.Relay), func(warning string) { fmt.Fprintln(std.err, warning) })
	if err != nil {
		return errors.Join(err, server.Stop())
	}
	warnUnusable(std.err, append(n.Host().Addrs(), circuits...), c.Listen)
	c.announce(std, n, circuits)
	if err := std.failed(); err != nil {
		return errors.Join(err, server.Stop())
	}
	<-ctx.Done()
	return c.drain(std, server)
}

// start serves the tag.
func (c *serveCmd) start(
	n *node.Node, cfg *peerlane.ServerConfig, handler peerlane.Handler, secret []byte,
) (*peerlane.Server, error) {
	server, err := peerlane.NewServer(n.Host(), cfg)
	if err != nil {
		return nil, err
	}
	if secret != nil {
		err = peerlane.UseModernPSKServer(server, secret, pskOptions)
	}
	if err == nil {
		err = server.Handle(protocol.ID(c.Tag), handler)
	}
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return server, nil
}

// config returns the server's configuration.
func (c *serveCmd) config(std stdio) (*peerlane.ServerConfig, error) {
	cfg := peerlane.DefaultServerConfig()
	if c.Verbose {
		cfg.Logger = slog.New(slog.NewTextHandler(std.err, nil))
	}
	for _, s := range c.Allow {
		info, err := node.ParsePeer(s)
		if err != nil {
			return nil, fmt.Errorf("--allow: %w", err)
		}
		cfg.AllowPeers = append(cfg.AllowPeers, info.ID)
	}
	if c.Drain < 0 {
		return nil, fmt.Errorf("%w: --drain must not be negative", errUsage)
	}
	return cfg, nil
}

func (c *serveCmd) options() *node.Options {
	return c.callee(&node.Options{KeyFile: c.Key, ListenAddrs: c.Listen, Relays: c.Relay, Limits: &node.Limits{Peers: c.Peers}})
}

// handler returns what answers the calls. done ends what is left of it once the server has stopped.
func (c *serveCmd) handler() (handler peerlane.Handler, done func(), err error) {
	switch {
	case c.Exec && len(c.Command) == 0:
		return nil, nil, fmt.Errorf("%w: --exec needs a command after it", errUsage)
	case !c.Exec && len(c.Command) > 0:
		return nil, nil, fmt.Errorf("%w: %q: a command needs --exec before it, and a value of --dashboard or --dht a = before it", errUsage, c.Command[0])
	case c.Exec:
		e, err := newExecutor(c.Command, c.PSKEnv)
		if err != nil {
			return nil, nil, err
		}
		return e.handle, e.close, nil
	}
	return func(_ context.Context, r *peerlane.Request) ([]byte, error) { return r.Value, nil }, func() {}, nil
}

// introduce prints who serves what, which is known before it can be reached.
func (c *serveCmd) introduce(std stdio, n *node.Node) {
	fmt.Fprintf(std.out, "peer     %s\n", n.ID())
	if c.Key == "" {
		fmt.Fprintln(std.out, "key      none: the Peer ID is new each time; --key FILE keeps it")
	}
	fmt.Fprintf(std.out, "tag      %s\n", c.Tag)
}

// announce prints where the server is and how to call it. The last line is "ready".
func (c *serveCmd) announce(std stdio, n *node.Node, circuits []ma.Multiaddr) {
	addrs, paste := whereabouts(n, circuits)
	for _, a := range addrs {
		fmt.Fprintf(std.out, "address  %s\n", a)
	}
	if paste != "" {
		fmt.Fprintf(std.out, "call it  %s\n", c.callLine(paste))
	}
	if isNearby(n.Host().Addrs()) {
		fmt.Fprintf(std.out, "nearby   %s\n", c.callLine(n.ID().String()))
	}
	fmt.Fprintln(std.out, "ready")
}

// callLine returns a command line that calls this server.
func (c *serveCmd) callLine(addr string) string {
	line := "peerlane call " + addr
	if c.Tag != defaultTag {
		line += " --tag " + c.Tag
	}
	if c.isGiven() {
		line += " --psk-file FILE"
	}
	if len(c.Allow) > 0 {
		line += " --key FILE"
	}
	return line + " --data hello"
}

// drain stops the server in order. A second signal, or the end of --drain, cuts off what is still running.
func (c *serveCmd) drain(std stdio, server *peerlane.Server) error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	ctx, cancel := context.WithTimeoutCause(context.Background(), c.Drain, errDrainOver)
	defer cancel()
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	fmt.Fprintf(std.out, "draining: %d connected, %d in progress; a second signal cuts them off\n",
		len(server.Sessions()), inProgress(server))
	done := make(chan error, 1)
	go func() { done <- server.Shutdown(ctx) }() // ends when ctx does, at the latest
	select {
	case err := <-done:
		return c.drained(ctx, std, err)
	case <-again:
		cut(errSecondSignal)
	}
	return c.drained(ctx, std, <-done)
}

// Why a drain was cut off.
var (
	errDrainOver    = fmt.Errorf("%w: calls were still in progress when --drain was over", errFailed)
	errSecondSignal = fmt.Errorf("%w: calls in progress were cut off by a second signal", errFailed)
)

// errFailed: the command did what it could, and what it reports failed.
var errFailed = errors.New("failed")

func (c *serveCmd) drained(ctx context.Context, std stdio, err error) error {
	if err == nil {
		fmt.Fprintln(std.out, "drained")
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// inProgress returns how many calls are being served.
func inProgress(server *peerlane.Server) int {
	n := 0
	for _, c := range server.GetConnectionsInfo() {
		n += c.InFlight
	}
	return n
}
