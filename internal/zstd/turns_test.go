package zstd

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	small = 64 << 10
	large = 32 << 20
)

// alone is a peer that is a network of its own.
func alone(peer string) Peer { return Peer{peer, peer} }

// job puts a job in its line.
func job(t *testing.T, of *turns, peer string, n int, urgent bool) *Turn {
	t.Helper()
	return jobOf(t, of, alone(peer), n, urgent)
}

// jobOf is job for a peer in a network, which owns the job.
func jobOf(t *testing.T, of *turns, peer Peer, n int, urgent bool) *Turn {
	t.Helper()
	j := &Turn{turns: of, owner: peer.ID, n: n}
	j.woken.Lock()
	require.NoError(t, of.enter(j, peer, urgent))
	return j
}

// runs reports whether the turn of j has come.
func runs(j *Turn) bool {
	if !j.woken.TryLock() {
		return false
	}
	j.woken.Unlock()
	return !j.left
}

// running returns how many of the jobs run.
func running(jobs []*Turn) (n int) {
	for _, j := range jobs {
		if runs(j) {
			n++
		}
	}
	return n
}

func TestOnePeerTakesHalfOfTheCodersAndNoMore(t *testing.T) {
	for most, want := range map[int]int{2: 1, 3: 1, 4: 2, 16: 8} {
		of := newTurns(most)
		var greedy []*Turn
		for range 100 {
			greedy = append(greedy, job(t, of, "mallory", small, false))
		}
		require.Equal(t, want, running(greedy), "of %d", most)
		require.True(t, runs(job(t, of, "alice", small, false)), "a coder is left")
		greedy[0].Done()
		require.Equal(t, want+1, running(greedy), "the next one, and the one that is done")
	}
}

// However much a peer has in line, another one waits for a single job at most, and the two take turns by bytes.
func TestPeersTakeTurnsByBytes(t *testing.T) {
	of := newTurns(2)
	var greedy, honest []*Turn
	for range 10 {
		greedy = append(greedy, job(t, of, "mallory", large, false))
	}
	for range 3 {
		honest = append(honest, job(t, of, "alice", large, false))
	}
	require.Equal(t, 1, running(greedy))
	require.Zero(t, running(honest), "one large job at a time")
	var order strings.Builder
	for g, h := 0, 0; g+h < 8; {
		if h < len(honest) && runs(honest[h]) {
			honest[h].Done()
			h++
			order.WriteString("a")
			continue
		}
		greedy[g].Done()
		g++
		order.WriteString("m")
	}
	require.Equal(t, "mamamamm", order.String())
}

// Peers are free: those of one network have no more turns than another network with a single peer has. Within the network each has its turn.
func TestNetworksTakeTurnsByBytes(t *testing.T) {
	of := newTurns(2)
	var sybils, honest []*Turn
	for peer := range 20 {
		sybils = append(sybils, jobOf(t, of, Peer{"bad", fmt.Sprint(peer)}, large, false), jobOf(t, of, Peer{"bad", fmt.Sprint(peer)}, large, false))
	}
	for range 10 {
		honest = append(honest, jobOf(t, of, Peer{"good", "alice"}, large, false))
	}
	served := make(map[any]int)
	for h := range 10 {
		require.Zero(t, running(honest[h:]))
		var next *Turn
		for i, j := range sybils {
			if runs(j) {
				next, sybils = j, append(sybils[:i], sybils[i+1:]...)
				break
			}
		}
		served[next.owner]++
		next.Done()
		require.True(t, runs(honest[h]), "every other turn is the honest peer's")
		honest[h].Done()
	}
	require.Len(t, served, 10, "each sybil has its turn")
}

func TestSmallJobsDoNotWaitForLargeOnes(t *testing.T) {
	of := newTurns(2)
	require.True(t, runs(job(t, of, "mallory", large, false)))
	require.False(t, runs(job(t, of, "mallory the second", large, false)))
	require.True(t, runs(job(t, of, "alice", small, false)))
}

func TestUrgentJobsComeFirst(t *testing.T) {
	of := newTurns(2)
	first := job(t, of, "alice", small, false)
	later := job(t, of, "alice", small, false)
	urgent := job(t, of, "alice", small, true)
	first.Done()
	require.True(t, runs(urgent))
	require.False(t, runs(later))
	urgent.Done()
	require.True(t, runs(later))
}

