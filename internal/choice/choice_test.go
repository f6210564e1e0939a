package choice

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const ms = time.Millisecond

// measured returns a path with enough samples.
func measured(p Path, rtt time.Duration) *Path {
	for range enoughSamples {
		p.Answered(rtt, false)
	}
	return &p
}

// of returns the options for some paths, in the order of their keys.
func of[K cmp.Ordered](paths map[K]*Path) (all []Option[K]) {
	for _, k := range slices.Sorted(maps.Keys(paths)) {
		all = append(all, Option[K]{k, paths[k]})
	}
	return all
}

func TestABetterKindIsTakenAtOnce(t *testing.T) {
	kinds := []Path{ // the best first
		{}, {Relayed: true, Stream: true}, {Relayed: true}, {Relayed: true, Limited: true, Stream: true}, {Relayed: true, Limited: true},
	}
	for i, worse := range kinds[1:] {
		for _, better := range kinds[:i+1] {
			var c Chooser[string]
			paths := map[string]*Path{"worse": measured(worse, ms), "better": {Relayed: better.Relayed, Limited: better.Limited, Stream: better.Stream}}
			require.Equal(t, "worse", c.Next(time.Now(), "worse", of(paths)), "a connection without an answer may be dead")
			paths["better"].Answered(300*ms, false)
			require.Equal(t, "better", c.Next(time.Now(), "worse", of(paths)), "however slow it is")
			require.Equal(t, "better", c.Next(time.Now(), "better", of(paths)))
			require.Equal(t, "better", c.Next(time.Now(), "gone", of(paths)))
		}
	}
	require.Equal(t, "", new(Chooser[string]).Next(time.Now(), "gone", nil))
}

// A connection of the same kind is chosen after a clear gain in several consecutive rounds.
func TestAConnectionOfTheSameKindMustBeClearlyBetterForSomeTime(t *testing.T) {
	for _, tc := range []struct {
		now, other time.Duration
		moves      bool
	}{
		{40 * ms, 20 * ms, true}, {40 * ms, 29 * ms, true}, {40 * ms, 35 * ms, false}, {40 * ms, 40 * ms, false}, {20 * ms, 40 * ms, false},
		{3 * ms, 1500 * time.Microsecond, false}, {30 * ms, ms / 2, true},
	} {
		var c Chooser[string]
		now := time.Now()
		paths := map[string]*Path{"now": measured(Path{}, tc.now), "other": measured(Path{Stream: true}, tc.other)}
		for i := range 2 * enoughRounds {
			want := "now"
			if tc.moves && i+1 >= enoughRounds {
				want = "other"
			}
			require.Equal(t, want, c.Next(now, "now", of(paths)), "%v or %v, round %d", tc.now, tc.other, i)
			if want == "other" {
				break
			}
		}
	}
}

// A round without a gain restarts the count, and so does a connection without enough samples.
func TestARoundWithoutAGainRestartsTheCount(t *testing.T) {
	var c Chooser[string]
	now := time.Now()
	better := map[string]*Path{"now": measured(Path{}, 40*ms), "other": measured(Path{}, 10*ms)}
	equal := map[string]*Path{"now": measured(Path{}, 40*ms), "other": measured(Path{}, 39*ms)}
	third := map[string]*Path{"now": measured(Path{}, 40*ms), "third": measured(Path{}, 10*ms)}
	fresh := map[string]*Path{"now": measured(Path{}, 40*ms), "other": {Measure: Measure{RTT: ms, Samples: 1}}}
	for _, paths := range []map[string]*Path{better, better, equal, better, better, third, third, better, better, fresh, better, better} {
		require.Equal(t, "now", c.Next(now, "now", of(paths)))
	}
	require.Equal(t, "other", c.Next(now, "now", of(better)))
}

func TestLossesCount(t *testing.T) {
	var c Chooser[string]
	now := time.Now()
	paths := map[string]*Path{"now": measured(Path{}, 20*ms), "other": measured(Path{}, 30*ms)}
	for range 20 {
		paths["now"].Answered(20*ms, false)
		require.Equal(t, "now", c.Next(now, "now", of(paths)))
	}
	next := "now"
	for i := 0; i < 40 && next == "now"; i++ { // every fifth ping is lost and sent again
		rtt := 20 * ms
		if i%5 == 0 {
			rtt += 200 * ms
		}
		paths["now"].Answered(rtt, false)
		next = c.Next(now, "now", of(paths))
	}
	require.Equal(t, "other", next)
}

// Queueing caused by our own transfers is not a property of the path.
func TestABusyPathIsNotWorse(t *testing.T) {
	m := measured(Path{}, 20*ms).Measure
	for range 1000 {
		m.Answered(500*ms, true)
	}
	require.Equal(t, 20*ms, m.RTT)
	require.Zero(t, m.Loss)
	m.Answered(15*ms, true)
	require.Equal(t, 15*ms, m.RTT, "the path is at least this fast")
	for range 100 {
		m.Answered(500*ms, false)
	}
	require.InDelta(t, 500, m.RTT.Milliseconds(), 10, "a longer path is recognized eventually")
	require.Less(t, m.Loss, 0.01)
	require.False(t, m.Dead())
}

