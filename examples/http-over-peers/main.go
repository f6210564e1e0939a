// Command http-over-peers runs net/http between two peers: no port, no certificate, no host name, and the server knows
// who calls.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node"
)

const tag = "/http/1.1"

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

	// AddrPeerPort makes RemoteAddr "<peer id>:<port>", the form that net/http expects.
	l, err := peerlane.ListenConfig{AddrStyle: peerlane.AddrPeerPort}.Listen(server.Host(), tag)
	if err != nil {
		return err
	}
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// libp2p has authenticated the caller: its Peer ID can be used for access rules.
			caller, _, _ := net.SplitHostPort(r.RemoteAddr)
			if caller != client.ID().String() {
				http.Error(w, "who are you?", http.StatusForbidden)
				return
			}
			fmt.Fprintf(w, "%s %s for a known peer", r.Method, r.URL.Path)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()

	if err := get(ctx, out, client, "http://"+server.ID().String()+"/status"); err != nil {
		return err
	}
	if err := srv.Shutdown(ctx); err != nil {
		return err
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// get prints what is at url. The client dials Peer IDs in place of host names.
func get(ctx context.Context, out io.Writer, client *node.Node, url string) error {
	transport := &http.Transport{
		DialContext:         (&peerlane.Dialer{Host: client.Host(), Tag: tag}).DialContext,
		MaxIdleConnsPerHost: 64, // each idle conn is a libp2p stream; the default of 2 dials anew for most requests
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s\n", response.Status, body)
	return nil
}
