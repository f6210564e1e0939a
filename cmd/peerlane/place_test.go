package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/ticket"
)

// offered shares files of these names under a name, and returns a ticket for them.
func offered(t *testing.T, name string, files ...string) string {
	t.Helper()
	from := t.TempDir()
	var paths []string
	for _, file := range files {
		path := filepath.Join(from, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		first, _, _ := strings.Cut(file, "/")
		paths = append(paths, filepath.Join(from, first))
	}
	tree, err := source.Walk(t.Context(), slices.Compact(paths), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tree.Close()) })
	host := hostFlags{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}
	e, err := host.open(t.Context(), newDisplay(new(lockedBuffer)), nil, nil, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.close()) })
	share, err := e.service.Share(tree, &transfer.ShareOptions{Name: name, Many: true})
	require.NoError(t, err)
	text, err := ticket.Ticket{
		Sources: []peer.AddrInfo{{ID: e.node.ID(), Addrs: e.addrs()}}, Root: share.Ref().Root, Token: share.Ref().Token,
	}.Encode()
	require.NoError(t, err)
	return text
}

func TestWhatIsShownIsWhatATicketBrings(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, c := range []struct {
		name  string
		files []string
		flat  bool
		want  []string // files that arrive; nil: it is refused
		shown []string
	}{
		{"photo.jpg", []string{".bashrc"}, false, nil, nil},
		{"photo.jpg", []string{".bashrc"}, true, nil, nil},
		{"photo.jpg", []string{"a", ".ssh/authorized_keys"}, false, nil, nil},
		{"photo.jpg", []string{"\u200b.bashrc"}, false, nil, nil},
		{"photo.jpg", []string{"evil.desktop"}, false, []string{"evil.desktop"}, []string{`offers   "evil.desktop": 12 B`, `got      "evil.desktop"`}},
		{"photo.jpg", []string{"evil/a", "evil/b"}, false, []string{"evil/a", "evil/b"}, []string{`offers   "evil/": 2 files`, `got      "evil"`}},
		{"photo.jpg", []string{"a", "b"}, false, []string{"photo.jpg/a", "photo.jpg/b"}, []string{`offers   "a": 1 B`, `offers   "b": 1 B`}},
		{"../../x\x1b[2J\n", []string{"a", "b"}, false, []string{"_.._x_[2J_/a", "_.._x_[2J_/b"}, []string{`, in `}},
		{".ssh", []string{"a", "b"}, false, []string{"ssh/a", "ssh/b"}, nil},
		{"NUL", []string{"a", "b"}, true, []string{"a", "b"}, []string{`offers   "a": 1 B`}},
	} {
		dir, out := t.TempDir(), new(lockedBuffer)
		get := getCmd{Ticket: offered(t, c.name, c.files...), Dir: dir, Flat: c.flat}
		err := get.Run(t.Context(), stdio{strings.NewReader(""), out, out})
		if c.want == nil {
			require.ErrorIs(t, err, errHidden, "%v: %s", c.files, out)
			code, hint := explain(err)
			require.Equal(t, exitFiles, code)
			require.Contains(t, hint, "--hidden")
		} else {
			require.NoError(t, err, "%v: %s", c.files, out)
		}
		var got []string
		require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				path, err = filepath.Rel(dir, path)
				got = append(got, path)
			}
			return err
		}))
		require.Equal(t, c.want, got, "%q %v", c.name, c.files)
		for _, text := range c.shown {
			require.Contains(t, out.String(), text)
		}
		require.NotContains(t, out.String(), "\x1b")
		if len(c.files) == 1 {
			require.NotContains(t, out.String(), c.name)
		}
	}
}

func TestTheTopOfATreeIsCounted(t *testing.T) {
	tops := topsOf([]transfer.Entry{
		{Kind: transfer.KindFile, Path: "a", Size: 3},
		{Kind: transfer.KindDir, Path: "b"},
		{Kind: transfer.KindFile, Path: "c/d/e", Size: 1500},
		{Kind: transfer.KindSymlink, Path: "c/f"},
		{Kind: transfer.KindFile, Path: "c/g", Size: 500},
		{Kind: transfer.KindFile, Path: strings.Repeat("x\u202e", 100), Size: 1},
	})
	var lines []string
	for _, top := range tops {
		lines = append(lines, top.String())
	}
	require.Equal(t, []string{`"a": 3 B`, `"b/": 0 files, 0 B`, `"c/": 2 files, 2.0 kB`}, lines[:3])
	require.NotContains(t, lines[3], "\u202e")
	require.Less(t, len([]rune(lines[3])), longestShown+20)
	require.True(t, isHidden(".x") && isHidden("\u200e.x") && !isHidden("x.") && !isHidden("ä.x"))
}

func TestAFolderOfAnotherUserIsNotWhereAnEarlierRunWas(t *testing.T) {
	c := getCmd{Dir: t.TempDir()}
	state := filepath.Join(c.Dir, "sub", transfer.StagingPrefix+"0123456789abcdef")
	require.NoError(t, os.MkdirAll(state, 0o700))
	dir, found := c.stateDir("0123456789abcdef")
	require.True(t, found)
	require.Equal(t, filepath.Join(c.Dir, "sub"), dir)
	require.NoError(t, os.Symlink("sub", filepath.Join(c.Dir, "a")))
	dir, _ = c.stateDir("0123456789abcdef")
	require.Equal(t, filepath.Join(c.Dir, "sub"), dir, "a symlink is not followed")
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	require.NoError(t, os.Chown(filepath.Join(c.Dir, "sub"), 1, 1))
	_, found = c.stateDir("0123456789abcdef")
	require.False(t, found)
}
