//go:build unix

package staging

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestLanesOnTheRealDisk(t *testing.T) {
	for _, open := range []int{1, 0} {
		disk, dest := realDisk(t)
		s := create(t, disk, &Options{Rules: testRules, OpenParts: open}, swarmEntries()...)
		w := &swarm{s: s, heard: said{}}
		require.NoError(t, w.run(1))
		require.NoError(t, s.Sync())
		requireHeard(t, s, w.heard)
		finishInParallel(t, s)
		for _, e := range swarmEntries() {
			b, err := os.ReadFile(filepath.Join(dest, e.Path))
			require.NoError(t, err)
			require.Equal(t, content(e.ID, e.Size), b)
		}
	}
}

func TestALargeBatchOnTheRealDisk(t *testing.T) {
	disk, dest := realDisk(t)
	var entries []manifest.Entry
	for i := range 300 { // in more folders than are kept open
		e := file(uint32(i+1), fmt.Sprintf("%03d/s/f", i/2), 20)
		if i%2 == 1 {
			e.Path += "2"
		}
		e.Perm = []uint16{0o444, 0o644, 0, 0o200}[i%4]
		entries = append(entries, e)
	}
	s := create(t, disk, nil, entries...)
	var ids []uint32
	for _, e := range entries {
		require.NoError(t, s.WriteFile(e.ID, content(e.ID, e.Size)))
		ids = append(ids, e.ID)
	}
	require.Empty(t, s.Publish(ids[:3]), "each synced by itself, whatever its mode")
	require.Empty(t, s.Publish(ids))
	require.NoError(t, s.Finish())
	for _, e := range entries {
		info, err := os.Lstat(filepath.Join(dest, e.Path))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(e.Perm)&^s.umask, info.Mode().Perm(), e.Path)
		require.Equal(t, e.ModTime, info.ModTime().UnixNano(), e.Path)
		require.EqualValues(t, e.Size, info.Size())
	}
	names, err := os.ReadDir(dest)
	require.NoError(t, err)
	require.Len(t, names, 150)
}

// A folder that was moved away, between two batches, is made anew, though it was open.
func TestAFolderThatWasMovedIsNotWrittenTo(t *testing.T) {
	disk, dest := realDisk(t)
	s := create(t, disk, nil, file(1, "a/b/c", 2), file(2, "a/b/d", 2), file(3, "a/b/e", 2))
	for id := uint32(1); id <= 3; id++ {
		require.NoError(t, s.WriteFile(id, []byte("hi")))
	}
	require.NoError(t, publish(s, 1))
	require.NoError(t, os.Rename(filepath.Join(dest, "a"), filepath.Join(dest, "..", "moved")))
	require.NoError(t, publish(s, 2))
	require.FileExists(t, filepath.Join(dest, "a", "b", "d"))
	require.NoError(t, os.Rename(filepath.Join(dest, "a", "b"), filepath.Join(dest, "..", "moved2")))
	require.NoError(t, os.Symlink("../../moved2", filepath.Join(dest, "a", "b")))
	requireIs(t, fault.CodePathUnsafe, publish(s, 3))
	for dir, want := range map[string]int{"moved/b": 1, "moved2": 1} {
		names, err := os.ReadDir(filepath.Join(dest, "..", dir))
		require.NoError(t, err)
		require.Len(t, names, want, dir)
	}
}

// A leftover that has its name already is never emptied.
func TestALeftoverIsReplacedAndNotWrittenThrough(t *testing.T) {
	disk, dest := realDisk(t)
	s := create(t, disk, nil, file(1, "a", 4), file(2, "b", 4))
	require.NoError(t, os.WriteFile(filepath.Join(dest, "mine"), []byte("mine"), 0o600))
	require.NoError(t, os.Link(filepath.Join(dest, "mine"), filepath.Join(dest, ".xfer-"+testID, "1.part")))
	require.NoError(t, os.Symlink("../mine", filepath.Join(dest, ".xfer-"+testID, "2.part")))
	require.NoError(t, s.WriteFile(1, []byte("abcd")))
	require.NoError(t, s.WriteFile(2, []byte("abcd")))
	require.NoError(t, publish(s, 1, 2))
	b, err := os.ReadFile(filepath.Join(dest, "mine"))
	require.NoError(t, err)
	require.Equal(t, "mine", string(b))
	require.NoError(t, s.Finish())
}

func TestFreeAsksTheDisk(t *testing.T) {
	disk, _ := realDisk(t)
	bytes, inodes, err := Free(disk)
	require.NoError(t, err)
	require.Positive(t, bytes)
	require.NotZero(t, inodes)
}

func TestALockedTransferIsBusyOnTheRealDisk(t *testing.T) {
	disk, _ := realDisk(t)
	requireBusy(t, disk, create(t, disk, nil, tree()...))
}

// The system lets go what a process had that was killed.
func TestAKilledProcessHasNothing(t *testing.T) {
	const variable = "STAGING_TEST_HOLDS"
	if dest := os.Getenv(variable); dest != "" {
		disk, err := OpenRoot(dest)
		require.NoError(t, err)
		_, err = Create(disk, testID, tree(), &Options{Rules: testRules})
		fmt.Println("has it:", err)
		time.Sleep(time.Minute) // and is killed
		return
	}
	disk, dest := realDisk(t)
	child := exec.Command(os.Args[0], "-test.run=^TestAKilledProcessHasNothing$")
	child.Env = append(os.Environ(), variable+"="+dest)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "has it: <nil>\n", line)
	_, err = Open(disk, testID, &Options{Rules: testRules})
	requireIs(t, fault.CodeBusy, err)
	require.NoError(t, child.Process.Kill())
	require.ErrorAs(t, child.Wait(), new(*exec.ExitError))
	s, err := Open(disk, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, s.Abort())
}
