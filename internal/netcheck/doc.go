// Package netcheck checks how the network of a host treats its packets. It asks other hosts, the helpers, at which addresses they see this
// host, and makes them send packets back.
//
// A helper runs a Server. Other libp2p hosts only report the address at which they see this host (specs/identify).
//
// The terms are those of RFC 4787 and RFC 5780. The mapping of a NAT is how it assigns outside ports to sockets. Its filtering is which
// senders it lets in.
// A check uses sockets of its own, so it knows to which addresses each of them has sent before.
//
// # Limits
//
// A Server sends packets and dials only to the IP address that the client's connection comes from, which cannot be forged. It does so in
// small numbers for each peer, for each network and in total: see limits.go. Its answers report whether the requested peer answered, and
// nothing about other peers.
package netcheck
