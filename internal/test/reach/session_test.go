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
}

// only4 returns a router with a NAT, and without IPv6.
func only4(kind nat.Kind) *natlab.RouterOptions {
	return &natlab.RouterOptions{NAT: &kind, Version: 4}
}

// A conversation is two peers that talk, each behind a router of its own.
type conversation struct {
	t                 *testing.T
	lab               *natlab.Lab
	relay             *relay // the first
	relays            []*relay
	talker, listener  *program
	ofTalker, ofOther *natlab.Router
	talkers, others   *natlab.Interface
	host, otherHost   *natlab.Host // the talker's, and the listener's
}

// converse begins a conversation behind two NATs.
func converse(t *testing.T, a, b nat.Kind) *conversation {
	t.Helper()
	return converseOn(t, stage{talker: only4(a), listener: only4(b)})
}

func converseOn(t *testing.T, at stage) *conversation {
	t.Helper()
	c := &conversation{t: t, lab: natlab.New(t)}
	for range max(at.relays, 1) {
		c.relays = append(c.relays, newRelay(t, c.lab, at.relayFlags...))
	}
	c.relay = c.relays[0]
	var relays, circuits []string
	for _, r := range c.relays {
		relays = append(relays, strings.Join(r.over(at.via), ","))
	}
	c.host, c.otherHost = c.lab.Host(), c.lab.Host()
	c.ofTalker, c.talkers = c.plug(c.host, at.talker, at.links[0])
	c.ofOther, c.others = c.plug(c.otherHost, at.listener, at.links[1])
	c.listener = c.role(c.otherHost, roleListen, relayEnv+"="+strings.Join(relays, " "))
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
	c.talker = c.role(c.host, roleTalk, env...)
	return c
}

// over returns the relay's addresses over a transport, or all of QUIC.
func (r *relay) over(via string) []string {
	if via == "" {
		return r.everywhere()
	}
	return []string{r.at(via)}
}

// plug connects a host to a router of its own, or to the internet, which is as far away.
func (c *conversation) plug(h *natlab.Host, behind *natlab.RouterOptions, link natlab.Conditions) (*natlab.Router, *natlab.Interface) {
	if behind == nil {
		i := h.Plug(c.lab.Internet)
		link.Delay += oneWay
		i.Link().Set(link)
		return nil, i
	}
	r := c.router(behind)
	i := h.Plug(r.LAN)
	i.Link().Set(link)
	return r, i
}

// router returns a router on the internet, as far away as everything.
func (c *conversation) router(o *natlab.RouterOptions) *natlab.Router {
	r := c.lab.Router(c.lab.Internet, o)
	r.Link().Set(natlab.Conditions{Delay: oneWay})
	return r
}

// replug takes the host of one side off its router, and connects it to another.
func (c *conversation) replug(listener bool, to *natlab.RouterOptions) {
	host, at := c.host, c.talkers
	if listener {
		host, at = c.otherHost, c.others
	}
	next := c.router(to)
	at.Unplug()
	host.Plug(next.LAN)
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

// A disturbance is something that happens to the path of a session, and how long the session's calls may stand still for it.
type disturbance struct {
	name   string
	happen func(*conversation)
	most   time.Duration // limit of the time without a call
	then   time.Duration // limit of the time until the path is direct; zero: it stays relayed
}

var disturbances = []disturbance{
	{"the direct path is cut", func(c *conversation) { c.ofTalker.DropDirect(c.relay.Addrs()[0]) }, 4 * time.Second, 0},
	{"the NAT forgets", func(c *conversation) { c.ofTalker.Restart() }, 4 * time.Second, 15 * time.Second},
	{"the NAT gives other ports", func(c *conversation) { c.ofTalker.Remap() }, 6 * time.Second, 15 * time.Second},
	{"the link is cut for 15 s", func(c *conversation) {
		c.talkers.Link().Cut()
		time.Sleep(15 * time.Second)
		c.talkers.Link().Heal()
	}, 25 * time.Second, 30 * time.Second},
	{"UDP is blocked", func(c *conversation) { c.talkers.Link().Set(natlab.Conditions{NoUDP: true}) }, 15 * time.Second, 30 * time.Second},
	{"another uplink", func(c *conversation) { c.replug(false, only4(nat.Easy)) }, 4 * time.Second, 10 * time.Second},
	{"another uplink after 2 s without one", func(c *conversation) {
		c.talkers.Unplug()
		time.Sleep(2 * time.Second)
		c.host.Plug(c.router(only4(nat.Easy)).LAN)
	}, 6 * time.Second, 12 * time.Second},
	{"an uplink with IPv6 alone", func(c *conversation) {
		c.replug(false, &natlab.RouterOptions{NAT64: &nat.Easy, Firewall: true})
	}, 10 * time.Second, 20 * time.Second}, // libp2p waits for 5 s after a dial between the two uplinks
}

// One session survives each disturbance, with every message once and in order.
func TestASessionGoesOn(t *testing.T) {
	inFull(t)
	for _, d := range disturbances {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			c := converse(t, nat.Easy, nat.Easy)
			t.Logf("direct after %v", c.since(`calls, direct`, 0))
			at := c.now()
			d.happen(c)
			goesOn := c.since(`calls, `, at+callsBefore) + callsBefore
			t.Logf("%s: calls go on after %v", d.name, goesOn)
			require.Less(t, goesOn, d.most)
			if d.then > 0 {
				direct := c.since(`calls, direct`, at+callsBefore) + callsBefore
				t.Logf("%s: direct after %v", d.name, direct)
				require.Less(t, direct, d.then)
			}
			c.requireWhole()
		})
	}
}

// callsBefore is how long a line may come that is about calls before the disturbance.
const callsBefore = time.Second

// Two peers without a direct path continue when their relay is back.
func TestASessionGoesOnWhenItsRelayIsBack(t *testing.T) {
	inFull(t)
	t.Parallel()
	c := converse(t, nat.Hard, nat.Hard)
	c.since(`calls, relayed`, 0)
	c.relay.kill()
	time.Sleep(3 * time.Second) // long enough that the two notice
	c.relay.start(t)
	at := c.now()
	took := c.since(`state resumed: relayed`, at)
	t.Logf("back after %v", took)
	require.Less(t, took, 3*time.Second, "16.6 s with libp2p alone")
	c.since(`calls, relayed`, at)
	c.requireWhole()
}

// A healed path is used again.
func TestADirectPathThatIsHealed(t *testing.T) {
	inFull(t)
	t.Parallel()
	c := converse(t, nat.Easy, nat.Easy)
	c.since(`calls, direct`, 0)
	c.ofTalker.DropDirect(c.relay.Addrs()[0])
	c.since(`calls, relayed`, c.now())
	at := c.now()
	c.ofTalker.DropDirect()
	took := c.since(`calls, direct`, at)
	t.Logf("direct again after %v", took)
	require.Less(t, took, 10*time.Second)
	c.requireWhole()
}
