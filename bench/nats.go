package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	natsName    = "nats"
	natsSubject = "bench.echo"
)

// natsRequest is NATS request and reply through a server in this process: one
// client connection for the callers and one for the responder, both over TLS.
// Each call crosses loopback four times, which is what a broker costs.
type natsRequest struct{}

// Name returns the contender's name.
func (natsRequest) Name() string { return natsName }

// Transports returns what NATS runs on.
func (natsRequest) Transports() []transport { return onlyTCP }

// Start returns a server, a responder and a requester.
func (natsRequest) Start(transport) (service, error) {
	pair, err := newTLSPair()
	if err != nil {
		return nil, err
	}
	s := new(natsService)
	if err := s.start(pair); err != nil {
		return nil, s.fail(err)
	}
	return s, nil
}

// natsService is a running natsRequest.
type natsService struct {
	broker    *server.Server
	requester *nats.Conn
	cleanups
}

// start starts the three parts. What it started is in the cleanups even if it
// fails.
func (s *natsService) start(pair tlsPair) error {
	broker, err := server.NewServer(&server.Options{
		Host: loopback, Port: server.RANDOM_PORT,
		TLS: true, TLSConfig: pair.server, TLSTimeout: startTimeout.Seconds(),
		NoLog: true, NoSigs: true,
	})
	if err != nil {
		return fmt.Errorf("nats server: %w", err)
	}
	s.broker = broker
	broker.Start()
	s.push(func() error { broker.Shutdown(); broker.WaitForShutdown(); return nil })
	if !broker.ReadyForConnections(startTimeout) {
		return errors.New("nats server: not ready for connections")
	}
	responder, err := s.connect(broker, pair)
	if err != nil {
		return err
	}
	if _, err := responder.Subscribe(natsSubject, respond); err != nil {
		return fmt.Errorf("nats subscribe: %w", err)
	}
	if err := responder.FlushTimeout(startTimeout); err != nil {
		return fmt.Errorf("nats subscribe: %w", err)
	}
	s.requester, err = s.connect(broker, pair)
	return err
}

// connect returns a new client connection to broker.
func (s *natsService) connect(broker *server.Server, pair tlsPair) (*nats.Conn, error) {
	c, err := nats.Connect(broker.ClientURL(), nats.Secure(pair.client), nats.Timeout(startTimeout), nats.NoReconnect())
	if err != nil {
		return nil, fmt.Errorf("nats connect: %w", err)
	}
	s.push(func() error { c.Close(); return nil })
	return c, nil
}

// respond answers one request. An error ends in the requester's deadline.
func respond(m *nats.Msg) {
	if reply, err := echo(m.Data); err == nil {
		_ = m.Respond(reply)
	}
}

// Caller returns a caller on the requester's connection.
func (s *natsService) Caller(context.Context) (caller, error) {
	return callFunc(func(ctx context.Context, payload []byte) ([]byte, error) {
		m, err := s.requester.RequestWithContext(ctx, natsSubject, payload)
		if err != nil {
			return nil, err
		}
		return m.Data, nil
	}), nil
}

// Stop ends the requester, the responder and the server.
func (s *natsService) Stop() error { return s.run() }
