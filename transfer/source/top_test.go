package source

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestTheNameIsThatOfTheFolder(t *testing.T) {
	root := write(t, map[string]string{"outer/inner/a": "1"})
	inner := filepath.Join(root, "outer", "inner")
	t.Chdir(inner)
	for path, want := range map[string][]string{
		".":                       {"inner/", "inner/a"},
		"./":                      {"inner/", "inner/a"},
		"..":                      {"outer/", "outer/inner/", "outer/inner/a"},
		"../inner":                {"inner/", "inner/a"},
		"../inner/.":              {"inner/", "inner/a"},
		"a":                       {"a"},
		inner + "/..":             {"outer/", "outer/inner/", "outer/inner/a"},
		inner + "//":              {"inner/", "inner/a"},
		filepath.Join(inner, "a"): {"a"},
	} {
		tree := walk(t, nil, path)
		require.Equal(t, want, pathsOf(tree), path)
		require.Equal(t, strings.TrimSuffix(want[0], "/"), tree.Name(), path)
		require.Equal(t, "1", read(t, tree, want[len(want)-1]))
	}
	name, err := nameOf("/")
	require.NoError(t, err)
	require.NoError(t, manifest.CheckPath(name, manifest.Rules{Portable: true}), name)
}

func TestASymlinkThatIsGivenIsFollowed(t *testing.T) {
	root := write(t, map[string]string{"d/s/a": "1", "file": "2"})
	symlink(t, "d", filepath.Join(root, "folder"))
	symlink(t, "folder", filepath.Join(root, "twice"))
	symlink(t, "../../file", filepath.Join(root, "d", "s", "up"))
	symlink(t, "nowhere", filepath.Join(root, "broken"))
	symlink(t, "loop", filepath.Join(root, "loop"))
	skip := &Options{OnLeftOut: func(string, error) {}}
	for path, want := range map[string][]string{
		"folder":   {"folder/", "folder/s/", "folder/s/a"},
		"folder/":  {"folder/", "folder/s/", "folder/s/a"},
		"twice/s":  {"s/", "s/a"},
		"twice":    {"twice/", "twice/s/", "twice/s/a"},
		"d/s/up":   {"up"},
		"folder/.": {"d/", "d/s/", "d/s/a"},
	} {
		tree := walk(t, skip, root+"/"+path)
		require.Equal(t, want, pathsOf(tree), path)
		read(t, tree, want[len(want)-1])
	}
	for _, path := range []string{"missing", ""} {
		if path != "" {
			path = filepath.Join(root, path)
		}
		_, err := Walk(context.Background(), []string{path}, skip)
		requireCode(t, fault.CodeIO, path, err)
	}
	for _, path := range []string{"broken", "loop"} {
		path = filepath.Join(root, path)
		_, err := Walk(context.Background(), []string{path}, nil)
		requireCode(t, fault.CodePathUnsafe, path, err)
	}
}

func TestTwoPathsWithOneNameAreRefused(t *testing.T) {
	root := write(t, map[string]string{"x/a": "1", "y/a": "2"})
	x, y := filepath.Join(root, "x", "a"), filepath.Join(root, "y", "a")
	_, err := Walk(context.Background(), []string{x, root, y}, nil)
	requireCode(t, fault.CodeExists, y, err)
	require.ErrorContains(t, err, strconv.Quote(x)+" has the same name")
	_, err = Walk(context.Background(), nil, nil)
	requireCode(t, fault.CodeIO, "", err)
	_, err = Walk(context.Background(), []string{x}, &Options{Rules: manifest.Rules{Entries: -1}})
	requireCode(t, fault.CodeTooLarge, "", err)
}
