//go:build unix

package staging

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// onEachDisk runs f on a real disk and on the one in memory, on which the tests cut the power: what holds on one holds on the other.
func onEachDisk(t *testing.T, f func(t *testing.T, d FS)) {
	t.Run("real", func(t *testing.T) {
		d, _ := realDisk(t)
		f(t, d)
	})
	t.Run("in memory", func(t *testing.T) { f(t, newTestDisk(1, false)) })
}

// putOn makes a file with a content.
func putOn(t *testing.T, d FS, name, data string) {
	t.Helper()
	f, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(data), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// readFrom returns the content of a file.
func readFrom(t *testing.T, d FS, name string) string {
	t.Helper()
	f, err := d.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	info, err := f.Stat()
	require.NoError(t, err)
	b := make([]byte, info.Size)
	n, err := f.ReadAt(b, 0)
	if n < len(b) {
		require.NoError(t, err)
	}
	return string(b)
}

func TestADiskMakesAFileOnce(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		_, err := d.OpenFile("a", os.O_RDWR, 0)
		require.ErrorIs(t, err, fs.ErrNotExist)
		putOn(t, d, "a", "data")
		_, err = d.OpenFile("a", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		require.ErrorIs(t, err, fs.ErrExist)
		_, err = d.OpenFile("none/a", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Equal(t, "data", readFrom(t, d, "a"))
		info, err := d.Lstat("a")
		require.NoError(t, err)
		require.True(t, info.Mode.IsRegular())
		require.EqualValues(t, 4, info.Size)
		require.NotZero(t, info.Inode)
	})
}

func TestADiskReadsToTheEnd(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		putOn(t, d, "a", "0123456789")
		f, err := d.OpenFile("a", os.O_RDWR, 0)
		require.NoError(t, err)
		defer func() { require.NoError(t, f.Close()) }()
		b := make([]byte, 4)
		n, err := f.ReadAt(b, 8)
		require.Equal(t, 2, n)
		require.Equal(t, io.EOF, err)
		_, err = f.ReadAt(b, 100)
		require.Equal(t, io.EOF, err)
		n, err = f.ReadAt(b, 3)
		require.NoError(t, err)
		require.Equal(t, "3456", string(b[:n]))
		require.NoError(t, f.Truncate(20))
		_, err = f.ReadAt(b, 16)
		require.NoError(t, err)
		require.Equal(t, make([]byte, 4), b, "what was never written is zero")
		_, err = f.WriteAt([]byte("end"), 25)
		require.NoError(t, err)
		info, err := f.Stat()
		require.NoError(t, err)
		require.EqualValues(t, 28, info.Size)
		require.NoError(t, f.Truncate(5))
		require.NoError(t, f.Datasync())
		require.Equal(t, "01234", readFrom(t, d, "a"))
	})
}

func TestADiskGivesAFileItsModeAndTime(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		at := time.Unix(1_700_000_000, 123456789)
		putOn(t, d, "a", "x")
		f, err := d.OpenFile("a", os.O_RDWR, 0)
		require.NoError(t, err)
		require.NoError(t, f.Chmod(0o640))
		require.NoError(t, f.Chtimes(at))
		require.NoError(t, f.Close())
		info, err := d.Lstat("a")
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o640), info.Mode)
		require.True(t, isSameTime(info.ModTime, at))

		require.NoError(t, d.Chmod("a", 0o600))
		require.NoError(t, d.Chtimes("a", at.Add(time.Hour)))
		info, err = d.Lstat("a")
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode)
		require.True(t, isSameTime(info.ModTime, at.Add(time.Hour)))
		require.Error(t, d.ChmodDir("a", 0o700), "which is no folder")
		require.Error(t, d.Chmod("none", 0o700))
		require.Error(t, d.ChmodDir("none", 0o700))
	})
}

