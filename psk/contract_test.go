package psk

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// Row: N2
func TestConnIsANetConnOverPipe(t *testing.T) {
	t.Parallel() // CloseTimeout is waited for
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := net.Pipe()
		c, d, stop, err := sealed(a, b)
		return c, d, func() {
			_, _ = a.Close(), b.Close() // without a reader, a Close takes a second to write its alert
			stop()
		}, err
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
