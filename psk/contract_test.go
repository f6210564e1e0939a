package psk

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// Row: N2
func TestConnIsANetConnOverPipe(t *testing.T) {
	t.Parallel() // a pipe without a reader takes a second to close
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		return sealed(net.Pipe())
	})
}

// Row: N2, C6
func TestConnIsANetConnOverTCP(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		return sealed(tcpPair(t))
	})
}

func sealed(a, b net.Conn) (net.Conn, net.Conn, func(), error) {
	c, d := sealPair(a, b)
	stop := func() {
		_ = c.Close()
		_ = d.Close()
	}
	return c, d, stop, nil
}
