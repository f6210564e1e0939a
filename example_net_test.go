package peerlane_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/peerlane/peerlane"
)

// twoHosts returns two libp2p hosts of which a knows the address of b.
func twoHosts() (a, b host.Host) {
	a, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"))
	if err != nil {
		panic(err)
	}
	b, err = libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"))
	if err != nil {
		panic(err)
	}
	a.Peerstore().AddAddrs(b.ID(), b.Addrs(), peerstore.PermanentAddrTTL)
	return a, b
}

func ExampleListenConfig_Serve() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()

	l, err := peerlane.ListenConfig{}.Serve(b, "/greet/1.0.0", func(c *peerlane.Conn) {
		if _, err := fmt.Fprintf(c, "hello, %t", c.RemotePeer() == a.ID()); err != nil {
			_ = c.Reset() // a half answer must not look whole
		}
	})
	if err != nil {
		panic(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := peerlane.Dial(ctx, a, b.ID(), "/greet/1.0.0")
	if err != nil {
		panic(err)
	}
	answer, err := io.ReadAll(c)
	fmt.Printf("%s %v\n", answer, err)
	_ = c.Close()
	fmt.Println(l.Shutdown(ctx))
	// Output:
	// hello, true <nil>
	// <nil>
}

func ExampleDial() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()

	l, err := peerlane.Listen(b, "/echo/1.0.0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := peerlane.Dial(ctx, a, b.ID(), "/echo/1.0.0")
	if err != nil {
		panic(err)
	}
	defer c.Close()
	fmt.Fprint(c, "hello, peer")
	_ = c.(peerlane.HalfCloser).CloseWrite()
	answer, err := io.ReadAll(c)
	fmt.Printf("%s %v\n", answer, err)
	// Output: hello, peer <nil>
}

// Nobody serves the tag: Dial says so at once, and a caller can tell it from a peer that is away.
func ExampleDial_errors() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()

	_, err := peerlane.Dial(context.Background(), a, b.ID(), "/nothing/1.0.0")
	var e *peerlane.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code, "said by the peer:", e.Remote, "outcome:", e.Outcome)
	}
	fmt.Println(errors.Is(err, peerlane.ErrNotServed), errors.Is(err, peerlane.ErrUnreachable))
	// Output:
	// not found said by the peer: true outcome: rejected
	// true false
}

func ExampleListen() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()

	l, err := peerlane.Listen(b, "/greet/1.0.0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	_, err = peerlane.Listen(b, "/greet/1.0.0")
	fmt.Println("second listener:", errors.Is(err, peerlane.ErrInUse))

	go func() {
		if c, err := l.Accept(); err == nil {
			fmt.Fprint(c, "hello, ", c.RemoteAddr())
			_ = c.Close()
		}
	}()
	c, err := peerlane.Dial(context.Background(), a, b.ID(), "/greet/1.0.0")
	if err != nil {
		panic(err)
	}
	defer c.Close()
	greeting, _ := io.ReadAll(c)
	fmt.Println(string(greeting) == "hello, "+a.ID().String())
	// Output:
	// second listener: true
	// true
}

// An HTTP server and client without a port, a certificate or a host name.
func ExampleDialer_DialContext() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()

	l, err := peerlane.ListenConfig{AddrStyle: peerlane.AddrPeerPort}.Listen(b, "/http/1.1")
	if err != nil {
		panic(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s, and the caller is known: %v", r.URL.Path, who == a.ID().String())
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()

	d := &peerlane.Dialer{Host: a, Tag: "/http/1.1", Timeout: 10 * time.Second}
	transport := &http.Transport{DialContext: d.DialContext}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://" + b.ID().String() + "/hello")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	// Output: /hello, and the caller is known: true
}

func ExampleConn_Path() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()
	l, err := peerlane.Listen(b, "/path/1.0.0")
	if err != nil {
		panic(err)
	}
	defer l.Close()

	d := &peerlane.Dialer{Host: a, Tag: "/path/1.0.0", Path: peerlane.DirectOnly}
	c, err := d.Dial(context.Background(), b.ID())
	if err != nil {
		panic(err)
	}
	defer c.Close()
	p := c.Path()
	fmt.Println(p.Transport, "relayed:", p.Relayed)
	// Output: quic-v1 relayed: false
}

func ExampleNewLimitedConn() {
	a, b := twoHosts()
	defer a.Close()
	defer b.Close()
	l, err := peerlane.Listen(b, "/short/1.0.0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	c, err := peerlane.Dial(context.Background(), a, b.ID(), "/short/1.0.0")
	if err != nil {
		panic(err)
	}
	defer c.Close()

	short := peerlane.NewLimitedConn(c, 8)
	n, err := short.Write([]byte("nine byte"))
	fmt.Println(n, errors.Is(err, peerlane.ErrTooLarge))
	n, err = short.Write([]byte("eight by"))
	fmt.Println(n, err)
	// Output:
	// 0 true
	// 8 <nil>
}
