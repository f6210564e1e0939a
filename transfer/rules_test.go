package transfer_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// mixed makes a tree with a folder, files and a symlink, and walks it by rules that allow all of it.
func mixed(t *testing.T) (from string, tree *source.Tree) {
	t.Helper()
	from = write(t, content{"d/file": 1000, "d/b": 70000, "e": -1})
	require.NoError(t, os.Symlink("file", filepath.Join(from, "d/link")))
	tree, err := source.Walk(t.Context(), []string{from}, &source.Options{Rules: transfer.Rules{Symlinks: true}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tree.Close()) })
	return from, tree
}

// A receiver's Rules hold for pushes and fetches, and the sender learns why.
func TestTheRulesOfAReceiverHold(t *testing.T) {
	from, tree := mixed(t)
	colon := write(t, content{"a:b": 10})
	for name, v := range map[string]struct {
		from  string // if not the mixed one
		rules *transfer.Rules
		code  transfer.Code
		text  string
	}{
		"all of it":         {rules: &transfer.Rules{Symlinks: true}},
		"no symlinks":       {rules: &transfer.Rules{}, code: transfer.CodePathUnsafe, text: "tree/d/link"},
		"the local rules":   {code: transfer.CodePathUnsafe, text: "tree/d/link"},
		"few entries":       {rules: &transfer.Rules{Symlinks: true, Entries: 5}, code: transfer.CodeTooLarge, text: "5 files and folders"},
		"enough entries":    {rules: &transfer.Rules{Symlinks: true, Entries: 6}},
		"few bytes":         {rules: &transfer.Rules{Symlinks: true, Bytes: 70999}, code: transfer.CodeTooLarge, text: "70999 bytes"},
		"enough bytes":      {rules: &transfer.Rules{Symlinks: true, Bytes: 71000}},
		"a short list":      {rules: &transfer.Rules{Symlinks: true, ManifestBytes: 100}, code: transfer.CodeTooLarge, text: "100 bytes"},
		"portable names":    {rules: &transfer.Rules{Symlinks: true, Portable: true}},
		"a name of no disk": {from: colon, rules: &transfer.Rules{Portable: true}, code: transfer.CodePathUnsafe, text: "tree/a:b"},
		"a wrong limit":     {rules: &transfer.Rules{Bytes: -1}, code: transfer.CodeInvalid, text: "Rules"},
	} {
		for _, way := range []string{"push", "fetch"} {
			t.Run(name+", "+way, func(t *testing.T) {
				sent, root := tree, from
				if v.from != "" {
					sent, root = walk(t, v.from), v.from
				}
				to := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t)
					o := transfer.ReceiveOptions{Rules: v.rules}
					var served *transfer.Transfer
					cfg := into(to, o)
					cfg.OnBegun = func(tr *transfer.Transfer) { served = tr }
					service := service(t, p, cfg)
					var err error
					if way == "push" {
						_, err = transfer.Push(t.Context(), always(p.Alice), sent, nil).Wait()
						if v.code == transfer.CodeInvalid {
							_, err = served.Wait() // the application's fault, of which the peer learns nothing
						}
					} else {
						share, e := service.Share(sent, nil)
						require.NoError(t, e)
						_, err = transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, &o).Wait()
					}
					require.Equal(t, v.code, transfer.CodeOf(err), "%v", err)
					if v.code != "" {
						require.ErrorContains(t, err, v.text)
					}
				})
				if v.code == "" {
					same(t, root, filepath.Join(to, "tree"))
					return
				}
				all, err := os.ReadDir(to)
				require.NoError(t, err)
				require.Empty(t, all, "nothing is left")
			})
		}
	}
}

// Who decides on a push sees what it consists of.
func TestAPushShowsItsEntries(t *testing.T) {
	_, tree := mixed(t)
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		var in transfer.Incoming
		service(t, p, &transfer.ServiceConfig{Receive: func(_ context.Context, what transfer.Incoming) (*transfer.Destination, error) {
			in = what
			return nil, &transfer.Error{Text: "not today"}
		}})
		_, err := transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
		require.ErrorContains(t, err, "not today")
		kinds := make(map[string]transfer.Kind)
		for _, e := range in.Entries {
			kinds[e.Path] = e.Kind
			if e.Kind == transfer.KindSymlink {
				require.Equal(t, "file", e.Target)
			}
		}
		require.Equal(t, map[string]transfer.Kind{
			"tree": transfer.KindDir, "tree/d": transfer.KindDir, "tree/d/b": transfer.KindFile, "tree/d/file": transfer.KindFile,
			"tree/d/link": transfer.KindSymlink, "tree/e": transfer.KindDir,
		}, kinds)
		require.Equal(t, 2, in.Files)
		require.EqualValues(t, 71000, in.Bytes)
		require.Equal(t, "tree", in.Name)
		root, err := tree.Root()
		require.NoError(t, err)
		require.Equal(t, transfer.Ref{Root: root}.ID(), in.ID)
	})
}

func TestTheLocalRulesAreThoseOfTheSystem(t *testing.T) {
	rules := transfer.LocalRules()
	require.Equal(t, strings.Contains("windows darwin ios", runtime.GOOS), rules.Portable)
	require.False(t, rules.Symlinks)
}
