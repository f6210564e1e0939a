//go:build unix

package staging

import (
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// Claim: transfer.CodeDenied, transfer.Error.Text, transfer.Error.Err
func TestErrorsOfTheDiskHaveTheirCodeAndSayWhatHelps(t *testing.T) {
	for code, cause := range map[fault.Code]error{
		fault.CodeDenied: fs.ErrPermission, fault.CodeNoSpace: syscall.ENOSPC, fault.CodeBusy: ErrBusy, fault.CodeExists: syscall.EEXIST, fault.CodeIO: errCut,
	} {
		err := wrap("write", "a", cause)
		var e *fault.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, code, e.Code)
		require.ErrorIs(t, e.Err, cause)
		if code != fault.CodeIO && code != fault.CodeBusy { // of which only who asks knows what to do
			require.NotEmpty(t, e.Text, code)
			require.ErrorContains(t, err, e.Text)
		}
	}
}

func TestADiskTellsWhatAFileIsAndWhoHasIt(t *testing.T) {
	disk, _ := realDisk(t)
	f, err := disk.OpenFile("f", os.O_RDWR|os.O_CREATE, 0o600)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("abc"), 0)
	require.NoError(t, err)
	at := time.Unix(1700000000, 5000)
	require.NoError(t, f.Chtimes(at))
	require.NoError(t, f.Chmod(0o640))
	open, err := f.Stat()
	require.NoError(t, err)
	named, err := disk.Lstat("f")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, disk.Mkdir("d", 0o700))
	dir, err := disk.Lstat("d")
	require.NoError(t, err)
	require.Equal(t, open, named)
	require.EqualValues(t, 3, named.Size)
	require.Equal(t, fs.FileMode(0o640), named.Mode)
	require.True(t, dir.Mode.IsDir())
	require.True(t, at.Equal(named.ModTime))
	require.NotEqual(t, dir.Inode, named.Inode)

	lock, err := disk.Lock("l")
	require.NoError(t, err)
	_, err = disk.Lock("l")
	require.ErrorIs(t, err, ErrBusy)
	require.NoError(t, lock.Close())
	lock, err = disk.Lock("l")
	require.NoError(t, err)
	require.NoError(t, lock.Close())
}

func TestNoMorePartsThanOpenPartsStayOpen(t *testing.T) {
	for set, want := range map[int]int{1: 1, 2: 2} {
		s := createMem(t, newTestDisk(1, false), Options{OpenParts: set})
		files := 0
		for _, e := range tree() {
			if e.Kind == manifest.KindFile && e.Size > 0 {
				files++
				require.NoError(t, s.WriteAt(e.ID, content(e.ID, e.Size), 0))
				require.NoError(t, s.Sync())
				require.LessOrEqual(t, len(s.open), want)
			}
		}
		require.Greater(t, files, want)
		require.NoError(t, s.Close())
	}
	_, err := Create(newTestDisk(1, false), testID, tree(), &Options{Rules: testRules, OpenParts: -1})
	require.Error(t, err)
}

func TestEntriesAreCheckedByTheRules(t *testing.T) {
	link := manifest.Entry{ID: 0, Kind: manifest.KindSymlink, Path: "l", Target: "a"}
	for _, rules := range []*manifest.Rules{nil, {Symlinks: true}} {
		s, err := Create(newTestDisk(1, false), testID, []manifest.Entry{link}, &Options{Rules: rules})
		if rules == nil {
			requireIs(t, fault.CodePathUnsafe, err)
			continue
		}
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
	s, err := Create(newTestDisk(1, false), testID, []manifest.Entry{file(0, "a", 10), file(1, "b", 10)}, &Options{Rules: &manifest.Rules{Bytes: 20}})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = Create(newTestDisk(1, false), testID, []manifest.Entry{file(0, "a", 10), file(1, "b", 10)}, &Options{Rules: &manifest.Rules{Bytes: 19}})
	requireIs(t, fault.CodeTooLarge, err)
}

func TestAStateSaysWhenItWasUsed(t *testing.T) {
	d := newTestDisk(1, false)
	s, err := Create(d, testID, tree(), &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	all, err := States(d)
	require.NoError(t, err)
	require.Len(t, all, 1)
	first := all[0].Used
	require.WithinDuration(t, time.Now(), first, time.Hour)
	for name, n := range d.names {
		if name != "." {
			n.mtime = n.mtime.Add(-24 * time.Hour)
		}
	}
	all, err = States(d)
	require.NoError(t, err)
	require.Equal(t, first.Add(-24*time.Hour), all[0].Used)
}

func TestTheDefaultsOfOptionsAreThoseThatTheyState(t *testing.T) {
	o, err := (*Options)(nil).withDefaults()
	require.NoError(t, err)
	require.Equal(t, 64, o.OpenParts)
	require.Equal(t, SyncBatch, o.Sync)
	require.Equal(t, manifest.LocalRules(), *o.Rules)
	require.False(t, o.Overwrite)
}
