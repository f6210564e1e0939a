package transfer_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
)

func TestSendersOfOneTreeHaveTokensOfTheirOwn(t *testing.T) {
	from, to := write(t, every), t.TempDir()
	var dials []transfer.Dialer
	var tokens [][]byte
	var ref transfer.Ref
	for range 2 {
		p := newPair(t)
		tree := walk(t, from)
		require.NoError(t, tree.Hash(t.Context(), nil))
		share, err := service(t, p, nil).Share(tree, nil)
		require.NoError(t, err)
		defer share.Close()
		ref = share.Ref()
		dials, tokens = append(dials, always(p.Alice)), append(tokens, ref.Token)
	}
	require.NotEqual(t, tokens[0], tokens[1])
	got := transfer.Fetch(t.Context(), dials, transfer.Ref{Root: ref.Root}, to, &transfer.ReceiveOptions{Tokens: tokens})
	_, err := got.Wait()
	require.NoError(t, err)
	same(t, from, filepath.Join(to, "tree"))

	_, err = transfer.Fetch(t.Context(), dials, ref, to, &transfer.ReceiveOptions{Tokens: tokens[:1]}).Wait()
	require.Equal(t, transfer.CodeInvalid, transfer.CodeOf(err))
	require.ErrorContains(t, err, "1 for 2 sources")
}
