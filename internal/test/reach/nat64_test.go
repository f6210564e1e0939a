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

// newRelay4 starts a relay that has IPv4 alone.
func newRelay4(t *testing.T, lab *natlab.Lab) *relay {
	t.Helper()
	r := &relay{host: lab.Host(), key: filepath.Join(t.TempDir(), "relay.key")}
	r.Interface = r.host.PlugVersion(lab.Internet, 4)
	r.Link().Set(natlab.Conditions{Delay: oneWay})
	r.start(t)
	return r
}

// mobile returns a host with IPv6 alone behind a NAT64, as in a mobile network.
func mobile(lab *natlab.Lab, kind nat.Kind) (*natlab.Host, *natlab.Router) {
	router := lab.Router(lab.Internet, &natlab.RouterOptions{NAT64: &kind, Firewall: true})
	h := lab.Host()
	h.Plug(router.LAN).Link().Set(natlab.Conditions{Delay: oneWay})
	return h, router
}

// Behind a NAT64 a host reaches a relay that has IPv4 alone, and gets a direct path to peers that have.
func TestSendAndGetThroughANAT64(t *testing.T) {
	inFull(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, *size), 0o600))
	for _, via := range transports {
		for _, tt := range []struct {
			name    string
			mobile  nat.Kind
			other   *nat.Kind
			reverse bool
		}{
			{"easy NAT64 to none", nat.Easy, nil, false},
			{"none to easy NAT64", nat.Easy, nil, true},
			{"easy NAT64 to easy", nat.Easy, &nat.Easy, false},
			{"easy to easy NAT64", nat.Easy, &nat.Easy, true},
			{"hard NAT64 to easy", nat.Hard, &nat.Easy, false},
			{"easy NAT64 to hard", nat.Easy, &nat.Hard, false},
		} {
			t.Run(via[:3]+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				lab := natlab.New(t)
				r := newRelay4(t, lab)
				from, _ := mobile(lab, tt.mobile)
				to := home(lab, tt.other, natlab.Conditions{Delay: oneWay})
				if tt.reverse {
					from, to = to, from
				}
				send := start(t, from, "send", "--relay", r.at(via), file)
				ticket, _ := send.await(`^ticket   (\S+)`)
				send.await(`^ready$`)
				get := start(t, to, "get", ticket[1], t.TempDir())
				require.Zero(t, get.wait(patience))
				_, direct := get.await(`^path     direct, (tcp|quic-v1)`)
				require.Zero(t, send.wait(patience))
				require.Less(t, r.Link().Sent(), int64(100_000))
				t.Logf("direct after %v, all after %v", direct.Round(time.Millisecond), get.took().Round(time.Millisecond))
			})
		}
	}
}

// Where the NAT64 lets nothing through but what goes to the relay, files go over that.
func TestRelayedThroughANAT64(t *testing.T) {
	inFull(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, make([]byte, 10_000), 0o600))
	for _, reverse := range []bool{false, true} {
		lab := natlab.New(t)
		r := newRelay4(t, lab)
		from, router := mobile(lab, nat.Easy)
		router.DropDirect(r.Addrs()...)
		to := home(lab, &nat.Easy, natlab.Conditions{Delay: oneWay})
		if reverse {
			from, to = to, from
		}
		send := start(t, from, "send", "--relay", r.at(transports[0]), file)
		ticket, _ := send.await(`^ticket   (\S+)`)
		send.await(`^ready$`)
		get := start(t, to, "get", "--allow-relay", ticket[1], t.TempDir())
		require.Zero(t, get.wait(patience))
		get.await(`^path     relayed by ` + r.id)
		require.Zero(t, send.wait(patience))
	}
}

// The doctor says that there is a NAT64, and is right about it. Without helpers it says so too.
func TestDoctorTellsANAT64(t *testing.T) {
	inFull(t)
	for name, tt := range map[string]struct {
		kind nat.Kind
		want diagnosis
	}{
		"easiest": {nat.Easiest, diagnosis{way{true, eim, eim, yes, yes}, way{true, eim, what, dunn, yes}, way{}, dialed}},
		"easy":    {nat.Easy, easyTwo},
		"hard":    {nat.Hard, hardTwo},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := natlab.New(t)
			helpers := []*relay{newRelay4(t, lab), newRelay4(t, lab)}
			sick, _ := mobile(lab, tt.kind)
			for i := range attempts {
				r := reportOf(t, begin(t, sick, helpers...))
				require.Equal(t, "64:ff9b::/96", r.NAT64.String())
				if r.IPv4.UDP.Answered > 0 {
					require.Contains(t, r.Lines()[0].Text, "reached through a NAT64, 64:ff9b::/96")
				}
				if got := tt.want.of(r); i == attempts-1 || got == tt.want {
					require.Equal(t, tt.want, got)
					break
				}
			}
			p := start(t, sick, "doctor")
			require.Zero(t, p.wait(patience))
			p.await(`^local    IPv4: this machine has no address; peers with IPv4 are dialed at 64:ff9b::/96, where a NAT64 may be$`)
			p.await(`^local    IPv6: 2600:11:0:1::1$`)
		})
	}
}
