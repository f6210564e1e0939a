package diagnostics

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/internal/test/oldpeer"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
)

func echo(request []byte) ([]byte, error) { return request, nil }

// A session that has lost its connection is shown as such, and then with the connections that it was on: at most eight.
//
// Claim: diagnostics.CarrierSnapshot.Path, diagnostics.CarrierSnapshot.Since, diagnostics.CarrierSnapshot.Until
// Claim: diagnostics.CarrierSnapshot.Moved, diagnostics.CarrierSnapshot.Phase, diagnostics.CarrierSnapshot.Why
// Claim: diagnostics.SessionSnapshot.Resumes, diagnostics.SessionSnapshot.Resent, diagnostics.SummarySnapshot.Detached
// Claim: diagnostics.Cause.By, diagnostics.Cause.Text, diagnostics.ByNetwork
func TestCarriersPastAndPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
		require.NoError(t, p.server.Start(tag, echo))
		ours, _ := p.connect(t)
		p.Vanish(true)
		time.Sleep(30 * time.Second)
		c, s := p.both(t)
		for _, v := range []*SessionSnapshot{c, s} {
			require.Equal(t, "detached", v.State)
			require.Nil(t, v.Path)
			require.Len(t, v.Carriers, 1)
			was := v.Carriers[0]
			require.Contains(t, was.Path, "direct, ")
			require.Equal(t, []any{v.Started, v.StateSince, false, "open"}, []any{was.Since, was.Until, was.Moved, was.Phase})
			require.Equal(t, ByNetwork, was.Why.By)
			require.NotEmpty(t, was.Why.Text)
		}
		require.Equal(t, 2, Summary(OfClient(p.client), OfServer(p.server)).Detached)

		p.Vanish(false)
		p.Cut()
		require.NoError(t, ours.AwaitCarrier(t.Context()))
		for range 9 {
			time.Sleep(time.Second)
			p.Cut()
			synctest.Wait()
			require.NoError(t, ours.AwaitCarrier(t.Context()))
		}
		c, s = p.both(t)
		for _, v := range []*SessionSnapshot{c, s} {
			require.Equal(t, "resumed", v.State)
			require.EqualValues(t, 10, v.Resumes)
			require.Less(t, v.Resent, uint64(1000))
			require.NotNil(t, v.Path)
			require.Len(t, v.Carriers, 8)
			for i, was := range v.Carriers[:7] {
				require.True(t, was.Until.After(was.Since))
				require.False(t, was.Until.After(v.Carriers[i+1].Since))
			}
			require.Equal(t, CarrierSnapshot{Path: v.Path.Text, Since: v.StateSince}, v.Carriers[7])
		}
		require.NoError(t, ours.Close())
		p.requireGone(t)
	})
}

// A session that moves from a relay to a direct connection, with the relay's budget.
//
// Claim: diagnostics.PathSnapshot.Text, diagnostics.PathSnapshot.Transport, diagnostics.PathSnapshot.Relayed
// Claim: diagnostics.PathSnapshot.Relay, diagnostics.PathSnapshot.Limited, diagnostics.PathSnapshot.RelayData
// Claim: diagnostics.PathSnapshot.RelayLeft, diagnostics.PathSnapshot.Expires, diagnostics.SessionSnapshot.Migrations
func TestTheBudgetOfARelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 1 << 20
		p := newPair(t, &peerlanetest.HostsOptions{Delay: time.Millisecond, Relayed: true,
			RelayLimit: &relay.RelayLimit{Duration: time.Hour, Data: budget}})
		require.NoError(t, p.server.Start(tag, echo))
		ours, _ := p.connect(t)
		_, err := ours.Call(t.Context(), "", make([]byte, 100))
		require.NoError(t, err)
		c, s := p.both(t)
		for _, v := range []*SessionSnapshot{c, s} {
			path := *v.Path
			require.Equal(t, PathSnapshot{Text: path.Text, Transport: path.Transport, Relayed: true, Relay: p.Relay.Host().ID().String(), Limited: true,
				RelayData: budget, RelayLeft: path.RelayLeft, Expires: path.Expires}, path)
			require.Contains(t, path.Text, "relayed by "+path.Relay)
			require.Less(t, path.RelayLeft, int64(budget))
			require.Greater(t, path.RelayLeft, int64(budget-20_000))
			require.WithinDuration(t, time.Now().Add(time.Hour), path.Expires, time.Minute)
		}
		peerlanetest.OpenDirect(t, p.Alice, p.Bob)
		time.Sleep(10 * time.Second)
		c, s = p.both(t)
		for _, v := range []*SessionSnapshot{c, s} {
			require.Equal(t, []any{"migrated", false, uint64(1)}, []any{v.State, v.Path.Relayed, v.Migrations})
			require.Len(t, v.Carriers, 2)
			was := v.Carriers[0]
			require.Contains(t, was.Path, "relayed by")
			require.Equal(t, CarrierSnapshot{Path: was.Path, Since: v.Started, Until: v.StateSince, Moved: true, Phase: "open"}, was)
		}
	})
}

