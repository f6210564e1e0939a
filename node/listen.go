package node

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// listen makes h listen. libp2p.New could do this, but it is content if one address of many works, and leaks goroutines if none does. Only
// an IPv6 address may fail, and only if it is a default.
func (o Options) listen(h host.Host) error {
	if o.NoListen {
		return nil
	}
	explicit, all := o.ListenAddrs != nil, o.withDefaults().ListenAddrs
	free := make([]error, len(all))
	for i, s := range all { // all of them first: two of the host's own may have the same port
		free[i] = isFree(ma.StringCast(s)) // validate has parsed it
	}
	for i, s := range all {
		addr, err := ma.StringCast(s), free[i]
		_, version6 := addr.ValueForProtocol(ma.P_IP6)
		if err == nil {
			err = h.Network().Listen(addr)
		}
		if err != nil && (explicit || version6 != nil) {
			return fmt.Errorf("listen on %s: %w", s, err)
		}
	}
	return nil
}

// isFree returns an error if another socket listens on the TCP port of an address. libp2p would not notice: it sets SO_REUSEPORT, to dial
// from the port on which it listens, and the kernel then gives each connection to either of the processes that listen there. A socket
// without SO_REUSEPORT gets no port on which another one listens, whatever options that has. It may get one to which only connections
// are bound, such as those of a process that has just ended. Two processes that begin at the same moment may both find the port free.
func isFree(addr ma.Multiaddr) error {
	for i, c := range addr {
		if c.Protocol().Code != ma.P_TCP {
			continue
		}
		if c.Value() == "0" {
			return nil
		}
		l, err := manet.Listen(addr[:i+1])
		if err == nil {
			return l.Close()
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		return nil // the transport may be able to listen, as in a simulated network, or says why not
	}
	return nil
}
