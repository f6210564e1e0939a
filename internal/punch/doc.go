// Package punch finds direct connections between hosts that are connected over a relay: by dialing, and by punching holes through NATs.
//
//	s, err := punch.New(h)
//	...
//	err = s.Direct(ctx, pid)
//
// A Service runs on each host. While a peer is connected over a relay alone, the service of either side tries again and again, at once when
// a network has changed and at growing intervals otherwise. It remembers in which network it has failed, so that nobody waits there for what
// does not come.
//
// # Exchange
//
// The two sides tell each other over the relay at which addresses others see them, and dial each other at the same moment: DCUtR, as
// libp2p specifies it (specs/relay/DCUtR.md), with which the service speaks to hosts that have no peerlane. Between two services the same
// messages go over Protocol, which either side may begin, as often as it likes.
//
// # Own addresses
//
// A host learns its outside address from the peers that it has dialed, and only for the transport of that connection. For the others, the
// service opens a connection to the relay that serves to ask for the address, and closes it.
//
// # Limits
//
// A peer chooses the addresses that this host dials, so they may be those of a third party. What a host sends is bounded for each peer, each
// relay and each address, and in all: see limits.go, and docs/NAT.md.
package punch
