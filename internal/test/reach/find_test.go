//go:build linux

package reach

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

// lans are local networks, each with two hosts.
var lans = map[string]func(*natlab.Lab) (a, b *natlab.Host){
	"without internet": func(lab *natlab.Lab) (a, b *natlab.Host) {
		r := lab.Router(lab.Internet, natlab.Home(nat.Easy))
		r.Link().Cut()
		return lab.Host(r.LAN), lab.Host(r.LAN)
	},
	"IPv4 alone": func(lab *natlab.Lab) (a, b *natlab.Host) {
		lan := lab.Router(lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4}).LAN
		return lab.Host(lan), lab.Host(lan)
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
}

// Two hosts of one network need no address either: the Peer ID is enough.
func TestCallByPeerIDOnALAN(t *testing.T) {
	t.Parallel()
	for name, plug := range lans {
		t.Run(name, func(t *testing.T) {
			if name != "without internet" {
				inFull(t)
			}
			t.Parallel()
			a, b := plug(natlab.New(t))
			serve := start(t, a, "serve")
			id, _ := serve.await(`^peer     (12D3KooW\S+)$`)
			serve.await(`^ready$`)
			call := start(t, b, "call", id[1], "--data", "hello\n", "--retry")
			require.Zero(t, call.wait(patience))
			call.await(`^hello$`)
			call = start(t, b, "call", "--local", id[1], "--data", "again\n", "--retry")
			require.Zero(t, call.wait(patience))
			call.await(`^again$`)
			ping := start(t, b, "ping", id[1], "-c", "1")
			require.Zero(t, ping.wait(patience))
			ping.await(`^12D3KooW\S+: direct, (tcp|quic-v1)`)
		})
	}
}

// A receiver is found by its Peer ID, and a sender whose ticket has an address of another network by the Peer ID in the ticket.
func TestFilesFindTheirPeerOnALAN(t *testing.T) {
	inFull(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	lab := natlab.New(t)
	r := lab.Router(lab.Internet, natlab.Home(nat.Easy))
	r.Link().Cut()
	a, b := lab.Host(), lab.Host(r.LAN)
	plugged := a.Plug(r.LAN)
	key, pusher := newKey(t, b)
	receive := start(t, a, "receive", "inbox", "--once", "--allow", pusher)
	id, _ := receive.await(`^peer     (12D3KooW\S+)$`)
	receive.await(`^ready$`)
	push := start(t, b, "push", id[1], file, "--key", key)
	require.Zero(t, push.wait(patience))
	require.Zero(t, receive.wait(patience))

	send := start(t, a, "send", file, "--listen", "/ip4/0.0.0.0/tcp/4100")
	ticket, _ := send.await(`^ticket   (\S+)`)
	send.await(`^ready$`)
	plugged.Unplug()
	a.Plug(r.LAN) // with another address
	get := start(t, b, "get", ticket[1], t.TempDir())
	require.Zero(t, get.wait(patience))
	require.Zero(t, send.wait(patience))
}

// newDHT starts relays that serve a DHT, and returns the address of the first. Of those that follow the first, others relay for nobody
// but a peer that does not exist: they serve the DHT alone.
func newDHT(t *testing.T, lab *natlab.Lab, relays, others int) string {
	t.Helper()
	at := "none"
	for i := range relays + others {
		h := lab.Host(lab.Internet)
		args := []string{"relay", "--dht=" + at}
		if i > 0 && i <= others {
			args = append(args, "--allow", nobody)
		}
		p := start(t, h, args...)
		found, _ := p.await(`^find by  --dht=(/ip4/11\.0\.\S+)$`)
		p.await(`^ready$`)
		if at == "none" {
			at = found[1]
		}
	}
	return at
}

// nobody is a Peer ID that no host has.
const nobody = "12D3KooWQ364qN28PBzx6LEZzsqfLzZwy9H1a8Rm8W1jBy6cAXUn"

// Two hosts at home find each other by a Peer ID, and relays that nobody has named, in a DHT of their own; and then a direct path.
func TestCallByPeerIDFromHomeToHome(t *testing.T) {
	inFull(t)
	for _, order := range []string{"serve first", "call first", "serve first, among 20 nodes"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			lab := natlab.New(t)
			others := 0
			if strings.HasSuffix(order, "20 nodes") {
				others = 17
			}
			at := newDHT(t, lab, 3, others)
			link := natlab.Conditions{Delay: oneWay}
			a, b := home(lab, &nat.Easy, link), home(lab, &nat.Easy, link)
			key, id := newKey(t, a)
			var serve, call *program
			serves := func() { serve = start(t, a, "serve", "--dht="+at, "--key", key) }
			calls := func() {
				call = start(t, b, "call", "--dht="+at, id, "--data", "hello\n", "--retry", "--timeout", "60s")
			}
			if strings.HasPrefix(order, "serve first") {
				serves()
				serve.await(`^ready$`)
				calls()
			} else {
				calls()
				time.Sleep(2 * time.Second) // it looks in vain
				serves()
			}
			require.Zero(t, call.wait(patience))
			call.await(`^hello$`)
			serve.await(`^address  /ip4/11\.0\.\S+/p2p-circuit/p2p/12D3KooW\S+$`)
			ping := start(t, b, "ping", "--dht="+at, id, "-c", "1")
			require.Zero(t, ping.wait(patience))
			ping.await(`^12D3KooW\S+: direct, (tcp|quic-v1)`)
			t.Logf("ready after %v, answered %v after the later side has begun", serve.took(), call.took()-max(0, serve.began.Sub(call.began)))
		})
	}
}

