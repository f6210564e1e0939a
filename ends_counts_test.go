package peerlane

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// countsOf returns the counts of a tag.
func countsOf(t *testing.T, e *endings, tag protocol.ID) registry.Counts {
	t.Helper()
	for _, c := range e.counts() {
		if c.Tag == string(tag) {
			return c.Counts
		}
	}
	require.FailNow(t, "no counts", tag)
	return registry.Counts{}
}

// A session that counts on after its end neither makes a scrape that has begun exceed the next one, nor is counted twice.
func TestTheCountsOfASessionAreFinalOnceItHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		var e endings
		e.follow(p.Alice, "/a")
		late := uint64(3)
		p.Alice.ForDiagnostics().Show("", "late", func() any { return nil }, func(c *registry.Counts) { c[registry.RecordsIn] += late })
		f := e.open[p.Alice] // as a scrape has it that has just begun
		require.EqualValues(t, 3, countsOf(t, &e, "/a")[registry.RecordsIn])
		require.NoError(t, p.Alice.Close())
		synctest.Wait()
		late = 100
		require.EqualValues(t, 3, f.counts(p.Alice)[registry.RecordsIn])
		counts := countsOf(t, &e, "/a")
		require.Equal(t, []uint64{3, 1, 1}, []uint64{counts[registry.RecordsIn], counts[registry.SessionsOpened], counts[registry.SessionsEndedLocal]})
	})
}

func TestTagsBeyondTheMostShareTheirCounts(t *testing.T) {
	var e endings
	for n := range 2 * registry.MaxTags {
		e.failed(protocol.ID(strconv.Itoa(n)), errors.New("gone"))
	}
	require.Len(t, e.counts(), registry.MaxTags+1)
	require.EqualValues(t, 1, countsOf(t, &e, "0")[registry.SessionsFailedNetwork])
	require.EqualValues(t, registry.MaxTags, countsOf(t, &e, registry.OtherTag)[registry.SessionsFailedNetwork])
	e.expect("another")
	require.Len(t, e.counts(), registry.MaxTags+1)
}

// A session is detached until it is resumed, and not direct from its first relayed carrier to its next direct one.
func TestTheDurationsOfSteps(t *testing.T) {
	relayed, direct := &Path{Relayed: true}, &Path{}
	began := time.Unix(1000, 0)
	var f followed
	for n, step := range []struct {
		at             time.Duration
		state          session.State
		path           *Path
		away, indirect time.Duration
	}{
		{0, session.StateConnected, direct, -1, -1},
		{1, session.StateDetached, direct, -1, -1},
		{5, session.StateResumed, relayed, 4, -1},
		{6, session.StateMigrated, relayed, -1, -1},
		{7, session.StateDetached, relayed, -1, -1},
		{9, session.StateResumed, relayed, 2, -1},
		{11, session.StateMigrated, direct, -1, 6},
		{12, session.StateMigrated, direct, -1, -1},
		{13, session.StateDetached, direct, -1, -1},
		{14, session.StateResumed, direct, 1, -1},
		{15, session.StateResumed, direct, -1, -1}, // the loss was not noticed
		{16, session.StateMigrated, relayed, -1, -1},
		{17, session.StateDetached, relayed, -1, -1},
		{20, session.StateResumed, direct, 3, 4},
		{21, session.StateMigrated, nil, -1, -1},
		{22, session.StateEnded, nil, -1, -1},
	} {
		away, indirect := f.stepLocked(session.StateChange{State: step.state, At: began.Add(step.at)}, step.path)
		require.Equal(t, []time.Duration{step.away, step.indirect}, []time.Duration{away, indirect}, "step %d", n)
	}
	var e endings
	e.step(nil, session.StateChange{State: session.StateResumed, At: began}) // it is not followed
}
