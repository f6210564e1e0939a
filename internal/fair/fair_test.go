package fair

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// takeAll takes one at a time until that is refused, and returns how many there were and why no more.
func takeAll(h *Holder, k Kind, most int) (n int, v Verdict) {
	for n < most {
		if v = h.Take(k, 1); v != Granted {
			break
		}
		n++
	}
	return n, v
}

func TestALonePeerHasAllButTheReserve(t *testing.T) {
	tree := New(1000, 1000, 1<<30)
	n, v := takeAll(tree.Hold("a", "net"), Calls, 2000)
	require.Equal(t, 875, n)
	require.Equal(t, Spent, v)
}

func TestASmallBoundIsNotDivided(t *testing.T) {
	tree := New(0, 3, 0)
	a, b := tree.Hold("a", "net"), tree.Hold("b", "net")
	n, v := takeAll(a, Calls, 10)
	require.Equal(t, 3, n)
	require.Equal(t, Spent, v)
	require.Equal(t, Spent, b.Take(Calls, 1))
	a.Give(Calls, 1)
	require.Equal(t, Granted, b.Take(Calls, 1))
	n, _ = takeAll(a, Sessions, 5000)
	require.Equal(t, 5000, n, "no limit")
}

// Peers that come when one peer has everything get the reserve, and then the returned places, up to a quarter each.
func TestNewcomersHaveTheReserveAndThenTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(0, 1000, 0)
		greedy := tree.Hold("greedy", "net 1")
		had, _ := takeAll(greedy, Calls, 1000)
		b := tree.Hold("b", "net 2")
		n, v := takeAll(b, Calls, 1000)
		require.Equal(t, 7, n, "a sixteenth of the reserve")
		require.Equal(t, Full, v)
		require.EqualValues(t, had-7-1, greedy.Lead(b, Calls))
		require.EqualValues(t, 7-had-1, b.Lead(greedy, Calls))
		for range 400 {
			greedy.Give(Calls, 1)
			require.Equal(t, PeerShare, greedy.Take(Calls, 1), "others want it")
		}
		n, v = takeAll(b, Calls, 240)
		require.Equal(t, 240, n)
		require.Equal(t, Granted, v)
		time.Sleep(2 * wantedFor)
		n, _ = takeAll(greedy, Calls, 1000)
		require.Equal(t, 875, had-400+7+240+n, "nobody wants more any longer")
	})
}

// Peers of one subnet have a quarter together once somebody else wants it.
// What a peer can do without leaves half of its part to the rest, when there is not enough for all, and takes all of it otherwise.
func TestSpareTakesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(0, 1000, 0)
		greedy, b := tree.Hold("greedy", "net 1"), tree.Hold("b", "net 2")
		require.False(t, greedy.Scarce(Calls, 875))
		require.True(t, greedy.Scarce(Calls, 876))
		require.Equal(t, Granted, greedy.TakeSpare(Calls, 875))
		require.Equal(t, Spent, greedy.TakeSpare(Calls, 1))
		require.True(t, b.Scarce(Calls, 1))
		require.Equal(t, Full, b.TakeSpare(Calls, 4))
		require.Equal(t, Granted, b.TakeSpare(Calls, 3))
		n, v := takeAll(b, Calls, 10)
		require.Equal(t, 4, n, "of the seven of a newcomer")
		require.Equal(t, Full, v)
		greedy.Give(Calls, 875)
		require.True(t, b.Scarce(Calls, 1), "others want it")
		require.Equal(t, Granted, b.TakeSpare(Calls, 500))
		time.Sleep(wantedFor + 1)
		require.Equal(t, Granted, b.TakeSpare(Calls, 1))
		require.False(t, b.Scarce(Calls, 1))
		require.True(t, New(0, 3, 0).Hold("a", "net").Scarce(Calls, 4))
		require.False(t, New(0, 0, 0).Hold("a", "net").Scarce(Calls, 4))
	})
}

