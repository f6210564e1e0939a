//go:build linux

package reach

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

// A stage is where two peers are that talk.
type stage struct {
	talker, listener *natlab.RouterOptions // the routers that they are behind; nil: on the internet
	links            [2]natlab.Conditions  // of the talker's host and the listener's
	relays           int                   // how many; zero: one
	relayFlags       []string
	via              string // the transport towards the relays; empty: QUIC over IPv4 and IPv6
	bothReserve      bool   // the talker has reservations too
	atOnce           bool   // the talker talks over a relay until there is a direct path, and does not wait for it
	bytes            int    // that the talker sends on a stream, beside its calls
	messages         int    // that it sends besides, as fast as they go
	connectTimeout   time.Duration
	outer            *natlab.RouterOptions // the router between that of each side and the internet; nil: none
	relay4           bool                  // the relays have IPv4 alone
}

// only4 returns a router with a NAT, and without IPv6.
func only4(kind nat.Kind) *natlab.RouterOptions {
	return &natlab.RouterOptions{NAT: &kind, Version: 4}
}

// A conversation is two peers that talk, each behind a router of its own.
type conversation struct {
	t                *testing.T
	lab              *natlab.Lab
	stage            stage
	relay            *relay // the first
	relays           []*relay
	talker, listener *program
	sides            [2]side // the talker's and the listener's
}

// A side is where one of two peers is.
type side struct {
	host   *natlab.Host
	router *natlab.Router // nil: it is on the internet
	plug   *natlab.Interface
}

// Places in conversation.sides, stage.links and sides.
const (
	calling = 0
	called  = 1
)

// converse begins a conversation behind two NATs.
func converse(t *testing.T, a, b nat.Kind) *conversation {
	t.Helper()
	return converseOn(t, stage{talker: only4(a), listener: only4(b)})
}

func converseOn(t *testing.T, at stage) *conversation {
	t.Helper()
	c := &conversation{t: t, lab: natlab.New(t), stage: at}
	for range max(at.relays, 1) {
		if at.relay4 {
			c.relays = append(c.relays, newRelay4(t, c.lab))
		} else {
			c.relays = append(c.relays, newRelay(t, c.lab, at.relayFlags...))
		}
	}
	c.relay = c.relays[0]
	var relays, circuits []string
	for _, r := range c.relays {
		relays = append(relays, strings.Join(r.over(at.via), ","))
	}
	for i, behind := range []*natlab.RouterOptions{at.talker, at.listener} {
		c.sides[i] = c.side(behind, at.links[i])
	}
	c.listener = c.role(c.sides[called].host, roleListen, relayEnv+"="+strings.Join(relays, " "))
	id, _ := c.listener.await(`^peer (\S+)`)
	for _, r := range c.relays {
		for _, a := range r.over(at.via) {
			circuits = append(circuits, a+"/p2p-circuit/p2p/"+id[1])
		}
	}
	env := []string{peerEnv + "=" + strings.Join(circuits, ","), fmt.Sprintf("%s=%d", bytesEnv, at.bytes),
		fmt.Sprintf("%s=%d", messagesEnv, at.messages), fmt.Sprintf("%s=%t", atOnceEnv, at.atOnce),
		timeoutEnv + "=" + at.connectTimeout.String()}
	if at.bothReserve {
		env = append(env, relayEnv+"="+strings.Join(relays, " "))
	}
	c.talker = c.role(c.sides[calling].host, roleTalk, env...)
	return c
}

// over returns the relay's addresses over a transport, or all of QUIC.
func (r *relay) over(via string) []string {
	if via == "" {
		return r.everywhere()
	}
	return []string{r.at(via)}
}

// side returns a host behind a router of its own, or on the internet, which is as far away.
func (c *conversation) side(behind *natlab.RouterOptions, link natlab.Conditions) side {
	s := side{host: c.lab.Host()}
	if behind == nil {
		s.plug = s.host.Plug(c.lab.Internet)
		link.Delay += oneWay
	} else {
		s.router = c.router(behind)
		s.plug = s.host.Plug(s.router.LAN)
	}
	s.plug.Link().Set(link)
	return s
}

