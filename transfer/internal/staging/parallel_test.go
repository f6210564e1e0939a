package staging

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

func TestLanesWriteWhileOthersSync(t *testing.T) {
	for _, policy := range []SyncPolicy{SyncBatch, SyncNone, SyncEach} {
		for _, open := range []int{1, 3, 0} {
			d := newTestDisk(1, false)
			s, err := Create(d, testID, swarmEntries(), &Options{Rules: testRules, Sync: policy, OpenParts: open})
			require.NoError(t, err)
			w := &swarm{s: s, heard: said{}}
			require.NoError(t, w.run(1), "%v, %d open", policy, open)
			require.NoError(t, s.Sync())
			require.Zero(t, s.Dirty())
			if open > 0 {
				require.LessOrEqual(t, len(s.open), open, "what is clean is closed")
			}
			w.listen()
			requireHeard(t, s, w.heard)
			finishInParallel(t, s)
			for _, e := range swarmEntries() {
				require.Equal(t, content(e.ID, e.Size), d.names[e.Path].data, e.Path)
			}
		}
	}
}

// finishInParallel publishes each file from a goroutine of its own.
func finishInParallel(t *testing.T, s *Staging) {
	t.Helper()
	entries := s.Entries()
	inParallel(len(entries), func(i int) {
		if err := publish(s, entries[i].ID); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, s.Finish())
}

// The disk fails now and then, or the power is cut, while lanes write: what Have has told holds, and what is missing can be written.
func TestLanesAndAFailingDisk(t *testing.T) {
	for seed := range uint64(60) {
		d := newTestDisk(seed, false)
		o := &Options{Rules: testRules, OpenParts: 1 + int(seed%4), Sync: []SyncPolicy{SyncBatch, SyncEach}[seed/30]}
		s, err := Create(d, testID, swarmEntries(), o)
		require.NoError(t, err)
		w := &swarm{s: s, heard: said{}}
		rng := rand.New(rand.NewPCG(seed, 2))
		d.mu.Lock()
		for range 6 {
			d.fail[d.ops+1+rng.IntN(200)] = []error{syscall.EIO, syscall.ENOSPC}[rng.IntN(2)]
		}
		if seed%2 == 0 {
			d.cutAt = d.ops + 1 + rng.IntN(300)
		}
		d.mu.Unlock()
		for round := uint64(0); ; round++ {
			err = w.run(seed + round)
			if err == nil || errors.Is(err, errCut) {
				break
			}
			require.ErrorAs(t, err, new(*fault.Error))
			require.Less(t, round, uint64(30), "it comes to an end: %v", err)
		}
		w.listen()
		if err != nil {
			require.NoError(t, s.Close())
			d = d.cut()
			w.s, err = Open(d, testID, o)
			require.NoError(t, err)
			s = w.s
			requireHeard(t, s, w.heard)
			require.NoError(t, w.run(seed))
		}
		d.fail = map[int]error{}
		d.cutAt = 0
		for s.Sync() != nil || len(missingOf(s)) > 0 { // what the last sync has lost
			require.NoError(t, w.run(seed))
		}
		requireHeard(t, s, w.heard)
		finishInParallel(t, s)
		for _, e := range swarmEntries() {
			require.Equal(t, content(e.ID, e.Size), d.names[e.Path].data, e.Path)
		}
	}
}

func missingOf(s *Staging) (all []Range) {
	for _, e := range s.Entries() {
		all = append(all, s.Missing(e.ID)...)
	}
	return all
}

func TestOfWritesOfOneRangeOneIsTaken(t *testing.T) {
	d := newTestDisk(1, false)
	s, err := Create(d, testID, swarmEntries(), &Options{Rules: testRules})
	require.NoError(t, err)
	var taken atomic.Int32
	inParallel(8, func(int) {
		switch err := s.WriteAt(0, content(0, swarmPiece), 0); {
		case err == nil:
			taken.Add(1)
		case codeOf(err) != fault.CodeProtocol:
			t.Error(err)
		}
	})
	require.EqualValues(t, 1, taken.Load())
	taken.Store(0)
	inParallel(8, func(int) {
		if s.WriteFile(3, content(3, swarmPieces*swarmPiece)) == nil {
			taken.Add(1)
		}
	})
	require.EqualValues(t, 1, taken.Load())
}

// Reset, Close and Abort wait for the writes that run, and none comes after.
func TestWritesDuringResetAndClose(t *testing.T) {
	for seed := range 20 {
		d := newTestDisk(uint64(seed), false)
		s, err := Create(d, testID, swarmEntries(), &Options{Rules: testRules, OpenParts: 1})
		require.NoError(t, err)
		stop := []func() error{s.Close, s.Abort, func() error { return errors.Join(s.Sync(), s.Close()) }}[seed%3]
		inParallel(5, func(lane int) {
			if lane == 0 {
				for id := range uint32(3) {
					if err := s.Reset(3 * id); err != nil {
						t.Error(err)
					}
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
				return
			}
			for i := range int64(swarmPieces) {
				err := s.WriteAt(uint32(3*(lane-1)), content(1, swarmPiece), i*swarmPiece)
				if e := (*fault.Error)(nil); err != nil && (!errors.As(err, &e) || e.Code == fault.CodeIO) {
					t.Error(err)
				}
			}
		})
		require.ErrorIs(t, s.Sync(), os.ErrClosed)
		require.Empty(t, s.open)
		for i := range s.parts {
			if l := s.parts[i].live; l != nil {
				require.True(t, l.file == nil && l.users == 0 && len(l.busy) == 0)
			}
		}
	}
}

func TestManySmallFilesFromManyGoroutines(t *testing.T) {
	d := newTestDisk(1, false)
	s, ids := createMany(t, d, 300, Options{})
	batches := slices.Collect(slices.Chunk(ids, 30))
	inParallel(len(batches)+1, func(lane int) {
		if lane == len(batches) {
			for range 20 {
				if err := s.Sync(); err != nil {
					t.Error(err)
				}
			}
			return
		}
		for _, id := range batches[lane] {
			if err := s.WriteFile(id, content(id, 20)); err != nil {
				t.Error(err)
			}
		}
		for _, f := range s.Publish(batches[lane]) {
			t.Error(f.Err)
		}
	})
	require.Zero(t, s.Dirty())
	require.NoError(t, s.Finish())
	require.Len(t, d.outside(), 300+3+1)
}