func TestSybilsOfOneSubnetShareOneQuarter(t *testing.T) {
	tree := New(1000, 0, 0)
	var sybils []*Holder
	total := 0
	for i := range 200 {
		h := tree.Hold(fmt.Sprint(i), "net 1")
		sybils = append(sybils, h)
		n, _ := takeAll(h, Sessions, 20)
		total += n
	}
	require.LessOrEqual(t, total, 875+125/2+1)
	b := tree.Hold("b", "net 2")
	require.Equal(t, Granted, b.Take(Sessions, 1))
	sybils[0].Give(Sessions, 1)
	require.Equal(t, SubnetShare, sybils[0].Take(Sessions, 1))
	require.Greater(t, sybils[0].Lead(b, Sessions), int64(250), "its subnet's")
	require.Less(t, sybils[0].Lead(sybils[1], Sessions), int64(20), "its own")
}

// A peer that has been served before may have the reserve up to its share.
func TestAKnownPeerHasMoreOfTheReserve(t *testing.T) {
	tree := New(0, 1000, 0)
	_, _ = takeAll(tree.Hold("greedy", "net 1"), Calls, 1000)
	b := tree.Hold("b", "net 2")
	b.Served()
	require.False(t, b.IsKnown())
	b.Leave()
	b = tree.Hold("b", "net 2")
	require.True(t, b.IsKnown())
	n, _ := takeAll(b, Calls, 1000)
	require.Equal(t, 63, n, "half of the reserve")
	tree.Expect("c")
	c := tree.Hold("c", "net 3")
	require.True(t, c.IsKnown())
	n, _ = takeAll(c, Calls, 1000)
	require.Equal(t, 62, n, "the other half, as it has little")
}

// Those who were served last are known, and of one subnet few: others cannot make it forget everybody.
func TestRegularsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(0, 0, 0)
		come := func(peer, subnet string) (known bool) {
			h := tree.Hold(peer, subnet)
			defer h.Leave()
			h.Served()
			time.Sleep(time.Millisecond)
			return h.IsKnown()
		}
		require.False(t, come("alice", "good"))
		for i := range 3000 {
			require.False(t, come(fmt.Sprint(i), "bad"))
		}
		require.True(t, come("alice", "good"))
		require.Len(t, tree.known.served, 1+maxOfSubnet)
		require.True(t, come("2999", "bad"))
		require.False(t, come("0", "bad"))
		for i := range 3000 {
			come(fmt.Sprint(i), fmt.Sprint("net ", i))
		}
		require.Len(t, tree.known.served, maxRegulars)
		require.LessOrEqual(t, len(tree.known.of), maxRegulars)
		require.False(t, come("alice", "good"), "it was long ago")
	})
}

// One /48 has 256 networks of IPv6. It makes a tree forget no more than a quarter of those who were served.
func TestOneRegionDoesNotPushOutAllRegulars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(0, 0, 0)
		come := func(peer, subnet string) (known bool) {
			h := tree.Hold(peer, subnet)
			defer h.Leave()
			h.Served()
			time.Sleep(time.Millisecond)
			return h.IsKnown()
		}
		for i := range maxRegulars {
			come(fmt.Sprint("honest ", i), fmt.Sprintf("2001:db8:%x:100::/56", i))
		}
		for i := range 10 * maxRegulars {
			come(fmt.Sprint("mallory ", i), fmt.Sprintf("2001:db9:0:%x00::/56", i%256))
		}
		require.Equal(t, maxOfRegion, tree.known.of["2001:db9::/48"])
		known := 0
		for i := range maxRegulars {
			if _, served := tree.known.served[fmt.Sprint("honest ", i)]; served {
				known++
			}
		}
		require.Equal(t, maxRegulars-maxOfRegion, known)
		for _, of := range []string{"net", "10.0.0.0/24", "2001:db8::/32", "2001:db8::/48"} {
			require.Empty(t, regionOf(of))
		}
	})
}

// Nothing is kept of a peer that has left, once it has given everything back.
func TestNothingIsLeft(t *testing.T) {
	tree := New(100, 100, 1<<30)
	a := tree.Hold("a", "net")
	require.True(t, a == tree.Hold("a", "another net"))
	require.Equal(t, Granted, a.Take(Bytes, 100))
	require.Equal(t, Granted, a.Take(Calls, 1))
	a.Leave()
	a.Leave()
	require.Equal(t, int64(100), tree.Used(Bytes), "without what was taken in advance")
	require.True(t, a == tree.Hold("a", "net"), "it still has something")
	a.Leave()
	a.Give(Calls, 1)
	a.Give(Bytes, 100)
	require.Zero(t, tree.Used(Bytes))
	require.Zero(t, tree.Used(Calls))
	require.Empty(t, tree.holders)
	require.Empty(t, tree.subnets)
}