// Ends and refusals are remembered, on both sides, with who did it and why.
//
// Claim: diagnostics.ClientSnapshot.Ended, diagnostics.ClientSnapshot.Failed, diagnostics.ServerSnapshot.Ended
// Claim: diagnostics.ServerSnapshot.Refused, diagnostics.Event.At, diagnostics.Event.Peer, diagnostics.Event.Tag
// Claim: diagnostics.Event.Session, diagnostics.Event.Path, diagnostics.Event.Why, diagnostics.Cause.Code
// Claim: diagnostics.ByLocal, diagnostics.ByPeer, diagnostics.Recent
func TestEndsAndRefusalsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
		require.NoError(t, p.server.Start(tag, echo))
		ours, theirs := p.connect(t)
		time.Sleep(time.Second)
		require.NoError(t, ours.Close())
		settle()
		c, s := OfClient(p.client), OfServer(p.server)
		require.Len(t, c.Ended, 1)
		require.Len(t, s.Ended, 1)
		one, two := c.Ended[0], s.Ended[0]
		require.Equal(t, Event{At: one.At, Peer: p.Bob.ID().String(), Tag: tag, Session: ours.ID().String(), Path: one.Path,
			Why: &Cause{By: ByLocal, Code: codes.Closed.String(), Text: ours.Err().Error()}}, one)
		require.Equal(t, Event{At: two.At, Peer: p.Alice.ID().String(), Tag: tag, Session: one.Session, Path: two.Path,
			Why: &Cause{By: ByPeer, Code: codes.Closed.String(), Text: theirs.Err().Error()}}, two)
		require.WithinDuration(t, time.Now(), one.At, time.Second)
		require.Contains(t, one.Path, "direct, ")
		require.Empty(t, c.Failed)
		require.Empty(t, s.Refused)

		_, err := p.client.Connect(t.Context(), p.Bob.ID(), "/unserved")
		require.ErrorIs(t, err, peerlane.ErrNotServed)
		c, s = OfClient(p.client), OfServer(p.server)
		require.Len(t, c.Failed, 1)
		require.Equal(t, Event{At: c.Failed[0].At, Peer: p.Bob.ID().String(), Tag: "/unserved", Why: c.Failed[0].Why}, c.Failed[0])
		require.Equal(t, err.Error(), c.Failed[0].Why.Text)
		require.Empty(t, s.Refused, "libp2p refuses it")

		for range Recent + 3 {
			ours, _ := p.connect(t)
			require.NoError(t, ours.Close())
		}
		settle()
		for _, ended := range [][]Event{OfClient(p.client).Ended, OfServer(p.server).Ended} {
			require.Len(t, ended, Recent)
			require.NotEqual(t, one.Session, ended[0].Session, "the oldest is forgotten")
			for i := range ended[1:] {
				require.False(t, ended[i+1].At.Before(ended[i].At))
			}
		}
		p.requireGone(t)
	})
}

// The end of a session is in the first snapshot that no longer lists the session, however soon it is taken.
func TestASessionIsListedUntilItsEndIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		require.NoError(t, p.server.Start(tag, echo))
		for n := 1; n <= 16; n++ {
			ours, theirs := p.connect(t)
			require.NoError(t, ours.Close())
			require.Len(t, OfClient(p.client).Ended, n)
			<-theirs.Done()
			require.Len(t, OfServer(p.server).Ended, n)
		}
		p.connect(t)
		require.NoError(t, p.client.Close())
		require.Len(t, OfClient(p.client).Ended, 17)
		require.NoError(t, p.server.Stop())
		require.Len(t, OfServer(p.server).Ended, 17)
		p.requireGone(t)
	})
}

