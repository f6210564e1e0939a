// Package punch finds direct connections between hosts that are connected over a relay: by dialing, and by punching holes through NATs.
//
//	s, err := punch.New(h)
//	...
//	err = s.Direct(ctx, pid)
//
// A Service runs on each host. While a peer is connected over a relay alone, the services of both sides keep trying: at once when a network
// has changed, and at growing intervals otherwise. A service remembers the networks in which it has failed, so that Direct fails there at once.
//
// # Exchange
//
// The two sides tell each other over the relay at which addresses others see them, and dial each other at the same moment: DCUtR, as
// libp2p specifies it (specs/relay/DCUtR.md), with which the service speaks to hosts that have no peerlane. Between two services the same
// messages go over Protocol, which either side may begin, as often as it likes.
//
// # Own addresses
//
// A host learns its outside address from the peers that it has dialed, but only for the transport of that connection. For each other
// transport, the service opens a second connection to the relay, asks for the address, and closes the connection again.
//
// # Limits
//
// A peer chooses the addresses that this host dials, so they may be those of a third party. The traffic that
// peers can cause is bounded for each peer, each relay and each address, and in total: see limits.go, and docs/NAT.md.
package punch
