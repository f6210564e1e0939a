package peerlane_test

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// Sessions to a peer that are there when they are needed, and come back when they are lost.
func ExampleClient_Keep() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()
	serverConfig := peerlane.DefaultServerConfig()
	serverConfig.AllowPeers = []peer.ID{a.ID()}
	server, err := peerlane.NewServer(b, serverConfig)
	if err != nil {
		panic(err)
	}
	defer server.Stop()
	server.SetLink("hello", func(m *session.Message) {
		_ = m.Reply([]byte("hello, " + string(m.Value)))
	})
	if err := server.Listen("/greet/1.0.0"); err != nil {
		panic(err)
	}

	clientConfig := peerlane.DefaultClientConfig()
	clientConfig.AdmitAll = true
	client, err := peerlane.NewClient(a, clientConfig)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	keeper, err := client.Keep(b.ID(), "/greet/1.0.0", &peerlane.KeeperConfig{
		MaxAttempts: 10,
		OnEvent:     func(e peerlane.KeeperEvent) { fmt.Println(e.Kind) },
	})
	if err != nil {
		panic(err)
	}
	s, err := keeper.Get(context.Background())
	if err != nil {
		panic(err)
	}
	reply, err := s.SendWait(context.Background(), "hello", []byte("bob"))
	if err != nil {
		panic(err)
	}
	if err := keeper.Close(); err != nil {
		panic(err)
	}
	fmt.Println(string(reply.Value), keeper.Err() != nil)
	// Output:
	// opened
	// hello, bob true
}