// A peer with another key is refused, and both sides show it, and the ids of their keys.
//
// Claim: diagnostics.ClientSnapshot.Keys, diagnostics.ServerSnapshot.Keys
func TestKeysAreNamedByTheirIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		cheap := psk.Params{Time: 1, MemoryKiB: 64, Threads: 1}
		secrets := [][]byte{[]byte("one secret that is long enough"), []byte("another secret that is long enough")}
		require.NoError(t, peerlane.UseModernPSKClient(p.client, secrets[0], &peerlane.PSKOptions{Params: cheap}))
		require.NoError(t, peerlane.UseModernPSKServer(p.server, secrets[1], &peerlane.PSKOptions{Params: cheap, Previous: []byte("what was in use before it")}))
		require.NoError(t, p.server.Start(tag, echo))
		_, err := p.client.Connect(t.Context(), p.Bob.ID(), tag)
		require.ErrorIs(t, err, peerlane.ErrPSKMismatch)
		synctest.Wait()
		c, s := OfClient(p.client), OfServer(p.server)
		var ids []string
		for _, secret := range secrets {
			key, err := psk.Derive(secret, &cheap)
			require.NoError(t, err)
			ids = append(ids, key.ID().String())
		}
		require.Equal(t, ids[:1], c.Keys)
		require.Len(t, s.Keys, 2)
		require.Equal(t, ids[1], s.Keys[0])
		require.Len(t, c.Failed, 1)
		require.Len(t, s.Refused, 1)
		require.Equal(t, []string{ByPeer, codes.PSKMismatch.String()}, []string{c.Failed[0].Why.By, c.Failed[0].Why.Code})
		require.Equal(t, []string{ByLocal, codes.PSKMismatch.String()}, []string{s.Refused[0].Why.By, s.Refused[0].Why.Code})
		require.Equal(t, []string{p.Alice.ID().String(), tag, ""}, []string{s.Refused[0].Peer, s.Refused[0].Tag, s.Refused[0].Session})
		require.Contains(t, s.Refused[0].Path, "direct")
	})
}

// Claim: diagnostics.ClientSnapshot.Keepers, diagnostics.KeeperSnapshot.Peer, diagnostics.KeeperSnapshot.Tag
// Claim: diagnostics.KeeperSnapshot.Want, diagnostics.KeeperSnapshot.Open, diagnostics.KeeperSnapshot.Opening
// Claim: diagnostics.KeeperSnapshot.Why
func TestKeepersAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
		k, err := p.client.Keep(p.Bob.ID(), tag, &peerlane.KeeperConfig{Sessions: 2})
		require.NoError(t, err)
		time.Sleep(3 * time.Millisecond)
		require.Equal(t, []KeeperSnapshot{{Peer: p.Bob.ID().String(), Tag: tag, Want: 2, Opening: 2}}, OfClient(p.client).Keepers)
		time.Sleep(10 * time.Second)
		v := OfClient(p.client).Keepers[0]
		require.Zero(t, v.Open)
		require.Contains(t, v.Why.Text, "does not serve this tag")
		require.NoError(t, p.server.Start(tag, echo))
		time.Sleep(10 * time.Second)
		require.Equal(t, []KeeperSnapshot{{Peer: p.Bob.ID().String(), Tag: tag, Want: 2, Open: 2}}, OfClient(p.client).Keepers)
		var others []*peerlane.Keeper
		for _, other := range []protocol.ID{"/z", "/a"} {
			k, err := p.client.Keep(p.Bob.ID(), other, nil)
			require.NoError(t, err)
			others = append(others, k)
		}
		keepers := OfClient(p.client).Keepers
		require.Equal(t, []string{"/a", tag, "/z"}, []string{keepers[0].Tag, keepers[1].Tag, keepers[2].Tag})
		require.NoError(t, k.Close())
		for _, other := range others {
			require.NoError(t, other.Close())
		}
		p.requireGone(t)
	})
}

