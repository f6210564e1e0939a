package peerlane

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"
)

// slotTest is a table of slots and one key in it.
type slotTest struct {
	*testing.T
	table *slotTable
	key   slotKey
}

// withSlots runs a test of slots in virtual time. The row must be gone in the end, and with it the timer.
func withSlots(t *testing.T, test func(t slotTest)) {
	synctest.Test(t, func(t *testing.T) {
		st := slotTest{T: t, table: &slotTable{rows: make(map[slotKey]*slots)}, key: slotKey{to: "peer", tag: testTag}}
		test(st)
		time.Sleep(2 * learnedTime)
		st.table.mu.Lock()
		defer st.table.mu.Unlock()
		require.Empty(t, st.table.rows)
	})
}

// take takes n slots that are to be had at once, with conns on them that the peer has taken, where others come and go.
func (t slotTest) take(n int) []*slot {
	t.Helper()
	var all []*slot
	for range n {
		started := time.Now()
		own, err := t.table.take(t.Context(), t.key, false, nil)
		require.NoError(t, err)
		require.Zero(t, time.Since(started), "slot %d", len(all))
		require.False(t, own.tentative)
		own.carry(&fakeConn{})
		own.prove()
		all = append(all, own)
	}
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	t.table.rows[t.key].left = time.Now()
	return all
}

// later takes a slot in a goroutine.
func (t slotTest) later() <-chan *slot {
	got := make(chan *slot, 1)
	go func() {
		own, _ := t.table.take(t.Context(), t.key, false, nil)
		got <- own
	}()
	synctest.Wait()
	return got
}

// held returns the slots that are held.
func (t slotTest) held() []*slot {
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	return slices.Collect(maps.Keys(t.table.row(t.key).held))
}

func releaseAll(all []*slot) {
	for _, own := range all {
		own.release()
		own.release() // once is enough
	}
}

func TestSlotsAreGivenAtOnceAndThenAfterALookForARefusal(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(startSlots)
		started := time.Now()
		own, err := t.table.take(t.Context(), t.key, false, nil)
		require.NoError(t, err)
		require.Equal(t, slotWait, time.Since(started))
		require.True(t, own.tentative)
		require.Equal(t, settleTime, own.look)
		own.release()
		releaseAll(all)
	})
}

// Who opens conns one by one and keeps them does not wait, and looks for a refusal only for a moment.
func TestWhereNoConnComesAndGoesADialLooksForARefusalAtOnce(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(startSlots)
		time.Sleep(quietTime)
		for range 100 {
			started := time.Now()
			own, err := t.table.take(t.Context(), t.key, false, nil)
			require.NoError(t, err)
			require.Zero(t, time.Since(started))
			require.Equal(t, quietLook, own.look)
			require.Empty(t, t.later(), "one at a time")
			own.carry(&fakeConn{})
			own.hold()
			all = append(all, own)
			time.Sleep(quietTime)
			for _, own := range t.held() { // the one that came later has dialed, too
				own.carry(&fakeConn{})
				own.hold()
			}
		}
		last, err := t.table.take(t.Context(), t.key, false, nil)
		require.NoError(t, err)
		require.False(t, last.refuse())
		got := t.later()
		require.Empty(t, got, "the limit is known now")
		require.True(t, (<-got).tentative)
		releaseAll(t.held())
	})
}

func TestAReleasedSlotGoesToTheOldestThatWaits(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(startSlots)
		first, second := t.later(), t.later()
		all[0].release()
		synctest.Wait()
		require.Len(t, first, 1)
		require.Empty(t, second)
		all[1].release()
		releaseAll(append(all, <-first, <-second))
	})
}

func TestSlotsBecomeMoreWhenTentativeConnsHold(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(startSlots)
		for range 3 {
			var more []<-chan *slot
			for range 8 {
				more = append(more, t.later())
			}
			for _, got := range more {
				own := <-got
				require.True(t, own.tentative)
				own.carry(&fakeConn{})
				own.prove()
				own.hold()
				all = append(all, own)
			}
		}
		require.Len(t, all, startSlots+24)
		releaseAll(all)
		all = t.take(startSlots + 24 - slotMargin)
		require.True(t, (<-t.later()).tentative)
		releaseAll(all)
		releaseAll(t.held())
		t.take(1)[0].release()
		time.Sleep(learnedTime - time.Second)
		t.table.mu.Lock()
		defer t.table.mu.Unlock()
		require.NotEmpty(t, t.table.rows, "what was learned is kept for a while")
	})
}

func TestARefusalMakesSlotsFewerAndTentativeDialsRare(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(10)
		require.False(t, all[9].refuse())
		waits := t.later()
		started := time.Now()
		own := <-waits
		require.True(t, own.tentative)
		require.Equal(t, minSlotBackoff, time.Since(started))
		require.False(t, own.refuse())
		waits, other := t.later(), t.later()
		own = <-waits
		require.Equal(t, 3*minSlotBackoff, time.Since(started).Round(slotWait), "twice as long after the second")
		synctest.Wait()
		require.Empty(t, other, "one at a time")
		all[0].release()
		synctest.Wait()
		require.Empty(t, other, "8 and the tentative one are as many as there were")
		own.release()
		require.False(t, (<-other).tentative)
		releaseAll(t.held())
	})
}

