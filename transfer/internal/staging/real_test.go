//go:build unix

package staging

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// realDisk returns a destination on the real disk, beside which is a victim.
func realDisk(t testing.TB) (FS, string) {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "dest")
	require.NoError(t, os.Mkdir(dest, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dest, "..", "victim"), []byte("untouched"), 0o600))
	disk, err := OpenRoot(dest)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = disk.Close()
		_ = filepath.WalkDir(dest, func(path string, d fs.DirEntry, _ error) error { // what may not be written could not be removed
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o755)
			}
			return nil
		})
		b, err := os.ReadFile(filepath.Join(dest, "..", "victim"))
		require.NoError(t, err)
		require.Equal(t, "untouched", string(b))
	})
	return disk, dest
}

func create(t testing.TB, disk FS, o *Options, entries ...manifest.Entry) *Staging {
	t.Helper()
	if o == nil {
		o = &Options{Rules: testRules}
	}
	s, err := Create(disk, testID, entries, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func file(id uint32, path string, size int64) manifest.Entry {
	return manifest.Entry{ID: id, Kind: manifest.KindFile, Path: path, Perm: 0o644, Size: size, ModTime: 1e18}
}

func TestATransferOnTheRealDisk(t *testing.T) {
	disk, dest := realDisk(t)
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)
	s := create(t, disk, nil, tree()...)
	for _, e := range tree() {
		if e.Kind == manifest.KindFile {
			require.NoError(t, s.WriteAt(e.ID, content(e.ID, e.Size/2), 0))
		}
	}
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	s, err := Open(disk, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.Equal(t, []Range{{0, 50}}, s.Have(2))
	require.Equal(t, []Range{{50, 100}}, s.Missing(2))
	for _, e := range tree() {
		if e.Kind == manifest.KindFile {
			require.NoError(t, receive(s, &way{}, e, said{}))
			require.NoError(t, publish(s, e.ID))
		}
	}
	require.NoError(t, s.Finish())
	for _, e := range tree() {
		info, err := os.Lstat(filepath.Join(dest, e.Path))
		require.NoError(t, err)
		switch e.Kind {
		case manifest.KindSymlink:
			target, err := os.Readlink(filepath.Join(dest, e.Path))
			require.NoError(t, err)
			require.Equal(t, e.Target, target)
			continue
		case manifest.KindFile:
			b, err := os.ReadFile(filepath.Join(dest, e.Path))
			require.NoError(t, err)
			require.Equal(t, string(content(e.ID, e.Size)), string(b))
			require.EqualValues(t, 1, info.Sys().(*syscall.Stat_t).Nlink)
		}
		require.Equal(t, fs.FileMode(e.Perm)&^0o027, info.Mode().Perm(), e.Path)
		require.Equal(t, e.ModTime, info.ModTime().UnixNano(), e.Path)
	}
	info, err := os.Stat(filepath.Join(dest, "e"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o750), info.Mode().Perm(), "of a folder that no entry names")
	_, err = os.Lstat(filepath.Join(dest, ".xfer-"+testID))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestZerosLeaveHoles(t *testing.T) {
	disk, dest := realDisk(t)
	const size = 64 << 20
	s := create(t, disk, nil, file(1, "sparse", size))
	require.NoError(t, s.WriteAt(1, []byte("begin"), 0))
	require.NoError(t, s.WriteZeros(1, 5, size-8))
	require.NoError(t, s.WriteAt(1, []byte("end"), size-3))
	require.NoError(t, publish(s, 1))
	require.NoError(t, s.Finish())
	info, err := os.Stat(filepath.Join(dest, "sparse"))
	require.NoError(t, err)
	require.EqualValues(t, size, info.Size())
	require.Less(t, info.Sys().(*syscall.Stat_t).Blocks*512, int64(1<<20))
}

func TestASymlinkInTheWayIsNeverWrittenThrough(t *testing.T) {
	for _, target := range []string{"..", "/", "inner", "."} {
		disk, dest := realDisk(t)
		require.NoError(t, os.Mkdir(filepath.Join(dest, "inner"), 0o755))
		s := create(t, disk, nil, file(1, "a/b", 2), file(2, "a/victim", 2))
		require.NoError(t, s.WriteAt(1, []byte("hi"), 0))
		require.NoError(t, s.WriteAt(2, []byte("hi"), 0))
		require.NoError(t, publish(s, 1))
		require.NoError(t, os.RemoveAll(filepath.Join(dest, "a"))) // and swapped in, during the transfer
		require.NoError(t, os.Symlink(target, filepath.Join(dest, "a")))
		requireIs(t, fault.CodePathUnsafe, publish(s, 2))
		names, err := os.ReadDir(filepath.Join(dest, "inner"))
		require.NoError(t, err)
		require.Empty(t, names)
		require.NoError(t, s.Abort())
	}
}

func TestASymlinkAtTheEndIsReplacedOrRefusedAndNotFollowed(t *testing.T) {
	for _, overwrite := range []bool{false, true} {
		disk, dest := realDisk(t)
		require.NoError(t, os.WriteFile(filepath.Join(dest, "mine"), []byte("mine"), 0o600))
		require.NoError(t, os.Symlink("mine", filepath.Join(dest, "a")))
		require.NoError(t, os.Symlink("../victim", filepath.Join(dest, "b")))
		s := create(t, disk, &Options{Rules: testRules, Overwrite: overwrite}, file(1, "a", 2), file(2, "b", 2))
		for id := uint32(1); id <= 2; id++ {
			require.NoError(t, s.WriteAt(id, []byte("hi"), 0))
			err := publish(s, id)
			if overwrite {
				require.NoError(t, err)
				continue
			}
			requireIs(t, fault.CodeExists, err)
		}
		b, err := os.ReadFile(filepath.Join(dest, "mine"))
		require.NoError(t, err)
		require.Equal(t, "mine", string(b))
	}
}

func TestAPartThatAnotherHasSwappedIsNotTrusted(t *testing.T) {
	for name, swap := range map[string]func(dest, part string) error{
		"a link inside":  func(_, part string) error { return os.Symlink("../mine", part) },
		"a link outside": func(_, part string) error { return os.Symlink("../../victim", part) },
		"another file":   func(_, part string) error { return os.WriteFile(part, []byte("0123456789"), 0o600) },
		"another size":   func(_, part string) error { return os.WriteFile(part, []byte("0123"), 0o600) },
		"a FIFO":         func(_, part string) error { return syscall.Mkfifo(part, 0o600) },
		"nothing":        func(string, string) error { return nil },
	} {
		disk, dest := realDisk(t)
		require.NoError(t, os.WriteFile(filepath.Join(dest, "mine"), []byte("mine56789."), 0o600))
		s := create(t, disk, nil, file(1, "a", 10))
		require.NoError(t, s.WriteAt(1, []byte("abcde"), 0))
		require.NoError(t, s.Sync())
		require.NoError(t, s.Close())
		part := filepath.Join(dest, ".xfer-"+testID, "1.part")
		require.NoError(t, os.Rename(part, filepath.Join(dest, "kept"))) // so that its inode is not used again
		require.NoError(t, swap(dest, part))
		s, err := Open(disk, testID, &Options{Rules: testRules})
		require.NoError(t, err, name)
		require.Empty(t, s.Have(1), name)
		require.NoError(t, s.WriteAt(1, []byte("abcdefghij"), 0), name)
		require.NoError(t, publish(s, 1), name)
		require.NoError(t, s.Finish(), name)
		b, err := os.ReadFile(filepath.Join(dest, "mine"))
		require.NoError(t, err)
		require.Equal(t, "mine56789.", string(b), name)
	}
}

func TestAStagingDirectoryThatIsALinkIsRefused(t *testing.T) {
	disk, dest := realDisk(t)
	require.NoError(t, os.Mkdir(filepath.Join(dest, "mine"), 0o755))
	require.NoError(t, os.Symlink("mine", filepath.Join(dest, ".xfer-"+testID)))
	_, err := Create(disk, testID, tree(), &Options{Rules: testRules})
	requireIs(t, fault.CodeExists, err)
	_, err = Open(disk, testID, nil)
	requireIs(t, fault.CodePathUnsafe, err)
	requireIs(t, fault.CodePathUnsafe, Discard(disk, testID))
	gone, err := Cleanup(disk, -time.Hour)
	require.NoError(t, err)
	require.Empty(t, gone)
}

func TestCleanupTakesWhatIsOldAndNothingElse(t *testing.T) {
	disk, dest := realDisk(t)
	s := create(t, disk, nil, file(1, "a", 10))
	require.NoError(t, s.Close())
	require.NoError(t, os.Mkdir(filepath.Join(dest, ".xfer-notes"), 0o755))
	gone, err := Cleanup(disk, time.Hour)
	require.NoError(t, err)
	require.Empty(t, gone)
	gone, err = Cleanup(disk, -time.Hour)
	require.NoError(t, err)
	require.Equal(t, []string{testID}, gone)
	names, err := os.ReadDir(dest)
	require.NoError(t, err)
	require.Len(t, names, 1)
	_, err = Open(disk, testID, nil)
	requireIs(t, fault.CodeNoState, err)
}
