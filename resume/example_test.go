package resume_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/peerlane/peerlane/resume"
)

// The network breaks in the middle, and neither side has to know.
func ExampleDial() {
	under, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := resume.NewListener(under, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	var server sync.WaitGroup
	server.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			fmt.Println(err)
			return
		}
		_, _ = io.Copy(conn, conn) // an echo
		_ = conn.Close()
	})

	var carrier net.Conn // the newest
	conn, err := resume.Dial(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", under.Addr().String())
		carrier = c
		return c, err
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = conn.Write([]byte("before, "))
	_ = carrier.Close() // the network breaks
	_, _ = conn.Write([]byte("after"))
	_ = conn.CloseWrite()
	text, err := io.ReadAll(conn)
	fmt.Printf("%s, error: %v\n", text, err)
	_ = conn.Close()
	<-conn.Done()
	server.Wait()
	// Output: before, after, error: <nil>
}