// Claim: diagnostics.ServerSnapshot.Calls, diagnostics.CallSnapshot.Peer, diagnostics.CallSnapshot.Tag, diagnostics.CallSnapshot.Path
// Claim: diagnostics.CallSnapshot.Began, diagnostics.CallSnapshot.BytesIn, diagnostics.CallSnapshot.BytesOut
func TestCallsOfOldPeersAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
		held := make(chan struct{})
		release := sync.OnceFunc(func() { close(held) })
		t.Cleanup(release)
		require.NoError(t, p.server.Start(tag, func(request []byte) ([]byte, error) {
			<-held
			return request, nil
		}))
		old := &oldpeer.Client{Host: p.Alice}
		done := make(chan error, 1)
		go func() {
			_, err := old.Send(t.Context(), p.Bob.ID(), tag, make([]byte, 1000))
			done <- err
		}()
		time.Sleep(time.Second)
		v := OfServer(p.server)
		require.Len(t, v.Calls, 1)
		call := v.Calls[0]
		require.Equal(t, CallSnapshot{Peer: p.Alice.ID().String(), Tag: tag, Path: call.Path, Began: call.Began, BytesIn: call.BytesIn, BytesOut: 0}, call)
		require.GreaterOrEqual(t, call.BytesIn, uint64(1000))
		require.Contains(t, call.Path, "direct, ")
		require.WithinDuration(t, time.Now().Add(-time.Second), call.Began, 100*time.Millisecond)
		release()
		require.NoError(t, <-done)
		p.requireGone(t)
	})
}

// The calls of a client to an old peer are a limit, as there is no session.
func TestCallsToOldPeersAreALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		held := make(chan struct{})
		old := oldpeer.Serve(h.Bob, tag, func(request []byte) ([]byte, error) {
			<-held
			return request, nil
		})
		defer old.Close()
		client, err := peerlane.NewClient(h.Alice, nil)
		require.NoError(t, err)
		defer func() { _ = client.Close() }()
		done := make(chan error, 1)
		go func() {
			_, err := client.Send(t.Context(), h.Bob.ID(), tag, []byte("x"))
			done <- err
		}()
		settle()
		limit := func() Limit {
			for _, l := range OfClient(client).Limits {
				if l.Name == "old-calls" {
					return l
				}
			}
			return Limit{}
		}
		running := limit()
		require.Equal(t, Limit{Name: "old-calls", Peer: h.Bob.ID().String(), Tag: tag, Used: 1, Max: running.Max}, running)
		require.Greater(t, running.Max, int64(1))
		close(held)
		require.NoError(t, <-done)
		require.Zero(t, limit().Used)
	})
}

// Claim: diagnostics.SessionSnapshot.Draining, diagnostics.SummarySnapshot.Draining, diagnostics.SummarySnapshot.InFlight
func TestADrainingSessionIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		release := make(chan struct{})
		require.NoError(t, p.server.Start(tag, func([]byte) ([]byte, error) {
			<-release
			return nil, nil
		}))
		ours, _ := p.connect(t)
		go func() { _, _ = ours.Call(t.Context(), "", nil) }()
		synctest.Wait()
		ours.Drain("no more")
		c, s := p.both(t)
		require.Equal(t, []bool{true, true}, []bool{c.Draining, s.Draining})
		sum := Summary(OfClient(p.client))
		require.Equal(t, []int{1, 1}, []int{sum.Draining, sum.InFlight})
		close(release)
		<-ours.Done()
		p.requireGone(t)
	})
}

// Claim: diagnostics.ClientSnapshot.Limits, diagnostics.ServerSnapshot.Limits, diagnostics.Limit.Name, diagnostics.Limit.Peer
// Claim: diagnostics.Limit.Tag, diagnostics.Limit.Used, diagnostics.Limit.Max, diagnostics.Limit.Refused, diagnostics.Limit.Warning
// Claim: diagnostics.SummarySnapshot.Warnings
func TestLimitsWarnFromFourFifths(t *testing.T) {
	limits := limitsOf([]registry.Limit{
		{Name: "slots", Peer: "b", Tag: "t", Used: 1, Max: 64}, {Name: "slots", Peer: "a", Tag: "t", Used: 52, Max: 64}, {Name: "calls", Used: 79, Max: 100, Refused: 3},
		{Name: "memory", Used: 1 << 62, Max: 1<<62 + 1}, {Name: "pool", Used: 80, Max: 100}, {Name: "sessions", Used: 5},
	})
	require.Equal(t, []Limit{
		{Name: "calls", Used: 79, Max: 100, Refused: 3}, {Name: "memory", Used: 1 << 62, Max: 1<<62 + 1, Warning: true},
		{Name: "pool", Used: 80, Max: 100, Warning: true}, {Name: "sessions", Used: 5},
		{Name: "slots", Peer: "a", Tag: "t", Used: 52, Max: 64, Warning: true}, {Name: "slots", Peer: "b", Tag: "t", Used: 1, Max: 64},
	}, limits)
	require.Len(t, Summary(ServerSnapshot{Limits: limits}, ClientSnapshot{Limits: limits}).Warnings, 6)
}

