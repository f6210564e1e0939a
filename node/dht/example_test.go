package dht_test

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/dht"
)

// Two hosts find each other in a private DHT, with a third host as its only server.
func ExampleNew() {
	ctx, loopback := context.Background(), node.Options{Loopback: true}
	server := loopback
	server.Discovery = []node.Discovery{dht.New(&dht.Options{Prefix: "/example", Server: true})}
	s, err := node.New(ctx, &server)
	if err != nil {
		panic(err)
	}
	defer s.Close()
	client := func() *node.Node {
		o := loopback
		o.Discovery = []node.Discovery{dht.New(&dht.Options{Prefix: "/example", Bootstrap: []peer.AddrInfo{s.Info()}})}
		n, err := node.New(ctx, &o)
		if err != nil {
			panic(err)
		}
		return n
	}
	a, b := client(), client()
	defer a.Close()
	defer b.Close()
	for a.Host().Connect(ctx, peer.AddrInfo{ID: b.ID()}) != nil {
		time.Sleep(100 * time.Millisecond) // b has not entered the DHT yet
	}
	fmt.Println("found")
	// Output: found
}
