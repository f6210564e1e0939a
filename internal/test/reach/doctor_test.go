//go:build linux

package reach

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
	"github.com/peerlane/peerlane/node"
)

// A patient is a host whose network the doctor looks at.
type patient struct {
	name string
	host func(*natlab.Lab) *natlab.Host
	two  diagnosis // with two helpers
	one  diagnosis // with one
}

// A diagnosis is what is to be found.
type diagnosis struct {
	udp, tcp, udp6 way
	summary        string
}

// A way is what matters of a transport; the zero way is not looked at.
type way struct {
	passes             bool
	mapping, filtering node.NATBehavior
	hairpin, reachable node.Answer
}

func (w way) of(t node.NetworkTransport) way {
	if w == (way{}) {
		return w
	}
	return way{t.Answered > 0, t.Mapping, t.Filtering, t.Hairpin, t.Reachable}
}

// of returns what was found where d says what is to be.
func (d diagnosis) of(r node.NetworkReport) diagnosis {
	lines := r.Lines()
	return diagnosis{d.udp.of(r.IPv4.UDP), d.tcp.of(r.IPv4.TCP), d.udp6.of(r.IPv6.UDP), lines[len(lines)-1].Text}
}

// The findings by their short names.
const (
	dialed   = "direct with every peer: this machine can be dialed"
	easyHole = "direct with peers that can be dialed, and with those behind easy or hard NATs once they have met through a relay"
	hardHole = "direct with peers that can be dialed or are behind easy NATs; through a relay with those behind hard NATs"
	noHole   = "direct with peers that can be dialed; unknown for peers behind NATs: needs a second helper"

	what = node.UnknownBehavior
	dunn = node.Unknown
	yes  = node.Yes
	no   = node.No
	none = node.NoNAT
	eim  = node.EndpointIndependent
	half = node.NotPortDependent
	hard = node.AddressAndPortDependent
)

// behind is a host with IPv4 alone behind NATs, the outermost first.
func behind(kinds ...*nat.Kind) func(*natlab.Lab) *natlab.Host {
	return func(lab *natlab.Lab) *natlab.Host {
		place := lab.Internet
		for _, k := range kinds {
			place = lab.Router(place, &natlab.RouterOptions{NAT: k, Version: 4}).LAN
		}
		return lab.Host(place)
	}
}

var (
	easyTwo = diagnosis{way{true, eim, hard, yes, no}, way{true, eim, what, dunn, no}, way{}, easyHole}
	easyOne = diagnosis{way{true, half, hard, yes, no}, way{true, what, what, dunn, no}, way{}, noHole}
	hardTwo = diagnosis{way{true, hard, hard, dunn, no}, way{true, node.Dependent, what, dunn, no}, way{}, hardHole}
	hardOne = diagnosis{way{true, hard, hard, dunn, no}, way{true, what, what, dunn, no}, way{}, hardHole}
)

var patients = []patient{
	{"none", behind(),
		diagnosis{way{true, none, eim, dunn, yes}, way{true, none, what, dunn, yes}, way{true, none, eim, dunn, yes}, dialed},
		diagnosis{way{true, none, half, dunn, yes}, way{true, none, what, dunn, yes}, way{true, none, half, dunn, yes}, dialed}},
	{"easiest", behind(&nat.Easiest),
		diagnosis{way{true, eim, eim, yes, yes}, way{true, eim, what, dunn, yes}, way{}, dialed},
		diagnosis{way{true, half, half, yes, dunn}, way{true, what, what, dunn, dunn}, way{}, noHole}},
	{"address-restricted", behind(&nat.Kind{Mapping: nat.AddressDependent, Filtering: nat.AddressDependent, RandomPorts: true}),
		diagnosis{way{true, node.AddressDependent, node.AddressDependent, dunn, no}, way{true, node.Dependent, what, dunn, no}, way{}, hardHole},
		diagnosis{way{true, half, half, dunn, dunn}, way{true, what, what, dunn, dunn}, way{}, noHole}},
	{"easy", behind(&nat.Easy), easyTwo, easyOne},
	{"hard", behind(&nat.Hard), hardTwo, hardOne},
	{"double NAT", behind(&nat.Easy, &nat.Easy), easyTwo, easyOne},
	{"hard behind easy", behind(&nat.Easy, &nat.Hard), hardTwo, hardOne},
	{"UDP blocked",
		func(lab *natlab.Lab) *natlab.Host {
			h := lab.Host()
			h.Plug(lab.Router(lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4}).LAN).Link().Set(natlab.Conditions{NoUDP: true})
			return h
		},
		diagnosis{way{false, what, what, dunn, no}, easyTwo.tcp, way{},
			"direct over TCP with peers that can be dialed or are behind easy NATs; through a relay with those behind hard NATs"},
		diagnosis{way{false, what, what, dunn, no}, easyOne.tcp, way{},
			"direct over TCP with peers that can be dialed; with others perhaps only through a relay"}},
	{"IPv6 firewall, hard",
		func(lab *natlab.Lab) *natlab.Host {
			return lab.Host(lab.Router(lab.Internet, natlab.Home(nat.Hard)).LAN)
		},
		diagnosis{hardTwo.udp, hardTwo.tcp, way{true, none, hard, dunn, no}, hardHole + "; direct with every peer that has IPv6"},
		diagnosis{hardOne.udp, hardOne.tcp, way{true, none, hard, dunn, no}, hardHole + "; direct with every peer that has IPv6"}},
}

