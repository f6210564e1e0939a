package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
)

// secretFlags say where the pre-shared key is. Its content is never a flag: other users see the command line.
type secretFlags struct {
	PSKFile string `name:"psk-file" xor:"psk" placeholder:"FILE" help:"File with the pre-shared key; a line break at its end does not count."`
	PSKEnv  string `name:"psk-env" xor:"psk" placeholder:"VAR" help:"Environment variable with the pre-shared key."`
}

// isGiven reports whether there is to be a key.
func (f secretFlags) isGiven() bool { return f.PSKFile != "" || f.PSKEnv != "" }

// maxSecret is far more than a key takes.
const maxSecret = 64 << 10

// pskOptions are how keys are derived: nil is the defaults. Most processes of the tests' scripts lower the cost, which is 64 MiB of memory.
var pskOptions *peerlane.PSKOptions

// minSecret is the length of the shortest key that package psk takes, in bytes.
const minSecret = 8

// load returns the key, or nil when none is asked for.
func (f secretFlags) load() (secret []byte, err error) {
	from := "--psk-env"
	switch {
	case f.PSKEnv != "":
		if secret = []byte(os.Getenv(f.PSKEnv)); len(secret) == 0 {
			return nil, fmt.Errorf("%w: --psk-env: the variable %s is empty or not set", errUsage, f.PSKEnv)
		}
	case f.PSKFile != "":
		from = "--psk-file"
		if secret, err = readSecret(f.PSKFile); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("%s: the key has %d bytes, want at least %d", from, len(secret), minSecret)
	}
	return secret, nil
}

// readSecret returns the key in a file that only its owner may use, as a key file of package node.
func readSecret(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--psk-file: %w", err)
	}
	defer func() { _ = file.Close() }() // opened for reading
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("--psk-file: %w", err)
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.IsRegular() && mode.Perm()&0o077 != 0 { // a pipe has no readers but this one
		return nil, fmt.Errorf("--psk-file %s: %w (mode %04o): run chmod 600 %s, and if others have had access use a new key",
			path, node.ErrKeyExposed, mode.Perm(), path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("--psk-file: %w", err)
	}
	if len(data) > maxSecret {
		return nil, fmt.Errorf("--psk-file: %s is over %d bytes long", path, maxSecret)
	}
	return []byte(strings.TrimRight(string(data), "\r\n")), nil
}

// peerFlags say whom a command talks to, and as whom.
type peerFlags struct {
	Peer    string        `arg:"" help:"Peer ID, if the peer is in the local network or --dht finds it; or an address that ends in /p2p/PEER-ID, or several with commas between."`
	Tag     string        `default:"${tag}" help:"Tag to call."`
	Timeout time.Duration `default:"30s" help:"Time limit of a call, connecting included; of ping, for connecting and for each ping."`
	Key     string        `placeholder:"FILE" help:"Key file of the own identity; if none, a new one each time."`
	findFlags
	pathFlags
	secretFlags
}

// Help is shown by --help.
func (*peerFlags) Help() string { return callerHelp }

// defaultTag is the tag of serve, call and ping.
const defaultTag = "/peerlane/call/1.0.0"

// client is a Client on a node of its own.
type client struct {
	*peerlane.Client
	node *node.Node
	peer peer.ID
	tag  protocol.ID
}

// dial returns a client that knows the peer's addresses. retries is how often a call tries again to reach the peer.
func (f *peerFlags) dial(ctx context.Context, retries int) (*client, error) {
	info, err := node.ParsePeer(f.Peer)
	if err != nil {
		return nil, err
	}
	if err := f.checkLocal(info); err != nil {
		return nil, err
	}
	if f.Timeout <= 0 {
		return nil, fmt.Errorf("%w: --timeout must be over 0", errUsage)
	}
	secret, err := f.load()
	if err != nil {
		return nil, err
	}
	n, err := node.New(ctx, f.caller(f.Key, info))
	if err != nil {
		return nil, err
	}
	cfg := clientConfig(f.Timeout, retries)
	cfg.Path, cfg.ConnectTimeout, cfg.CloseTimeout = f.policy(), f.connectTimeout(), goodbye
	c, err := newClient(n, secret, cfg)
	if err == nil && info.ID == n.ID() {
		err = fmt.Errorf("%w: this is the own Peer ID: the two sides need different --key files", errUsage)
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.Remember(info)
	return &client{Client: c, node: n, peer: info.ID, tag: protocol.ID(f.Tag)}, nil
}

// viaRelay reports whether the peer is behind a NAT, so that a hole must be punched from a port that listens.
func viaRelay(info peer.AddrInfo) bool {
	for _, a := range info.Addrs {
		if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err == nil {
			return true
		}
	}
	return false
}

// retryInterval is the first wait before another try.
const retryInterval = 100 * time.Millisecond

// clientConfig returns what all clients of the command have.
func clientConfig(timeout time.Duration, retries int) *peerlane.ClientConfig {
	cfg := peerlane.DefaultClientConfig()
	cfg.ReadTimeout, cfg.MaxRetries, cfg.RetryInterval, cfg.AdmitAll = timeout, retries, retryInterval, true
	return cfg
}

func newClient(n *node.Node, secret []byte, cfg *peerlane.ClientConfig) (*peerlane.Client, error) {
	c, err := peerlane.NewClient(n.Host(), cfg)
	if err != nil || secret == nil {
		return c, err
	}
	return c, peerlane.UseModernPSKClient(c, secret, pskOptions)
}

// hangUp ends the sessions and the host when all that was asked is answered or given up. A peer that does not answer the goodbye in time
// is no error: nothing is left to arrive.
func (c *client) hangUp() error {
	_ = c.Close() // see above
	return c.node.Close()
}

// close ends the sessions and the host.
func (c *client) close() error {
	return errors.Join(c.Close(), c.node.Close())
}
