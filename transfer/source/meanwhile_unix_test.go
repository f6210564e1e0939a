//go:build unix

package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// meanwhile walks a folder d, and does something when the walk comes to d/b, a FIFO that is left out: the names of d were read, and what is
// behind b was not looked at.
func meanwhile(t *testing.T, files map[string]string, do func(root string)) (tree *Tree, left []string, err error) {
	t.Helper()
	root := write(t, files)
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "d/b"), 0o600))
	tree, err = Walk(t.Context(), []string{filepath.Join(root, "d")}, &Options{OnLeftOut: func(path string, _ error) {
		if left = append(left, path); path == "d/b" {
			do(root)
		}
	}})
	if err == nil {
		t.Cleanup(func() { require.NoError(t, tree.Close()) })
	}
	return tree, left, err
}

func TestWhatDisappearsDuringTheWalkIsNotSent(t *testing.T) {
	files := map[string]string{"d/a": "1", "d/gone": "2", "d/gone too/x": "3", "d/z": "4"}
	tree, left, err := meanwhile(t, files, func(root string) {
		require.NoError(t, os.Remove(filepath.Join(root, "d/gone")))
		require.NoError(t, os.RemoveAll(filepath.Join(root, "d/gone too")))
	})
	require.NoError(t, err)
	require.Equal(t, []string{"d/", "d/a", "d/z"}, pathsOf(tree))
	require.Equal(t, []string{"d/b"}, left, "and is not left out: it is not there")
}

func TestWhatBecomesSomethingElseDuringTheWalkIsTakenAsItIs(t *testing.T) {
	files := map[string]string{"d/a": "1", "d/file": "2", "d/folder/x": "3", "d/special": "4", "d/z": "5"}
	tree, left, err := meanwhile(t, files, func(root string) {
		at := func(name string) string { return filepath.Join(root, "d", name) }
		require.NoError(t, os.Remove(at("file")))
		require.NoError(t, os.Mkdir(at("file"), 0o755))
		require.NoError(t, os.RemoveAll(at("folder")))
		require.NoError(t, os.WriteFile(at("folder"), []byte("33"), 0o644))
		require.NoError(t, os.Remove(at("special")))
		require.NoError(t, syscall.Mkfifo(at("special"), 0o644))
	})
	require.NoError(t, err)
	require.Equal(t, []string{"d/", "d/a", "d/file/", "d/folder", "d/z"}, pathsOf(tree))
	require.Equal(t, []string{"d/b", "d/special"}, left)
	require.Equal(t, "33", read(t, tree, "d/folder"))
}

func TestAFolderThatIsSwappedForALinkIsNotGoneInto(t *testing.T) {
	files := map[string]string{"secret/x": "1", "d/folder/x": "2", "d/z": "3"}
	tree, left, err := meanwhile(t, files, func(root string) {
		require.NoError(t, os.RemoveAll(filepath.Join(root, "d/folder")))
		require.NoError(t, os.Symlink("../secret", filepath.Join(root, "d/folder")))
	})
	require.NoError(t, err)
	require.Equal(t, []string{"d/", "d/z"}, pathsOf(tree))
	require.Equal(t, []string{"d/b", "d/folder"}, left)
	require.Equal(t, 1, tree.LeftOut().Symlinks)
}

// A file that was given by name is not left out when it changes before its turn: it is an error that names it.
func TestAGivenFileThatChangesBeforeItsTurnIsAnError(t *testing.T) {
	for what, do := range map[string]func(name string) error{
		"gone":     os.Remove,
		"a FIFO":   func(name string) error { return errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600)) },
		"a folder": func(name string) error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o755)) },
	} {
		t.Run(what, func(t *testing.T) {
			root := write(t, map[string]string{"d/a": "1", "e": "2"})
			require.NoError(t, syscall.Mkfifo(filepath.Join(root, "d/b"), 0o600))
			given := filepath.Join(root, "e")
			_, err := Walk(t.Context(), []string{filepath.Join(root, "d"), given}, &Options{OnLeftOut: func(path string, _ error) {
				if path == "d/b" {
					require.NoError(t, do(given))
				}
			}})
			var e *fault.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, given, e.Path)
			if what == "gone" {
				require.ErrorIs(t, err, os.ErrNotExist)
			} else {
				require.Equal(t, fault.CodeSourceChanged, e.Code)
				require.Contains(t, e.Text, what)
			}
		})
	}
}

func TestAWalkIsStoppedFromItsHook(t *testing.T) {
	root := write(t, map[string]string{"d/c/x": "1", "d/z": "2"})
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "d/b"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Walk(ctx, []string{filepath.Join(root, "d")}, &Options{OnLeftOut: func(string, error) { cancel() }})
	require.Equal(t, context.Canceled, err)
}

// Without a hook the first item that cannot be sent is the error, as it is with one.
func TestTheErrorWithoutAHookIsTheOneThatItWouldGet(t *testing.T) {
	root := write(t, map[string]string{"d/a": "1"})
	for name, do := range map[string]func(path string) error{
		"d/fifo": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"d/link": func(path string) error { return os.Symlink("a", path) },
		"d/b\n":  func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		at := filepath.Join(root, name)
		require.NoError(t, do(at))
		var hooked error
		_ = walk(t, &Options{OnLeftOut: func(_ string, err error) { hooked = err }}, filepath.Join(root, "d"))
		_, err := Walk(t.Context(), []string{filepath.Join(root, "d")}, nil)
		require.Equal(t, hooked, err)
		require.Equal(t, fault.CodePathUnsafe, fault.CodeOf(err))
		var e *fault.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, fault.AreaSource, e.Area)
		require.Equal(t, name, e.Path)
		require.NoError(t, os.Remove(at))
	}
	_, err := Walk(t.Context(), []string{os.DevNull}, nil)
	require.Equal(t, fault.CodePathUnsafe, fault.CodeOf(err))
	require.IsType(t, &fault.Error{}, err, "and no type of this package's own")
}

func TestTheRootOfATreeIsThatOfItsManifest(t *testing.T) {
	root := write(t, map[string]string{"d/a": "1", "d/b/c": "2"})
	tree := walk(t, nil, filepath.Join(root, "d"))
	before, err := tree.Root()
	require.NoError(t, err)
	want, err := manifest.Root(tree.Entries())
	require.NoError(t, err)
	require.Equal(t, want, before)
	require.NoError(t, tree.Hash(t.Context(), nil))
	after, err := tree.Root()
	require.NoError(t, err)
	require.NotEqual(t, before, after, "the content is part of it")
	again := walk(t, nil, filepath.Join(root, "d"))
	require.NoError(t, again.Hash(t.Context(), &HashOptions{Workers: 1}))
	same, err := again.Root()
	require.NoError(t, err)
	require.Equal(t, after, same, "the same files have the same root again")
}

func TestAReaderIsThatOfTheTree(t *testing.T) {
	root := write(t, map[string]string{"d/a": "content"})
	tree := walk(t, nil, filepath.Join(root, "d"))
	r := tree.Reader()
	got, err := r.ReadFile(1, nil)
	require.NoError(t, err)
	require.Equal(t, "content", string(got))
	f, err := r.Open(1)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	layer, sum, err := r.Layer(t.Context(), 1)
	require.NoError(t, err)
	require.Empty(t, layer)
	require.NotZero(t, sum)
	f, err = r.Open(0)
	require.Equal(t, fault.CodeProtocol, fault.CodeOf(err))
	require.Nil(t, f, "and not a File that is a nil pointer")
}
