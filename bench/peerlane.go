package main

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane"
)

const peerlaneTag = protocol.ID("/bench/peerlane/1.0.0")

// peerlaneSend is the subject: Client.Send to a Server's handler, both with
// their default configurations, under libp2p's default resource manager.
type peerlaneSend struct {
	psk bool // seal the session with a pre-shared key on top
}

// Name returns the contender's name.
func (p peerlaneSend) Name() string {
	if p.psk {
		return subject + "+psk"
	}
	return subject
}

// Transports returns libp2p's transports.
func (peerlaneSend) Transports() []transport { return everyTransport }

// Start returns a server and a client on two connected hosts.
func (p peerlaneSend) Start(t transport) (service, error) {
	hosts, err := newHostPair(t)
	if err != nil {
		return nil, err
	}
	s := &peerlaneService{hosts: hosts}
	if err := s.start(p.psk); err != nil {
		return nil, hosts.fail(err)
	}
	return s, nil
}

// peerlaneService is a running peerlaneSend.
type peerlaneService struct {
	hosts  *hostPair
	client *peerlane.Client
}

// start starts server and client. What it started is in the hosts' cleanups
// even if it fails.
func (s *peerlaneService) start(psk bool) error {
	srv, err := peerlane.NewServer(s.hosts.listener, peerlane.DefaultServerConfig())
	if err != nil {
		return err
	}
	s.hosts.push(srv.Stop)
	if s.client, err = peerlane.NewClient(s.hosts.dialer, peerlane.DefaultClientConfig()); err != nil {
		return err
	}
	s.hosts.push(s.client.Close)
	if psk {
		if err := usePSK(s.client, srv); err != nil {
			return err
		}
	}
	if err := srv.Start(peerlaneTag, echo); err != nil {
		return err
	}
	return s.hosts.connect()
}

// usePSK gives both ends the same secret.
func usePSK(c *peerlane.Client, s *peerlane.Server) error {
	secret := []byte("the secret of the benchmark, which is none")
	if err := peerlane.UseModernPSKServer(s, secret, nil); err != nil {
		return fmt.Errorf("psk: %w", err)
	}
	if err := peerlane.UseModernPSKClient(c, secret, nil); err != nil {
		return fmt.Errorf("psk: %w", err)
	}
	return nil
}

// Caller returns a caller that shares the client with all others.
func (s *peerlaneService) Caller(context.Context) (caller, error) {
	server := s.hosts.listener.ID()
	return callFunc(func(ctx context.Context, payload []byte) ([]byte, error) {
		return s.client.Send(ctx, server, peerlaneTag, payload)
	}), nil
}

// Stop closes the client, stops the server and closes the hosts.
func (s *peerlaneService) Stop() error { return s.hosts.run() }
