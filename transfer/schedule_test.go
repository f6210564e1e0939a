package transfer

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// attached returns a supplier that is attached to s.
func attached(s *schedule) *supplier {
	o := newSupplier(true)
	s.attach(&o)
	return &o
}

func TestSmallFilesAreRequestedAsRanges(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, true, -1, 0, 1, -1, 2, -1), true)
	q := s.next(attached(s))
	require.Equal(t, []wire.Want{{File: 0, Files: 4}, {File: 5, Files: 1}}, q.wants, "the folder does not interrupt them")
	require.Equal(t, []ask{{wire.KindWantLayer, 4}}, q.asks, "the hashes of a file come before its pieces")
	require.False(t, q.fresh)
}

func TestPiecesAreRequestedAsRanges(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, false, 3, 2), false)
	o := attached(s)
	o.window = 4 * pieceSize
	require.Equal(t, []wire.Want{{File: 0, Files: 1, Pieces: 3}, {File: 1, Files: 1, Pieces: 1}}, s.next(o).wants)
	require.Equal(t, int64(4*pieceSize), o.inflight)
	require.Equal(t, taken, s.claim(o, keyOf(0, 0)))
	require.Empty(t, s.next(o).wants, "more than half of the window is open")
	require.Equal(t, taken, s.claim(o, keyOf(0, 2)))
	require.Equal(t, []wire.Want{{File: 1, Files: 1, Piece: 1, Pieces: 1}}, s.next(o).wants)
	require.Empty(t, s.next(o).wants, "nothing is left")
}

func TestPiecesOfASparseFileCountLess(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, false, 40), false)
	s.entries[0].Flags = manifest.FlagSparse
	o := attached(s)
	o.window = pieceSize
	require.Equal(t, uint32(40), s.next(o).wants[0].Pieces)
	require.Equal(t, int64(40*pieceSize/holeWeight), o.inflight)
}

func TestFewFilesWaitForTheirLayers(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, true, slices.Repeat([]int{2}, 3*mostLayers)...), true)
	q := s.next(attached(s))
	require.Len(t, q.asks, mostLayers)
	require.Empty(t, q.wants)
}

// What a supplier does not deliver twice in a row is no reason to trust it less: requests bound what it may send.
func TestASupplierMayDeliverWhatWasRequestedAndNothingElse(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, false, 2, -1), false)
	o := attached(s)
	s.next(o)
	require.Equal(t, taken, s.claim(o, keyOf(0, 1)))
	require.Equal(t, dropped, s.claim(o, keyOf(0, 1)), "once more, in place of another")
	require.Equal(t, taken, s.claim(o, keyOf(1, 0)))
	require.Equal(t, refused, s.claim(o, keyOf(0, 0)), "it has delivered as much as was requested")
}

func TestAPieceThatWasNotRequestedIsRefused(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, true, 2, 3, -1), true)
	o := attached(s)
	o.window, o.due = 1, 10
	s.next(o)
	require.Equal(t, refused, s.claim(o, keyOf(0, 0)), "its hashes are not known")
	require.Equal(t, refused, s.claim(o, keyOf(1, 0)), "a file that nothing was requested of")
	s.files[2] = fileNew
	s.again = nil
	require.Equal(t, refused, s.claim(o, keyOf(2, 0)))
	o.lossy = true
	require.Equal(t, taken, s.claim(o, keyOf(2, 0)), "it may have been requested before a lane was lost")
	require.Equal(t, refused, s.claim(o, keyOf(1, 0)), "a piece of a file that has several is no file")
	s.files[2] = fileFailed
	require.Equal(t, dropped, s.claim(o, keyOf(2, 0)))
}

func TestWhatALaneHasLostIsRequestedAnew(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, false, 3), false)
	o := attached(s)
	s.next(o)
	require.Equal(t, taken, s.claim(o, keyOf(0, 1)))
	require.True(t, s.laneLost(o))
	require.Zero(t, o.inflight)
	q := s.next(o)
	require.True(t, q.fresh, "the sender may still have requests that it thinks are open")
	got := (&sim{s: s}).expand(q.wants)
	require.ElementsMatch(t, []key{keyOf(0, 0), keyOf(0, 2)}, got)
	require.True(t, s.laneLost(o))
	s.again = nil
	require.Equal(t, taken, s.claim(o, keyOf(0, 0)), "what was on the way counts")
	require.Equal(t, dropped, s.claim(o, keyOf(0, 1)))

	s.detach(o)
	require.False(t, s.laneLost(o), "it is gone")
	s.over = true
	require.False(t, s.laneLost(attached(s)), "all is there")
}

