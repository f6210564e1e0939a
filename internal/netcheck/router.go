package netcheck

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/libp2p/go-netroute"
)

// A Router is which protocols for port mapping the router of this machine speaks.
type Router struct {
	Gateway netip.Addr `json:"gateway"` // the zero Addr if there is none
	UPnP    bool       `json:"upnp"`
	NATPMP  bool       `json:"nat_pmp"`
	PCP     bool       `json:"pcp"`
	// Outside is the router's own outside address, as UPnP or NAT-PMP reports it. If helpers see this machine at another address, there is
	// another NAT behind the router, and a mapped port is useless.
	Outside netip.Addr `json:"outside"`
}

const (
	routerTime  = 4 * time.Second // a UPnP search takes two
	mappingPort = 5351            // of NAT-PMP (RFC 6886) and PCP (RFC 6887)
)

// AskRouter asks the router which protocols for port mapping it speaks. It changes nothing there, and takes up to four seconds.
func AskRouter(ctx context.Context) Router {
	ctx, cancel := context.WithTimeout(ctx, routerTime)
	defer cancel()
	gateway, own := gateway()
	r := Router{Gateway: gateway}
	var pmp, upnp netip.Addr
	var all sync.WaitGroup
	if gateway.IsValid() {
		at := netip.AddrPortFrom(gateway, mappingPort)
		all.Go(func() { pmp, r.NATPMP = askNATPMP(ctx, at) })
		all.Go(func() { r.PCP = askPCP(ctx, at, own) })
	}
	all.Go(func() { upnp, r.UPnP = askUPnP(ctx) })
	all.Wait()
	if r.Outside = upnp; !upnp.IsValid() {
		r.Outside = pmp
	}
	return r
}

// gateway returns the router that forwards IPv4 packets to the internet, and the local address of such packets.
func gateway() (router, own netip.Addr) {
	routes, err := netroute.New()
	if err != nil {
		return router, own
	}
	_, to, from, err := routes.Route(net.IPv4(1, 0, 0, 1)) // any public address
	if err != nil {
		return router, own
	}
	router, _ = netip.AddrFromSlice(to)
	own, _ = netip.AddrFromSlice(from)
	return router.Unmap(), own.Unmap()
}

// askNATPMP asks for the router's outside address (RFC 6886, section 3.2).
func askNATPMP(ctx context.Context, router netip.AddrPort) (outside netip.Addr, ok bool) {
	b, err := exchange(ctx, router, []byte{0, 0}, isNATPMP)
	if err != nil {
		return outside, false
	}
	return parseNATPMP(b)
}

// isNATPMP reports whether a datagram answers the question for the outside address.
func isNATPMP(b []byte) bool { return len(b) >= 4 && b[0] == 0 && b[1] == 128 }

// parseNATPMP returns what an answer says; ok is false if it refuses. outside is the zero Addr if the answer does not have it.
func parseNATPMP(b []byte) (outside netip.Addr, ok bool) {
	if binary.BigEndian.Uint16(b[2:]) != 0 { // a nonzero result code is a refusal
		return outside, false
	}
	if len(b) < 12 {
		return outside, true
	}
	return netip.AddrFrom4([4]byte(b[8:12])), true
}

// askPCP sends an ANNOUNCE, which a router must answer (RFC 6887, section 14.1).
func askPCP(ctx context.Context, router netip.AddrPort, own netip.Addr) bool {
	from := own.As16()
	announce := append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, from[:]...)
	b, err := exchange(ctx, router, announce, isPCP)
	return err == nil && b[3] == 0 // a nonzero result code is a refusal
}

// isPCP reports whether a datagram answers an ANNOUNCE.
func isPCP(b []byte) bool { return len(b) >= 24 && b[0] == 2 && b[1] == 128 }

// exchange sends a request until a valid answer arrives.
func exchange(ctx context.Context, to netip.AddrPort, request []byte, isAnswer func([]byte) bool) ([]byte, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // UDP has nothing to flush
	b := make([]byte, 1100)          // the longest PCP message
	for wait := 250 * time.Millisecond; ctx.Err() == nil; wait *= 2 {
		if _, err := c.Write(request); err != nil {
			return nil, err // such as a closed port
		}
		until := time.Now().Add(wait)
		end, ok := ctx.Deadline()
		isLast := ok && end.Before(until)
		if isLast {
			until = end
		}
		if err := c.SetReadDeadline(until); err != nil {
			return nil, err
		}
		n, err := readAnswerOf(c, b, isAnswer)
		if err == nil {
			return b[:n], nil
		}
		if nerr, ok := errors.AsType[net.Error](err); !ok || !nerr.Timeout() || isLast {
			return nil, err
		}
	}
	return nil, ctx.Err()
}

// readAnswerOf reads datagrams until one is an answer, and returns its length. What else comes does not make exchange send again.
func readAnswerOf(c net.Conn, b []byte, isAnswer func([]byte) bool) (int, error) {
	for {
		n, err := c.Read(b)
		if err != nil || isAnswer(b[:n]) {
			return n, err
		}
	}
}

// An igd is a router that speaks UPnP.
type igd interface {
	GetExternalIPAddressCtx(context.Context) (string, error)
}

// askUPnP looks for a router, and asks it for its outside address.
func askUPnP(ctx context.Context) (outside netip.Addr, ok bool) {
	var all sync.WaitGroup
	var mu sync.Mutex
	add := func(found []igd) {
		for _, one := range found[:min(len(found), maxIGDs)] {
			text, err := one.GetExternalIPAddressCtx(ctx)
			mu.Lock()
			if at, perr := netip.ParseAddr(text); err == nil && perr == nil {
				outside = at
			}
			ok = ok || err == nil
			mu.Unlock()
		}
	}
	all.Go(func() {
		found, _, _ := internetgateway2.NewWANIPConnection1ClientsCtx(ctx) // none on error
		add(igds(found))
	})
	all.Go(func() {
		found, _, _ := internetgateway2.NewWANIPConnection2ClientsCtx(ctx) // none on error
		add(igds(found))
	})
	all.Go(func() {
		found, _, _ := internetgateway2.NewWANPPPConnection1ClientsCtx(ctx) // none on error
		add(igds(found))
	})
	all.Wait()
	return outside, ok
}

// maxIGDs limits how many routers are asked.
const maxIGDs = 3

func igds[T igd](all []T) (found []igd) {
	for _, one := range all {
		found = append(found, one)
	}
	return found
}
