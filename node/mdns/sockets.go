package mdns

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A medium sends and receives multicast packets. It is a sockets, or a fake in tests.
type medium interface {
	// open starts to receive. It calls handle for each packet; handle must not keep the packet.
	open(handle func(packet []byte, from netip.Addr))
	// look updates the list of interfaces, and reports whether it has changed.
	look() bool
	// interfaces returns the interfaces that look found last.
	interfaces() []iface
	// send sends a packet on an interface, if possible.
	send(i iface, packet []byte)
	// failed returns the reason why no packet can be sent or received, or nil.
	failed() error
	close() error
}

// An iface is a network interface that supports multicast.
type iface struct {
	net.Interface

	addrs []netip.Addr
}

const (
	port          = 5353
	maxInterfaces = 16 // Linux limits a socket to 20 groups
	hops          = 255
)

var group4, group6 = net.IPv4(224, 0, 0, 251), net.ParseIP("ff02::fb")

var errNoInterface = errors.New("no network interface with multicast is up")

// sockets is the medium of a host.
type sockets struct {
	handle  func([]byte, netip.Addr)
	running sync.WaitGroup // receive
	quit    chan struct{}  // closed by close

	mu   sync.Mutex
	four *ipv4.PacketConn // nil: not open
	six  *ipv6.PacketConn
	err4 error // why four is not open
	err6 error
	in4  []int // interfaces on which four has joined its group
	in6  []int
	all  []iface
}

func (s *sockets) open(handle func([]byte, netip.Addr)) {
	s.handle, s.quit = handle, make(chan struct{})
	s.look()
}

func (s *sockets) look() bool {
	all := multicastInterfaces()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bindLocked()
	s.joinLocked(all)
	same := slices.EqualFunc(all, s.all, func(a, b iface) bool { return a.Index == b.Index && slices.Equal(a.addrs, b.addrs) })
	s.all = all
	return !same
}

// bindLocked opens the sockets that are not open yet. Other programs on the machine use the same port: Go sets the options that let
// multicast sockets share it.
func (s *sockets) bindLocked() {
	if s.four == nil {
		var c *net.UDPConn
		if c, s.err4 = net.ListenUDP("udp4", &net.UDPAddr{IP: group4, Port: port}); s.err4 == nil {
			s.four = ipv4.NewPacketConn(c)
			_ = s.four.SetMulticastTTL(hops)
			_ = s.four.SetMulticastLoopback(true)            // for other hosts on this machine
			_ = s.four.SetControlMessage(ipv4.FlagDst, true) // if the system does not support this, every packet counts
			four := s.four
			s.running.Go(func() {
				s.receive(func(b []byte) (int, net.IP, net.Addr, error) {
					n, cm, from, err := four.ReadFrom(b)
					if cm == nil {
						return n, nil, from, err
					}
					return n, cm.Dst, from, err
				})
			})
		}
	}
	if s.six == nil {
		var c *net.UDPConn
		if c, s.err6 = net.ListenUDP("udp6", &net.UDPAddr{IP: group6, Port: port}); s.err6 == nil {
			s.six = ipv6.NewPacketConn(c)
			_ = s.six.SetMulticastHopLimit(hops)
			_ = s.six.SetMulticastLoopback(true)
			_ = s.six.SetControlMessage(ipv6.FlagDst, true)
			six := s.six
			s.running.Go(func() {
				s.receive(func(b []byte) (int, net.IP, net.Addr, error) {
					n, cm, from, err := six.ReadFrom(b)
					if cm == nil {
						return n, nil, from, err
					}
					return n, cm.Dst, from, err
				})
			})
		}
	}
}

// joinLocked joins the groups on the interfaces where that is missing.
func (s *sockets) joinLocked(all []iface) {
	gone := func(index int) bool { return !slices.ContainsFunc(all, func(i iface) bool { return i.Index == index }) }
	s.in4, s.in6 = slices.DeleteFunc(s.in4, gone), slices.DeleteFunc(s.in6, gone)
	for _, i := range all {
		if s.four != nil && !slices.Contains(s.in4, i.Index) && s.four.JoinGroup(&i.Interface, &net.UDPAddr{IP: group4}) == nil {
			s.in4 = append(s.in4, i.Index)
		}
		if s.six != nil && !slices.Contains(s.in6, i.Index) && s.six.JoinGroup(&i.Interface, &net.UDPAddr{IP: group6}) == nil {
			s.in6 = append(s.in6, i.Index)
		}
	}
}

// multicastInterfaces returns the interfaces that are up and have an address.
func multicastInterfaces() []iface {
	found, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var all []iface
	for _, i := range found {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 || len(all) == maxInterfaces {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil || len(addrs) == 0 {
			continue
		}
		one := iface{Interface: i}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				ip, _ := netip.AddrFromSlice(n.IP)
				one.addrs = append(one.addrs, ip.Unmap())
			}
		}
		all = append(all, one)
	}
	return all
}

func (s *sockets) interfaces() []iface {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

func (s *sockets) send(i iface, packet []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Every system has a socket option for the interface. Without it, a host without a default route cannot send. A send error is like a
	// packet lost in the network.
	if s.four != nil && s.four.SetMulticastInterface(&i.Interface) == nil {
		_, _ = s.four.WriteTo(packet, nil, &net.UDPAddr{IP: group4, Port: port})
	}
	if s.six != nil && s.six.SetMulticastInterface(&i.Interface) == nil {
		_, _ = s.six.WriteTo(packet, nil, &net.UDPAddr{IP: group6, Port: port, Zone: i.Name})
	}
}

func (s *sockets) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.four == nil && s.six == nil:
		return errors.Join(s.err4, s.err6)
	case len(s.all) == 0:
		return errNoInterface
	}
	return nil
}

// receive reads packets until the socket is closed.
func (s *sockets) receive(read func([]byte) (n int, to net.IP, from net.Addr, err error)) {
	buf := make([]byte, maxPacket)
	for {
		n, to, from, err := read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as an interface that went down
			select {
			case <-time.After(time.Second):
				continue
			case <-s.quit:
				return
			}
		}
		if to != nil && !to.IsMulticast() { // it may come from outside the network; RFC 6762, 11
			continue
		}
		if at, ok := from.(*net.UDPAddr); ok {
			s.handle(buf[:n], at.AddrPort().Addr().Unmap().WithZone(""))
		}
	}
}

func (s *sockets) close() error {
	close(s.quit)
	s.mu.Lock()
	var errs []error
	if s.four != nil {
		errs = append(errs, s.four.Close())
	}
	if s.six != nil {
		errs = append(errs, s.six.Close())
	}
	s.mu.Unlock()
	s.running.Wait()
	return errors.Join(errs...)
}
