package mdns_test

import (
	"context"
	"fmt"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/node/mdns"
)

// A host finds peers in the local network, and they find it.
func ExampleNew() {
	n, err := node.New(context.Background(), &node.Options{Discovery: []node.Discovery{mdns.New(nil)}})
	if err != nil {
		panic(err)
	}
	// now peerlane.Dial and Client.Send on n.Host() need only a Peer ID
	fmt.Println(n.Close())
	// Output: <nil>
}
