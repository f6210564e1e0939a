package diagnostics

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func ids(v *view) []string {
	var all []string
	for _, s := range v.Sessions {
		all = append(all, s.ID)
	}
	return all
}

func TestAViewHasThePageThatIsAskedFor(t *testing.T) {
	p := fakeProcess(1000, 3)
	v := viewOf(&p, query{order: "peer", count: 25})
	require.Equal(t, []int{1000, 0, 25}, []int{v.Matching, v.First, len(v.Sessions)})
	first := ids(v)
	v = viewOf(&p, query{order: "peer", first: 25, count: 25})
	require.Equal(t, 25, v.First)
	require.Empty(t, slices.DeleteFunc(ids(v), func(id string) bool { return !slices.Contains(first, id) }), "no session is on two pages")
	v = viewOf(&p, query{order: "peer", first: 5000, count: 300})
	require.Equal(t, []int{900, 100}, []int{v.First, len(v.Sessions)}, "the last page, when there are fewer now")
	v = viewOf(&p, query{words: []string{"nothing"}, order: "peer", first: 10, count: 25})
	require.Equal(t, []int{0, 0, 0}, []int{v.Matching, v.First, len(v.Sessions)})
}

func TestSessionsAreSearched(t *testing.T) {
	p := fakeProcess(1000, 3)
	for words, want := range map[string]int{
		"": 1000, "detached": 111, "relayed": 111, "direct": 778, "peer000999": 1, "peer000999 relayed": 0, "/chat detached": 111, "12d3koowrelayrelayrelay0": 56,
		"session-000999": 1, "onerror": 1000,
	} {
		v := viewOf(&p, query{words: strings.Fields(words), order: "peer", count: 25})
		require.Equal(t, want, v.Matching, words)
	}
}

func TestSessionsAreOrdered(t *testing.T) {
	p := fakeProcess(100, 30)
	for order := range orders {
		v := viewOf(&p, query{order: order, count: 100})
		sorted := slices.IsSortedFunc(v.Sessions, func(a, b row) int {
			switch order {
			case "active":
				return b.LastActive.Compare(a.LastActive)
			case "age":
				return a.Started.Compare(b.Started)
			case "bytes":
				return int(int64(b.BytesIn+b.BytesOut) - int64(a.BytesIn+a.BytesOut))
			case "rtt":
				return int(b.RTT - a.RTT)
			case "state":
				return strings.Compare(a.State, b.State)
			}
			return strings.Compare(a.Peer, b.Peer)
		})
		require.True(t, sorted, order)
	}
}

// Whatever there is, a view is small, and says how much it leaves out.
func TestAViewIsBounded(t *testing.T) {
	p := fakeProcess(10_000, 3)
	for range 30 {
		p.Servers = append(p.Servers, p.Servers[0])
		p.Servers[len(p.Servers)-1].Sessions = nil
	}
	p.Servers[1].Limits = slices.Repeat(p.Servers[0].Limits, 400)
	p.Clients[0].Keepers = slices.Repeat(p.Clients[0].Keepers, 400)
	p.Servers[0].Limits = append(p.Servers[0].Limits, Limit{Name: "slots"})
	v := viewOf(&p, query{order: "peer", count: maxRows})
	require.Len(t, v.Peers, maxPeers)
	require.Equal(t, 9_955-maxPeers, v.MorePeers)
	for _, n := range []int{len(v.Sessions), len(v.Limits), len(v.Keepers), len(v.Ended), len(v.Refused)} {
		require.Equal(t, 100, n)
	}
	require.True(t, v.Limits[0].Warning, "those that are nearly used up come first")
	require.Equal(t, []string{p.Servers[0].Host}, v.Hosts)
	text, err := json.Marshal(v)
	require.NoError(t, err)
	require.Less(t, len(text), 256<<10)
}

func TestAPeerOfManySessionsIsDrawnOnce(t *testing.T) {
	direct, relayed := &PathSnapshot{Text: "direct, tcp"}, &PathSnapshot{Text: "relayed", Relayed: true, Relay: "r"}
	p := ProcessSnapshot{Clients: []ClientSnapshot{{Sessions: []SessionSnapshot{
		{ID: "1", Peer: "a", Path: relayed, RTT: Duration(3 * time.Millisecond), BytesIn: 1}, {ID: "2", Peer: "a", BytesIn: 2},
		{ID: "3", Peer: "a", Path: direct, RTT: Duration(2 * time.Millisecond), BytesOut: 3}, {ID: "4", Peer: "b"},
		{ID: "5", Peer: "c", Path: relayed},
	}}}}
	v := viewOf(&p, query{order: "peer", count: 25})
	require.Equal(t, []peerView{
		{Peer: "a", Sessions: 3, Detached: 1, Direct: true, Relay: "r", Path: "direct, tcp", RTT: Duration(2 * time.Millisecond), BytesIn: 3, BytesOut: 3},
		{Peer: "b", Sessions: 1, Detached: 1},
		{Peer: "c", Sessions: 1, Relay: "r", Path: "relayed"},
	}, v.Peers)
}
