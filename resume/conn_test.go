package resume

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// Row: S1
func TestConnIsANetConnOverMemory(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		h := newHub()
		return paired(h.dial, h)
	})
}

// Row: S1
func TestConnIsANetConnOverTCP(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		under, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return paired(tcpDial(under.Addr().String()), under)
	})
}

// paired returns both ends of a conn, and what closes them.
func paired(dial dialFunc, under net.Listener) (net.Conn, net.Conn, func(), error) {
	l, err := NewListener(under, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	a, err := Dial(dial, nil)
	if err != nil {
		return nil, nil, nil, err
	}
	b, err := l.Accept()
	if err != nil {
		return nil, nil, nil, err
	}
	return a, b, func() {
		_, _, _ = a.Close(), b.Close(), l.Close()
		<-a.Done()
		<-b.(*Conn).Done()
	}, nil
}
