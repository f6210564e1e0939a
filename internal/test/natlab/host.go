//go:build linux

package natlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
)

// A Host is a network namespace, in which programs run and sockets are opened.
type Host struct {
	t     testing.TB
	space *namespace
	count int // of its interfaces, ever
}

// Host returns a host that is plugged into the places, into one by default. Its interfaces are eth0 and so on; the first has the
// default routes.
func (l *Lab) Host(at ...*Place) *Host {
	l.t.Helper()
	space, err := newNamespace()
	if err != nil {
		l.t.Fatalf("natlab: host: %v", err)
	}
	h := &Host{t: l.t, space: space}
	l.t.Cleanup(func() { _ = space.Close() })
	for _, place := range at {
		h.Plug(place)
	}
	return h
}

// An Interface is a host's network interface, and the link to the place that it is plugged into.
type Interface struct {
	host   *Host
	name   string
	tun    *os.File
	port   *port
	reader sync.WaitGroup // read
	once   sync.Once      // Unplug
}

// Plug gives the host a further interface at a place. Where it has no default route yet, it is the new one.
func (h *Host) Plug(at *Place) *Interface {
	h.t.Helper()
	return h.plug(at, at.prefixes)
}

// PlugVersion is Plug for a host that has one version of IP there, 4 or 6.
func (h *Host) PlugVersion(at *Place, version int) *Interface {
	h.t.Helper()
	return h.plug(at, slices.DeleteFunc(slices.Clone(at.prefixes), func(p netip.Prefix) bool { return p.Addr().Is4() != (version == 4) }))
}

// PlugLinkLocal gives the host an interface with a link-local address alone, of IPv4 (RFC 3927) or IPv6 (RFC 4291, section 2.5.6).
func (h *Host) PlugLinkLocal(at *Place, version int) *Interface {
	h.t.Helper()
	prefix := netip.MustParsePrefix("169.254.1.0/24")
	if version == 6 {
		prefix = netip.MustParsePrefix("fe80::100/64")
	}
	return h.plug(at, []netip.Prefix{prefix})
}

func (h *Host) plug(at *Place, prefixes []netip.Prefix) *Interface {
	h.t.Helper()
	i := &Interface{host: h, name: fmt.Sprintf("eth%d", h.count)}
	h.count++
	addrs := at.take(prefixes)
	err := h.space.do(func() (err error) {
		i.tun, err = openTUN(i.name)
		if err != nil {
			return err
		}
		return i.configure(addrs)
	})
	if err != nil {
		h.t.Fatalf("natlab: interface: %v", err)
	}
	i.port = at.plug(i.in, addrs)
	i.reader.Go(i.read)
	h.t.Cleanup(i.Unplug)
	return i
}

// configure gives the interface its addresses and routes. It runs in the namespace.
func (i *Interface) configure(addrs []netip.Addr) error {
	if err := setUp(i.name, defaultMTU); err != nil {
		return err
	}
	for _, a := range addrs {
		bits := 64
		if a.Is4() {
			bits = 24
		}
		if err := addAddress(i.name, netip.PrefixFrom(a, bits)); err != nil {
			return err
		}
		if a.IsLinkLocalUnicast() {
			continue
		}
		if err := addDefaultRoute(i.name, a.Is4(), i.host.count); err != nil {
			return err
		}
	}
	return nil
}

// read forwards the host's packets. It ends when the interface is removed.
func (i *Interface) read() {
	b := make([]byte, 64<<10)
	for {
		n, err := i.tun.Read(b)
		if err != nil {
			return
		}
		if pk, ok := parse(b[:n]); ok {
			i.port.out(pk, i.write)
		}
	}
}

func (i *Interface) in(pk packet) { i.write(pk.b) }

// write gives the host a packet; one that it cannot take is lost, as on a real wire.
func (i *Interface) write(b []byte) { _, _ = i.tun.Write(b) }

// Link returns the link from the interface to its place.
func (i *Interface) Link() *Link { return i.port.link }

// Addrs returns the addresses of the interface: of IPv4, IPv6, or both.
func (i *Interface) Addrs() []netip.Addr { return i.port.addrs }

// Unplug removes the interface from the host.
func (i *Interface) Unplug() {
	i.once.Do(func() {
		_ = i.tun.Close() // which removes it
		i.reader.Wait()
		i.port.place.unplug(i.port)
	})
}

// ListenUDP opens a socket on the host.
func (h *Host) ListenUDP(address string) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := h.space.do(func() error {
		pc, err := net.ListenPacket("udp", address)
		if err == nil {
			conn = pc.(*net.UDPConn)
		}
		return err
	})
	return conn, err
}

// Listen opens a TCP listener on the host.
func (h *Host) Listen(address string) (net.Listener, error) {
	var ln net.Listener
	err := h.space.do(func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	})
	return ln, err
}

// Dial opens a TCP connection from the host.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.space.do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// Start starts a command on the host; cmd.Wait waits for it as usual. What still runs is killed in t.Cleanup.
func (h *Host) Start(cmd *exec.Cmd) error {
	err := h.space.do(cmd.Start)
	if err == nil {
		h.t.Cleanup(func() { _ = cmd.Process.Kill() })
	}
	return err
}

// Output runs a command on the host, and returns what it printed. The error of one that fails ends with what it said.
func (h *Host) Output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	out, in, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = in, in
	err = h.Start(cmd)
	_ = in.Close()
	if err != nil {
		return "", err
	}
	all, err := io.ReadAll(out)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return string(all), fmt.Errorf("%s: %w: %s", name, err, all)
	}
	return string(all), nil
}
