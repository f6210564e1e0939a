// Package node builds a libp2p host the way an application needs it: with an identity that survives a restart, addresses
// that can be pasted, limits that are enough for the peers one expects, and the NAT services one asks for.
//
//	n, err := node.New(ctx, &node.Options{KeyFile: "peer.key", Limits: &node.Limits{Peers: 500}})
//	if err != nil {
//		return err
//	}
//	defer n.Close()
//	fmt.Println(n.Addrs()) // [/ip4/192.0.2.7/udp/40123/quic-v1/p2p/12D3KooW... ...]
//
//	info, err := node.ParsePeer(os.Args[1]) // what the other side printed
//	n.Remember(info)                        // now peerlane.Dial and Client.Send find it by info.ID
//
// It is a convenience. The rest of peerlane takes any host.Host, and runs under libp2p's default limits.
//
// # Lifetime
//
// A Node lives until Close, which closes its host and all that runs on it. Close the servers and clients on it first, so
// that they can drain.
//
// # Addresses
//
// Of a peer's addresses the host dials first the one at which it has reached the peer last, alone for 250 ms: libp2p's own
// order is by transport and port, eight at a time, and behind eight addresses that do not answer a good one waits for 5 to
// 15 s. An Options.Libp2p that sets a dial ranker replaces this.
//
// # UDP buffers
//
// QUIC wants large UDP buffers, and quic-go prints a line through package log when the system grants less. A program that
// shows UDPBufferAdvice itself silences that line by setting the environment variable
// QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING to true before New; this package never touches the environment.
package node
