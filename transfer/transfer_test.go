package transfer_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
)

// every has a file of each size that is treated in a way of its own.
var every = content{
	"empty": 0, "one byte": 1, "small/ä.txt": 4096, "small/b": 65536, "alone": 65537, "piece": 262144, "two": 262145, "many/pieces": 5<<20 + 17,
	"nothing in it": -1, "deep/er/and/er": 12, strings.Repeat("n", 255): 3,
}

func TestAPushArrivesAsItWas(t *testing.T) {
	from, to := write(t, every), t.TempDir()
	p := newPair(t)
	service(t, p, into(to, transfer.ReceiveOptions{}))
	sent := transfer.Push(t.Context(), always(p.Alice), walk(t, from), nil)
	result, err := sent.Wait()
	require.NoError(t, err)
	same(t, from, filepath.Join(to, "tree"))
	require.Equal(t, transfer.PhaseDone, result.Progress.Phase)
	require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
	require.Equal(t, 10, result.Progress.FilesDone)
}

func TestAFetchArrivesAsItWas(t *testing.T) {
	for name, hashed := range map[string]bool{"hashed": true, "not hashed": false} {
		t.Run(name, func(t *testing.T) {
			from, to := write(t, every), t.TempDir()
			p := newPair(t)
			v := service(t, p, nil)
			tree := walk(t, from)
			if hashed {
				require.NoError(t, tree.Hash(t.Context(), nil))
			}
			share, err := v.Share(tree, nil)
			require.NoError(t, err)
			defer share.Close()
			got := transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil)
			result, err := got.Wait()
			require.NoError(t, err)
			same(t, from, filepath.Join(to, "tree"))
			require.Equal(t, transfer.PhaseDone, result.Progress.Phase)
			require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
			require.Equal(t, "tree", result.Name)
		})
	}
}
