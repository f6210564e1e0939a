//go:build linux

package reach

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

// The scenes are those of iroh's lab (n0-computer/iroh, iroh/tests/patchbay). In each the peers have one session, whose calls go on.
var scenes = flag.Bool("scenes", false, "every scene, not only a sample")

// scene runs one scene beside others: make reach runs those of the sample, make nightly all.
func scene(t *testing.T, name string, sample bool, play func(*testing.T)) {
	t.Helper()
	if !sample && !*scenes {
		return
	}
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		play(t)
	})
}

// sides are the two that something may happen to.
var sides = []string{"talker", "listener"}

// A level is a degree of a bad link. Up to the fourth the peers must have a direct path in time.
var levels = []natlab.Conditions{
	{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.005},
	{Delay: 100 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.03, Reorder: 0.03},
	{Delay: 200 * time.Millisecond, Jitter: 60 * time.Millisecond, Loss: 0.05, Reorder: 0.05},
	{Delay: 300 * time.Millisecond, Jitter: 80 * time.Millisecond, Loss: 0.08, Reorder: 0.08},
	{Delay: 500 * time.Millisecond, Jitter: 100 * time.Millisecond, Loss: 0.12, Reorder: 0.12},
	{Delay: 800 * time.Millisecond, Jitter: 200 * time.Millisecond, Loss: 0.20, Reorder: 0.20},
}

// required is how many of the levels must lead to a direct path.
const required = 4

// One side's link is bad, from the start: the peers find a direct path in spite of it.
func TestSceneBadLink(t *testing.T) {
	inFull(t)
	t.Parallel()
	for i, link := range levels {
		for side, name := range sides {
			level := i + 1
			scene(t, fmt.Sprintf("level %d of the %s", level, name), level == 3, func(t *testing.T) {
				at := stage{talker: only4(nat.Easy), listener: only4(nat.Easy), connectTimeout: 20 * time.Second}
				at.links[side] = link
				c := converseOn(t, at)
				limit := time.Duration(20+10*level) * time.Second
				found, took := c.talker.seek(`calls, direct`, 0, limit)
				if found == nil && level > required {
					t.Logf("not direct within %v: %s", limit, c.talker.text())
					return
				}
				require.NotNil(t, found, "no direct path within %v: %s", limit, c.talker.text())
				t.Logf("direct after %.1f s", took.Seconds())
				c.since(`calls, `, took+time.Second) // they go on
				c.requireWhole()
			})
		}
	}
}

// uplinks are the networks between which a peer moves, by the versions of IP that they have.
var uplinks = []struct {
	name   string
	router *natlab.RouterOptions
}{
	{"v4", only4(nat.Easy)},
	{"v6", &natlab.RouterOptions{Firewall: true, Version: 6}},
	{"dual", natlab.Home(nat.Easy)},
}

// One side moves to another network, while the other stays behind a home router with both versions of IP.
func TestSceneUplinks(t *testing.T) {
	inFull(t)
	t.Parallel()
	sample := []string{"talker from v4 to v6", "listener from v6 to v4", "listener from dual to v4"}
	for side, who := range sides {
		for _, from := range uplinks {
			for _, to := range uplinks {
				name := fmt.Sprintf("%s from %s to %s", who, from.name, to.name)
				scene(t, name, slices.Contains(sample, name), func(t *testing.T) {
					at := stage{talker: natlab.Home(nat.Easy), listener: natlab.Home(nat.Easy)}
					if side == 0 {
						at.talker = from.router
					} else {
						at.listener = from.router
					}
					c := converseOn(t, at)
					c.since(`calls, direct`, 0)
					moved := c.now()
					c.replug(side, to.router)
					stood, direct := c.recovers(name, moved)
					require.Less(t, stood, 8*time.Second)
					require.Less(t, direct, 30*time.Second)
					c.requireWhole()
				})
			}
		}
	}
}

