//go:build linux

package reach

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

var whole = flag.Bool("matrix", false, "every pair of NATs, over both transports, instead of one pair")

// kinds are the NATs of the matrix; nil is none.
var kinds = []struct {
	name string
	nat  *nat.Kind
}{{"none", nil}, {"easiest", &nat.Easiest}, {"easy", &nat.Easy}, {"hard", &nat.Hard}}

// A pair is a case of the matrix.
type pair struct {
	via              string // the transport towards the relay, of the address that the sender is given
	sender, getter   string
	senders, getters *nat.Kind
}

// pairs returns the cases to run.
func pairs() (all []pair) {
	for _, via := range []string{"tcp/4001", "udp/4001/quic-v1"} {
		for _, s := range kinds {
			for _, g := range kinds {
				if *whole || s.name == "easy" && g.name == "easy" && via[0] == 'u' {
					all = append(all, pair{via, s.name, g.name, s.nat, g.nat})
				}
			}
		}
	}
	return all
}

// hopeless reports whether many holes lead through both NATs only by luck.
func (p pair) hopeless() bool {
	return p.sender == "hard" && p.getter == "hard"
}

// oneWay is the delay of every host's link: between two hosts a packet takes twice as long, and a round trip four times.
const oneWay = 10 * time.Millisecond

// home returns a host behind a NAT, or one on the internet if kind is nil. It has IPv4 alone.
func home(lab *natlab.Lab, kind *nat.Kind) *natlab.Host {
	h := lab.Host()
	place := lab.Internet
	if kind != nil {
		place = lab.Router(lab.Internet, &natlab.RouterOptions{NAT: kind, Version: 4}).LAN
	}
	h.Plug(place).Link().Set(natlab.Conditions{Delay: oneWay})
	return h
}

// A relay is peerlane relay on the internet.
type relay struct {
	*natlab.Interface
	*program
	id string
}

// newRelay starts a relay with its defaults.
func newRelay(t *testing.T, lab *natlab.Lab) *relay {
	t.Helper()
	h := lab.Host()
	r := &relay{Interface: h.Plug(lab.Internet), program: start(t, h, "relay", "--key", "relay.key")}
	r.Link().Set(natlab.Conditions{Delay: oneWay})
	found, _ := r.await(`^peer     (12D3KooW\S+)$`)
	r.id = found[1]
	r.await(`^address  /ip4/11\.0\.\S+/tcp/4001/p2p/12D3KooW\S+$`)
	r.await(`^address  /ip4/11\.0\.\S+/udp/4001/quic-v1/p2p/12D3KooW\S+$`)
	r.await(`^use it   --relay /ip4/11\.0\.\S+/tcp/4001/p2p/12D3KooW\S+$`)
	r.await(`^ready$`)
	return r
}

// at returns the relay's address over a transport.
func (r *relay) at(via string) string {
	return fmt.Sprintf("/ip4/%s/%s/p2p/%s", r.Addrs()[0], via, r.id)
}

// Files get from one side to the other without the relay, which has libp2p's limits and would cut them after 128 KiB. Where no hole can be
// punched the command says so.
func TestSendAndGetThroughNATs(t *testing.T) {
	const size = 2 << 20
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, size), 0o600))
	for _, p := range pairs() {
		t.Run(p.via[:3]+"/"+p.sender+"-"+p.getter, func(t *testing.T) {
			lab := natlab.New(t)
			r := newRelay(t, lab)
			send := start(t, home(lab, p.senders), "send", "--relay", r.at(p.via), file)
			ticket, _ := send.await(`^ticket   (\S+)`)
			send.await(`^ready$`)
			get := start(t, home(lab, p.getters), "get", ticket[1], t.TempDir())
			code, took := get.wait(patience), time.Since(get.began)
			t.Logf("%v, %d KB over the relay", took.Round(time.Millisecond), r.Link().Sent()/1000)
			if p.hopeless() {
				require.Contains(t, []int{0, 3}, code)
				return
			}
			require.Zero(t, code)
			require.Less(t, took, 4*time.Second, "2 s until the two talk, and 2 s more until they do so directly")
			require.Less(t, r.Link().Sent(), int64(100_000))
			require.Zero(t, send.wait(patience))
		})
	}
}
