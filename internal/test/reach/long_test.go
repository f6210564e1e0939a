//go:build linux

package reach

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
	"github.com/peerlane/peerlane/internal/test/natlab"
)

// punched is how much longer it may take to a direct path where UDP does not pass: that has to be found out.
const punched = 6 * time.Second

// A long conversation over one session, which begins over the relay, through what keeps others from talking: calls, 10,000 messages and 8 MiB on
// a stream, a direct path, and then new ports of a NAT.
func TestSceneLongConversation(t *testing.T) {
	inFull(t)
	t.Parallel()
	easy := only4(nat.Easy)
	mobile := &natlab.RouterOptions{NAT64: &nat.Easy, Firewall: true}
	blocked := natlab.Conditions{NoUDP: true}
	for _, tt := range []struct {
		name   string
		at     stage
		remap  int // the side whose router gives other ports
		sample bool
	}{
		{"UDP blocked at the talker", stage{talker: easy, listener: easy, links: [2]natlab.Conditions{blocked, {}}}, calling, true},
		{"UDP blocked at the listener", stage{talker: easy, listener: easy, links: [2]natlab.Conditions{{}, blocked}}, called, false},
		{"UDP blocked at both", stage{talker: easy, listener: easy, links: [2]natlab.Conditions{blocked, blocked}}, called, false},
		{"double NAT", stage{talker: easy, listener: easy, outer: easy}, calling, true},
		{"the talker behind a NAT64", stage{talker: mobile, listener: easy, relay4: true}, calling, false},
		{"the listener behind a NAT64", stage{talker: easy, listener: mobile, relay4: true}, called, true},
		{"both behind NAT64s", stage{talker: mobile, listener: mobile, relay4: true}, calling, false},
	} {
		scene(t, tt.name, tt.sample, func(t *testing.T) {
			at := tt.at
			at.via, at.atOnce, at.bytes, at.messages = transports[0], true, 8<<20, 10_000
			c := converseOn(t, at)
			_, talked := c.talker.await(`^1 calls, `)
			_, direct := c.talker.await(`calls, direct, `)
			_, sent := c.talker.await(`^sent 10000 messages: <nil>$`)
			c.listener.await(`^got 10000 messages$`)
			poured, _ := c.talker.await(`^poured (\d.*)`)
			t.Logf("talks after %.1f s, direct after %.1f s, 10,000 messages after %.1f s, %s, %d KB over the relay",
				talked.Seconds(), direct.Seconds(), sent.Seconds(), poured[1], c.relay.Link().Sent()/1000)
			require.Less(t, talked, talkSoon)
			require.Less(t, direct, directSoon+punched)
			began := c.now()
			c.sides[tt.remap].router.Remap()
			c.recovers("the NAT gives other ports", began)
			c.requireWhole()
		})
	}
}
