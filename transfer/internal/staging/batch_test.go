package staging

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// many returns n files of 20 bytes in three folders.
func many(n int) []manifest.Entry {
	var entries []manifest.Entry
	for i := range n {
		entries = append(entries, manifest.Entry{
			ID: uint32(i + 1), Kind: manifest.KindFile, Path: fmt.Sprintf("d%d/%03d", i*3/n, i), Perm: 0o644, Size: 20, ModTime: 1e18,
		})
	}
	return entries
}

func createMany(t testing.TB, d *memDisk, n int, o Options) (s *Staging, ids []uint32) {
	t.Helper()
	o.Rules = testRules
	s, err := Create(d, testID, many(n), &o)
	require.NoError(t, err)
	for _, e := range s.Entries() {
		ids = append(ids, e.ID)
	}
	return s, ids
}

func count(ops []string, prefix string) int {
	n := 0
	for _, op := range ops {
		if strings.HasPrefix(op, prefix) {
			n++
		}
	}
	return n
}

func TestABatchSyncsTheDiskEachFolderAndTheJournalOnce(t *testing.T) {
	d := newTestDisk(1, false)
	s, ids := createMany(t, d, 60, Options{})
	for _, id := range ids {
		require.NoError(t, s.WriteFile(id, content(id, 20)))
	}
	require.EqualValues(t, 60*20, s.Dirty())
	start := len(d.trace)
	require.Empty(t, s.Publish(ids))
	ops := d.trace[start:]
	require.Equal(t, 1, count(ops, "syncall"))
	require.Equal(t, 1, count(ops, "datasync"), "the journal")
	require.Equal(t, 4, count(ops, "syncdir"), "three folders, and the one that they are in")
	require.Equal(t, 1, count(ops, "write"), "the journal")
	require.Zero(t, s.Dirty())
	start = len(d.trace)
	require.Empty(t, s.Publish(ids), "what is published is no failure")
	require.NoError(t, s.Sync())
	require.Len(t, d.trace, start)
	require.NoError(t, s.Finish())
}

func TestAFewFilesAndThoseOfASystemWithoutOneCallAreSyncedEach(t *testing.T) {
	for _, n := range []int{fewFiles, 40} {
		d := newTestDisk(1, false)
		d.noSyncAll = true
		s, ids := createMany(t, d, n, Options{})
		for _, id := range ids {
			require.NoError(t, s.WriteFile(id, content(id, 20)))
		}
		require.Empty(t, s.Publish(ids))
		require.Equal(t, n, count(d.trace, "datasync .xfer-"+testID+"/")-count(d.trace, "datasync .xfer-"+testID+"/journal")-1, "and meta")
	}
}

// Claim: transfer.Error.Err
func TestWhatFailsOfABatchDoesNotHoldUpTheOthers(t *testing.T) {
	d := newTestDisk(1, false)
	s, ids := createMany(t, d, 30, Options{})
	for _, id := range ids[:29] {
		require.NoError(t, s.WriteFile(id, content(id, 20)))
	}
	require.NoError(t, d.Mkdir("d0", 0o755))
	require.NoError(t, d.Mkdir("d0/000", 0o755))
	require.NoError(t, d.Symlink("d0", "d1"))
	failed := s.Publish(append(ids, 99))
	codes := map[uint32]fault.Code{}
	for _, f := range failed {
		codes[f.ID] = codeOf(f.Err)
	}
	want := map[uint32]fault.Code{1: fault.CodeExists, 30: fault.CodeProtocol, 99: fault.CodeProtocol}
	for id := uint32(11); id <= 20; id++ {
		want[id] = fault.CodePathUnsafe
	}
	require.Equal(t, want, codes)
	for _, id := range ids {
		require.Equal(t, want[id] == "", s.Published(id), "%d", id)
	}
	require.NoError(t, d.Remove("d0/000"))
	require.NoError(t, d.Remove("d1"))
	require.NoError(t, s.WriteFile(30, content(30, 20)))
	require.Empty(t, s.Publish(ids), "the same call, when they are out of the way")
	require.NoError(t, s.Finish())
}

// A failed sync of all may have lost any file: none gets its name, and all are missing again.
func TestASyncOfAllThatFailsLosesAllThatWasDirty(t *testing.T) {
	d := newTestDisk(1, false)
	s, ids := createMany(t, d, 60, Options{})
	for _, id := range ids[1:] {
		require.NoError(t, s.WriteFile(id, content(id, 20)))
	}
	require.NoError(t, s.WriteAt(1, content(1, 20)[:10], 0))
	d.fail[d.ops+1] = syscall.EIO
	failed := s.Publish(ids[1:41])
	require.Len(t, failed, 40)
	for _, f := range failed {
		requireIs(t, fault.CodeIO, f.Err)
	}
	require.Zero(t, s.Dirty())
	for _, id := range ids {
		require.False(t, s.Published(id))
		require.Equal(t, []Range{{0, 20}}, s.Missing(id), "%d", id)
	}
	require.NoError(t, s.WriteAt(1, content(1, 20), 0))
	for _, id := range ids[1:] {
		require.NoError(t, s.WriteFile(id, content(id, 20)), "over the leftover")
	}
	require.Empty(t, s.Publish(ids))
	for _, e := range s.Entries() {
		require.Equal(t, content(e.ID, 20), d.names[e.Path].data)
	}
}