// Interfaces, each with its own router, come to a host that is connected, and go again, the one in use too.
func TestSceneInterfaces(t *testing.T) {
	inFull(t)
	t.Parallel()
	for _, n := range []int{8, 16} {
		for side, who := range sides {
			name := fmt.Sprintf("%d more at the %s", n, who)
			scene(t, name, n == 16 && side == 1, func(t *testing.T) {
				c := converseOn(t, stage{talker: natlab.Home(nat.Easy), listener: natlab.Home(nat.Easy)})
				c.since(`calls, direct`, 0)
				host, first := c.sides[side].host, c.sides[side].plug
				at := c.now()
				var more []*natlab.Interface
				for range n {
					more = append(more, host.Plug(c.router(natlab.Home(nat.Easy)).LAN))
				}
				stood, _ := c.recovers("interfaces have come", at)
				require.Less(t, stood, 4*time.Second)
				at = c.now()
				first.Unplug()
				_, direct := c.recovers("the first one has gone", at)
				require.Less(t, direct, 30*time.Second)
				at = c.now()
				for _, i := range more[:n-1] {
					i.Unplug()
				}
				_, direct = c.recovers("all but one have gone", at)
				require.Less(t, direct, 30*time.Second)
				c.requireWhole()
			})
		}
	}
}

// One of two hard NATs, which let no direct path through, is left for one that lets a single hole through, or many. Many are tried once a
// minute.
func TestSceneHardNATLeft(t *testing.T) {
	inFull(t)
	t.Parallel()
	for side, who := range sides {
		for _, to := range []struct {
			name string
			kind nat.Kind
			most time.Duration
		}{{"easiest", nat.Easiest, 30 * time.Second}, {"easy", nat.Easy, 90 * time.Second}} {
			scene(t, fmt.Sprintf("%s to %s", who, to.name), side == 0 && to.kind == nat.Easiest, func(t *testing.T) {
				c := converse(t, nat.Hard, nat.Hard)
				c.since(`calls, relayed`, 0)
				at := c.now()
				c.replug(side, only4(to.kind))
				goesOn := c.since(`calls, `, at+callsBefore) + callsBefore
				found, direct := c.talker.seek(`calls, direct`, at+callsBefore, to.most)
				require.NotNil(t, found, c.talker.text())
				t.Logf("calls go on after %.1f s, direct after %.1f s", goesOn.Seconds(), (direct - at).Seconds())
				c.requireWhole()
			})
		}
	}
}

// The relay that carries a session dies, and the session goes on over another one; then that one dies, and the first is back.
func TestSceneRelays(t *testing.T) {
	inFull(t)
	t.Parallel()
	for _, both := range []bool{false, true} {
		scene(t, fmt.Sprintf("both reserve: %v", both), both, func(t *testing.T) {
			c := converseOn(t, stage{talker: only4(nat.Hard), listener: only4(nat.Hard), relays: 3, bothReserve: both})
			for range 2 {
				found, _ := c.talker.awaitAfter(`calls, relayed by (\S+),`, c.now())
				used := slices.IndexFunc(c.relays, func(r *relay) bool { return r.id == found[1] })
				at := c.now()
				c.relays[used].kill()
				goesOn := c.since(`calls, relayed`, at+callsBefore) + callsBefore
				t.Logf("calls go on after %.1f s", goesOn.Seconds())
				require.Less(t, goesOn, 4*time.Second, "about 2.5 s")
				c.listener.awaitAfter(`reserved at 2 of 3`, time.Since(c.listener.began)-goesOn)
				c.relays[used].start(t)
				c.listener.awaitAfter(`reserved at 3 of 3`, time.Since(c.listener.began)-time.Second)
			}
			c.requireWhole()
		})
	}
}

// Data that no direct path takes goes through a relay without limits, over links as of a country, a continent and the world.
func TestSceneThroughput(t *testing.T) {
	inFull(t)
	t.Parallel()
	for i, link := range []natlab.Conditions{
		{Delay: 10 * time.Millisecond, MTU: 1400},
		{Delay: 40 * time.Millisecond, MTU: 1400, Loss: 0.01},
		{Delay: 100 * time.Millisecond, MTU: 1400, Loss: 0.03},
	} {
		scene(t, fmt.Sprintf("%v and %.0f %% lost", link.Delay, 100*link.Loss), i == 0, func(t *testing.T) {
			c := converseOn(t, stage{talker: only4(nat.Hard), listener: only4(nat.Hard), relayFlags: []string{"--data", "none"},
				links: [2]natlab.Conditions{link, link}, bytes: []int{32 << 20, 4 << 20, 1 << 20}[i]})
			found, _ := c.talker.await(`^poured (\d.*)`)
			require.NotNil(t, found)
			t.Log(found[1])
			c.since(`calls, relayed`, c.now())
			c.requireWhole()
		})
	}
}
