package transfer_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/staging"
)

const unfinishedID = "00112233445566778899aabbccddeeff"

// begun stores an unfinished transfer of a file d/f of 100 bytes in dir, with 40 of them.
func begun(t *testing.T, dir, id string) *staging.Staging {
	t.Helper()
	disk, err := staging.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, disk.Close()) })
	s, err := staging.Create(disk, id, []transfer.Entry{{Kind: transfer.KindFile, Perm: 0o644, Size: 100, Path: "d/f"}}, nil)
	require.NoError(t, err)
	require.NoError(t, s.WriteAt(0, make([]byte, 40), 0))
	require.NoError(t, s.Sync())
	return s
}

// Claim: transfer.Unfinished.ID, transfer.Unfinished.Name, transfer.Unfinished.Bytes, transfer.Unfinished.Used, transfer.StagingPrefix
func TestUnfinishedTransfersAreFound(t *testing.T) {
	dir := t.TempDir()
	all, err := transfer.FindUnfinished(dir)
	require.NoError(t, err)
	require.Empty(t, all)

	require.NoError(t, begun(t, dir, unfinishedID).Close())
	require.NoError(t, begun(t, dir, "0000").Close())
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"", "journal"} {
		require.NoError(t, os.Chtimes(filepath.Join(dir, transfer.StagingPrefix+"0000", name), old, old))
	}
	all, err = transfer.FindUnfinished(dir)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, unfinishedID, all[0].ID, "the last one used is first")
	require.Equal(t, "d", all[0].Name)
	require.Equal(t, int64(40), all[0].Bytes)
	require.WithinDuration(t, time.Now(), all[0].Used, time.Minute)
	require.WithinDuration(t, old, all[1].Used, time.Minute)

	_, err = transfer.FindUnfinished(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestUnfinishedTransfersAreDiscarded(t *testing.T) {
	dir := t.TempDir()
	s := begun(t, dir, unfinishedID)
	require.Equal(t, transfer.CodeBusy, transfer.CodeOf(transfer.Discard(dir, unfinishedID)), "a receiver has it")
	ids, err := transfer.DiscardUnused(dir, 0)
	require.NoError(t, err)
	require.Empty(t, ids, "a receiver has it")
	require.NoError(t, s.Close())

	require.Error(t, transfer.Discard(dir, "../x"))
	require.NoError(t, transfer.Discard(dir, "abcd"), "there is none")
	require.NoError(t, transfer.Discard(dir, unfinishedID))
	require.NoDirExists(t, filepath.Join(dir, transfer.StagingPrefix+unfinishedID))

	require.NoError(t, begun(t, dir, unfinishedID).Close())
	ids, err = transfer.DiscardUnused(dir, time.Hour)
	require.NoError(t, err)
	require.Empty(t, ids, "it was just written to")
	ids, err = transfer.DiscardUnused(dir, 0)
	require.NoError(t, err)
	require.Equal(t, []string{unfinishedID}, ids)
	require.NoDirExists(t, filepath.Join(dir, transfer.StagingPrefix+unfinishedID))
	require.Error(t, transfer.Discard(filepath.Join(dir, "none"), unfinishedID))
	_, err = transfer.DiscardUnused(filepath.Join(dir, "none"), 0)
	require.Error(t, err)
}

// What is damaged is still found, and can be discarded.
func TestADamagedStateIsFoundWithoutItsName(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, begun(t, dir, unfinishedID).Close())
	at := filepath.Join(dir, transfer.StagingPrefix+unfinishedID)
	require.NoError(t, os.WriteFile(filepath.Join(at, "meta"), []byte("damaged"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(at, "journal"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, transfer.StagingPrefix+"abcd"), []byte("a file"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, transfer.StagingPrefix+"mine"), 0o700))
	all, err := transfer.FindUnfinished(dir)
	require.NoError(t, err)
	require.Len(t, all, 1, "neither a file nor a folder of another name is one")
	require.Equal(t, unfinishedID, all[0].ID)
	require.Empty(t, all[0].Name)
	require.Zero(t, all[0].Bytes)
	require.NoError(t, transfer.Discard(dir, unfinishedID))
	require.NoDirExists(t, at)
}
