package source

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestNamesThatAreUnusual(t *testing.T) {
	long := strings.Repeat("n", 255)
	wide := strings.Repeat("空", 85)
	contents := map[string]string{
		"d/ lead and trail ": "1", "d/…/é\u0301": "2", "d/" + long + "/" + long: "3", "d/" + wide: "4", "d/-rf": "5", "d/~": "6", "d/.hidden": "7",
	}
	if runtime.GOOS == "windows" {
		delete(contents, "d/ lead and trail ")
		delete(contents, "d/"+long+"/"+long)
	}
	tree := walk(t, nil, filepath.Join(write(t, contents), "d"))
	require.Equal(t, len(contents), tree.Files())
	for path, content := range contents {
		require.Equal(t, content, read(t, tree, path))
	}
}

func TestNamesThatAreNotTakenAreLeftOutAndTold(t *testing.T) {
	needsUnix(t)
	root := write(t, map[string]string{
		"d/a": "1", "d/back\\slash/x": "2", "d/new\nline": "3", "d/con.txt": "4", "d/b:c": "5", "d/.XFER-1/x": "6", "d/.xfer-file": "7",
	})
	for portable, want := range map[bool][]string{
		false: {"d/.XFER-1", "d/.xfer-file", "d/back\\slash", "d/new\nline"},
		true:  {"d/.XFER-1", "d/.xfer-file", "d/b:c", "d/back\\slash", "d/con.txt", "d/new\nline"},
	} {
		var left []string
		o := Options{Rules: manifest.Rules{Portable: portable}, OnLeftOut: func(path string, err error) {
			requireCode(t, fault.CodePathUnsafe, path, err)
			left = append(left, path)
		}}
		tree := walk(t, &o, filepath.Join(root, "d"))
		require.Equal(t, want, left)
		require.Equal(t, 8-len(want), len(tree.Entries()))
		o.OnLeftOut = nil
		_, err := Walk(context.Background(), []string{filepath.Join(root, "d")}, &o)
		requireCode(t, fault.CodePathUnsafe, "d/.XFER-1", err)
	}
	_, err := Walk(context.Background(), []string{filepath.Join(root, "d", ".XFER-1")}, nil)
	requireCode(t, fault.CodePathUnsafe, filepath.Join(root, "d", ".XFER-1"), err)
}

func TestTwoNamesThatWindowsTakesForOneAreRefused(t *testing.T) {
	needsUnix(t)
	root := write(t, map[string]string{"d/readme": "1", "d/README": "2"})
	if names := namesIn(t, filepath.Join(root, "d")); len(names) < 2 {
		t.Skip("this disk takes them for one")
	}
	walk(t, nil, filepath.Join(root, "d"))
	_, err := Walk(context.Background(), []string{filepath.Join(root, "d")}, &Options{Rules: manifest.Rules{Portable: true}})
	requireCode(t, fault.CodeExists, "d/readme", err)
}

func TestStagingFoldersAreLeftOutSilently(t *testing.T) {
	root := write(t, map[string]string{"d/a": "1", "d/.xfer-0123/meta": "2", "d/s/.xfer-4567/": ""})
	require.Equal(t, []string{"d/", "d/a", "d/s/"}, pathsOf(walk(t, nil, filepath.Join(root, "d"))))
}

func TestSymlinksAreSentWhenTheyStayInside(t *testing.T) {
	root := write(t, map[string]string{"d/s/a": "1", "out": "2"})
	for name, target := range map[string]string{
		"in": "s/a", "folder": "s", "s/up": "../in", "broken": "missing", "loop": "loop", "self": "../d",
		"out": "../../out", "absolute": "/etc/passwd", "unclean": "s//a", "trailing": "s/",
	} {
		symlink(t, target, filepath.Join(root, "d", name))
	}
	left := make(map[string]bool)
	o := &Options{Rules: manifest.Rules{Symlinks: true}, OnLeftOut: func(path string, err error) {
		requireCode(t, fault.CodePathUnsafe, path, err)
		left[path] = true
	}}
	tree := walk(t, o, filepath.Join(root, "d"))
	require.Equal(t, []string{
		"d/", "d/broken->missing", "d/folder->s", "d/in->s/a", "d/loop->loop", "d/s/", "d/s/a", "d/s/up->../in", "d/self->../d",
	}, pathsOf(tree))
	require.Equal(t, map[string]bool{"d/out": true, "d/absolute": true, "d/unclean": true, "d/trailing": true}, left)

	_, err := Walk(context.Background(), []string{filepath.Join(root, "d")}, nil)
	requireCode(t, fault.CodePathUnsafe, "d/absolute", err)
}
