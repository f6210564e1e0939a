package staging

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// A part that was deleted gives its inode to the next one: what the journal says of the first is not believed of the second.
func TestAPartThatGetsTheInodeOfAnotherIsNotTakenForIt(t *testing.T) {
	for seed := range uint64(20) {
		d := newTestDisk(seed, false)
		w := &way{Options: Options{Rules: testRules}}
		o := &w.Options
		s, err := Create(d, testID, tree(), o)
		require.NoError(t, err)
		require.NoError(t, s.WriteAt(2, content(2, 100), 0))
		require.NoError(t, s.Sync())
		require.NoError(t, s.Close())
		name := ".xfer-" + testID + "/2.part"
		inode := d.names[name].inode
		require.NoError(t, d.Remove(name)) // by a person, or a program that cleans up

		s, err = Open(d, testID, o)
		require.NoError(t, err)
		require.Empty(t, s.Have(2))
		require.NoError(t, s.WriteAt(2, content(2, 16), 0))
		require.NoError(t, s.Close())
		require.Equal(t, inode, d.names[name].inode)
		require.NoError(t, d.SyncDir(".xfer-"+testID))
		part := d.names[name]
		part.synced, part.late = make([]byte, 100), nil // the size is on the disk, and nothing of what was written
		d = d.cut()
		requireTrue(t, d, w, said{}, "after a cut")
		requireEnds(t, d, w, said{}, "after a cut")
	}
}

// An error of the file system has its code, and all that is said of it.
// Claim: transfer.Error.Op, transfer.Error.Path
func TestErrorsNameWhatTheyAreAbout(t *testing.T) {
	err := wrap("publish", "a/b", errCut)
	require.EqualError(t, err, `publish "a/b": the power is cut`)
	require.ErrorIs(t, err, errCut)
	require.NoError(t, wrap("publish", "a/b", nil))
	require.Same(t, err, wrap("finish", "", err))
}

func TestAFolderIsNeverReplacedByAFile(t *testing.T) {
	for _, overwrite := range []bool{false, true} {
		d := newTestDisk(1, false)
		s := createMem(t, d, Options{Overwrite: overwrite})
		require.NoError(t, d.Mkdir("x", 0o755))
		require.NoError(t, s.WriteAt(7, content(7, 30), 0))
		requireIs(t, fault.CodeExists, publish(s, 7))
		require.NoError(t, d.Remove("x"))
		require.NoError(t, publish(s, 7), "the same call, when it is out of the way")
	}
}

func TestALinkThatIsThereAlreadyIsTheFiles(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{})
	require.NoError(t, s.WriteFile(7, content(7, 30)))
	require.NoError(t, d.Link(".xfer-"+testID+"/7.part", "x"))
	require.NoError(t, publish(s, 7))
	require.True(t, s.Published(7))
}
