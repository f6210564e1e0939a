//go:build linux

package natlab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A namespace is a network namespace. It lives as long as its file is open or something runs in it.
type namespace struct {
	file *os.File
}

// newNamespace returns a namespace whose loopback interface is up.
func newNamespace() (*namespace, error) {
	n := new(namespace)
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("a network namespace: %w", err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		n.file = f
		return setUp("lo", 65536)
	})
	return n, err
}

func (n *namespace) Close() error { return n.file.Close() }

// do runs f in the namespace. Sockets that f opens and processes that it starts are in it.
func (n *namespace) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own, which ends with f, so that no other goroutine finds itself in another namespace.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks it
		result <- f()
	}()
	return <-result
}

// openTUN makes an interface whose packets are read from and written to the file. It is gone when the file is closed.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd) // the first error tells
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// setUp sets an interface's MTU, and turns it on.
func setUp(name string, mtu uint32) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint32(mtu)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, req); err != nil {
		return fmt.Errorf("MTU of %s: %w", name, err)
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("flags of %s: %w", name, err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("turn on %s: %w", name, err)
	}
	return nil
}

// addAddress gives an interface an address, and the route to the addresses of its prefix.
func addAddress(name string, p netip.Prefix) error {
	index, err := indexOf(name)
	if err != nil {
		return err
	}
	b := []byte{family(p.Addr().Is4()), byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	b = binary.NativeEndian.AppendUint32(b, index)
	b = appendAttribute(b, unix.IFA_LOCAL, p.Addr().AsSlice())
	b = appendAttribute(b, unix.IFA_ADDRESS, p.Addr().AsSlice())
	if err := netlink(unix.RTM_NEWADDR, b); err != nil {
		return fmt.Errorf("address %v of %s: %w", p, name, err)
	}
	return awaitRoute(p.Addr())
}

// awaitRoute waits until the kernel takes packets for an IPv6 address, which it does some time after it has got it.
func awaitRoute(a netip.Addr) error {
	if a.Is4() {
		return nil
	}
	want := fmt.Appendf(nil, "%x 80", a.AsSlice()) // the address and 128 bits, as the table of routes has them
	for range 5000 {
		routes, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		if err != nil || bytes.Contains(routes, want) {
			return err
		}
		time.Sleep(time.Millisecond) // nothing tells
	}
	return fmt.Errorf("no route to %v within 5 s", a)
}

// addDefaultRoute makes an interface the default route. The route with the lowest metric is used.
func addDefaultRoute(name string, v4 bool, metric int) error {
	index, err := indexOf(name)
	if err != nil {
		return err
	}
	b := []byte{family(v4), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	b = appendAttribute(b, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, index))
	b = appendAttribute(b, unix.RTA_PRIORITY, binary.NativeEndian.AppendUint32(nil, uint32(metric)))
	if err := netlink(unix.RTM_NEWROUTE, b); err != nil {
		return fmt.Errorf("default route over %s: %w", name, err)
	}
	return nil
}

func family(v4 bool) byte {
	if v4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func indexOf(name string) (uint32, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

// netlink asks the kernel to make something, and waits for its answer (rtnetlink(7)). Four requests do not make up for a dependency in
// the module graph of every user.
func netlink(kind uint16, body []byte) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	const flags = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = append(b, make([]byte, 8)...) // sequence number and port: one request, one answer
	if err := unix.Sendto(s, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	switch {
	case err != nil:
		return err
	case n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR:
		return fmt.Errorf("netlink: %d bytes that are no answer", n)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// appendAttribute appends an attribute, padded to four bytes.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}