// The power is cut at each operation of a batch that is synced by one call: what has its name is whole, and is known to have it.
func TestAPowerCutInALargeBatch(t *testing.T) {
	for at := 1; ; at++ {
		d := newTestDisk(uint64(at), false)
		s, ids := createMany(t, d, 20, Options{})
		d.cutAt = d.ops + at
		var failed []Failure
		for _, id := range ids {
			_ = s.WriteFile(id, content(id, 20))
		}
		failed = s.Publish(ids)
		if d.ops < d.cutAt {
			require.Empty(t, failed)
			break
		}
		d = d.cut()
		s, err := Open(d, testID, &Options{Rules: testRules})
		require.NoError(t, err)
		for _, e := range s.Entries() {
			n := d.names[e.Path]
			require.Equal(t, n != nil, s.Published(e.ID), "%s, cut at %d", e.Path, at)
			if n != nil {
				require.Equal(t, content(e.ID, 20), n.data, "%s, cut at %d", e.Path, at)
			} else {
				require.NoError(t, s.WriteFile(e.ID, content(e.ID, 20)))
			}
		}
		require.Empty(t, s.Publish(ids))
		require.NoError(t, s.Finish())
	}
}

func TestASmallFileIsRefusedWhereItDoesNotBelong(t *testing.T) {
	d := newTestDisk(1, false)
	s, _ := createMany(t, d, 3, Options{})
	requireIs(t, fault.CodeProtocol, s.WriteFile(99, nil))
	requireIs(t, fault.CodeProtocol, s.WriteFile(1, make([]byte, 19)))
	require.NoError(t, s.WriteFile(1, content(1, 20)))
	require.Empty(t, s.Missing(1))
	require.Empty(t, s.Have(1))
	requireIs(t, fault.CodeProtocol, s.WriteFile(1, content(1, 20)))
	requireIs(t, fault.CodeProtocol, s.WriteAt(1, []byte("x"), 0))
	_, err := s.ReadAt(1, make([]byte, 1), 0)
	requireIs(t, fault.CodeProtocol, err)
	require.NoError(t, s.Reset(1))
	require.Zero(t, s.Dirty())
	require.NoError(t, s.WriteAt(1, []byte("x"), 0))
	requireIs(t, fault.CodeProtocol, s.WriteFile(1, content(1, 20)))
	require.NoError(t, s.Sync())
	require.Equal(t, []Range{{0, 1}}, s.Have(1))
}

func TestNeedsIsWhatIsStillToBeAllocated(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{})
	bytes, inodes := s.Needs()
	require.EqualValues(t, []int64{194, 7}, []int64{bytes, inodes})
	require.NoError(t, s.WriteAt(2, content(2, 50), 0))
	require.NoError(t, s.WriteFile(7, content(7, 30)))
	bytes, inodes = s.Needs()
	require.EqualValues(t, []int64{114, 5}, []int64{bytes, inodes})
	require.NoError(t, publish(s, 7, 4))
	bytes, inodes = s.Needs()
	require.EqualValues(t, []int64{114, 4}, []int64{bytes, inodes})
}

// Claim: transfer.CodeBusy
func TestALockedTransferIsBusy(t *testing.T) {
	d := newTestDisk(1, false)
	requireBusy(t, d, createMem(t, d, Options{}))
}

// requireBusy sees that nobody else gets what s has, and that all do when it is closed.
func requireBusy(t *testing.T, d FS, s *Staging) {
	t.Helper()
	_, err := Open(d, testID, &Options{Rules: testRules})
	requireIs(t, fault.CodeBusy, err)
	require.ErrorContains(t, err, "another process is receiving the same")
	_, err = Create(d, testID, tree(), &Options{Rules: testRules})
	requireIs(t, fault.CodeBusy, err)
	requireIs(t, fault.CodeBusy, Discard(d, testID))
	gone, err := Cleanup(d, -time.Hour)
	require.NoError(t, err)
	require.Empty(t, gone)
	require.NoError(t, s.Close())
	_, err = Create(d, testID, tree(), &Options{Rules: testRules})
	requireIs(t, fault.CodeExists, err)
	s, err = Open(d, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, s.Abort())
	require.NoError(t, Discard(d, testID))
}