// router returns a router on the internet, as far away as everything, or behind an outer one that is.
func (c *conversation) router(o *natlab.RouterOptions) *natlab.Router {
	place, outer := c.lab.Internet, c.stage.outer
	if outer != nil {
		r := c.lab.Router(place, outer)
		r.Link().Set(natlab.Conditions{Delay: oneWay})
		return c.lab.Router(r.LAN, o)
	}
	r := c.lab.Router(place, o)
	r.Link().Set(natlab.Conditions{Delay: oneWay})
	return r
}

// replug takes the host of one side off its router, and connects it to another.
func (c *conversation) replug(which int, to *natlab.RouterOptions) {
	s := c.sides[which]
	next := c.router(to)
	s.plug.Unplug()
	s.host.Plug(next.LAN)
}

func (c *conversation) role(h *natlab.Host, role string, env ...string) *program {
	self, err := os.Executable()
	require.NoError(c.t, err)
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	return run(c.t, h, cmd)
}

// since returns how long after a time the talker has printed a line.
func (c *conversation) since(expression string, after time.Duration) time.Duration {
	c.t.Helper()
	_, at := c.talker.awaitAfter(expression, after)
	return at - after
}

func (c *conversation) now() time.Duration { return time.Since(c.talker.began) }

// recovers waits until calls go on after something has happened, and until they do so over a direct path, and logs how long it took.
func (c *conversation) recovers(what string, at time.Duration) (goesOn, direct time.Duration) {
	c.t.Helper()
	goesOn = c.since(`calls, `, at+callsBefore) + callsBefore
	direct = c.since(`calls, direct`, at+callsBefore) + callsBefore
	c.t.Logf("%s: calls go on after %.1f s, direct after %.1f s", what, goesOn.Seconds(), direct.Seconds())
	return goesOn, direct
}

// requireWhole checks that there was one session, on which everything came once and in order.
func (c *conversation) requireWhole() {
	c.t.Helper()
	require.NotContains(c.t, c.listener.text(), "WRONG")
	require.NotContains(c.t, c.talker.text(), "ended")
	select {
	case <-c.talker.done:
		require.Fail(c.t, "the talker has ended", c.talker.text())
	default:
	}
}

// A disturbance is something that happens to the path of a session at one side, and how long the session's calls may stand still for it.
type disturbance struct {
	name   string
	happen func(c *conversation, at int)
	most   time.Duration // limit of the time without a call
	then   time.Duration // limit of the time until the path is direct; zero: it stays relayed
	sample bool          // make reach tries it at the called side too
}

var disturbances = []disturbance{
	{"the direct path is cut", func(c *conversation, at int) { c.sides[at].router.DropDirect(c.relay.Addrs()[0]) }, 4 * time.Second, 0, false},
	{"the NAT forgets", func(c *conversation, at int) { c.sides[at].router.Restart() }, 4 * time.Second, 15 * time.Second, false},
	{"the NAT gives other ports", func(c *conversation, at int) { c.sides[at].router.Remap() }, 6 * time.Second, 15 * time.Second, true},
	{"the link is cut for 15 s", func(c *conversation, at int) {
		c.sides[at].plug.Link().Cut()
		time.Sleep(15 * time.Second)
		c.sides[at].plug.Link().Heal()
	}, 25 * time.Second, 30 * time.Second, false},
	{"UDP is blocked", func(c *conversation, at int) {
		c.sides[at].plug.Link().Set(natlab.Conditions{NoUDP: true})
	}, 15 * time.Second, 30 * time.Second, false},
	{"another uplink", func(c *conversation, at int) { c.replug(at, only4(nat.Easy)) }, 4 * time.Second, 10 * time.Second, true},
	{"another uplink after 2 s without one", func(c *conversation, at int) {
		c.sides[at].plug.Unplug()
		time.Sleep(2 * time.Second)
		c.sides[at].host.Plug(c.router(only4(nat.Easy)).LAN)
	}, 8 * time.Second, 12 * time.Second, false},
	{"an uplink with IPv6 alone", func(c *conversation, at int) {
		c.replug(at, &natlab.RouterOptions{NAT64: &nat.Easy, Firewall: true})
	}, 10 * time.Second, 20 * time.Second, false}, // libp2p waits for 5 s after a dial between the two uplinks
}

