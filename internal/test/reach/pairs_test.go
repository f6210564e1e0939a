//go:build linux

package reach

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

const (
	talkSoon    = 2 * time.Second // from the start of the side that calls to its first answer
	staysAsItIs = 6 * time.Second // two hard NATs: many holes have been tried in vain
)

// natOf returns a router with a NAT, or none.
func natOf(kind *nat.Kind) *natlab.RouterOptions {
	if kind == nil {
		return nil
	}
	return only4(*kind)
}

// number returns the place of a NAT among the kinds.
func number(name string) int {
	return slices.IndexFunc(kinds, func(k struct {
		name string
		nat  *nat.Kind
	}) bool {
		return k.name == name
	})
}

// A session begins over the relay at once, and goes on over a direct path. make reach tries each pair of NATs over one of the transports, each
// kind of NAT in either role over both; make nightly tries all.
func TestASessionThroughNATs(t *testing.T) {
	inFull(t)
	for _, p := range pairs() {
		if !*scenes && (number(p.sender)+number(p.getter))%2 != slices.Index(transports, p.via) {
			continue
		}
		t.Run(p.via[:3]+"/"+p.sender+"-"+p.getter, func(t *testing.T) {
			c := converseOn(t, stage{talker: natOf(p.senders), listener: natOf(p.getters), via: p.via, atOnce: true})
			_, talked := c.talker.await(`^1 calls, `)
			require.Less(t, talked, talkSoon)
			if p.hopeless() {
				found, _ := c.talker.seek(`calls, direct`, 0, staysAsItIs)
				require.Nil(t, found)
				c.since(`calls, relayed`, c.now())
				t.Logf("talks after %.1f s, relayed", talked.Seconds())
			} else {
				_, direct := c.talker.await(`calls, direct, `)
				t.Logf("talks after %.1f s, direct after %.1f s, %d KB over the relay", talked.Seconds(), direct.Seconds(), c.relay.Link().Sent()/1000)
				require.Less(t, direct, directSoon)
			}
			c.requireWhole()
		})
	}
}

var much = flag.Int("much", 64<<20, "bytes that go through a hole that is punched on the way")

// Much data, and many messages, begin over a relay with its defaults, and go through the hole that is punched on the way: by one session, over
// either transport.
func TestMuchThroughAHoleThatIsPunchedOnTheWay(t *testing.T) {
	inFull(t)
	for _, via := range transports {
		t.Run(via[:3], func(t *testing.T) {
			c := converseOn(t, stage{talker: only4(nat.Easy), listener: only4(nat.Easy), via: via, atOnce: true, bytes: *much, messages: 10_000})
			_, sent := c.talker.await(`^sent 10000 messages: <nil>$`)
			c.listener.await(`^got 10000 messages$`)
			found, _ := c.talker.seek(`^poured (.*)`, 0, patience+time.Duration(*much)*time.Microsecond)
			require.NotNil(t, found, c.talker.text())
			require.Regexp(t, `^\d+ bytes`, found[1])
			c.since(`calls, direct`, c.now())
			relayed := c.relay.Link().Sent()
			t.Logf("10,000 messages in %.1f s, %s; %d KB over the relay", sent.Seconds(), found[1], relayed/1000)
			require.Contains(t, c.talker.text(), ": relayed by ")
			require.Less(t, relayed, int64(2<<20))
			c.requireWhole()
		})
	}
}