func TestOthersDeliverWhatALostSupplierDoesNot(t *testing.T) {
	m := newSim(t, true, -1, -1, 3)
	first := m.join(firstWindow)
	m.answer(first)
	require.Len(t, first.queue, 5)
	m.send(first, 0, false)
	second := m.join(firstWindow)
	require.Len(t, second.queue, 4, "an idle supplier takes over what another is slow to deliver")
	m.check()
	m.leave(first, true)
	require.Len(t, second.queue, 4, "and it was requested of the second already")
	m.check()
	third := m.join(firstWindow)
	m.leave(second, false)
	require.Len(t, third.wanted, 4)
	m.finish()
}

func TestALostSupplierIsAskedForNoHash(t *testing.T) {
	m := newSim(t, true, 3)
	first, second := m.join(firstWindow), m.join(firstWindow)
	require.Len(t, first.asks, 1)
	require.Empty(t, second.asks)
	m.leave(first, false)
	require.Len(t, second.asks, 1)
}

func TestAFileThatOneSupplierLacksComesFromAnother(t *testing.T) {
	m := newSim(t, false, -1, 3)
	m.s.suppliersLeft = 2
	first, second := m.join(firstWindow), m.join(firstWindow)
	for _, id := range []uint32{0, 1} {
		require.False(t, m.s.lack(&first.supplier, id, &Error{Code: CodeIO}))
	}
	first.queue = nil
	m.plan()
	require.Empty(t, first.wanted)
	require.Len(t, second.wanted, 4)
	m.finish()
	require.Equal(t, []fileState{filePlaced, filePlaced}, m.s.files)
}

// A file that no attached supplier has waits for one that may come, and fails when none may.
func TestAFileThatNobodyHasWaits(t *testing.T) {
	m := newSim(t, false, -1, 3)
	m.s.suppliersLeft = 2
	first := m.join(firstWindow)
	why := &Error{Code: CodeSourceChanged}
	require.False(t, m.s.lack(&first.supplier, 0, why), "another may have it")
	require.False(t, m.s.lack(&first.supplier, 1, why))
	require.True(t, m.s.isAside(0))
	first.queue = nil
	m.plan()
	require.Empty(t, first.wanted, "and nothing of it is requested")

	second := m.join(firstWindow)
	require.Len(t, second.wanted, 4)
	m.leave(second, false)
	require.True(t, m.s.isAside(1), "again")
	require.Equal(t, map[uint32]*Error{0: why, 1: why}, m.s.supplierEnded(), "nobody else comes")
	m.lack(0)
	m.lack(1)
	require.Equal(t, []fileState{fileFailed, fileFailed}, m.s.files)
	require.Zero(t, m.s.left)
	require.False(t, m.s.drop(0), "it has failed already")
}

func TestTheLastSupplierThatLacksAFileFailsIt(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, false, -1), false)
	require.True(t, s.lack(attached(s), 0, &Error{}))
	notBegun := newSchedule()
	attached(&notBegun).lacks[0] = &Error{}
	require.Nil(t, notBegun.supplierEnded())
}

func TestAnOnlySupplierMaySendAFewWrongPieces(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, false, -1, 2), false)
	o := attached(s)
	for i := range badPieces {
		k := keyOf(uint32(i%2), 0)
		s.next(o)
		require.Equal(t, taken, s.claim(o, k))
		require.Equal(t, i == badPieces-1, s.refute(o, k))
		require.True(t, s.missing(k))
	}
	other := attached(s)
	s.next(other)
	require.True(t, s.refute(other, keyOf(1, 1)), "of several, the first wrong piece is enough")
	s.files[0] = fileFailed
	s.again = nil
	s.refute(other, keyOf(0, 0))
	require.Empty(t, s.again, "it failed meanwhile")
}

