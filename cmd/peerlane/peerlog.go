package main

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/peerlane/peerlane/node"
)

// logPeers logs each peer that comes and goes, and what would make QUIC faster here. stop ends it, and waits.
func logPeers(h host.Host, log *slog.Logger) (stop func(), err error) {
	if advice := node.UDPBufferAdvice(); advice != "" {
		log.Info("QUIC would be faster with larger UDP buffers", "run", advice)
	}
	sub, err := h.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged))
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		writePeers(h, sub, log)
	}()
	return func() {
		_ = sub.Close() // ends the channel; it has nothing to report
		<-done
	}, nil
}

// writePeers owns sub's events, ends when stop closes sub, and reports to log.
func writePeers(h host.Host, sub event.Subscription, log *slog.Logger) {
	for v := range sub.Out() {
		e := v.(event.EvtPeerConnectednessChanged)
		if e.Connectedness == network.NotConnected {
			log.Info("peer gone", "peer", e.Peer)
			continue
		}
		var from []string
		for _, c := range h.Network().ConnsToPeer(e.Peer) {
			from = append(from, c.RemoteMultiaddr().String())
		}
		log.Info("peer connected", "peer", e.Peer, "from", from)
	}
}
