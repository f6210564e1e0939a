package main

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// startTimeout bounds what a contender does before its first call.
const startTimeout = 10 * time.Second

// A hostPair is two libp2p hosts in this process that know each other's address
// over one transport and no other.
type hostPair struct {
	dialer, listener host.Host
	cleanups
}

// An optionFunc makes a libp2p option for one host, with what must not be shared.
type optionFunc func() (libp2p.Option, error)

// newHostPair returns two new hosts, not yet connected.
func newHostPair(t transport, extra ...optionFunc) (*hostPair, error) {
	p := new(hostPair)
	var err error
	if p.listener, err = p.newHost(t, extra); err != nil {
		return nil, p.fail(err)
	}
	if p.dialer, err = p.newHost(t, extra); err != nil {
		return nil, p.fail(err)
	}
	return p, nil
}

// newHost returns a host that listens on loopback and that p will close. It has
// libp2p's defaults but for the one transport, and TLS as the one security.
func (p *hostPair) newHost(t transport, extra []optionFunc) (host.Host, error) {
	opts := []libp2p.Option{libp2p.DisableRelay(), libp2p.Security(libp2ptls.ID, libp2ptls.New)}
	for _, newOption := range append([]optionFunc{t.option}, extra...) {
		opt, err := newOption()
		if err != nil {
			return nil, err
		}
		opts = append(opts, opt)
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	p.push(h.Close)
	return h, nil
}

// option returns what makes a host listen on t and dial nothing else.
func (t transport) option() (libp2p.Option, error) {
	switch t {
	case overTCP:
		return libp2p.ChainOptions(libp2p.Transport(tcp.NewTCPTransport),
			libp2p.ListenAddrStrings("/ip4/"+loopback+"/tcp/0")), nil
	case overQUIC:
		return libp2p.ChainOptions(libp2p.Transport(libp2pquic.NewTransport),
			libp2p.ListenAddrStrings("/ip4/"+loopback+"/udp/0/quic-v1")), nil
	default:
		return nil, fmt.Errorf("transport %q: unknown", t)
	}
}

// connect connects the dialer to the listener, whose handlers are set by then:
// identify tells the dialer of them.
func (p *hostPair) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	info := peer.AddrInfo{ID: p.listener.ID(), Addrs: p.listener.Addrs()}
	return p.dialer.Connect(ctx, info)
}

// unlimited returns a resource manager option without limits. A new manager for
// each host: it is closed with it.
func unlimited() (libp2p.Option, error) {
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	if err != nil {
		return nil, fmt.Errorf("resource manager: %w", err)
	}
	return libp2p.ResourceManager(m), nil
}
