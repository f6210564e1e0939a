package source

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

func TestLeftOutReadsWell(t *testing.T) {
	require.Empty(t, LeftOut{}.String())
	l := LeftOut{Symlinks: 2, Special: 1, Denied: 3, Names: 1}
	require.Equal(t, "2 symlinks, 1 special file, 3 unreadable, 1 name that cannot be sent", l.String())
	require.Equal(t, 7, l.Count())
}

// What Walk is given by name is left out as what it finds. If nothing remains, Walk fails.
// Claim: source.LeftOut.Names, source.LeftOut.Special, source.ErrAllLeftOut
func TestWhatIsAskedForByNameIsLeftOutToo(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no such name here")
	}
	root := write(t, map[string]string{"d/a": "1"})
	bad := filepath.Join(root, "caf\xe9.txt")
	require.NoError(t, os.WriteFile(bad, nil, 0o600))
	var told []string
	skip := &Options{OnLeftOut: func(path string, _ error) { told = append(told, path) }}
	tree := walk(t, skip, os.DevNull, filepath.Join(root, "d"), bad)
	require.Equal(t, []string{"d/", "d/a"}, pathsOf(tree))
	require.ElementsMatch(t, []string{os.DevNull, bad}, told)
	require.Equal(t, LeftOut{Special: 1, Names: 1}, tree.LeftOut())
	require.Equal(t, "d", tree.Name())
	data, err := tree.readEntry("read", 1, nil)
	require.NoError(t, err)
	require.Equal(t, "1", string(data))

	told = nil
	_, err = Walk(t.Context(), []string{os.DevNull, bad}, skip)
	requireCode(t, fault.CodePathUnsafe, "", err)
	require.ErrorIs(t, err, ErrAllLeftOut)
	require.EqualError(t, err, "walk: left out 1 special file, 1 name that cannot be sent: nothing is left to send")
	require.ElementsMatch(t, []string{os.DevNull, bad}, told)
	_, err = Walk(t.Context(), []string{filepath.Join(root, "d"), filepath.Join(root, "none")}, skip)
	requireCode(t, fault.CodeIO, filepath.Join(root, "none"), err) // as of who has mistyped it
}

// A symlink that is asked for is followed. One that leads to nothing is left out, as in a folder; a path that does not exist is an error.
func TestASymlinkThatLeadsToNothingIsLeftOut(t *testing.T) {
	root := write(t, map[string]string{"a": "1"})
	at := func(name string) string { return filepath.Join(root, name) }
	require.NoError(t, os.Symlink("none", at("dangling")))
	require.NoError(t, os.Symlink("loop", at("loop")))
	require.NoError(t, os.Symlink("a/x", at("through")))
	var told []string
	skip := &Options{OnLeftOut: func(path string, err error) { told = append(told, path) }}
	tree := walk(t, skip, at("dangling"), at("a"), at("loop"), at("through"))
	require.Equal(t, []string{"a"}, pathsOf(tree))
	require.Equal(t, LeftOut{Symlinks: 3}, tree.LeftOut())
	require.Equal(t, []string{at("dangling"), at("loop"), at("through")}, told)
	_, err := Walk(t.Context(), []string{at("dangling")}, nil)
	requireCode(t, fault.CodePathUnsafe, at("dangling"), err)
	for _, name := range []string{"none", "dangling/x", "a/x"} {
		_, err = Walk(t.Context(), []string{at(name), at("a")}, skip)
		requireCode(t, fault.CodeIO, at(name), err)
	}
}

func TestAFileThatIsNotEmptyAsItSaysIsLeftOut(t *testing.T) {
	const name = "/proc/cpuinfo"
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc here")
	}
	_, err := Walk(t.Context(), []string{name}, nil)
	requireCode(t, fault.CodePathUnsafe, name, err)
	root := write(t, map[string]string{"a": ""})
	tree := walk(t, &Options{OnLeftOut: func(string, error) {}}, name, filepath.Join(root, "a"))
	require.Equal(t, []string{"a"}, pathsOf(tree))
	require.Equal(t, 1, tree.LeftOut().Special)
	require.Equal(t, 1, tree.Files())
}

// An entry has times from 1677 to 2262: others become the first or last one, and OnClamped is called.
// Claim: source.Options.OnClamped
func TestTimesThatAnEntryCannotHaveAreSaid(t *testing.T) {
	root := write(t, map[string]string{"d/a": "1"})
	at := time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, os.Chtimes(filepath.Join(root, "d/a"), time.Time{}, at))
	fi, err := os.Stat(filepath.Join(root, "d/a"))
	require.NoError(t, err)
	told := map[string]time.Time{}
	tree := walk(t, &Options{OnClamped: func(path string, at time.Time) { told[path] = at }}, filepath.Join(root, "d"))
	if fi.ModTime().Equal(at) { // ext4 ends at 2446, others before
		require.True(t, told["d/a"].Equal(at))
		require.Equal(t, lastTime.UnixNano(), tree.Entries()[1].ModTime)
	}
	_, err = tree.readEntry("read", 1, nil)
	require.NoError(t, err, "it has not changed")
	for _, test := range []struct {
		at   time.Time
		want int64
	}{
		{at, lastTime.UnixNano()}, {time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC), firstTime.UnixNano()}, {time.Time{}, firstTime.UnixNano()},
		{lastTime, lastTime.UnixNano()}, {firstTime, firstTime.UnixNano()}, {time.Unix(-1, 0), -1e9},
	} {
		require.Equal(t, test.want, nanos(test.at), "%v", test.at)
	}
	w := walker{opts: Options{OnClamped: func(path string, at time.Time) { told[path] = at }}}
	require.Equal(t, lastTime.UnixNano(), w.timeOf(timed{at: at}, "x"))
	require.Contains(t, told, "x")
}

// timed is a file with a time.
type timed struct {
	fs.FileInfo
	at time.Time
}

func (i timed) ModTime() time.Time { return i.at }