// Under whatever peers do at the same time, no bound is exceeded, and everything is given back.
func TestManyAtOnce(t *testing.T) {
	tree := New(100, 64, 4<<20)
	var held [kinds]atomic.Int64 // granted, by a count of the test's own
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			h := tree.Hold(fmt.Sprint(i%8), fmt.Sprint(i%3))
			defer h.Leave()
			for range 2000 {
				k := Kind(rng.IntN(int(kinds)))
				n := 1 + rng.Int64N(max(1, tree.bounds[k].limit/20))
				if h.Take(k, n) != Granted {
					continue
				}
				held[k].Add(n)
				if held[k].Load() > tree.bounds[k].limit {
					t.Errorf("%d held of %d", held[k].Load(), tree.bounds[k].limit)
				}
				held[k].Add(-n)
				h.Give(k, n)
			}
		})
	}
	all.Wait()
	for k := range kinds {
		require.Zero(t, tree.bounds[k].used.Load())
	}
	require.Empty(t, tree.holders)
}

// While some are refused what there is no room for, nobody is refused what there is room for.
func TestARefusalRefusesNobodyElse(t *testing.T) {
	for name, tree := range map[string]*Tree{"small": New(0, 10, 0), "divided": New(0, 160, 0)} {
		t.Run(name, func(t *testing.T) {
			limit := tree.bounds[Calls].limit
			small, stop := tree.Hold("small", "net 1"), make(chan struct{})
			var greedy sync.WaitGroup
			for i := range 4 {
				greedy.Go(func() {
					h := tree.Hold(fmt.Sprint(i), "net 2")
					for {
						select {
						case <-stop:
							return
						default:
							if h.Take(Calls, limit) == Granted { // while there is none other
								h.Give(Calls, limit)
							}
						}
					}
				})
			}
			for small.Take(Calls, 1) != Granted {
			}
			refused := 0
			for range 100_000 {
				if v := small.Take(Calls, 1); v == Granted {
					small.Give(Calls, 1)
				} else {
					refused++
				}
			}
			close(stop)
			greedy.Wait()
			require.Zero(t, refused)
		})
	}
}

// What a holder has taken in advance is given back when somebody finds no room, and all but a step when it uses nothing.
func TestNotMuchIsTakenInAdvance(t *testing.T) {
	const limit = 1 << 30
	tree := New(0, 0, limit)
	a := tree.Hold("a", "net 1")
	require.Equal(t, Granted, a.Take(Bytes, 10*stepOfBytes+1))
	require.EqualValues(t, 11*stepOfBytes, tree.bounds[Bytes].used.Load())
	a.Give(Bytes, 10*stepOfBytes)
	require.EqualValues(t, 1+stepOfBytes, tree.bounds[Bytes].used.Load(), "what is used, and a step")
	a.Give(Bytes, 1)
	require.EqualValues(t, stepOfBytes, tree.bounds[Bytes].used.Load())
	require.Zero(t, tree.Used(Bytes))
	require.Equal(t, Granted, a.Take(Bytes, 1))
	greedy, b := tree.Hold("greedy", "net 2"), tree.Hold("b", "net 3")
	for greedy.Take(Bytes, stepOfBytes) == Granted {
	}
	for b.Take(Bytes, stepOfBytes) != Full {
	}
	a.Give(Bytes, 1)
	require.Zero(t, a.taken[Bytes].Load(), "somebody has found no room")
}

func BenchmarkTakeAndGive(b *testing.B) {
	tree := New(1000, 1000, 1<<30)
	b.RunParallel(func(pb *testing.PB) {
		h := tree.Hold(fmt.Sprint(rand.Int()), "net")
		defer h.Leave()
		for pb.Next() {
			if h.Take(Calls, 1) == Granted {
				h.Give(Calls, 1)
			}
			if h.Take(Bytes, 1000) == Granted {
				h.Give(Bytes, 1000)
			}
		}
	})
}

