package transfer_test

import (
	"context"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

func TestMain(m *testing.M) {
	procs.One()
	if bench := flag.Lookup("test.bench"); bench.Value.String() == "" {
		transfer.SkipSyncs()
	}
	goleak.VerifyTestMain(m)
}

// newPair opens a session in memory.
func newPair(t testing.TB) *peerlanetest.Sessions {
	t.Helper()
	return peerlanetest.NewSessions(t, nil)
}

// always is the Dialer of a session that is there.
func always(s *session.Session) transfer.Dialer {
	return func(context.Context) (*session.Session, error) { return s, nil }
}

// service answers transfers that alice begins.
func service(t testing.TB, p *peerlanetest.Sessions, cfg *transfer.ServiceConfig) *transfer.Service {
	t.Helper()
	v, err := transfer.NewService(cfg)
	require.NoError(t, err)
	v.Handle(p.ToBob)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

// into receives all that is pushed in a directory.
func into(dir string, o transfer.ReceiveOptions) *transfer.ServiceConfig {
	return &transfer.ServiceConfig{Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
		return &transfer.Destination{Dir: dir, ReceiveOptions: o}, nil
	}}
}

// walk returns the tree of a folder, which is closed when the test ends.
func walk(t testing.TB, paths ...string) *source.Tree {
	t.Helper()
	tree, err := source.Walk(t.Context(), paths, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tree.Close()) })
	return tree
}

// content is a file's name, and how many bytes it has.
type content map[string]int

// write makes files below a new folder named tree, and returns that.
func write(t testing.TB, files content) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(root, 0o755))
	for name, size := range files {
		path := filepath.Join(root, name)
		if size < 0 {
			require.NoError(t, os.MkdirAll(path, 0o750))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, bytesOf(name, size), 0o640))
		require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1700000000+int64(size), 12345)))
	}
	return root
}

// rising are bytes each of which is 7 more than the one before it.
var rising = func() (b [512]byte) {
	for i := range b {
		b[i] = byte(7 * i)
	}
	return b
}()

// bytesOf returns the content of a file: byte i is 7i + 3(i>>8) + 5(i>>16) + len(name).
func bytesOf(name string, size int) []byte {
	data := make([]byte, size)
	for i := 0; i < size; i += 256 {
		first := i>>8*3 + i>>16*5 + len(name)
		at := byte(first * 183) // where rising is byte(first), because 7*183 is 1 more than a multiple of 256
		copy(data[i:], rising[at:][:256])
	}
	return data
}

// tester is a testing.TB, or a rapid.T.
type tester interface {
	require.TestingT
	Helper()
}

// node is what is compared of a file or folder.
type node struct {
	Mode fs.FileMode
	Time time.Time
	Data string
}

// read returns all that is below a folder.
func read(t tester, root string) map[string]node {
	t.Helper()
	all := make(map[string]node)
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n := node{Mode: info.Mode(), Time: info.ModTime()}
		if info.Mode()&fs.ModeSymlink != 0 { // its time is that of its making
			n.Time = time.Time{}
			if n.Data, err = os.Readlink(path); err != nil {
				return err
			}
		}
		if info.Mode().IsRegular() {
			if n.Data, err = text(path, info.Size()); err != nil {
				return err
			}
		}
		name, err := filepath.Rel(root, path)
		all[name] = n
		return err
	}))
	return all
}

// text is os.ReadFile for a file of about this size.
func text(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b strings.Builder
	b.Grow(int(size))
	_, err = io.Copy(&b, f)
	return b.String(), err
}

// same requires that two folders have the same in them, and says where not.
func same(t tester, want, got string) {
	t.Helper()
	w, g := read(t, want), read(t, got)
	for name, n := range w {
		is, ok := g[name]
		require.True(t, ok, "%q is missing", name)
		require.Equal(t, n.Mode, is.Mode, name)
		require.True(t, n.Time.Equal(is.Time), "%q has time %v, not %v", name, is.Time, n.Time)
		require.True(t, n.Data == is.Data, "%q has other bytes: %d, not %d", name, len(is.Data), len(n.Data))
		delete(g, name)
	}
	require.Empty(t, g)
}
