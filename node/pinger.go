package node

import (
	"context"
	"crypto/rand"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// A pinger pings a connected peer, over one stream for all pings: libp2p's own ping does not pause between pings, or opens a stream for
// each. It is used by one goroutine.
type pinger struct {
	host   host.Host
	peer   peer.ID
	stream network.Stream // nil: none yet, or failed
}

// isAnswered reports whether the peer answers a ping, or refuses it, within careAnswer. It does not dial the peer.
func (p *pinger) isAnswered(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, careAnswer)
	defer cancel()
	if p.ping(ctx) != nil {
		p.close()
	}
	return ctx.Err() == nil
}

func (p *pinger) ping(ctx context.Context) (err error) {
	if p.stream == nil {
		ctx := network.WithAllowLimitedConn(network.WithNoDial(ctx, "peerlane"), "peerlane")
		if p.stream, err = p.host.NewStream(ctx, p.peer, ping.ID); err != nil {
			p.stream = nil
			return err
		}
	}
	stream := p.stream
	defer context.AfterFunc(ctx, func() { _ = stream.SetDeadline(time.Unix(1, 0)) })() // fails the ping if the peer is silent
	data := make([]byte, ping.PingSize)
	_, _ = rand.Read(data) // never fails
	if _, err := stream.Write(data); err != nil {
		return err
	}
	again := time.AfterFunc(pingAgain, func() { _, _ = stream.Write(data) })
	defer func() {
		if !again.Stop() {
			p.close() // a second answer would be taken for that to the next ping
		}
	}()
	_, err = io.ReadFull(stream, make([]byte, len(data)))
	return err
}

// pingAgain is how long after a ping without an answer it is sent again. A peer that was restarted meanwhile answers that it knows of no
// connection, and over QUIC only what is sent anew arrives soon: lost packets are repeated ever more rarely.
const pingAgain = time.Second

// close ends the stream. The next ping opens a new one.
func (p *pinger) close() {
	if p.stream != nil {
		_ = p.stream.Reset() // abandoned
		p.stream = nil
	}
}