// What runs at once unpacks to so much, of a peer and in all; a body that is larger than that runs alone.
func TestTheBytesInFlightAreBounded(t *testing.T) {
	of := newTurns(64)
	var all []*Turn
	for peer := range 20 {
		for range 10 {
			all = append(all, job(t, of, fmt.Sprint(peer), large, false))
		}
	}
	require.Equal(t, maxBytes/large, running(all))
	require.Equal(t, maxBytes, of.bytes)
	of = newTurns(64)
	all = nil
	for range 10 {
		all = append(all, job(t, of, "mallory", large, false))
	}
	require.Equal(t, maxPeerBytes/large, running(all))
	of = newTurns(64)
	require.True(t, runs(job(t, of, "alice", 1<<30, false)))
	require.False(t, runs(job(t, of, "bob", large, false)))
	require.True(t, runs(job(t, of, "bob", small, false)) || len(of.lines[alone("bob")].waiting) == 2, "behind its own")
}

func TestJobsThatWaitAreBounded(t *testing.T) {
	of := newTurns(2)
	for range maxWaiting + 1 {
		job(t, of, "mallory", small, false)
	}
	_, err := of.await(alone("mallory"), nil, small, false)
	require.ErrorIs(t, err, ErrBusy)
	require.True(t, runs(job(t, of, "alice", small, false)))
	job(t, of, "mallory", small, true)
	none, err := of.await(alone("mallory"), nil, Free, false)
	require.NoError(t, err)
	require.Nil(t, none, "a body of next to nothing waits for no turn")
	none.Done()
}

func TestLeaveEndsTheWaitsOfItsOwnerAlone(t *testing.T) {
	of := newTurns(2)
	first := job(t, of, "alice", small, false)
	errs := make(chan error)
	go func() {
		_, err := of.await(alone("alice"), "session 1", small, false)
		errs <- err
	}()
	for of.waitingOf("alice") == 0 {
	}
	other := job(t, of, "alice", small, false)
	of.leave(alone("alice"), "session 2")
	of.leave(alone("bob"), "session 1")
	require.Equal(t, 2, of.waitingOf("alice"))
	of.leave(alone("alice"), "session 1")
	require.ErrorIs(t, <-errs, ErrLeft)
	require.False(t, runs(other))
	first.Done()
	require.True(t, runs(other))
	other.Done()
	require.Empty(t, of.lines)
}

func (t *turns) waitingOf(peer string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.lines[alone(peer)]; l != nil {
		return len(l.waiting)
	}
	return 0
}

// Whatever comes, in whatever order, the bounds hold, everything has its turn, and nothing is left behind.
func TestEveryJobHasItsTurn(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		of := newTurns(2 + r.IntN(6))
		var all []*Turn
		for range 300 {
			if r.IntN(2) == 0 {
				who := r.IntN(5)
				all = append(all, jobOf(t, of, Peer{fmt.Sprint(who % 2), fmt.Sprint(who)}, 1+r.IntN(48<<20)>>r.IntN(20), r.IntN(4) == 0))
			} else {
				all = finishOne(r, all)
			}
			if r.IntN(50) == 0 {
				who := r.IntN(5)
				of.leave(Peer{fmt.Sprint(who % 2), fmt.Sprint(who)}, fmt.Sprint(r.IntN(5)))
			}
			require.LessOrEqual(t, of.running, of.most)
			require.LessOrEqual(t, of.large, of.mostLarge)
			for _, l := range of.lines {
				require.LessOrEqual(t, l.running, of.mostOfPeer)
			}
		}
		for len(of.lines) > 0 {
			before := len(all)
			all = finishOne(r, all)
			require.Less(t, len(all), before, "seed %d: nothing runs, and %d lines wait", seed, len(of.lines))
		}
		require.Zero(t, of.running+of.large+of.bytes+len(of.ready[0])+len(of.ready[1])+len(of.networks))
	}
}

// finishOne ends one of the jobs that run, and forgets those that have left.
func finishOne(r *rand.Rand, all []*Turn) []*Turn {
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, j := range all {
		if runs(j) {
			j.Done()
			return append(all[:i], all[i+1:]...)
		}
	}
	return all
}

func TestTurnsOfManyGoroutines(t *testing.T) {
	of := newTurns(4)
	var all sync.WaitGroup
	for peer := range 8 {
		for i := range 8 {
			all.Go(func() {
				for range 200 {
					turn, err := of.await(Peer{fmt.Sprint(peer % 3), fmt.Sprint(peer)}, i, small<<(i%2*8), i == 0)
					if err != nil {
						t.Error(err)
						return
					}
					turn.Done()
				}
			})
		}
	}
	all.Wait()
	require.Empty(t, of.lines)
	require.Empty(t, of.networks)
}
