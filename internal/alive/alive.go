// Package alive finds out whether libp2p connections are alive.
package alive

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multistream"
)

// Ping returns nil once the other side of c has answered a request for the ping protocol (libp2p specs, ping). A refusal is an answer too.
// If ctx ends before, Ping returns its error. Any other error is one of this side, and says nothing about the other.
func Ping(ctx context.Context, c network.Conn) error {
	s, err := c.NewStream(network.WithAllowLimitedConn(ctx, "peerlane/ping"))
	if err != nil {
		return because(ctx, err)
	}
	defer func() { _ = s.Reset() }()                                              // nothing more to send
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) }) // a full send queue does not notice a reset
	defer stop()
	if err := s.SetProtocol(ping.ID); err != nil {
		return err // too many streams
	}
	err = multistream.SelectProtoOrFail(protocol.ID(ping.ID), s)
	if _, refused := errors.AsType[multistream.ErrNotSupported[protocol.ID]](err); err == nil || refused {
		return nil
	}
	return because(ctx, err)
}

// because returns ctx's error if ctx has ended, and err otherwise.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
