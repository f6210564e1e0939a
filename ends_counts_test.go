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
		p.Alice.ForDiagnostics().Show(func() any { return nil }, func(c *registry.Counts) { c[registry.RecordsIn] += late })
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

// The steps of a session that is not followed say nothing, and a loss that was never noticed has no time.
func TestStepsThatHaveNoDuration(t *testing.T) {
	var e endings
	e.step(nil, session.StateChange{State: session.StateResumed, At: time.Now()})
	for _, change := range []session.StateChange{{State: session.StateConnected}, {State: session.StateResumed}, {State: session.StateEnded}} {
		f := &followed{relayed: time.Unix(1, 0)}
		away, indirect := f.stepLocked(change)
		require.Equal(t, []time.Duration{-1, -1}, []time.Duration{away, indirect}, change.State)
	}
}
