package transfer

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// wantFrame is a WANT.
func wantFrame(fresh bool, wants ...wire.Want) wire.Frame {
	return wire.Frame{Kind: wire.KindWant, Flag: fresh, Body: wire.AppendWants(nil, wants)}
}

// jobs takes all jobs that a queue has, as one lane.
func jobs(q *wantQueue) (all []job) {
	turn := q.begin()
	for {
		j, ok := q.next(turn, func() bool { return q.head >= len(q.items) })
		if !ok {
			return all
		}
		all = append(all, j)
	}
}

func TestSmallFilesArePackedAndLargeOnesCut(t *testing.T) {
	q := newWantQueue(filesOfPieces(t, false, -1, 0, -1, 40, -1))
	require.NoError(t, q.add(wantFrame(false, wire.Want{File: 0, Files: 5})))
	require.Equal(t, []job{
		{pack: []uint32{0, 2}},
		{file: 3, first: 0, pieces: jobPieces}, {file: 3, first: jobPieces, pieces: jobPieces}, {file: 3, first: 2 * jobPieces, pieces: 8},
		{pack: []uint32{4}},
	}, jobs(q), "the folder between brings nothing")
	require.Zero(t, q.files)
}

func TestAPackIsBounded(t *testing.T) {
	entries := make([]manifest.Entry, 2*packFiles)
	for i := range entries {
		entries[i] = manifest.Entry{ID: uint32(i), Kind: manifest.KindFile, Size: 1}
	}
	q := newWantQueue(entries)
	require.NoError(t, q.add(wantFrame(false, wire.Want{Files: uint32(len(entries))})))
	all := jobs(q)
	require.Len(t, all, 2)
	require.Len(t, all[0].pack, packFiles)

	for i := range entries {
		entries[i].Size = packFile
	}
	require.NoError(t, q.add(wantFrame(false, wire.Want{Files: 10})))
	for _, j := range jobs(q) {
		require.LessOrEqual(t, len(j.pack), packBytes/packFile)
	}
}

func TestASparseFileIsOneJob(t *testing.T) {
	entries := filesOfPieces(t, false, 40)
	entries[0].Flags = manifest.FlagSparse
	q := newWantQueue(entries)
	require.NoError(t, q.add(wantFrame(false, wire.Want{Files: 1, Piece: 3, Pieces: 30})))
	require.Equal(t, []job{{file: 0, first: 3, pieces: 30}}, jobs(q))
}

func TestAWantOfNothingThatThereIsIsABreach(t *testing.T) {
	q := newWantQueue(filesOfPieces(t, false, -1, 0, 3))
	for name, w := range map[string]wire.Want{
		"a file too many":         {File: 3, Files: 1},
		"files too many":          {File: 1, Files: 3},
		"files beyond 32 bits":    {File: 1<<32 - 1, Files: 1<<32 - 1},
		"a folder":                {File: 1, Files: 1},
		"a piece too many":        {File: 2, Files: 1, Piece: 3, Pieces: 1},
		"pieces too many":         {File: 2, Files: 1, Piece: 2, Pieces: 2},
		"pieces beyond 32 bits":   {File: 2, Files: 1, Piece: 1<<32 - 1, Pieces: 1<<32 - 1},
		"a second piece of a one": {File: 0, Files: 1, Piece: 1},
	} {
		require.Equal(t, CodeProtocol, CodeOf(q.add(wantFrame(false, w))), name)
	}
	require.Equal(t, CodeProtocol, CodeOf(q.add(wire.Frame{Kind: wire.KindWant, Body: make([]byte, 16)})), "of no file")
	require.Equal(t, CodeProtocol, CodeOf(q.add(wire.Frame{Kind: wire.KindWant, Body: make([]byte, 15)})))
}

func TestWhatIsWantedAtOnceIsBounded(t *testing.T) {
	q := newWantQueue(filesOfPieces(t, false, -1, 3))
	many := make([]wire.Want, wire.MaxWants)
	for i := range many {
		many[i] = wire.Want{File: 1, Files: 1, Pieces: 1}
	}
	for range maxItems / wire.MaxWants {
		require.NoError(t, q.add(wantFrame(false, many...)))
	}
	require.Equal(t, CodeProtocol, CodeOf(q.add(wantFrame(false, many[0]))))
	require.NoError(t, q.add(wantFrame(true, many[0])), "a fresh one forgets the others")
	require.Len(t, jobs(q), 1)

	wide := newWantQueue(filesOfPieces(t, false, -1, -1))
	twice := make([]wire.Want, wire.MaxWants)
	for i := range twice {
		twice[i] = wire.Want{Files: 2}
	}
	var err error
	for range 4 {
		if err = wide.add(wantFrame(false, twice...)); err != nil {
			break
		}
	}
	require.Equal(t, CodeProtocol, CodeOf(err), "the same files over and over")
}

// A lane of before a fresh WANT may be a lost one.
func TestALaneOfAnEarlierTurnGetsNothing(t *testing.T) {
	q := newWantQueue(filesOfPieces(t, false, -1))
	old := q.begin()
	require.NoError(t, q.add(wantFrame(true, wire.Want{Files: 1})))
	_, ok := q.next(old, func() bool { return false })
	require.False(t, ok)
	j, ok := q.next(q.begin(), func() bool { return false })
	require.True(t, ok)
	require.Equal(t, []uint32{0}, j.pack)
}

func TestALaneWaitsUntilSomethingIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newWantQueue(filesOfPieces(t, false, -1))
		over := false
		got := make(chan bool)
		wait := func() {
			_, ok := q.next(q.begin(), func() bool { return over })
			got <- ok
		}
		go wait()
		synctest.Wait()
		require.NoError(t, q.add(wantFrame(false, wire.Want{Files: 1})))
		require.True(t, <-got)

		go wait()
		synctest.Wait()
		over = true
		q.wake()
		require.False(t, <-got, "it was lost")

		over = false
		go wait()
		synctest.Wait()
		q.close()
		require.False(t, <-got)
	})
}

// However a receiver asks, it gets what it asked for, each file or piece as often.
func TestJobsAreWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := filesOfPieces(t, false, rapid.SliceOfN(rapid.SampledFrom([]int{-1, 0, 1, 2, 17, 40}), 1, 12).Draw(t, "files")...)
		q := newWantQueue(entries)
		want := make(map[key]int)
		for range rapid.IntRange(1, 8).Draw(t, "wants") {
			first := rapid.IntRange(0, len(entries)-1).Draw(t, "first")
			w := wire.Want{File: uint32(first), Files: uint32(rapid.IntRange(1, len(entries)-first).Draw(t, "files"))}
			shape, err := b3tree.ShapeOf(entries[first].Size)
			require.NoError(t, err)
			if w.Files == 1 {
				if entries[first].Kind != manifest.KindFile {
					continue
				}
				w.Piece = uint32(rapid.IntRange(0, shape.Pieces()-1).Draw(t, "piece"))
				w.Pieces = uint32(rapid.IntRange(0, shape.Pieces()-int(w.Piece)).Draw(t, "pieces"))
			}
			require.NoError(t, q.add(wantFrame(false, w)))
			for id := w.File; id < w.File+w.Files; id++ {
				s, _ := b3tree.ShapeOf(entries[id].Size)
				from, to := int(w.Piece), int(w.Piece+w.Pieces)
				if w.Pieces == 0 {
					to = s.Pieces()
				}
				for i := from; i < to && entries[id].Kind == manifest.KindFile; i++ {
					want[keyOf(id, i)]++
				}
			}
		}
		got := make(map[key]int)
		for _, j := range jobs(q) {
			require.Equal(t, len(j.pack) > 0, j.pieces == 0)
			for _, id := range j.pack {
				got[keyOf(id, 0)]++
			}
			for i := range j.pieces {
				got[keyOf(j.file, j.first+i)]++
			}
		}
		require.Equal(t, want, got)
		require.Zero(t, q.files)
	})
}

func TestARequestThatWaitsIsNotQueuedTwice(t *testing.T) {
	q := newAskQueue()
	root, layer := ask{wire.KindWantRoot, 1}, ask{wire.KindWantLayer, 1}
	for range 3 {
		q.add(root)
		q.add(layer)
	}
	got, ok := q.next()
	require.True(t, ok)
	require.Equal(t, root, got)
	q.add(root)
	for _, want := range []ask{layer, root} {
		got, ok = q.next()
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	synctest.Test(t, func(t *testing.T) {
		q := newAskQueue()
		over := make(chan bool)
		go func() {
			_, ok := q.next()
			over <- ok
		}()
		synctest.Wait()
		q.add(root)
		require.True(t, <-over)
		q.add(root)
		q.close()
		_, ok := q.next()
		require.False(t, ok, "what waits is not answered any more")
	})
}

func TestHashesOfSentPiecesAreKeptUntilTheRootIsAskedFor(t *testing.T) {
	shape, err := b3tree.ShapeOf(3 * pieceSize)
	require.NoError(t, err)
	var book hashBook
	empty := book.take(7, shape)
	require.Equal(t, make([]bool, 3), empty.known, "nothing was sent")
	cv := b3tree.CV{1}
	book.note(7, shape, 1, cv)
	book.note(8, shape, 0, cv)
	page := book.take(7, shape)
	require.Equal(t, []bool{false, true, false}, page.known)
	require.Equal(t, cv, page.cvs[1])
	require.Equal(t, make([]bool, 3), book.take(7, shape).known, "once")
	require.True(t, book.take(8, shape).known[0])
}

// A lane that ends in order gives back the rest of its job, and another lane does it first, unless a fresh WANT has come meanwhile.
func TestAnotherLaneDoesWhatIsGivenBack(t *testing.T) {
	q := newWantQueue(filesOfPieces(t, false, 40, 3))
	require.NoError(t, q.add(wantFrame(false, wire.Want{File: 0, Files: 2})))
	never := func() bool { return false }
	turn := q.begin()
	j, ok := q.next(turn, never)
	require.True(t, ok)
	require.Equal(t, job{file: 0, first: 0, pieces: jobPieces}, j)
	rest := job{file: 0, first: 5, pieces: jobPieces - 5}
	q.giveBack(turn, rest)
	j, ok = q.next(turn, never)
	require.True(t, ok)
	require.Equal(t, rest, j)
	j, ok = q.next(turn, never)
	require.True(t, ok)
	require.Equal(t, jobPieces, j.first, "and then the others")
	require.NoError(t, q.add(wantFrame(true, wire.Want{File: 1, Files: 1})))
	q.giveBack(turn, rest)
	j, ok = q.next(q.begin(), never)
	require.True(t, ok)
	require.Equal(t, job{file: 1, first: 0, pieces: 3}, j)
	q.giveBack(q.begin(), j)
	require.NoError(t, q.add(wantFrame(true, wire.Want{File: 0, Files: 1, Piece: 39})))
	require.Equal(t, []job{{file: 0, first: 39, pieces: 1}}, jobs(q))
}