// newKey makes the key of an identity, and returns its file and the Peer ID.
func newKey(t *testing.T, h *natlab.Host) (file, id string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	made := start(t, h, "id", "--key", file)
	require.Zero(t, made.wait(patience))
	found, _ := made.await(`^(12D3KooW\S+)$`)
	return file, found[1]
}

// foundSoon is how soon a peer is found, and reached directly, once it can be: 0.5 to 6 s on an idle machine.
const foundSoon = 15 * time.Second

// Files come by the Peer ID or the ticket alone, whichever side starts first.
func TestFilesByPeerIDFromHomeToHome(t *testing.T) {
	inFull(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	for _, first := range []string{"receive", "push", "send", "get"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			lab := natlab.New(t)
			at := newDHT(t, lab, 3, 0)
			link := natlab.Conditions{Delay: oneWay}
			a, b := home(lab, &nat.Easy, link), home(lab, &nat.Easy, link)
			keyA, idA := newKey(t, a)
			keyB, idB := newKey(t, b)
			var wait, come *program // the side that is looked for, and the one that looks
			serves := func() { wait = start(t, a, "receive", "inbox", "--key", keyA, "--allow", idB, "--once", "--dht="+at) }
			comes := func() { come = start(t, b, "push", idA, file, "--key", keyB, "--dht="+at, "--retry") }
			if first == "send" || first == "get" {
				serves = func() {
					wait = start(t, a, "send", file, "--key", keyA, "--listen", "/ip4/0.0.0.0/udp/4100/quic-v1", "--dht="+at)
				}
				serves()
				ticket, _ := wait.await(`^ticket   (\S+)`)
				wait.kill()
				comes = func() { come = start(t, b, "get", ticket[1], t.TempDir(), "--dht="+at, "--retry") }
			}
			if first == "receive" || first == "send" {
				serves()
				wait.await(`^ready$`)
				comes()
			} else {
				comes()
				time.Sleep(2 * time.Second) // it looks in vain
				serves()
			}
			require.Zero(t, come.wait(patience))
			require.Zero(t, wait.wait(patience))
			_, direct := come.await(`^path     direct, (tcp|quic-v1)`)
			direct -= max(0, wait.began.Sub(come.began))
			t.Logf("direct %v after the later side has begun", direct)
			require.Less(t, direct, foundSoon)
		})
	}
}

// A sender that moves to another network in the middle is found again, and the rest comes.
func TestASenderThatMovesIsFoundAgain(t *testing.T) {
	inFull(t)
	t.Parallel()
	const size, rate = 24 << 20, 2 << 20
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, size), 0o600))
	lab := natlab.New(t)
	at := newDHT(t, lab, 3, 0)
	link := natlab.Conditions{Delay: oneWay}
	sender := lab.Host()
	homes := make([]*natlab.Router, 2)
	for i := range homes {
		homes[i] = lab.Router(lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4})
		homes[i].Link().Set(natlab.Conditions{Delay: oneWay, Rate: rate})
	}
	plugged := sender.Plug(homes[0].LAN)
	send := start(t, sender, "send", file, "--dht="+at)
	ticket, _ := send.await(`^ticket   (\S+)`)
	send.await(`^ready$`)
	to := t.TempDir()
	get := start(t, home(lab, &nat.Easy, link), "get", ticket[1], to, "--dht="+at)
	_, first := get.await(`^path     direct, (tcp|quic-v1)`)
	time.Sleep(3 * time.Second) // it is in the middle
	moved := time.Since(get.began)
	plugged.Unplug()
	sender.Plug(homes[1].LAN)
	_, again := get.awaitAfter(`^path     direct, (tcp|quic-v1)`, moved)
	require.Zero(t, get.wait(patience))
	require.Zero(t, send.wait(patience))
	got, err := os.Stat(filepath.Join(to, "file"))
	require.NoError(t, err)
	require.EqualValues(t, size, got.Size())
	require.Less(t, again-moved, foundSoon)
	t.Logf("direct after %v, again %v after the move, all after %v", first, again-moved, get.took())
}