func TestADeadPathIsLeftAtOnce(t *testing.T) {
	var c Chooser[string]
	paths := map[string]*Path{"now": measured(Path{}, 20*ms), "slow": measured(Path{}, 90*ms), "relay": measured(Path{Relayed: true}, 9*ms)}
	paths["now"].Unanswered()
	require.Equal(t, "now", c.Next(time.Now(), "now", of(paths)), "one lost ping is not enough")
	paths["now"].Unanswered()
	require.Equal(t, "slow", c.Next(time.Now(), "now", of(paths)))
	paths["slow"].Unanswered()
	paths["slow"].Unanswered()
	require.Equal(t, "relay", c.Next(time.Now(), "slow", of(paths)))
	paths["now"].Answered(20*ms, false)
	require.Equal(t, "now", c.Next(time.Now(), "relay", of(paths)), "it is back")
}

// Two connections are better in turn, alternating each minute. The choice changes only a few times in the first hour, and in a week hardly
// more often than every ten minutes.
func TestAlternatingPathsCauseFewChanges(t *testing.T) {
	var c Chooser[int]
	began := time.Now()
	current, moves, inTheFirstHour := 0, 0, 0
	const every = 15 * time.Second
	for now := began; now.Before(began.Add(7 * 24 * time.Hour)); now = now.Add(every) {
		paths := map[int]*Path{0: measured(Path{}, 60*ms), 1: measured(Path{}, 60*ms)}
		paths[int(now.Sub(began)/time.Minute)%2] = measured(Path{}, 20*ms)
		if next := c.Next(now, current, of(paths)); next != current {
			current = next
			if moves++; now.Sub(began) <= time.Hour {
				inTheFirstHour = moves
			}
		}
	}
	require.InDelta(t, 7, inTheFirstHour, 5)
	require.LessOrEqual(t, moves, 7*24*6+10)
	require.Positive(t, moves)
}

// After a long time without a change, the next one is as fast as the first.
func TestPausesAreForgotten(t *testing.T) {
	var c Chooser[string]
	now := time.Now()
	move := func(from, to string) time.Duration {
		paths := map[string]*Path{from: measured(Path{}, 60*ms), to: measured(Path{}, 20*ms)}
		for waited := time.Duration(0); ; waited += time.Second {
			if c.Next(now, from, of(paths)) == to {
				return waited
			}
			now = now.Add(time.Second)
			require.Less(t, waited, time.Hour)
		}
	}
	require.Equal(t, 2*time.Second, move("a", "b"))
	require.Equal(t, leastPause, move("b", "a"))
	require.Equal(t, 2*leastPause, move("a", "b"))
	require.Equal(t, 4*leastPause, move("b", "a"))
	for range 5 {
		require.LessOrEqual(t, move("a", "b"), mostPause)
		require.LessOrEqual(t, move("b", "a"), mostPause)
	}
	now = now.Add(time.Hour)
	require.Equal(t, 2*time.Second, move("a", "b"))
	require.Equal(t, leastPause, move("b", "a"))
}

// For any measures, the choice is one of the connections. It is never a dead one while a live one has answered, and it is stable once
// nothing changes any more.
func TestTheChoiceIsSoundAndSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Chooser[int]
		now := time.Unix(0, 0)
		paths := make(map[int]*Path)
		current := rapid.IntRange(0, 4).Draw(t, "current")
		next := func() {
			now = now.Add(15 * time.Second)
			got := c.Next(now, current, of(paths))
			if len(paths) == 0 {
				return
			}
			if paths[got] == nil {
				t.Fatalf("%d is none of %v", got, paths)
			}
			for k, p := range paths {
				if paths[got].Dead() && !p.Dead() && p.RTT > 0 {
					t.Fatalf("%d is dead, and %d is not", got, k)
				}
			}
			current = got
		}
		for range rapid.IntRange(1, 40).Draw(t, "rounds") {
			for k := range 5 {
				switch p := paths[k]; rapid.IntRange(0, 6).Draw(t, "what happens") {
				case 0:
					paths[k] = &Path{Relayed: rapid.Bool().Draw(t, "relayed"), Stream: rapid.Bool().Draw(t, "stream")}
				case 1:
					delete(paths, k)
				case 2:
					if p != nil {
						p.Unanswered()
					}
				default:
					if p != nil {
						p.Answered(time.Duration(rapid.IntRange(0, 1000).Draw(t, "ms"))*ms, rapid.Bool().Draw(t, "busy"))
					}
				}
			}
			next()
		}
		for range 100 { // long enough for every pause
			next()
		}
		settled := current
		for range 100 {
			if next(); current != settled {
				t.Fatalf("%d, and then %d, though nothing has changed", settled, current)
			}
		}
	})
}
