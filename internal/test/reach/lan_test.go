//go:build linux

package reach

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

// Two hosts of one network need no relay and no flag, whatever addresses they have.
func TestSendAndGetOnALAN(t *testing.T) {
	inFull(t)
	for name, plug := range map[string]func(*natlab.Lab) (a, b *natlab.Host){
		"a home network": func(lab *natlab.Lab) (a, b *natlab.Host) {
			lan := lab.Router(lab.Internet, natlab.Home(nat.Easy)).LAN
			return lab.Host(lan), lab.Host(lan)
		},
		"without internet": func(lab *natlab.Lab) (a, b *natlab.Host) {
			r := lab.Router(lab.Internet, natlab.Home(nat.Easy))
			r.Link().Cut()
			return lab.Host(r.LAN), lab.Host(r.LAN)
		},
		"IPv6 alone": func(lab *natlab.Lab) (a, b *natlab.Host) {
			lan := lab.Router(lab.Internet, &natlab.RouterOptions{Firewall: true, Version: 6}).LAN
			return lab.Host(lan), lab.Host(lan)
		},
		"link-local IPv4": func(lab *natlab.Lab) (a, b *natlab.Host) {
			lan := lab.Router(lab.Internet, nil).LAN
			a, b = lab.Host(), lab.Host()
			a.PlugLinkLocal(lan, 4)
			b.PlugLinkLocal(lan, 4)
			return a, b
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
			a, b := plug(natlab.New(t))
			send := start(t, a, "send", file)
			ticket, _ := send.await(`^ticket   (\S+)`)
			get := start(t, b, "get", ticket[1], t.TempDir())
			require.Zero(t, get.wait(patience))
			get.await(`^path     direct, (tcp|quic-v1)`)
			require.Zero(t, send.wait(patience))
		})
	}
}

// Two hosts at home find each other whatever is between, over a relay with its defaults.
func TestSendAndGetFromHomeToHome(t *testing.T) {
	inFull(t)
	for name, home := range map[string]func(*natlab.Lab) *natlab.Host{
		"IPv4 and IPv6": func(lab *natlab.Lab) *natlab.Host {
			return lab.Host(lab.Router(lab.Internet, natlab.Home(nat.Easy)).LAN)
		},
		"double NAT": func(lab *natlab.Lab) *natlab.Host {
			o := &natlab.RouterOptions{NAT: &nat.Easy, Version: 4}
			return lab.Host(lab.Router(lab.Router(lab.Internet, o).LAN, o).LAN)
		},
		"without UDP": func(lab *natlab.Lab) *natlab.Host {
			h := lab.Host()
			h.Plug(lab.Router(lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4}).LAN).Link().Set(natlab.Conditions{NoUDP: true})
			return h
		},
		"3 % of packets lost": func(lab *natlab.Lab) *natlab.Host {
			h := lab.Host()
			h.Plug(lab.Router(lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4}).LAN).Link().Set(natlab.Conditions{Delay: oneWay, Loss: 0.03})
			return h
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "file")
			require.NoError(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
			lab := natlab.New(t)
			r := newRelay(t, lab)
			send := start(t, home(lab), "send", "--relay", r.at("tcp/4001"), file)
			ticket, _ := send.await(`^ticket   (\S+)`)
			get := start(t, home(lab), "get", ticket[1], t.TempDir())
			require.Zero(t, get.wait(patience))
			get.await(`^path     direct, (tcp|quic-v1)`)
			require.Zero(t, send.wait(patience))
			t.Log(time.Since(get.began))
		})
	}
}

// An IPv6 link-local address is valid on one interface of the host that dials, and libp2p cannot say on which: a ticket without another
// address leads nowhere.
func TestSendWithLinkLocalIPv6AloneWarns(t *testing.T) {
	inFull(t)
	lab := natlab.New(t)
	a := lab.Host()
	a.PlugLinkLocal(lab.Router(lab.Internet, nil).LAN, 6)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	send := start(t, a, "send", file)
	send.await(`^ready$`)
	send.await(`^warning  this machine has no address that others can use: connect it to a network, or give a --relay$`)
}