// On a machine that is busy, an answer may come too late. Then it is unknown, and another attempt may tell.
const attempts = 3

// The doctor is right about each NAT, and with one helper does not say what takes two.
func TestDoctorTellsEachNAT(t *testing.T) {
	t.Parallel()
	for _, p := range patients {
		t.Run(p.name, func(t *testing.T) {
			if p.name != "easy" {
				inFull(t)
			}
			t.Parallel()
			lab := natlab.New(t)
			helpers := []*relay{newRelay(t, lab), newRelay(t, lab)}
			sick := []*natlab.Host{p.host(lab), p.host(lab)}
			for i := range attempts {
				two, one := begin(t, sick[0], helpers...), begin(t, sick[1], helpers[0])
				got := []diagnosis{p.two.of(reportOf(t, two)), p.one.of(reportOf(t, one))}
				t.Logf("%.1f s with two helpers, %.1f s with one", two.took().Seconds(), one.took().Seconds())
				if want := []diagnosis{p.two, p.one}; i == attempts-1 || slices.Equal(want, got) {
					require.Equal(t, want, got)
					return
				}
			}
		})
	}
}

// begin runs the command on a host. Half of the helpers are given as relays.
func begin(t *testing.T, h *natlab.Host, helpers ...*relay) *program {
	t.Helper()
	args := []string{"doctor", "--json"}
	for i, r := range helpers {
		args = append(args, []string{"--relay", "--helper"}[i%2], r.at(transports[0]))
	}
	return start(t, h, args...)
}

func reportOf(t *testing.T, p *program) (r node.NetworkReport) {
	t.Helper()
	require.Zero(t, p.wait(patience), "%s", p.text())
	require.NoError(t, json.Unmarshal([]byte(p.lines()), &r), p.text())
	return r
}

// Relays of libp2p's own tell the mapping, and whether they grant a reservation.
func TestDoctorAsksStockRelays(t *testing.T) {
	inFull(t)
	t.Parallel()
	lab := natlab.New(t)
	args := []string{"doctor", "--json"}
	for range 2 {
		args = append(args, "--relay", startRole(t, lab.Host(lab.Internet), roleStock).first(`^at (/ip4/11\.0\.0\.\d+/tcp/4001/p2p/\S+)`))
	}
	for kind, want := range map[*nat.Kind]node.NATBehavior{&nat.Easy: eim, &nat.Hard: node.Dependent} {
		p := start(t, behind(kind)(lab), args...)
		r := reportOf(t, p)
		require.Equal(t, want, r.IPv4.UDP.Mapping, p.text())
		require.Equal(t, want, r.IPv4.TCP.Mapping)
		require.Equal(t, what, r.IPv4.UDP.Filtering)
		require.Equal(t, dunn, r.IPv4.UDP.Reachable)
		for _, relay := range r.Relays {
			require.True(t, relay.Reserved, relay.Err)
			require.EqualValues(t, 128<<10, relay.Data)
		}
	}
}

// A router that maps ports is found. If it has another NAT behind it, that is of no use.
func TestDoctorFindsARouterThatMapsPorts(t *testing.T) {
	inFull(t)
	t.Parallel()
	lab := natlab.New(t)
	helper := newRelay(t, lab)
	outer := lab.Router(lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4})
	for _, tt := range []struct {
		place      *natlab.Place
		says, want string
	}{
		{outer.LAN, "11.0.0.2", `^router   speaks UPnP: a program can map a port`},
		{lab.Router(outer.LAN, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4}).LAN, "192.168.1.1",
			`^router   speaks UPnP, but its outside address 192\.168\.1\.1 is not where others see this machine`},
	} {
		startRole(t, lab.Host(tt.place), roleUPnP, outsideEnv+"="+tt.says).await(`^ready$`)
		p := start(t, lab.Host(tt.place), "doctor", "--helper", helper.at(transports[0]))
		require.Zero(t, p.wait(patience))
		p.await(tt.want)
	}
}

// Without a helper, and with one that does not answer, the doctor says so.
func TestDoctorWithoutHelpers(t *testing.T) {
	inFull(t)
	t.Parallel()
	lab := natlab.New(t)
	h := lab.Host(lab.Router(lab.Internet, natlab.Home(nat.Easy)).LAN)
	p := start(t, h, "doctor")
	require.Zero(t, p.wait(patience))
	p.await(`^local    IPv4: 192\.168\.1\.1$`)
	p.await(`^local    IPv6: 2600:11:0:1::1$`)
	p.await(`^router   no answer to UPnP, NAT-PMP or PCP`)
	p.await(`^summary  the network cannot be checked without a helper$`)
	p.await(`^do       give --relay or --helper`)

	p = start(t, h, "doctor", "--helper", "/ip4/11.0.0.200/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	require.Equal(t, 3, p.wait(patience))
	p.await(`^summary  no helper answers`)
	p.await(`^hint: check this machine's way to the internet`)
}
