// Command messages sends one-way messages, messages with a reply, and Go values over one session.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/session"
)

const tag = "/sensors/1.0.0"

// reading is sent as JSON, or by any codec that both sides register.
type reading struct{ Degrees int64 }

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	server, err := node.New(ctx, &node.Options{Loopback: true})
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := node.New(ctx, &node.Options{Loopback: true})
	if err != nil {
		return err
	}
	defer client.Close()
	client.Remember(server.Info())

	// Listen serves sessions, and wants to know who may open one: here these peers, else those with a key (see ../psk).
	serverConfig := peerlane.DefaultServerConfig()
	serverConfig.AllowPeers = []peer.ID{client.ID()}
	s, err := peerlane.NewServer(server.Host(), serverConfig)
	if err != nil {
		return err
	}
	defer s.Stop()
	var total atomic.Int64 // handlers run beside this function
	setLinks(s, &total)
	if err := s.Listen(tag); err != nil {
		return err
	}

	clientConfig := peerlane.DefaultClientConfig()
	clientConfig.AdmitAll = true // without a key, say so
	c, err := peerlane.NewClient(client.Host(), clientConfig)
	if err != nil {
		return err
	}
	defer c.Close() // ends its sessions
	conversation, err := c.Connect(ctx, server.ID(), tag)
	if err != nil {
		return err
	}
	if err := talk(ctx, out, conversation); err != nil {
		return err
	}
	fmt.Fprintf(out, "100 readings, %d degrees in all\n", total.Load())
	return nil
}

// talk sends a message with a reply, and a hundred without.
func talk(ctx context.Context, out io.Writer, conversation *session.Session) error {
	reply, err := conversation.SendWait(ctx, "greet", []byte("sensor 7"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n", reply.Value)
	for i := range int64(100) {
		if err := conversation.SendObj(ctx, "reading", "", reading{20 + i%3}); err != nil {
			return err
		}
	}
	return conversation.Flush(ctx) // waits until all have been handled, or tells which were not
}

// setLinks sets the server's links. A link is a named handler. Its one-way messages come one at a time, in the order in which they were
// sent.
func setLinks(s *peerlane.Server, total *atomic.Int64) {
	s.SetLink("reading", func(m *session.Message) {
		if r := (reading{}); m.Object(&r) == nil {
			total.Add(r.Degrees)
		}
	})
	s.SetLink("greet", func(m *session.Message) {
		_ = m.Reply(append([]byte("welcome, "), m.Value...)) // if it cannot be sent, the sender gets an error
	})
}