// What a map gives in no order is sorted.
func TestWhatRunsOnASessionIsSorted(t *testing.T) {
	var s SessionSnapshot
	s.addLanes([]any{
		bulk.Snapshot{ID: 9}, record.Snapshot{ID: 5}, transfer.Snapshot{Number: 4}, record.Snapshot{ID: 3}, bulk.Snapshot{ID: 8}, transfer.Snapshot{Number: 2},
		transfer.Snapshot{Number: 4},
	})
	require.Equal(t, []uint64{3, 5, 8, 9, 2, 4}, []uint64{s.Records[0].ID, s.Records[1].ID, s.Bulk[0].ID, s.Bulk[1].ID, s.Transfers[0].Number, s.Transfers[1].Number})
	require.Len(t, s.Transfers, 2, "one that runs on the session twice is one")
}

func TestTheLimitsOfAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		require.NoError(t, p.server.Start(tag, echo))
		_, err := p.client.Send(t.Context(), p.Bob.ID(), tag, []byte("one"))
		require.NoError(t, err)
		synctest.Wait()
		limits := OfClient(p.client).Limits
		require.Equal(t, []Limit{{Name: "calls", Max: 1000}, {Name: "memory", Max: 1 << 30}, {Name: "pool", Used: 1, Max: 100}}, limits)
	})
}

func TestACauseSaysWhoAndWhy(t *testing.T) {
	refused := &session.Error{Op: "hello", Remote: true, Code: codes.NotAllowed, Text: "not you"}
	for _, test := range []struct {
		err  error
		want *Cause
	}{
		{nil, nil},
		{errors.New("broken pipe"), &Cause{By: ByNetwork, Text: "broken pipe"}},
		{refused, &Cause{By: ByPeer, Code: codes.NotAllowed.String()}},
		{&session.Error{Op: "resume", Err: refused}, &Cause{By: ByPeer, Code: codes.NotAllowed.String()}},
		{&session.Error{Op: "session", Code: codes.Protocol}, &Cause{By: ByLocal, Code: codes.Protocol.String()}},
		{&session.Error{Op: "session", Err: session.ErrClosed}, &Cause{By: ByLocal}},
		{&session.Error{Op: "carrier", Err: session.ErrSessionLost}, &Cause{By: ByNetwork}},
	} {
		got := causeOf(test.err)
		if test.want != nil {
			test.want.Text = test.err.Error()
		}
		require.Equal(t, test.want, got)
	}
	long := causeOf(errors.New(string(make([]byte, 511)) + "é"))
	require.Len(t, long.Text, 511, "no half of a character")
}

// Claim: diagnostics.Sources.Clients, diagnostics.Sources.Servers, diagnostics.Sources.Transfers
// Claim: diagnostics.ProcessSnapshot.Clients, diagnostics.ProcessSnapshot.Servers, diagnostics.ProcessSnapshot.Taken
// Claim: diagnostics.ProcessSnapshot.Transfers, diagnostics.ProcessSnapshot.Summary, diagnostics.ProcessSnapshot.Version
func TestAProcessIsItsClientsAndServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		require.NoError(t, p.server.Start(tag, echo))
		p.connect(t)
		all := Sources{Clients: []*peerlane.Client{nil, p.client}, Servers: []*peerlane.Server{p.server, nil}, Transfers: new(transfer.Registry)}
		v := OfProcess(all)
		c, s := OfClient(p.client), OfServer(p.server)
		want := ProcessSnapshot{Version: Version, Taken: c.Taken, Summary: Summary(c, s), Clients: []ClientSnapshot{c}, Servers: []ServerSnapshot{s}}
		want.Summary.Goroutines, want.Summary.Heap, want.Summary.Uptime = v.Summary.Goroutines, v.Summary.Heap, v.Summary.Uptime
		require.Equal(t, want, v)
		require.Equal(t, 2, v.Summary.Sessions)
		v = OfProcess(Sources{})
		require.Equal(t, []int{0, 0, 0, 0}, []int{v.Summary.Sessions, len(v.Clients), len(v.Servers), len(v.Transfers)})
	})
}
