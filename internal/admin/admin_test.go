package admin

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder returns a folder whose path is short enough for sockets.
func folder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "adm")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "peerlane")
}

func TestAProcessIsListedWhileItListens(t *testing.T) {
	dir := folder(t)
	all, err := List(dir)
	require.NoError(t, err, "without a folder")
	require.Empty(t, all)
	l, err := Listen(dir, "serve")
	require.NoError(t, err)
	served := make(chan struct{})
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "you asked "+r.Host) })}
	go func() {
		defer close(served)
		_ = s.Serve(l) // http.ErrServerClosed
	}()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "serve-x.sock"), nil, 0o600))
	all, err = List(dir)
	require.NoError(t, err)
	require.Equal(t, []Process{{"serve", os.Getpid(), l.Addr().String()}}, all)
	require.Regexp(t, `^serve \d+$`, all[0].String())
	answer, err := all[0].Client().Get("http://peerlane/snapshot.json")
	require.NoError(t, err)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, "you asked peerlane", string(text))
	require.NoError(t, s.Close())
	<-served
	all, err = List(dir)
	require.NoError(t, err)
	require.Empty(t, all)
	require.NoFileExists(t, l.Addr().String())
}

func TestTheSocketOfADeadProcessIsRemoved(t *testing.T) {
	dir := folder(t)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	for _, name := range []string{"serve-1.sock", "relay-2.sock"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, name)})
		require.NoError(t, err)
		l.SetUnlinkOnClose(false)
		require.NoError(t, l.Close())
	}
	past := time.Now().Add(-time.Minute)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "serve-1.sock"), past, past))
	all, err := List(dir)
	require.NoError(t, err)
	require.Empty(t, all)
	require.NoFileExists(t, filepath.Join(dir, "serve-1.sock"))
	require.FileExists(t, filepath.Join(dir, "relay-2.sock"), "it is new, and may be about to listen")
}

// Two containers may share the folder, and number their processes alike.
func TestTheSocketOfARunningProcessIsNotTaken(t *testing.T) {
	dir := folder(t)
	l, err := Listen(dir, "serve")
	require.NoError(t, err)
	_, err = Listen(dir, "serve")
	require.ErrorContains(t, err, "is in use")
	c, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err, "it still answers")
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())
}

func TestNamesOfSocketsAreThoseOfCommands(t *testing.T) {
	for _, name := range []string{"\x1b[2J-1.sock", "-1.sock", "serve-0.sock", "serve--1.sock", "a b-1.sock", "serve-1", "serve.sock"} {
		_, ok := parse("/x", name)
		require.False(t, ok, "%q", name)
	}
	_, ok := parse("/x", "serve-1.sock")
	require.True(t, ok)
}

func TestASocketOfAnEarlierProcessIsReplaced(t *testing.T) {
	dir := folder(t)
	l, err := Listen(dir, "serve")
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	l, err = Listen(dir, "serve")
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestAFolderThatOthersCanEnterIsRefused(t *testing.T) {
	dir := folder(t)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.Chmod(dir, 0o755))
	for range 2 {
		_, err := Listen(dir, "serve")
		require.ErrorIs(t, err, errForeign)
		_, err = List(dir)
		require.ErrorIs(t, err, errForeign)
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Symlink(t.TempDir(), dir)) // another user's, say
	}
	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.WriteFile(dir, nil, 0o600))
	_, err := Listen(dir, "serve")
	require.Error(t, err)
}

func TestTheFolderIsTheUsers(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	require.Equal(t, filepath.FromSlash("/run/user/7/peerlane"), Folder())
	for _, dir := range []string{"", "relative"} {
		t.Setenv("XDG_RUNTIME_DIR", dir)
		require.Contains(t, Folder(), "peerlane-")
	}
	_, err := Listen(filepath.Join(t.TempDir(), strings.Repeat("x", 100)), "serve")
	require.ErrorContains(t, err, "XDG_RUNTIME_DIR")
}
