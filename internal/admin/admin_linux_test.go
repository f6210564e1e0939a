package admin

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A process whose queue of connections is full, as that of one that is stopped, has not ended.
func TestAProcessThatAcceptsNothingIsListed(t *testing.T) {
	dir := folder(t)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, "serve-1.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer func() { _ = syscall.Close(fd) }()
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}))
	require.NoError(t, syscall.Listen(fd, 0))
	for range 4 { // the queue has room for one or two
		if c, err := net.DialTimeout("unix", path, 100*time.Millisecond); err == nil {
			defer func() { _ = c.Close() }()
		}
	}
	past := time.Now().Add(-time.Minute)
	require.NoError(t, os.Chtimes(path, past, past))
	all, err := List(dir)
	require.NoError(t, err)
	require.Equal(t, []Process{{"serve", 1, path}}, all)
	require.FileExists(t, path)
}
