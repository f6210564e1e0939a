// Package unixsock is a libp2p transport over Unix domain sockets, for processes of one machine. Its addresses are multiaddrs such as
// /unix/run/app.sock.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxPath is the longest path of a socket that every system accepts, in bytes: sockaddr_un holds 104 on macOS, including a final zero, and
// 108 on Linux.
const maxPath = 103

// Paths are the sockets that a host may dial. Peers announce their own addresses, and must not be able to make this host connect to any
// socket of this machine that they name. The zero Paths is empty. It is safe for concurrent use.
type Paths struct {
	mu      sync.Mutex
	allowed map[string]struct{}
}

// Allow lets the host dial the sockets among addrs.
func (p *Paths) Allow(addrs ...ma.Multiaddr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range addrs {
		if path, ok := Path(a); ok {
			if p.allowed == nil {
				p.allowed = make(map[string]struct{})
			}
			p.allowed[path] = struct{}{}
		}
	}
}

func (p *Paths) allows(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.allowed[path]
	return ok
}

// Transport returns the transport of a host, which dials only the sockets in p. The arguments are those that libp2p.Transport passes to a
// constructor.
func (p *Paths) Transport(upgrader transport.Upgrader, limits network.ResourceManager) *Transport {
	return &Transport{upgrader: upgrader, limits: limits, paths: p}
}

// Path returns the path of the socket that a names, and whether a names a socket.
func Path(a ma.Multiaddr) (path string, ok bool) {
	if len(a) != 1 || a[0].Protocol().Code != ma.P_UNIX {
		return "", false
	}
	at, err := manet.ToNetAddr(a)
	if err != nil {
		return "", false
	}
	return at.String(), true
}

// A Transport dials and listens on Unix domain sockets.
type Transport struct {
	upgrader transport.Upgrader
	limits   network.ResourceManager
	paths    *Paths
}

// CanDial reports whether a is the address of a socket.
func (t *Transport) CanDial(a ma.Multiaddr) bool {
	_, ok := Path(a)
	return ok
}

// Protocols returns the code of /unix.
func (t *Transport) Protocols() []int { return []int{ma.P_UNIX} }

// Proxy returns false.
func (t *Transport) Proxy() bool { return false }

// Dial connects to the socket a, which must be one of the host's Paths.
func (t *Transport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	path, ok := Path(a)
	if !ok || !t.paths.allows(path) {
		return nil, fmt.Errorf("unixsock: %s is not allowed: only sockets that were given to this side are dialed", a)
	}
	scope, err := t.limits.OpenConnection(network.DirOutbound, true, a)
	if err != nil {
		return nil, err
	}
	c, err := t.dial(ctx, path, a, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return c, nil
}

func (t *Transport) dial(
	ctx context.Context, path string, a ma.Multiaddr, p peer.ID, scope network.ConnManagementScope,
) (transport.CapableConn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return t.upgrader.Upgrade(ctx, t, conn{Conn: c, addr: a}, network.DirOutbound, p, scope)
}

// Listen listens on the socket a. It replaces a socket on which no process listens any more, and fails if the path is taken otherwise.
func (t *Transport) Listen(a ma.Multiaddr) (transport.Listener, error) {
	path, ok := Path(a)
	switch {
	case !ok:
		return nil, fmt.Errorf("unixsock: %s is not the address of a socket, such as /unix/run/app.sock", a)
	case len(path) > maxPath:
		return nil, fmt.Errorf("unixsock: the path %s has %d bytes, want at most %d", path, len(path), maxPath)
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && removeStale(path) {
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("unixsock: %w", err)
	}
	return t.upgrader.UpgradeGatedMaListener(t, t.upgrader.GateMaListener(listener{Listener: l, addr: a})), nil
}

// removeStale removes a socket that a process left behind when it ended, and reports whether it did.
func removeStale(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close() // a process listens
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(path) == nil
}

// A conn is a connection that has the address of its socket at both ends: the dialing side has none of its own.
type conn struct {
	net.Conn
	addr ma.Multiaddr
}

// LocalMultiaddr returns the address of the socket.
func (c conn) LocalMultiaddr() ma.Multiaddr { return c.addr }

// RemoteMultiaddr returns the address of the socket.
func (c conn) RemoteMultiaddr() ma.Multiaddr { return c.addr }

// A listener is a listener with the address of its socket.
type listener struct {
	net.Listener
	addr ma.Multiaddr
}

// Accept returns the next connection.
func (l listener) Accept() (manet.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{Conn: c, addr: l.addr}, nil
}

// Multiaddr returns the address of the socket.
func (l listener) Multiaddr() ma.Multiaddr { return l.addr }
