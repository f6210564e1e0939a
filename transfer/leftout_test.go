package transfer_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/source"
)

// walkAll returns the tree of a folder that has a symlink, which is left out.
func walkAll(t *testing.T) *source.Tree {
	t.Helper()
	from := write(t, content{"a": 5})
	require.NoError(t, os.Symlink("a", filepath.Join(from, "link")))
	tree, err := source.Walk(t.Context(), []string{from}, &source.Options{OnLeftOut: func(string, error) {}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tree.Close()) })
	return tree
}

// Claim: transfer.Result.LeftOut, transfer.Result.LeftOutText
func TestBothSidesAreToldWhatWasLeftOut(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			tree, to := walkAll(t), t.TempDir()
			for range 2 { // the second time all is there, or the list known
				synctest.Test(t, func(t *testing.T) {
					result, err := moved(t.Context(), t, way, newPair(t), tree, to, transfer.ReceiveOptions{})
					require.NoError(t, err)
					require.Equal(t, 1, result.LeftOut)
					require.Equal(t, "1 symlink", result.LeftOutText)
				})
			}
		})
	}
}

// Claim: transfer.Incoming.LeftOut
func TestAPushSaysWhatWasLeftOutBeforeItIsDecidedOn(t *testing.T) {
	tree, to := walkAll(t), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		var asked transfer.Incoming
		service(t, p, &transfer.ServiceConfig{Receive: func(_ context.Context, in transfer.Incoming) (*transfer.Destination, error) {
			asked = in
			return &transfer.Destination{Dir: to}, nil
		}})
		result, err := transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
		require.NoError(t, err)
		require.Equal(t, 1, result.LeftOut)
		require.Equal(t, "1 symlink", result.LeftOutText)
		require.Equal(t, 1, asked.LeftOut)
	})
}

// A peer of before says no capabilities, and must not get what it does not know.
func TestAReceiverOfBeforeIsNotToldWhatWasLeftOut(t *testing.T) {
	tree := walkAll(t)
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		share, err := service(t, p, nil).Share(tree, nil)
		require.NoError(t, err)
		defer share.Close()
		for _, caps := range []wire.Caps{0, wire.OurCaps, 1 << 31} {
			g := &rogue{t: t, s: p.Alice, caps: caps}
			g.hello(wire.Receiver)
			g.send(wire.KindGet, false, wire.Get(share.Ref()).Append)
			told := 0
			for kind := wire.Kind(0); kind != wire.KindListed; {
				f, err := g.in.Read()
				require.NoError(t, err)
				if kind = f.Kind; kind == wire.KindLeftOut {
					told++
				}
			}
			require.Equal(t, map[bool]int{true: 1, false: 0}[caps == wire.OurCaps], told)
			require.NoError(t, g.st.Close())
			synctest.Wait()
		}
	})
}
