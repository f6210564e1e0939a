package staging

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// What an earlier process wrote and never synced may be anything: zeros are made of it, and no room is taken for them.
func TestZerosLeaveHolesAfterOpen(t *testing.T) {
	disk, dest := realDisk(t)
	const size = 64 << 20
	s := create(t, disk, nil, file(1, "sparse", size))
	require.NoError(t, s.WriteAt(1, []byte("begin"), 0))
	require.NoError(t, s.Sync())
	require.NoError(t, s.WriteAt(1, []byte("lost"), 100)) // is in the part, and the journal does not know
	require.NoError(t, s.Close())
	s, err := Open(disk, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	require.NoError(t, s.WriteZeros(1, 5, size-8))
	require.NoError(t, s.WriteAt(1, []byte("end"), size-3))
	require.NoError(t, publish(s, 1))
	require.NoError(t, s.Finish())
	b, err := os.ReadFile(filepath.Join(dest, "sparse"))
	require.NoError(t, err)
	want := make([]byte, size)
	copy(want, "begin")
	copy(want[size-3:], "end")
	require.True(t, string(want) == string(b))
	info, err := os.Stat(filepath.Join(dest, "sparse"))
	require.NoError(t, err)
	require.Less(t, info.Sys().(*syscall.Stat_t).Blocks*512, int64(1<<20))
}
