package staging

import (
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

func TestAStateThatOthersMayChangeIsRefused(t *testing.T) {
	dir := ".xfer-" + testID
	d := halfDone(t)
	d.names[dir].shared = true
	for range 2 {
		_, err := Open(d, testID, &Options{Rules: testRules})
		requireIs(t, fault.CodePathUnsafe, err)
		require.ErrorContains(t, err, "another user's")
		require.ErrorContains(t, err, dir)
	}
	names, err := d.ReadDir(dir)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"lock", "meta", "journal", "2.part", "2.layer", "7.part"}, names, "nothing is left of the look")
	d.names[dir].shared = false
	s, err := Open(d, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NotEmpty(t, s.Have(2))
	require.NoError(t, s.Close())
}

func TestAFileSystemWithoutOwnersIsUsed(t *testing.T) {
	d := newTestDisk(1, false)
	d.shares = true
	s := createMem(t, d, Options{})
	require.NoError(t, s.WriteAt(2, content(2, 100)[:50], 0))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	s, err := Open(d, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NotEmpty(t, s.Have(2))
	require.NoError(t, s.Close())
}

func TestTheUmaskIsThatOfTheProcessThatPublishes(t *testing.T) {
	d := halfDone(t)
	d.umask = 0o077
	s, err := Open(d, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, s.WriteAt(2, content(2, 100)[50:], 50))
	require.NoError(t, s.WriteFile(7, content(7, 30)))
	require.Empty(t, s.Publish([]uint32{2, 7}))
	for _, id := range []uint32{2, 7} {
		p := s.find(id)
		require.Zero(t, d.names[p.entry.Path].mode&0o077, p.entry.Path)
		require.Equal(t, fs.FileMode(p.entry.Perm)&0o700, d.names[p.entry.Path].mode.Perm())
	}
	require.NoError(t, s.Close())

	d = halfDone(t)
	d.umask = 0o077
	ops := d.ops
	s, err = Open(d, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	for at := ops + 1; at <= d.ops; at++ {
		full := halfDone(t)
		full.fail[at] = syscall.ENOSPC
		s, err := Open(full, testID, &Options{Rules: testRules})
		if err == nil { // with the umask that was stored, or the one of now
			require.NoError(t, s.Close())
			continue
		}
		requireIs(t, fault.CodeNoSpace, err)
	}
}

// Another user of the machine, or a program of this one, puts a file of its own in the place of a part, after it was verified.
func TestThePartThatWasVerifiedIsPublished(t *testing.T) {
	for name, c := range map[string]struct {
		noSelf, noLinks, noNew, overwrite bool
	}{
		"by link of the open file": {}, "by link": {noSelf: true}, "by exclusive rename": {noSelf: true, noLinks: true},
		"by rename": {noSelf: true, noLinks: true, noNew: true}, "with Overwrite": {overwrite: true},
	} {
		d := newTestDisk(1, false)
		d.noSelf, d.noLinks, d.noNew = c.noSelf, c.noLinks, c.noNew
		s := createMem(t, d, Options{Overwrite: c.overwrite})
		require.NoError(t, s.WriteAt(2, content(2, 100), 0))
		require.NoError(t, s.WriteFile(7, content(7, 30)))
		require.NoError(t, s.Sync())
		for _, id := range []uint32{2, 7} {
			p := s.find(id)
			was := d.names[s.partName(p)]
			evil := &node{inode: d.next, mode: was.mode, data: make([]byte, len(was.data)), mtime: was.mtime, links: 1}
			d.next++
			d.names[s.partName(p)] = evil
			failed := s.Publish([]uint32{id})
			got := d.names[p.entry.Path]
			if id == 2 && name == "by link of the open file" {
				require.Empty(t, failed)
				require.Same(t, was, got)
				continue
			}
			require.Len(t, failed, 1, "%s, %d", name, id)
			require.ErrorContains(t, failed[0].Err, "another program")
			require.Nil(t, got, name)
			require.False(t, s.Published(id))
		}
		require.NoError(t, s.Close())
	}
}
