package zstd

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const body = 32 << 20

// exhaust takes for a peer until it is refused, and returns how many bytes it has taken.
func exhaust(t *testing.T, p *Pacer, peer string, now time.Time) (taken int) {
	t.Helper()
	for {
		wait, ok := p.take(alone(peer), body, now)
		if !ok {
			require.Greater(t, wait, mostWait)
			return taken
		}
		require.LessOrEqual(t, wait, mostWait)
		taken += body
	}
}

// A peer has a burst for nothing, then its rate, and is refused what would have to wait too long. It gets the burst back.
func TestAPeerIsPaced(t *testing.T) {
	p, now := NewPacer(), time.Now()
	for i := range 4 {
		wait, ok := p.take(alone("mallory"), body, now)
		require.True(t, ok)
		require.InDelta(t, max(0, float64(i*body)/peerRate-burst.Seconds()), wait.Seconds(), 0.001)
	}
	taken := 4*body + exhaust(t, p, "mallory", now)
	require.InDelta(t, peerRate*(mostWait+burst).Seconds(), taken, 1.1*body)
	before := p.paid["mallory"]["mallory"]
	_, ok := p.take(alone("mallory"), body, now)
	require.False(t, ok)
	require.Equal(t, before, p.paid["mallory"]["mallory"], "what is refused does not count")
	now = now.Add(time.Minute)
	wait, ok := p.take(alone("mallory"), body, now)
	require.True(t, ok)
	require.Zero(t, wait)
}

// Peers share a total, in equal parts: however much others have taken, one that comes does not wait for them.
func TestPeersSharePace(t *testing.T) {
	p, now := NewPacer(), time.Now()
	const peers = 200
	for peer := range peers {
		exhaust(t, p, fmt.Sprint(peer), now)
	}
	wait, ok := p.take(alone("alice"), body, now)
	require.True(t, ok)
	require.Zero(t, wait)
	const seconds = 600
	taken := 0
	for range seconds {
		now = now.Add(time.Second)
		for peer := range peers {
			taken += exhaust(t, p, fmt.Sprint(peer), now)
		}
	}
	require.Less(t, taken/seconds, totalRate*11/10)
	require.Greater(t, taken/seconds, totalRate*9/10)
	_, _ = p.take(alone("alice"), 1<<20, now.Add(time.Hour))
	require.Len(t, p.paid, 1, "those of the past are forgotten")
}

// The peers of one network share what one network has, however many they are.
func TestNetworksSharePace(t *testing.T) {
	p, now := NewPacer(), time.Now()
	of := map[string]int{}
	for range 600 {
		now = now.Add(time.Second)
		for peer := range 50 {
			for network, id := range map[string]string{"bad": fmt.Sprint(peer), "good": "alice"} {
				for {
					if _, ok := p.take(Peer{network, id}, 8<<20, now); !ok {
						break
					}
					of[network] += 8 << 20
				}
			}
		}
	}
	require.InDelta(t, peerRate, of["good"]/600, peerRate/5)
	require.InDelta(t, totalRate/2, of["bad"]/600, totalRate/8)
}

// The clock of a synctest bubble starts in the past, and so may that of a machine.
func TestAClockThatIsSetBackHoldsNobodyUp(t *testing.T) {
	p, now := NewPacer(), time.Now()
	exhaust(t, p, "alice", now)
	wait, ok := p.take(alone("alice"), body, now.Add(-time.Hour))
	require.True(t, ok)
	require.Zero(t, wait)
	require.Len(t, p.paid, 1)
}

func TestOnlyBodiesThatExpandGreatlyArePaced(t *testing.T) {
	p := NewPacer()
	for range 1000 {
		for packed, raw := range map[int]int{11: unpaced, 1 << 20: greatly << 20, 32 << 20: 32 << 20} {
			wait, ok := p.Take(alone("honest"), packed, raw)
			require.True(t, ok && wait == 0, "%d of %d", raw, packed)
		}
	}
	refused := false
	for range 100 {
		_, ok := p.Take(alone("not honest"), 1000, body)
		refused = refused || !ok
	}
	require.True(t, refused)
}
