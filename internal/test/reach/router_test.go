//go:build linux

package reach

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/natlab"
)

// outsideEnv is the address that a router's UPnP says it has outside.
const outsideEnv = "PEERLANE_REACH_OUTSIDE"

// startRole starts the test program on a host in a role.
func startRole(t *testing.T, h *natlab.Host, role string, env ...string) *program {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	return run(t, h, cmd)
}

// first waits for a line that matches, and returns its first submatch.
func (p *program) first(expression string) string {
	p.t.Helper()
	found, _ := p.await(expression)
	return found[1]
}

// playStock is a relay of libp2p with its own defaults.
func playStock() error {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"),
		libp2p.EnableRelayService(), libp2p.ForceReachabilityPublic())
	if err != nil {
		return err
	}
	for _, a := range h.Addrs() {
		fmt.Printf("at %s/p2p/%s\n", a, h.ID())
	}
	select {}
}

// A description of a router with one service, and its answer.
const (
	description = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>router</friendlyName><UDN>uuid:1</UDN>
<serviceList><service><serviceType>` + wanIP + `</serviceType><serviceId>1</serviceId>
<SCPDURL>/scpd</SCPDURL><controlURL>/control</controlURL><eventSubURL>/event</eventSubURL></service></serviceList></device></root>`
	wanIP   = "urn:schemas-upnp-org:service:WANIPConnection:1"
	outside = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
<u:GetExternalIPAddressResponse xmlns:u="` + wanIP + `"><NewExternalIPAddress>%s</NewExternalIPAddress>
</u:GetExternalIPAddressResponse></s:Body></s:Envelope>`
)

// playUPnP answers as a router that speaks UPnP, and has an address outside.
func playUPnP(address string) error {
	ln, err := net.Listen("tcp4", ":0")
	if err != nil {
		return err
	}
	http.HandleFunc("/description", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, description) })
	http.HandleFunc("/control", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, outside, address)
	})
	go func() { _ = http.Serve(ln, nil) }() // ends with the process
	search, err := net.ListenMulticastUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: 1900})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	b := make([]byte, 2048)
	for {
		n, from, err := search.ReadFromUDP(b)
		if err != nil {
			return err
		}
		if !strings.Contains(string(b[:n]), wanIP) {
			continue
		}
		if err := answerSearch(from, ln.Addr().(*net.TCPAddr).Port); err != nil {
			return err
		}
	}
}

// answerSearch tells who searches where the description is.
func answerSearch(from *net.UDPAddr, port int) error {
	c, err := net.DialUDP("udp4", nil, from)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the answer is sent
	_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nST: %s\r\nUSN: uuid:1::%s\r\nLOCATION: http://%s:%d/description\r\n\r\n",
		wanIP, wanIP, c.LocalAddr().(*net.UDPAddr).IP, port)
	return err
}
