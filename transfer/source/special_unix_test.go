//go:build unix

package source

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// Claim: source.Options.OnLeftOut
func TestWhatIsNoFileIsLeftOutAndTold(t *testing.T) {
	root := write(t, map[string]string{"d/a": "1", "d/z": "2"})
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "d/fifo"), 0o644))
	t.Chdir(filepath.Join(root, "d")) // a socket's path is short
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer syscall.Close(socket)
	require.NoError(t, syscall.Bind(socket, &syscall.SockaddrUnix{Name: "socket"}))
	require.NoError(t, os.Symlink("a", "link"))

	left := make(map[string]string)
	tree := walk(t, &Options{OnLeftOut: func(path string, err error) {
		var e *fault.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, fault.CodePathUnsafe, e.Code)
		left[path] = e.Text
	}}, filepath.Join(root, "d"))
	require.Equal(t, []string{"d/", "d/a", "d/z"}, pathsOf(tree))
	require.Equal(t, map[string]string{
		"d/fifo":   "it is a FIFO: only files, folders and symlinks are sent",
		"d/socket": "it is a socket: only files, folders and symlinks are sent",
		"d/link":   "it is a symlink: allow them, or send what it leads to",
	}, left)

	_, err = Walk(t.Context(), []string{filepath.Join(root, "d")}, nil)
	requireCode(t, fault.CodePathUnsafe, "d/fifo", err)
	for _, name := range []string{"fifo", "socket", os.DevNull} {
		requireNothingLeft(t, fault.CodePathUnsafe, name)
	}
}

// requireNothingLeft requires that a path given to Walk by itself is left out and told, and that Walk then fails.
func requireNothingLeft(t *testing.T, code fault.Code, path string) {
	t.Helper()
	var told []string
	_, err := Walk(t.Context(), []string{path}, &Options{OnLeftOut: func(path string, err error) {
		requireCode(t, code, path, err)
		told = append(told, path)
	}})
	requireCode(t, code, path, err)
	require.ErrorIs(t, err, ErrAllLeftOut)
	require.Equal(t, []string{path}, told)
	_, err = Walk(t.Context(), []string{path}, nil)
	requireCode(t, code, path, err)
	require.NotErrorIs(t, err, ErrAllLeftOut)
}

// An open for reading waits for somebody who writes to a FIFO, unless it says that it does not.
func TestAFileThatIsAFIFONowHoldsNobodyUp(t *testing.T) {
	root := write(t, map[string]string{"d/a": "1"})
	tree := walk(t, nil, filepath.Join(root, "d"))
	require.NoError(t, os.Remove(filepath.Join(root, "d/a")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "d/a"), 0o644))
	_, err := tree.openEntry(1)
	requireCode(t, fault.CodeSourceChanged, "d/a", err)
	_, err = tree.readEntry("read", 1, nil)
	requireCode(t, fault.CodeSourceChanged, "d/a", err)
}

func TestAFolderThatIsAFIFONowHoldsNobodyUp(t *testing.T) {
	dir := write(t, map[string]string{"a/": ""})
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	fi, err := root.Lstat("a")
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "a")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "a"), 0o644))
	_, err = openFolder("walk", root, "a", "d/a", fi)
	requireCode(t, fault.CodeSourceChanged, "d/a", err)
}

// Claim: transfer.CodeDenied
func TestWhatMayNotBeReadIsLeftOutAndTold(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything: run this as somebody else")
	}
	root := write(t, map[string]string{"d/a": "1", "d/no": "2", "d/closed/x": "3", "d/listed/x": "4", "d/z": "5"})
	require.NoError(t, os.Chmod(filepath.Join(root, "d/no"), 0))
	require.NoError(t, os.Chmod(filepath.Join(root, "d/closed"), 0))
	require.NoError(t, os.Chmod(filepath.Join(root, "d/listed"), 0o444))
	t.Cleanup(func() {
		_ = os.Chmod(filepath.Join(root, "d/closed"), 0o755)
		_ = os.Chmod(filepath.Join(root, "d/listed"), 0o755)
	})
	var left []string
	tree := walk(t, &Options{OnLeftOut: func(path string, err error) {
		requireCode(t, fault.CodeDenied, path, err)
		left = append(left, path)
	}}, filepath.Join(root, "d"))
	require.Equal(t, []string{"d/closed", "d/listed", "d/no"}, left)
	require.Equal(t, []string{"d/", "d/a", "d/z"}, pathsOf(tree))
	_, err := Walk(t.Context(), []string{filepath.Join(root, "d")}, nil)
	requireCode(t, fault.CodeDenied, "d/closed", err)
	for _, path := range []string{"d/no", "d/closed", "d/listed"} {
		requireNothingLeft(t, fault.CodeDenied, filepath.Join(root, path))
	}
	require.NoError(t, os.Chmod(filepath.Join(root, "d/a"), 0))
	_, err = tree.openEntry(1)
	requireCode(t, fault.CodeDenied, "d/a", err)
}
