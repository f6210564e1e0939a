//go:build linux

package reach

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

// talk is two peers that talk, each behind a NAT of its own.
type conversation struct {
	t                 *testing.T
	lab               *natlab.Lab
	relay             *relay
	talker, listener  *program
	ofTalker, ofOther *natlab.Router
	talkers           *natlab.Interface
	host              *natlab.Host // the talker's
}

func converse(t *testing.T, a, b nat.Kind) *conversation {
	t.Helper()
	c := &conversation{t: t, lab: natlab.New(t)}
	c.relay = newRelay(t, c.lab)
	c.ofTalker = c.lab.Router(c.lab.Internet, &natlab.RouterOptions{NAT: &a, Version: 4})
	c.ofOther = c.lab.Router(c.lab.Internet, &natlab.RouterOptions{NAT: &b, Version: 4})
	for _, r := range []*natlab.Router{c.ofTalker, c.ofOther} {
		r.Link().Set(natlab.Conditions{Delay: oneWay})
	}
	other := c.lab.Host(c.ofOther.LAN)
	at := c.relay.at("udp/4001/quic-v1")
	c.listener = c.role(other, roleListen, relayEnv+"="+at)
	id, _ := c.listener.await(`^peer (\S+)`)
	c.host = c.lab.Host()
	c.talkers = c.host.Plug(c.ofTalker.LAN)
	c.talker = c.role(c.host, roleTalk, peerEnv+"="+at+"/p2p-circuit/p2p/"+id[1])
	return c
}

func (c *conversation) role(h *natlab.Host, role string, env ...string) *program {
	self, err := os.Executable()
	require.NoError(c.t, err)
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	return run(c.t, h, cmd)
}

// direct waits until the talker has a direct path, from now on.
func (c *conversation) since(expression string, after time.Duration) time.Duration {
	_, at := c.talker.awaitAfter(expression, after)
	return at - after
}

func (c *conversation) now() time.Duration { return time.Since(c.talker.began) }

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
	{"another uplink", func(c *conversation) {
		next := c.lab.Router(c.lab.Internet, &natlab.RouterOptions{NAT: &nat.Easy, Version: 4})
		next.Link().Set(natlab.Conditions{Delay: oneWay})
		c.talkers.Unplug()
		c.host.Plug(next.LAN)
	}, 6 * time.Second, 15 * time.Second},
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
	require.NoError(t, c.relay.cmd.Process.Kill())
	<-c.relay.done
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
