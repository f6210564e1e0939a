package transfer_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// halves has a file of two pieces that is there after half a second at a MiB a second, and one that takes longer.
var halves = content{"a/first": 512 << 10, "b/second": 4 << 20}

// half moves a tree for so long, at a MiB a second.
func half(t *testing.T, way string, tree *source.Tree, to string, d time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		p := newPair(t)
		_, err := moved(ctx, t, way, p, tree, to, transfer.ReceiveOptions{Options: transfer.Options{Rate: 1 << 20}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// whole moves what is left of it, and returns the receiver's end.
func whole(t *testing.T, way string, tree *source.Tree, to string, o transfer.ReceiveOptions) (result transfer.Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), hour)
		defer cancel()
		p := newPair(t)
		var err error
		result, err = moved(ctx, t, way, p, tree, to, o)
		require.NoError(t, err)
	})
	return result
}

func TestAFetchOfWhatIsHereButHasNoNameYetGivesItOne(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := write(t, halves), t.TempDir()
			tree := walk(t, from)
			half(t, way, tree, to, 1500*time.Millisecond)
			require.NoDirExists(t, filepath.Join(to, "tree"))
			result := whole(t, way, tree, to, transfer.ReceiveOptions{})
			same(t, from, filepath.Join(to, "tree"))
			require.GreaterOrEqual(t, result.Progress.Resumed, int64(1<<20))
		})
	}
}

// Claim: transfer.Progress.Resumed
func TestAFetchThatGoesOnFetchesNoMoreThanIsMissing(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := write(t, content{"large": 16 << 20}), t.TempDir()
			tree := walk(t, from)
			for n := range 4 {
				half(t, way, tree, to, 3*time.Second)
				_ = n
			}
			result := whole(t, way, tree, to, transfer.ReceiveOptions{})
			same(t, from, filepath.Join(to, "tree"))
			require.GreaterOrEqual(t, result.Progress.Resumed, int64(10<<20)) // of 12, of which the last piece each time is lost
			require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
		})
	}
}

// flip changes a byte in the middle of a file.
func flip(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NotEmpty(t, b, name)
	b[len(b)/2] ^= 1
	require.NoError(t, os.WriteFile(name, b, 0o600))
}

// Claim: transfer.ReceiveOptions.Verify
func TestWhatWasTamperedWithIsFetchedAgain(t *testing.T) {
	for way := range ways {
		for _, what := range []string{"part", "layer", "journal", "meta"} {
			t.Run(way+", "+what, func(t *testing.T) {
				from, to := write(t, content{"large": 4 << 20}), t.TempDir()
				tree := walk(t, from)
				half(t, way, tree, to, 3*time.Second)
				state, err := filepath.Glob(filepath.Join(to, ".xfer-*", "*"))
				require.NoError(t, err)
				flipped := 0
				for _, name := range state {
					if strings.Contains(filepath.Base(name), what) {
						flip(t, name)
						flipped++
					}
				}
				require.Equal(t, 1, flipped, "%q", state)
				whole(t, way, tree, to, transfer.ReceiveOptions{Verify: transfer.VerifyAll})
				same(t, from, filepath.Join(to, "tree"))
				left, err := os.ReadDir(to)
				require.NoError(t, err)
				require.Len(t, left, 1)
			})
		}
	}
}

func TestAPushOfAFileThatChangedAndKeptItsTimeBeginsItAgain(t *testing.T) {
	for _, way := range []string{"push", "fetch"} {
		t.Run(way, func(t *testing.T) {
			from, to := write(t, content{"large": 4 << 20}), t.TempDir()
			half(t, way, walk(t, from), to, 3*time.Second)
			name := filepath.Join(from, "large")
			info, err := os.Stat(name)
			require.NoError(t, err)
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			fill(b, 9)
			require.NoError(t, os.WriteFile(name, b, 0o640))
			require.NoError(t, os.Chtimes(name, time.Time{}, info.ModTime()))
			var events []transfer.Event
			o := transfer.ReceiveOptions{Options: transfer.Options{OnEvent: func(e transfer.Event) { events = append(events, e) }}}
			result := whole(t, way, walk(t, from), to, o)
			same(t, from, filepath.Join(to, "tree"))
			require.Len(t, events, 1)
			require.Equal(t, transfer.EventFetchedAgain, events[0].Kind)
			require.Equal(t, "tree/large", events[0].Path)
			require.Equal(t, result.Progress.Bytes, result.Progress.Verified)
			require.Zero(t, result.Progress.Resumed, "nothing of it was of use")
		})
	}
}

func TestAPushOfAFileThatChangedIsAnotherTransfer(t *testing.T) {
	from, to := write(t, content{"large": 4 << 20, "same": 100000}), t.TempDir()
	half(t, "push", walk(t, from), to, 3*time.Second)
	require.NoError(t, os.WriteFile(filepath.Join(from, "large"), []byte("short"), 0o640))
	result := whole(t, "push", walk(t, from), to, transfer.ReceiveOptions{})
	require.FileExists(t, filepath.Join(to, "tree/large"))
	require.Equal(t, int64(100005), result.Progress.Durable)
	left, err := filepath.Glob(filepath.Join(to, ".xfer-*"))
	require.NoError(t, err)
	require.Len(t, left, 1, "what the first one has left is nobody's")
}
