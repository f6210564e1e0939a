// Package node builds a libp2p host for an application: with an identity that survives restarts, addresses that can be pasted, limits sized
// for the expected peers, and optional NAT services.
//
//	n, err := node.New(ctx, &node.Options{KeyFile: "peer.key", Limits: &node.Limits{Peers: 500}})
//	if err != nil {
//		return err
//	}
//	defer n.Close()
//	fmt.Println(n.Addrs()) // [/ip4/192.0.2.7/udp/40123/quic-v1/p2p/12D3KooW... ...]
//
//	info, err := node.ParsePeer(os.Args[1]) // the address that the other side printed
//	n.Remember(info)                        // now peerlane.Dial and Client.Send find it by info.ID
//
// It is a convenience. The rest of peerlane takes any host.Host, and runs under libp2p's default limits.
//
// # Lifetime
//
// A Node lives until Close, which closes its host and everything that runs on it. Close the servers and clients on it first, so that they
// can drain.
//
// # Addresses
//
// The host first dials the address at which it last reached a peer, with a head start of 250 ms. libp2p itself orders addresses by
// transport and port and dials eight at a time, so that behind eight silent addresses a good one waits for 5 to 15 s. An Options.Libp2p
// that sets a dial ranker replaces this order.
//
// # Discovery
//
// A host dials the addresses that it knows: those from Remember and Options.Peers, and those of peers that it has met. With
// Options.Discovery it also searches for a peer if it knows no address, or if none works within a second. Packages node/mdns and node/dht
// implement this, and a program that does not import them does not link them. Options.AddrFile keeps working addresses for the next
// process.
//
// # UDP buffers
//
// QUIC needs large UDP buffers, and quic-go prints a line through package log if the system grants less. A program that shows
// UDPBufferAdvice itself can silence that line: set the environment variable QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING to true before New.
// This package does not change the environment.
package node