func TestADiskMakesFoldersAndRemovesEmptyOnes(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		require.NoError(t, d.Mkdir("f", 0o700))
		require.ErrorIs(t, d.Mkdir("f", 0o700), fs.ErrExist)
		require.ErrorIs(t, d.Mkdir("none/f", 0o700), fs.ErrNotExist)
		require.NoError(t, d.Mkdir("f/g", 0o700))
		putOn(t, d, "f/a", "x")
		names, err := d.ReadDir("f")
		require.NoError(t, err)
		slices.Sort(names)
		require.Equal(t, []string{"a", "g"}, names)
		require.Error(t, d.Remove("f"), "it is not empty")
		require.NoError(t, d.ChmodDir("f/g", 0o500))
		info, err := d.Lstat("f/g")
		require.NoError(t, err)
		require.Equal(t, fs.ModeDir|0o500, info.Mode)
		require.NoError(t, d.SyncDir("f"))
		require.NoError(t, d.Remove("f/a"))
		require.NoError(t, d.Remove("f/g"))
		require.NoError(t, d.Remove("f"))
		require.ErrorIs(t, d.Remove("f"), fs.ErrNotExist)
		_, err = d.Lstat("f/a")
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func TestADiskLinksAndRenames(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		require.NoError(t, d.Mkdir("f", 0o700))
		putOn(t, d, "a", "first")
		putOn(t, d, "f/b", "second")
		require.ErrorIs(t, d.Link("a", "f/b"), fs.ErrExist)
		require.NoError(t, d.Link("a", "f/a"))
		one, err := d.Lstat("a")
		require.NoError(t, err)
		other, err := d.Lstat("f/a")
		require.NoError(t, err)
		require.Equal(t, one.Inode, other.Inode, "they are one file")
		require.NoError(t, d.Remove("a"))
		require.Equal(t, "first", readFrom(t, d, "f/a"), "which stays while it has a name")

		require.ErrorIs(t, d.RenameNew("f/a", "f/b"), fs.ErrExist)
		require.NoError(t, d.RenameNew("f/a", "c"))
		require.Equal(t, "first", readFrom(t, d, "c"))
		require.NoError(t, d.Rename("c", "f/b"))
		require.Equal(t, "first", readFrom(t, d, "f/b"), "in place of the other")
		require.ErrorIs(t, d.Rename("c", "x"), fs.ErrNotExist)
		require.ErrorIs(t, d.Link("c", "x"), fs.ErrNotExist)
	})
}

func TestADiskFollowsNoSymlink(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		putOn(t, d, "a", "data")
		require.NoError(t, d.Symlink("a", "l"))
		require.ErrorIs(t, d.Symlink("b", "l"), fs.ErrExist)
		target, err := d.Readlink("l")
		require.NoError(t, err)
		require.Equal(t, "a", target)
		_, err = d.Readlink("a")
		require.Error(t, err, "which is none")
		info, err := d.Lstat("l")
		require.NoError(t, err)
		require.NotZero(t, info.Mode&fs.ModeSymlink)
		require.NoError(t, d.Rename("l", "m"))
		require.NoError(t, d.Remove("m"))
		require.Equal(t, "data", readFrom(t, d, "a"))
	})
}

func TestADiskLocksForOne(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		lock, err := d.Lock("l")
		require.NoError(t, err)
		_, err = d.Lock("l")
		require.ErrorIs(t, err, ErrBusy)
		require.NoError(t, lock.Close())
		lock, err = d.Lock("l")
		require.NoError(t, err, "it is free again")
		require.NoError(t, lock.Close())
	})
}

func TestADiskPunchesHoles(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		putOn(t, d, "a", "0123456789")
		f, err := d.OpenFile("a", os.O_RDWR, 0)
		require.NoError(t, err)
		err = f.Punch(2, 5)
		if !errors.Is(err, errors.ErrUnsupported) { // then zeros are written
			require.NoError(t, err)
		}
		require.NoError(t, writeTo(f, Range{2, 7}, nil))
		err = f.SyncAll()
		if !errors.Is(err, errors.ErrUnsupported) {
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
		require.Equal(t, "01\x00\x00\x00\x00\x00789", readFrom(t, d, "a"))
	})
}

func TestADiskSaysHowMuchRoomThereIs(t *testing.T) {
	onEachDisk(t, func(t *testing.T, d FS) {
		bytes, inodes, err := Free(d)
		require.NoError(t, err)
		require.NotZero(t, bytes)
		require.NotZero(t, inodes)
	})
	_, _, err := Free(nil)
	require.Error(t, err)
}

// A whole transfer is the same on both.
func TestATransferLeavesTheSameOnEachDisk(t *testing.T) {
	var all [2][]string
	i := 0
	onEachDisk(t, func(t *testing.T, d FS) {
		s, err := Create(d, testID, tree(), &Options{Rules: testRules})
		require.NoError(t, err)
		for _, e := range tree() {
			switch {
			case e.ID == 7:
				require.NoError(t, s.WriteFile(e.ID, content(e.ID, e.Size)))
			case e.Size > 0:
				require.NoError(t, s.WriteAt(e.ID, content(e.ID, e.Size)[10:], 10))
				require.NoError(t, s.WriteZeros(e.ID, 0, 10))
			}
		}
		require.Empty(t, s.Publish([]uint32{2, 4, 5, 7}))
		require.NoError(t, s.Finish())
		for _, e := range tree() {
			info, err := d.Lstat(e.Path)
			require.NoError(t, err, e.Path)
			line := e.Path + " " + info.Mode.String()
			if info.Mode.IsRegular() && info.Mode.Perm()&0o600 == 0o600 {
				line += " " + readFrom(t, d, e.Path)
			}
			if info.Mode&fs.ModeSymlink == 0 {
				require.True(t, isSameTime(info.ModTime, time.Unix(0, e.ModTime)), e.Path)
			}
			all[i] = append(all[i], line)
		}
		names, err := d.ReadDir(".")
		require.NoError(t, err)
		require.NotContains(t, names, ".xfer-"+testID)
		i++
	})
	require.Equal(t, all[0], all[1])
}