// What others want is owed: all above the share, and half below it while little is left; nothing once they want no more.
func TestAHolderOwesWhatOthersWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := New(0, 1600, 0)
		a, b, c := tree.Hold("a", "net 1"), tree.Hold("b", "net 2"), tree.Hold("c", "net 3")
		had, _ := takeAll(a, Calls, 1600)
		require.Equal(t, 1400, had)
		require.Zero(t, a.Owes(Calls, 10), "nobody wants it")
		_, v := takeAll(b, Calls, 100)
		require.Equal(t, Full, v)
		require.EqualValues(t, 10, a.Owes(Calls, 10), "it has more than its share")
		require.Zero(t, b.Owes(Calls, 10), "nobody but itself wants it")
		a.Give(Calls, int64(had-400))
		require.Zero(t, a.Owes(Calls, 10), "it has its share, and there is room")
		n, _ := takeAll(c, Calls, 400)
		require.Equal(t, 400, n)
		n, _ = takeAll(b, Calls, 380)
		require.Equal(t, 380, n)
		require.Zero(t, a.Owes(Calls, 10), "there is still room")
		n, _ = takeAll(tree.Hold("d", "net 4"), Calls, 100)
		require.Equal(t, 100, n)
		require.EqualValues(t, 5, a.Owes(Calls, 10), "little is left")
		time.Sleep(2 * wantedFor)
		require.Zero(t, a.Owes(Calls, 10), "nobody has wanted it lately")
	})
}

// What may never be used leaves half of a bound to others, beyond a share, and is refused without a press.
func TestTakeUnusedLeavesHalf(t *testing.T) {
	const limit = 64 << 20
	tree := New(0, 0, limit)
	h, other := tree.Hold("a", "1"), tree.Hold("b", "2")
	require.Equal(t, Granted, h.TakeUnused(Bytes, limit/4))
	require.Equal(t, Granted, h.TakeUnused(Bytes, limit/4))
	require.Equal(t, Spent, h.TakeUnused(Bytes, stepOfBytes))
	require.Equal(t, Granted, other.TakeUnused(Bytes, limit/4), "its share")
	require.Equal(t, Granted, h.Take(Bytes, limit/16), "which it uses")
	require.Equal(t, Granted, other.Take(Bytes, limit/16))
	require.NotEqual(t, Granted, h.TakeQuietly(Bytes, limit/16))
	newcomer := tree.Hold("c", "3")
	require.NotEqual(t, Granted, newcomer.TakeQuietly(Bytes, limit/4))
	require.Zero(t, h.Owes(Bytes, 2), "nobody is taken to want it")
	require.NotEqual(t, Granted, newcomer.Take(Bytes, limit/4))
	require.EqualValues(t, 2, h.Owes(Bytes, 2))
}

// What a tree and its holders say of themselves.
func TestWhatIsUsedIsTold(t *testing.T) {
	tree := New(0, 8, 64<<20)
	require.Equal(t, int64(math.MaxInt64), tree.Most(Sessions), "no limit")
	require.EqualValues(t, 8, tree.Most(Calls), "a limit that is not divided")
	require.EqualValues(t, 56<<20, tree.Most(Bytes))
	h, near, far := tree.Hold("a", "1"), tree.Hold("b", "1"), tree.Hold("c", "2")
	require.Equal(t, "1", h.Network())
	require.False(t, h.IsKnown())
	require.Equal(t, near, near.Side(h))
	require.Equal(t, far.Subnet(), far.Side(h))
	require.False(t, h.Scarce(Sessions, 1<<40))
	require.False(t, h.Scarce(Calls, 8))
	require.True(t, h.Scarce(Calls, 9))
	require.False(t, h.Scarce(Bytes, 56<<20))
	require.True(t, h.Scarce(Bytes, 56<<20+1))
	require.Zero(t, h.UsedQuarters(Sessions))
	require.Equal(t, Granted, h.Take(Bytes, 33<<20))
	require.Equal(t, 2, far.UsedQuarters(Bytes))
	require.EqualValues(t, 33<<20, h.UsedOfSubnet(Bytes))
	require.EqualValues(t, 33<<20-1, h.Lead(near, Bytes))
	require.EqualValues(t, 33<<20-1, h.Lead(far, Bytes))
	require.Zero(t, h.Owes(Bytes, 8), "nobody wants it")
	require.Equal(t, Granted, far.Take(Calls, 1))
	far.Give(Calls, 1)
	for _, one := range []*Holder{h, near, far} {
		one.Leave()
	}
	h.Give(Bytes, 33<<20)
	require.Empty(t, tree.Holders())
}
