//go:build unix

package staging

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

func TestAFolderOfAnotherUserIsRefused(t *testing.T) {
	disk, dest := realDisk(t)
	state := filepath.Join(dest, ".xfer-"+testID)
	s := create(t, disk, nil, file(1, "a", 10))
	require.NoError(t, s.WriteAt(1, []byte("abcde"), 0))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	open := func() error {
		s, err := Open(disk, testID, &Options{Rules: testRules})
		if err == nil {
			require.Equal(t, []Range{{0, 5}}, s.Have(1))
			require.NoError(t, s.Close())
		}
		return err
	}
	require.NoError(t, open())
	for mode, ok := range map[os.FileMode]bool{0o777: false, 0o720: false, 0o702: false, 0o755: true, 0o700: true} {
		require.NoError(t, os.Chmod(state, mode))
		if err := open(); ok {
			require.NoError(t, err, mode)
		} else {
			requireIs(t, fault.CodePathUnsafe, err)
			require.ErrorContains(t, err, "mode")
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	require.NoError(t, os.Chown(state, 1, -1))
	requireIs(t, fault.CodePathUnsafe, open())
}

// The name of a part leads to a file of another user, whatever is in it by then.
func TestAnOpenPartIsPublishedUnderWhateverName(t *testing.T) {
	disk, dest := realDisk(t)
	s := create(t, disk, nil, file(1, "a", 10))
	require.NoError(t, s.WriteAt(1, []byte("0123456789"), 0))
	part, evil := filepath.Join(dest, ".xfer-"+testID, "1.part"), filepath.Join(dest, "evil")
	require.NoError(t, os.WriteFile(evil, []byte("EVILEVIL!!"), 0o666))
	require.NoError(t, os.Rename(part, filepath.Join(dest, "kept")))
	require.NoError(t, os.Link(evil, part))
	err := publish(s, 1)
	got, readErr := os.ReadFile(filepath.Join(dest, "a"))
	if err == nil { // the system can link an open file
		require.NoError(t, readErr)
		require.Equal(t, "0123456789", string(got))
	} else {
		require.ErrorContains(t, err, "another program")
		require.ErrorIs(t, readErr, os.ErrNotExist)
	}
	require.NoError(t, s.Close())
}
