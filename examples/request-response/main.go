// Command request-response calls a function at a peer that is named by its Peer ID.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
)

// tag names the service. Both sides must use the same; a new version of what is said gets a new number.
const tag = "/shout/1.0.0"

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	// Two hosts in one program, to be short. In yours each runs on its own machine, without Loopback.
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

	// The server: one handler for one tag.
	s, err := peerlane.NewServer(server.Host(), nil)
	if err != nil {
		return err
	}
	defer s.Stop() // waits for calls in progress
	if err := s.Start(tag, shout); err != nil {
		return err
	}

	// The client needs an address once, here by copy and paste; from then on the Peer ID is enough.
	info, err := node.ParsePeer(server.Addrs()[0])
	if err != nil {
		return err
	}
	client.Remember(info)
	c, err := peerlane.NewClient(client.Host(), nil)
	if err != nil {
		return err
	}
	defer c.Close()

	response, err := c.Send(ctx, info.ID, tag, []byte("hello, peer"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "response: %s\n", response)

	// Every error says what may have happened at the peer: here the handler ran, and this is its answer.
	_, err = c.Send(ctx, info.ID, tag, nil)
	e, ok := errors.AsType[*peerlane.Error](err)
	if !ok {
		return fmt.Errorf("want an error of the handler, got %w", err)
	}
	fmt.Fprintf(out, "error: %s, outcome: %s\n", e.Text, e.Outcome)
	return nil
}

// shout answers a request. What it returns is the response; an error reaches the caller as such.
func shout(request []byte) ([]byte, error) {
	if len(request) == 0 {
		return nil, errors.New("nothing to shout")
	}
	return bytes.ToUpper(request), nil
}
