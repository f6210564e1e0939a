package transfer_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// road is a session of two libp2p hosts on loopback.
type road struct {
	server  *peerlane.Server
	session *session.Session
}

func newRoad(t testing.TB, tr testnet.Transport) *road {
	t.Helper()
	x, y := testnet.Pair(t, tr)
	server, err := peerlane.NewServer(y, &peerlane.ServerConfig{AdmitAll: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	client, err := peerlane.NewClient(x, &peerlane.ClientConfig{AdmitAll: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	require.NoError(t, server.Start("/transfer/1.0.0", func(request []byte) ([]byte, error) { return request, nil }))
	s, err := client.Connect(t.Context(), y.ID(), "/transfer/1.0.0")
	require.NoError(t, err)
	return &road{server, s}
}

// fast returns a directory in memory, where there is one, so that what is measured is not a disk.
func fast(t testing.TB) string {
	t.Helper()
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "peerlane-bench")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// manyFiles makes n files of size random bytes each, 100 in a folder, below a folder named tree.
func manyFiles(t testing.TB, n, size int) string {
	t.Helper()
	root := filepath.Join(fast(t), "tree")
	src := rand.NewChaCha8([32]byte{1})
	data := make([]byte, size)
	for i := range n {
		dir := filepath.Join(root, fmt.Sprint(i/100))
		require.NoError(t, os.MkdirAll(dir, 0o755))
		_, _ = src.Read(data) // never fails
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), data, 0o644))
	}
	return root
}

const big = 256 << 20

// BenchmarkLarge sends one file of 256 MiB from memory to memory, over TCP with TLS.
func BenchmarkLarge(b *testing.B) {
	b.Run("unverified copy on a lane", func(b *testing.B) { benchmarkCopy(b, manyFiles(b, 1, big)) })
	b.Run("push", func(b *testing.B) { benchmarkPush(b, manyFiles(b, 1, big), nil) })
	b.Run("fetch by root", func(b *testing.B) { benchmarkFetch(b, manyFiles(b, 1, big)) })
}

// BenchmarkSmall sends 10,000 files of 4 KiB from memory to memory, over TCP with TLS.
func BenchmarkSmall(b *testing.B) {
	b.Run("push", func(b *testing.B) { benchmarkPush(b, manyFiles(b, 10000, 4096), nil) })
	b.Run("fetch by root", func(b *testing.B) { benchmarkFetch(b, manyFiles(b, 10000, 4096)) })
}

// benchmarkCopy copies the only file of a tree over a bulk lane, with nothing between.
func benchmarkCopy(b *testing.B, root string) {
	r := newRoad(b, testnet.TCPTLS)
	to := fast(b)
	done := make(chan error, 1)
	bulk.Handle(r.server, "copy", nil, func(l *bulk.Lane) {
		done <- func() error {
			f, err := os.Create(filepath.Join(to, "copy"))
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{l}, make([]byte, 256<<10))
			return err
		}()
	})
	b.SetBytes(big)
	for b.Loop() {
		f, err := os.Open(filepath.Join(root, "0", "0"))
		require.NoError(b, err)
		l, err := bulk.Open(b.Context(), r.session, "copy", &bulk.Options{Mode: bulk.Dedicated})
		require.NoError(b, err)
		_, err = io.CopyBuffer(struct{ io.Writer }{l}, struct{ io.Reader }{f}, make([]byte, 256<<10))
		require.NoError(b, err)
		require.NoError(b, l.CloseWrite())
		require.NoError(b, <-done)
		require.NoError(b, l.Close())
		require.NoError(b, f.Close())
	}
}

// perFile reports files per second.
func perFile(b *testing.B, tree *source.Tree) {
	b.SetBytes(tree.Bytes())
	files := tree.Files()
	b.Cleanup(func() { b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds(), "files/s") })
}

func benchmarkPush(b *testing.B, root string, o *transfer.Options) {
	r := newRoad(b, testnet.TCPTLS)
	to := fast(b)
	v, err := transfer.NewService(into(to, transfer.ReceiveOptions{}))
	require.NoError(b, err)
	v.Handle(r.server)
	tree := walk(b, root)
	perFile(b, tree)
	for b.Loop() {
		_, err := transfer.Push(b.Context(), always(r.session), tree, o).Wait()
		require.NoError(b, err)
		b.StopTimer()
		require.NoError(b, os.RemoveAll(filepath.Join(to, "tree")))
		b.StartTimer()
	}
	require.NoError(b, v.Close())
}

func benchmarkFetch(b *testing.B, root string) {
	r := newRoad(b, testnet.TCPTLS)
	to := fast(b)
	v, err := transfer.NewService(nil)
	require.NoError(b, err)
	v.Handle(r.server)
	tree := walk(b, root)
	require.NoError(b, tree.Hash(b.Context(), nil))
	share, err := v.Share(tree, nil)
	require.NoError(b, err)
	perFile(b, tree)
	for b.Loop() {
		_, err := transfer.Fetch(b.Context(), []transfer.Dialer{always(r.session)}, share.Ref(), to, nil).Wait()
		require.NoError(b, err)
		b.StopTimer()
		require.NoError(b, os.RemoveAll(filepath.Join(to, "tree")))
		b.StartTimer()
	}
	require.NoError(b, v.Close())
}

var manifestEntries = flag.Int("manifest.entries", 20000, "files of BenchmarkManifest")

// BenchmarkManifest measures the time from Push until the other side has the list of all files, checked, and asks whether it is to be
// taken. Walking is measured apart.
func BenchmarkManifest(b *testing.B) {
	root := filepath.Join(fast(b), "tree")
	for i := range *manifestEntries {
		dir := filepath.Join(root, fmt.Sprintf("a folder with a name/%d", i/1000))
		if i%1000 == 0 {
			require.NoError(b, os.MkdirAll(dir, 0o755))
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("the name of a file %d.txt", i)))
		require.NoError(b, err)
		require.NoError(b, f.Close())
	}
	perEntry := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(*manifestEntries), "ns/entry")
	}
	b.Run("walk", func(b *testing.B) {
		for b.Loop() {
			tree, err := source.Walk(b.Context(), []string{root}, nil)
			require.NoError(b, err)
			require.NoError(b, tree.Close())
		}
		perEntry(b)
	})
	b.Run("list", func(b *testing.B) {
		r := newRoad(b, testnet.TCPTLS)
		v, err := transfer.NewService(&transfer.ServiceConfig{Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
			return nil, errors.New("the benchmark ends here")
		}})
		require.NoError(b, err)
		v.Handle(r.server)
		tree := walk(b, root)
		for b.Loop() {
			_, err := transfer.Push(b.Context(), always(r.session), tree, nil).Wait()
			require.Equal(b, transfer.CodeDenied, transfer.CodeOf(err), "%v", err)
		}
		perEntry(b)
		require.NoError(b, v.Close())
	})
}
