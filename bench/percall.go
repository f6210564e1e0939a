package main

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const perCallTag = protocol.ID("/bench/percall/1.0.0")

// streamPerCall opens a libp2p stream for each call, as pointsub v0.0.2 and most
// libp2p programs do: one frame each way, then the server closes. libp2p's
// default resource manager would refuse many parallel calls; it is lifted here.
type streamPerCall struct{}

// Name returns the contender's name.
func (streamPerCall) Name() string { return "stream per call" }

// Transports returns libp2p's transports.
func (streamPerCall) Transports() []transport { return everyTransport }

// Start returns two connected hosts, without resource limits.
func (streamPerCall) Start(t transport) (service, error) {
	p, err := newHostPair(t, unlimited)
	if err != nil {
		return nil, err
	}
	p.listener.SetStreamHandler(perCallTag, servePerCall)
	if err := p.connect(); err != nil {
		return nil, p.fail(err)
	}
	return perCallService{p}, nil
}

// perCallService is a running streamPerCall.
type perCallService struct{ hosts *hostPair }

// Caller returns a caller that shares the connection with all others.
func (s perCallService) Caller(context.Context) (caller, error) {
	server := s.hosts.listener.ID()
	return callFunc(func(ctx context.Context, payload []byte) ([]byte, error) {
		return s.call(ctx, server, payload)
	}), nil
}

// Stop closes the hosts.
func (s perCallService) Stop() error { return s.hosts.run() }

// call makes one call on one new stream.
func (s perCallService) call(ctx context.Context, server peer.ID, payload []byte) ([]byte, error) {
	stream, err := s.hosts.dialer.NewStream(ctx, server, perCallTag)
	if err != nil {
		return nil, err
	}
	reply, err := exchange(ctx, stream, payload)
	if err != nil {
		return nil, errors.Join(err, stream.Reset())
	}
	_ = stream.Close() // fails on QUIC if the server's Close was faster; the reply is whole
	return reply, nil
}

// exchange sends payload and returns the frame that comes back.
func exchange(ctx context.Context, stream network.Stream, payload []byte) ([]byte, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := stream.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if _, err := stream.Write(appendFrame(nil, payload)); err != nil {
		return nil, err
	}
	return readFrame(stream, nil)
}

// servePerCall answers one call and closes the stream.
func servePerCall(stream network.Stream) {
	req, err := readFrame(stream, nil)
	if err == nil {
		var reply []byte
		if reply, err = echo(req); err == nil {
			_, err = stream.Write(appendFrame(nil, reply))
		}
	}
	if err != nil {
		_ = stream.Reset() // tells the caller, which reports it
		return
	}
	_ = stream.Close() // a failure reaches the caller as a missing reply
}