func TestTheRootIsAskedForWhenAllPiecesAreThere(t *testing.T) {
	m := newSim(t, false, 2)
	m.s.suppliersLeft = 2
	first := m.join(firstWindow)
	m.send(first, 0, false)
	require.Empty(t, first.asks)
	m.send(first, 0, false)
	require.Equal(t, []ask{{wire.KindWantRoot, 0}}, first.asks)
	a := m.s.active[0]
	require.Same(t, &first.supplier, a.asked)

	m.leave(first, false)
	require.Nil(t, a.asked)
	second := m.join(firstWindow)
	require.Equal(t, []ask{{wire.KindWantRoot, 0}}, second.asks, "and of another after a loss")

	m.s.restart(a) // it was not the root of what is there
	again := m.s.active[0]
	require.Equal(t, 1, again.restarts)
	require.Equal(t, 2, again.left)
	m.plan()
	require.Len(t, second.wanted, 2)
	require.Equal(t, taken, m.s.claim(&second.supplier, keyOf(0, 0)))
	m.s.here(again, 0, b3tree.CV{})
	delete(m.s.suppliers, &second.supplier)
	_, _, ok := m.s.askAny(again)
	require.False(t, ok, "there is nobody to ask")
}

func TestExistingFilesAreComparedAFewAtATime(t *testing.T) {
	const n = mostUnsure + 10
	s := scheduleOf(filesOfPieces(t, false, slices.Repeat([]int{-1}, n)...), false)
	for id := range uint32(n) {
		s.files[id], s.unsure[id] = fileUnsure, &unsure{}
		s.unasked = append(s.unasked, id)
	}
	s.dropUnsure(3)
	o := attached(s)
	q := s.next(o)
	require.Len(t, q.asks, mostUnsure)
	require.Empty(t, q.wants)
	require.NotContains(t, q.asks, ask{wire.KindWantRoot, 3}, "it has failed")
	s.dropUnsure(0)
	s.dropUnsure(0)
	require.Equal(t, mostUnsure-1, o.unsure)

	s.detach(o)
	require.Zero(t, o.unsure)
	require.Len(t, s.unasked, n-2, "the next one is asked")
	old := newSupplier(false)
	s.attach(&old)
	require.True(t, s.next(&old).mustEnd, "it cannot answer")
	s.renew(5)
	require.True(t, s.missing(keyOf(5, 0)))
	require.Equal(t, []wire.Want{{File: 5, Files: 1}}, s.next(attached(s)).wants)
}

func TestCompleteFilesQueueForTheirNames(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, false, -1, -1, 2), false)
	s.files[0], s.files[1] = fileBusy, fileBusy
	require.False(t, s.complete(0, fileBusy))
	require.False(t, s.complete(0, fileBusy), "it is no longer in that state")
	s.drop(1)
	require.False(t, s.complete(1, fileBusy), "it has failed")
	require.Equal(t, []uint32{0}, s.whole)
	s.activate(s.newActive(2))
	require.True(t, s.complete(2, fileActive), "nothing else is expected")
	require.Empty(t, s.active)
	require.True(t, s.isSettled(0))
	require.True(t, s.isSettled(1))
	require.False(t, s.isSettled(99))
	s.loseFile(0)
	require.False(t, s.isSettled(0))
}

func TestTheWindowFollowsThePath(t *testing.T) {
	o := newSupplier(true)
	o.resize(1<<30, 0.05)
	require.InDelta(t, 2*0.05*(1<<30), o.window, 1)
	o.resize(0, 0)
	require.InDelta(t, 0.05*(1<<30), o.window, 1, "it halves at most")
	for range 10 {
		o.resize(0, 0)
	}
	require.EqualValues(t, firstWindow, o.window)
	o.resize(1<<40, 10)
	require.EqualValues(t, mostWindow, o.window)
}

func TestNothingIsRequestedFromASupplierThatIsNotAttached(t *testing.T) {
	s := scheduleOf(filesOfPieces(t, false, -1), false)
	o := newSupplier(true)
	require.Equal(t, request{}, s.next(&o))
	s.attach(&o)
	s.over = true
	require.Equal(t, request{}, s.next(&o))
	s.detach(&o)
	require.Equal(t, supplierGone, o.stage)
}