func TestARefusalWhereNoOtherSlotIsHeldSaysSo(t *testing.T) {
	withSlots(t, func(t slotTest) {
		require.True(t, t.take(1)[0].refuse())
		require.Empty(t, t.table.rows)
		var none *slot // of a conn without one
		none.release()
		none.close()
		none.prove()
		require.False(t, none.refuse())
	})
}

// A tentative dial could take the place of a conn that the peer is about to take.
func TestNoDialIsTentativeBeforeOthersHaveSettled(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(startSlots - 1)
		last, err := t.table.take(t.Context(), t.key, false, nil)
		require.NoError(t, err)
		waits := t.later()
		started := time.Now()
		time.Sleep(time.Second)
		require.Empty(t, waits, "one conn is still being dialed")
		last.carry(&fakeConn{})
		own := <-waits
		require.True(t, own.tentative)
		require.GreaterOrEqual(t, time.Since(started), time.Second+settleTime)
		releaseAll(append(all, last, own))
	})
}

func TestAPauseOfSlotsIsShort(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(startSlots - 1)
		dialing, err := t.table.take(t.Context(), t.key, false, nil)
		require.NoError(t, err)
		waits := t.later()
		time.Sleep(slotWait + slotWait/2)
		started := time.Now()
		all[0].release()
		own := <-waits
		require.False(t, own.tentative)
		require.LessOrEqual(t, time.Since(started), maxPause+slotWait)
		releaseAll(append(all, dialing, own))
	})
}

func TestSlotsOfAConnectionThatIsGoneComeBack(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(startSlots)
		gone := &fakeConn{}
		for _, own := range all[:10] {
			own.carry(gone)
		}
		waits := t.later()
		t.table.mu.Lock()
		gone.closed = true
		t.table.mu.Unlock()
		own := <-waits
		require.False(t, own.tentative)
		require.Len(t, t.held(), startSlots-9)
		releaseAll(append(all, own))
	})
}

func TestAWaitForASlotEndsWithItsContext(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(startSlots)
		all[0].refuse()
		ctx, cancel := context.WithTimeout(t.Context(), minSlotBackoff/2)
		defer cancel()
		_, err := t.table.take(ctx, t.key, false, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "63 conns to it are open or closing")
		t.table.mu.Lock()
		require.Empty(t, t.table.rows[t.key].waiting)
		t.table.mu.Unlock()
		releaseAll(all)
	})
}

// What an http.Transport has forgotten is the oldest.
func TestTheOldestDialGivesWayWhereTooManyWait(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(2)
		all[1].refuse() // one slot is left, and is held
		errs := make(chan error, maxSlotWaiters+1)
		ctx, cancel := context.WithCancel(t.Context())
		for range maxSlotWaiters {
			go func() { _, err := t.table.take(ctx, t.key, false, nil); errs <- err }()
		}
		synctest.Wait()
		require.Empty(t, errs)
		go func() { _, err := t.table.take(ctx, t.key, false, nil); errs <- err }()
		require.ErrorContains(t, <-errs, "1024 dials wait already")
		cancel()
		for range maxSlotWaiters {
			require.ErrorIs(t, <-errs, context.Canceled)
		}
		releaseAll(all)
	})
}

// A dial that was refused has its turn before the others: it does not give way, to itself or to a later one, while an older one waits.
func TestADialThatWasRefusedDoesNotGiveWay(t *testing.T) {
	withSlots(t, func(t slotTest) {
		all := t.take(2)
		all[1].refuse() // one slot is left, and is held
		errs := make(chan error, maxSlotWaiters)
		ctx, cancel := context.WithCancel(t.Context())
		take := func(again bool) { _, err := t.table.take(ctx, t.key, again, nil); errs <- err }
		for range maxSlotWaiters {
			go take(false)
		}
		synctest.Wait()
		time.Sleep(time.Millisecond)
		refused := make(chan *slot, 1)
		go func() {
			got, err := t.table.take(ctx, t.key, true, nil)
			if err != nil {
				panic(err)
			}
			refused <- got
		}()
		require.ErrorContains(t, <-errs, "1024 dials wait already")
		go take(false)
		require.ErrorContains(t, <-errs, "1024 dials wait already")
		synctest.Wait()
		require.Empty(t, errs)
		require.Empty(t, refused)
		all[0].release()
		own := <-refused
		cancel()
		for range maxSlotWaiters - 1 {
			require.ErrorIs(t, <-errs, context.Canceled)
		}
		own.release()
	})
}

func TestOnlyALimitOnStreamsIsWaitedFor(t *testing.T) {
	limit := &network.StreamError{ErrorCode: network.StreamResourceLimitExceeded, Remote: true}
	require.True(t, isFull(streamBroken("negotiate", limit)))
	require.True(t, isFull(dialFailed(t.Context(), "open stream", network.ErrResourceLimitExceeded)))
	require.False(t, isFull(dialFailed(t.Context(), "connect", network.ErrResourceLimitExceeded)), "a limit on connections")
	require.False(t, isFull(streamBroken("negotiate", &network.StreamError{ErrorCode: resetCode(4), Remote: true})), "a backlog")
	require.False(t, isFull(errors.New("other")))
	require.False(t, isFull(nil))
}
