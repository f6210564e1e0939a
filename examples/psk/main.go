// Command psk admits only peers that know a shared secret, and seals what they say, on every transport.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
)

const tag = "/private/1.0.0"

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

	// In your program the secret comes from a file or a secret store, and is random: head -c 32 /dev/urandom | base64
	secret := []byte("6Yk1x0dQ3o5vN8r2uB7cJw==")

	s, err := peerlane.NewServer(server.Host(), nil)
	if err != nil {
		return err
	}
	defer s.Stop()
	// The key must be set before anything is served: from here on nobody gets in without it.
	if err := peerlane.UseModernPSKServer(s, secret, nil); err != nil {
		return err
	}
	if err := s.Start(tag, func([]byte) ([]byte, error) { return []byte("the plans"), nil }); err != nil {
		return err
	}
	ask := func(secret []byte) error {
		response, sealed, err := call(ctx, client.Host(), server, secret)
		switch {
		case errors.Is(err, peerlane.ErrPSKMismatch):
			fmt.Fprintln(out, "wrong key: refused")
		case errors.Is(err, peerlane.ErrPSKRequired):
			fmt.Fprintln(out, "no key: refused")
		case err != nil:
			return err
		default:
			fmt.Fprintf(out, "right key: %s, sealed: %v\n", response, sealed)
		}
		return nil
	}
	return errors.Join(ask(secret), ask([]byte("a wrong guess")), ask(nil))
}

// call makes one call with a key, or without if secret is nil, and reports whether it was sealed.
func call(ctx context.Context, h host.Host, to *node.Node, secret []byte) (response []byte, sealed bool, err error) {
	c, err := peerlane.NewClient(h, nil)
	if err != nil {
		return nil, false, err
	}
	defer c.Close()
	if secret != nil {
		if err := peerlane.UseModernPSKClient(c, secret, nil); err != nil {
			return nil, false, err
		}
	}
	if response, err = c.Send(ctx, to.ID(), tag, []byte("what are the plans?")); err != nil {
		return nil, false, err
	}
	return response, c.GetConnectionsInfo()[0].Sealed, nil
}
