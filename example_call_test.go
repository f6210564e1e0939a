package peerlane_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// A server answers requests, and a client makes them. Both could be on the same host, and there could be several.
func ExampleNewServer() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()

	server, err := peerlane.NewServer(b, nil)
	if err != nil {
		panic(err)
	}
	defer server.Stop()
	err = server.Start("/greet/1.0.0", func(request []byte) ([]byte, error) {
		if len(request) == 0 {
			return nil, errors.New("who are you?")
		}
		return append([]byte("hello, "), request...), nil
	})
	if err != nil {
		panic(err)
	}

	client, err := peerlane.NewClient(a, nil)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	response, err := client.Send(ctx, b.ID(), "/greet/1.0.0", []byte("bob"))
	fmt.Println(string(response), err)

	_, err = client.Send(ctx, b.ID(), "/greet/1.0.0", nil)
	var e *peerlane.Error
	if errors.As(err, &e) {
		fmt.Println(e.Text, "-", e.Outcome)
	}
	// Output:
	// hello, bob <nil>
	// who are you? - delivered
}

// What a caller may believe about a call that failed is in the error.
func ExampleClient_Send() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()
	client, err := peerlane.NewClient(a, nil)
	if err != nil {
		panic(err)
	}
	defer client.Close()

	_, err = client.Send(context.Background(), b.ID(), "/nobody/1.0.0", []byte("hello"))
	var e *peerlane.Error
	if errors.As(err, &e) {
		fmt.Println(e.Outcome, errors.Is(err, peerlane.ErrNotServed))
	}
	// Output: rejected true
}

// A handler that knows its caller, and stops when the caller does.
func ExampleServer_Handle() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()
	server, err := peerlane.NewServer(b, nil)
	if err != nil {
		panic(err)
	}
	defer server.Stop()
	err = server.Handle("/whoami/1.0.0", func(ctx context.Context, req *peerlane.Request) ([]byte, error) {
		return []byte(req.Peer.String()), ctx.Err()
	})
	if err != nil {
		panic(err)
	}
	client, err := peerlane.NewClient(a, nil)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	name, err := client.Send(context.Background(), b.ID(), "/whoami/1.0.0", nil)
	fmt.Println(string(name) == a.ID().String(), err)
	// Output: true <nil>
}

// Messages to named links, between peers that know the same secret.
func ExampleUseModernPSKClient() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()
	secret := []byte("correct horse battery staple")

	server, err := peerlane.NewServer(b, nil)
	if err != nil {
		panic(err)
	}
	defer server.Stop()
	fmt.Println(errors.Is(server.Listen("/notify/1.0.0"), peerlane.ErrModernPSKRequired))
	if err := peerlane.UseModernPSKServer(server, secret, nil); err != nil {
		panic(err)
	}
	server.SetLink("hello", func(m *session.Message) {
		_ = m.Reply([]byte("hello, " + string(m.Value)))
	})
	if err := server.Listen("/notify/1.0.0"); err != nil {
		panic(err)
	}

	client, err := peerlane.NewClient(a, nil)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	if err := peerlane.UseModernPSKClient(client, secret, nil); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := client.Connect(ctx, b.ID(), "/notify/1.0.0")
	if err != nil {
		panic(err)
	}
	reply, err := s.SendWait(ctx, "hello", []byte("bob"))
	if err != nil {
		panic(err)
	}
	fmt.Println(string(reply.Value), s.Snapshot().Sealed)
	// Output:
	// true
	// hello, bob true
}

// One-way messages both ways, on a session whose peers are admitted by name.
func ExampleClient_Connect() {
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
	server.SetLink("news", func(m *session.Message) {
		_ = m.Session().Send(m.Context(), "thanks", m.Value)
	})
	if err := server.Listen("/notify/1.0.0"); err != nil {
		panic(err)
	}

	clientConfig := peerlane.DefaultClientConfig()
	clientConfig.AdmitAll = true
	client, err := peerlane.NewClient(a, clientConfig)
	if err != nil {
		panic(err)
	}
	defer client.Close()
	thanks := make(chan string, 1)
	client.SetLink("thanks", func(m *session.Message) { thanks <- string(m.Value) })
	s, err := client.Connect(context.Background(), b.ID(), "/notify/1.0.0")
	if err != nil {
		panic(err)
	}
	if err := s.Send(context.Background(), "news", []byte("it rains")); err != nil {
		panic(err)
	}
	fmt.Println("thanks for:", <-thanks)
	// Output: thanks for: it rains
}
