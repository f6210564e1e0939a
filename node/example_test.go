package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/node"
)

// Two hosts: one dials the other at an address that the other printed.
func ExampleNew() {
	ctx := context.Background()
	a, err := node.New(ctx, &node.Options{Loopback: true})
	if err != nil {
		panic(err)
	}
	defer a.Close()
	b, err := node.New(ctx, &node.Options{Loopback: true, Limits: &node.Limits{Peers: 500}})
	if err != nil {
		panic(err)
	}
	defer b.Close()

	info, err := node.ParsePeer(b.Addrs()[0])
	if err != nil {
		panic(err)
	}
	a.Remember(info)
	fmt.Println(a.Host().Connect(ctx, peer.AddrInfo{ID: b.ID()}))
	// Output: <nil>
}

// A host asks another host, a relay, at which address it sees this one. Behind a NAT, a second relay tells more.
func ExampleNode_Network() {
	ctx := context.Background()
	relay, err := node.New(ctx, &node.Options{Loopback: true, RelayService: &node.RelayService{}})
	if err != nil {
		panic(err)
	}
	defer relay.Close()
	n, err := node.New(ctx, &node.Options{Loopback: true, HolePunch: true})
	if err != nil {
		panic(err)
	}
	defer n.Close()

	report, err := n.Network(ctx, &node.NetworkOptions{Relays: relay.Addrs()[:1]})
	if err != nil {
		panic(err)
	}
	fmt.Println("NAT:", report.IPv4.TCP.Mapping)
	// Output: NAT: none
}

func ExampleLoadKey() {
	dir, err := os.MkdirTemp("", "peerlane")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "peer.key")

	first, created, err := node.LoadKey(path)
	fmt.Println(created, err)
	second, created, err := node.LoadKey(path)
	fmt.Println(created, err, first.Equals(second))
	// Output:
	// true <nil>
	// false <nil> true
}

func ExampleParsePeer() {
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	info, err := node.ParsePeer("/ip4/192.0.2.7/tcp/4001/p2p/" + id + ", /ip4/192.0.2.7/udp/4001/quic-v1/p2p/" + id)
	fmt.Println(info.ID, info.Addrs, err)

	_, err = node.ParsePeer("192.0.2.7:4001")
	fmt.Println(errors.Is(err, node.ErrInvalid))
	// Output:
	// 12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN [/ip4/192.0.2.7/tcp/4001 /ip4/192.0.2.7/udp/4001/quic-v1] <nil>
	// true
}
