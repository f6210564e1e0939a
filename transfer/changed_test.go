package transfer_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// changes are what happens to a file that is being sent.
var changes = map[string]func(t testing.TB, name string){
	"appended to": func(t testing.TB, name string) {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteString("more")
		require.NoError(t, err)
		require.NoError(t, f.Close())
	},
	"truncated": func(t testing.TB, name string) { require.NoError(t, os.Truncate(name, 10)) },
	"emptied":   func(t testing.TB, name string) { require.NoError(t, os.Truncate(name, 0)) },
	"replaced": func(t testing.TB, name string) {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(name+"2", b, 0o640))
		require.NoError(t, os.Rename(name+"2", name))
	},
	"deleted": func(t testing.TB, name string) { require.NoError(t, os.Remove(name)) },
	"made a folder": func(t testing.TB, name string) {
		require.NoError(t, os.Remove(name))
		require.NoError(t, os.Mkdir(name, 0o755))
	},
	"made a symlink": func(t testing.TB, name string) {
		require.NoError(t, os.Rename(name, name+"2"))
		require.NoError(t, os.Symlink(name+"2", name))
	},
}

// both moves a tree, and returns the outcome at either side.
func both(ctx context.Context, t *testing.T, way string, tree *source.Tree, to string, rate int) (sent, got transfer.Result, sentErr, gotErr error) {
	t.Helper()
	p := newPair(t)
	limit := transfer.Options{Rate: rate}
	begun := make(chan *transfer.Transfer, 10)
	note := func(t *transfer.Transfer) { begun <- t }
	if way == "push" {
		cfg := into(to, transfer.ReceiveOptions{})
		cfg.OnBegun = note
		service(t, p, cfg)
		sent, sentErr = transfer.Push(ctx, always(p.Alice), tree, &limit).Wait()
		got, gotErr = (<-begun).Wait()
		return sent, got, sentErr, gotErr
	}
	share, err := service(t, p, &transfer.ServiceConfig{Options: limit, OnBegun: note}).Share(tree, nil)
	require.NoError(t, err)
	defer share.Close()
	got, gotErr = transfer.Fetch(ctx, []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil).Wait()
	sent, sentErr = (<-begun).Wait()
	return sent, got, sentErr, gotErr
}

// Claim: transfer.CodeSourceChanged, transfer.Error.Path, transfer.Event.Path, transfer.Result.Failed
// Claim: transfer.Progress.FilesBad
func TestAFileThatChangesFailsAlone(t *testing.T) {
	for way := range ways {
		for what, change := range changes {
			for when, after := range map[string]time.Duration{"before": 0, "in the middle": 1500 * time.Millisecond} {
				t.Run(way+", "+what+" "+when, func(t *testing.T) {
					from, to := write(t, content{"a": 100, "b": 3 << 20, "c": 70000, "d": 300000}), t.TempDir()
					synctest.Test(t, func(t *testing.T) {
						tree := walk(t, from)
						if way == "fetch hashed" {
							require.NoError(t, tree.Hash(t.Context(), nil))
						}
						name, rate := filepath.Join(from, "b"), 0
						if after == 0 {
							change(t, name)
						} else {
							rate = 1 << 20
							time.AfterFunc(after, func() { change(t, name) })
						}
						ctx, cancel := context.WithTimeout(t.Context(), hour)
						defer cancel()
						sent, got, sentErr, gotErr := both(ctx, t, way, tree, to, rate)
						for _, side := range []struct {
							result transfer.Result
							err    error
						}{{sent, sentErr}, {got, gotErr}} {
							require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(side.err), "%v", side.err)
							require.Len(t, side.result.Failed, 1)
							require.Equal(t, "tree/b", side.result.Failed[0].Path)
							require.Equal(t, 1, side.result.Progress.FilesBad)
							require.Equal(t, 3, side.result.Progress.FilesDone)
							require.Equal(t, transfer.PhaseDone, side.result.Progress.Phase)
						}
					})
					require.NoFileExists(t, filepath.Join(to, "tree/b"))
					for name, size := range map[string]int64{"a": 100, "c": 70000, "d": 300000} {
						info, err := os.Stat(filepath.Join(to, "tree", name))
						require.NoError(t, err)
						require.Equal(t, size, info.Size())
					}
					left, err := os.ReadDir(to)
					require.NoError(t, err)
					require.Len(t, left, 1)
				})
			}
		}
	}
}

func TestAFailureIsToldOnceHoweverOftenItIsFound(t *testing.T) {
	from, to := write(t, content{"a": 100, "b": 100, "c": 8 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p, tree := newPair(t), walk(t, from)
		require.NoError(t, os.Remove(filepath.Join(from, "a")))
		service(t, p, into(to, transfer.ReceiveOptions{}))
		for n := range 3 {
			time.AfterFunc(time.Duration(n+1)*2*time.Second, func() { _ = p.Alice.Close() })
		}
		var k told
		sent := transfer.Push(t.Context(), again(t, p), tree, &transfer.Options{Rate: 1 << 20, OnEvent: k.event})
		result, err := sent.Wait()
		require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(err), "%v", err)
		require.Len(t, result.Failed, 1)
		require.Equal(t, 1, result.Progress.FilesBad)
		require.Positive(t, result.Progress.Losses)
	})
	require.FileExists(t, filepath.Join(to, "tree/c"))
}