// One session survives each disturbance, at either side, with every message once and in order.
func TestASessionGoesOn(t *testing.T) {
	inFull(t)
	for at, who := range sides {
		for _, d := range disturbances {
			scene(t, d.name+" at the "+who, at == calling || d.sample, func(t *testing.T) {
				c := converse(t, nat.Easy, nat.Easy)
				t.Logf("direct after %v", c.since(`calls, direct`, 0))
				began := c.now()
				d.happen(c, at)
				goesOn := c.since(`calls, `, began+callsBefore) + callsBefore
				t.Logf("%s at the %s: calls go on after %v", d.name, who, goesOn)
				require.Less(t, goesOn, d.most)
				if d.then > 0 {
					direct := c.since(`calls, direct`, began+callsBefore) + callsBefore
					t.Logf("%s at the %s: direct after %v", d.name, who, direct)
					require.Less(t, direct, d.then)
				}
				c.requireWhole()
			})
		}
	}
}

// callsBefore is how long a line may come that is about calls before the disturbance.
const callsBefore = time.Second

// Two peers without a direct path continue when their relay is back, which they reach over QUIC, over TCP, or over TCP because UDP is blocked. The
// bounds leave room for a busy machine: in virtual time the session is back within 2 s.
func TestASessionGoesOnWhenItsRelayIsBack(t *testing.T) {
	inFull(t)
	t.Parallel()
	for _, tt := range []struct {
		name, via, over string
		link            natlab.Conditions
		sample          bool
	}{
		{"QUIC", "", "quic-v1", natlab.Conditions{}, true},
		{"TCP", transports[0], "tcp", natlab.Conditions{}, false},
		{"TCP alone", transports[0], "tcp", natlab.Conditions{NoUDP: true}, true},
	} {
		scene(t, tt.name, tt.sample, func(t *testing.T) {
			c := converseOn(t, stage{talker: only4(nat.Hard), listener: only4(nat.Hard), via: tt.via, links: [2]natlab.Conditions{tt.link, tt.link}})
			c.since(`calls, relayed by \S+, `+tt.over, 0)
			c.relay.kill()
			time.Sleep(3 * time.Second) // long enough that the two notice
			c.relay.start(t)
			at, ofListener := c.now(), time.Since(c.listener.began)
			took := c.since(`state resumed: relayed`, at)
			_, reserved := c.listener.awaitAfter(`reserved at 1 of 1`, ofListener)
			t.Logf("over %s: the session is back after %v, the reservation after %v", tt.name, took, reserved-ofListener)
			require.Less(t, took, 3*time.Second, "16.6 s with libp2p alone")
			require.Less(t, reserved-ofListener, 3*time.Second)
			if tt.link.NoUDP {
				c.since(`calls, relayed by \S+, tcp`, at)
			} else {
				c.since(`calls, relayed`, at)
			}
			c.requireWhole()
		})
	}
}

// A healed path is used again.
func TestADirectPathThatIsHealed(t *testing.T) {
	inFull(t)
	t.Parallel()
	c := converse(t, nat.Easy, nat.Easy)
	c.since(`calls, direct`, 0)
	c.sides[calling].router.DropDirect(c.relay.Addrs()[0])
	c.since(`calls, relayed`, c.now())
	at := c.now()
	c.sides[calling].router.DropDirect()
	took := c.since(`calls, direct`, at)
	t.Logf("direct again after %v", took)
	require.Less(t, took, 10*time.Second)
	c.requireWhole()
}
