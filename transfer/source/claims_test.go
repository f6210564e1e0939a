package source

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// Claim: source.LeftOut.Symlinks
func TestSymlinksThatAreNotSentAreCounted(t *testing.T) {
	root := write(t, map[string]string{"d/a": "1"})
	require.NoError(t, os.Symlink("a", filepath.Join(root, "d", "b")))
	require.NoError(t, os.Symlink("a", filepath.Join(root, "d", "c")))
	skip := func(string, error) {}
	require.Equal(t, LeftOut{Symlinks: 2}, walk(t, &Options{OnLeftOut: skip}, filepath.Join(root, "d")).LeftOut())
	require.Zero(t, walk(t, &Options{OnLeftOut: skip, Rules: manifest.Rules{Symlinks: true}}, filepath.Join(root, "d")).LeftOut())
}

// Claim: source.LeftOut.Denied
func TestWhatMayNotBeReadIsCounted(t *testing.T) {
	var told []string // root may read everything, so the walker is asked as if it had failed
	w := walker{ctx: t.Context(), opts: Options{OnLeftOut: func(path string, _ error) { told = append(told, path) }}}
	require.NoError(t, w.leaveDenied("d/a", os.ErrPermission))
	require.NoError(t, w.leaveDenied("d/gone", os.ErrNotExist))
	require.Equal(t, []string{"d/a"}, told)
	require.Equal(t, LeftOut{Denied: 1}, w.left)
	w.opts.OnLeftOut = nil
	requireCode(t, fault.CodeDenied, "d/b", w.leaveDenied("d/b", os.ErrPermission))
}
