package source

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// changes are what may happen to the file "d/sub/a", whose content is "content".
var changes = map[string]func(t *testing.T, root string){
	"longer":  func(t *testing.T, root string) { rewrite(t, filepath.Join(root, "d/sub/a"), "content and more") },
	"shorter": func(t *testing.T, root string) { rewrite(t, filepath.Join(root, "d/sub/a"), "con") },
	"emptied": func(t *testing.T, root string) { require.NoError(t, os.Truncate(filepath.Join(root, "d/sub/a"), 0)) },
	"other bytes": func(t *testing.T, root string) {
		rewrite(t, filepath.Join(root, "d/sub/a"), "CONTENT")
		require.NoError(t, os.Chtimes(filepath.Join(root, "d/sub/a"), past, past.Add(time.Nanosecond*100)))
	},
	"gone": func(t *testing.T, root string) { require.NoError(t, os.Remove(filepath.Join(root, "d/sub/a"))) },
	"replaced": func(t *testing.T, root string) {
		rewrite(t, filepath.Join(root, "new"), "content of another")
		require.NoError(t, os.Rename(filepath.Join(root, "new"), filepath.Join(root, "d/sub/a")))
	},
	"a folder now": func(t *testing.T, root string) {
		require.NoError(t, os.Remove(filepath.Join(root, "d/sub/a")))
		require.NoError(t, os.Mkdir(filepath.Join(root, "d/sub/a"), 0o755))
	},
	"a symlink now": func(t *testing.T, root string) {
		require.NoError(t, os.Rename(filepath.Join(root, "d/sub/a"), filepath.Join(root, "d/sub/b")))
		symlink(t, "b", filepath.Join(root, "d/sub/a"))
	},
	"a symlink to nowhere now": func(t *testing.T, root string) {
		require.NoError(t, os.Remove(filepath.Join(root, "d/sub/a")))
		symlink(t, "/nowhere", filepath.Join(root, "d/sub/a"))
	},
}

func symlink(t testing.TB, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Skip("no symlinks here: ", err)
	}
}

// Claim: transfer.CodeSourceChanged
func TestAFileThatHasChangedSinceTheWalkIsNotOpened(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			root := write(t, map[string]string{"d/sub/a": "content"})
			tree := walk(t, nil, filepath.Join(root, "d"))
			change(t, root)
			_, err := tree.openEntry(2)
			requireCode(t, fault.CodeSourceChanged, "d/sub/a", err)
			got, err := tree.readEntry("read", 2, []byte("before"))
			requireCode(t, fault.CodeSourceChanged, "d/sub/a", err)
			require.Equal(t, "before", string(got))
		})
	}
}

func TestAFileThatChangesWhileItIsReadIsFound(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			if name == "gone" || name == "replaced" {
				needsUnix(t)
			}
			root := write(t, map[string]string{"d/sub/a": "content"})
			tree := walk(t, nil, filepath.Join(root, "d"))
			f, err := tree.openEntry(2)
			require.NoError(t, err)
			defer f.Close()
			require.NoError(t, f.Check())
			change(t, root)
			requireCode(t, fault.CodeSourceChanged, "d/sub/a", f.Check())
			b := make([]byte, 7)
			n, err := f.ReadAt(b, 0)
			if name == "shorter" || name == "emptied" {
				requireCode(t, fault.CodeSourceChanged, "d/sub/a", err)
				require.Less(t, n, 7)
			}
		})
	}
}

func TestAFileThatReplacesWithItsSizeAndTimeIsFoundWhileItIsRead(t *testing.T) {
	needsUnix(t)
	root := write(t, map[string]string{"a": "content", "b": "CONTENT"})
	tree := walk(t, nil, root)
	f, err := tree.openEntry(1)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Rename(filepath.Join(root, "b"), filepath.Join(root, "a")))
	requireCode(t, fault.CodeSourceChanged, f.entry.Path, f.Check())
}

func TestAFolderThatIsAnotherIsNotGoneInto(t *testing.T) {
	for name, change := range map[string]func(root string){
		"gone": func(root string) { require.NoError(t, os.RemoveAll(filepath.Join(root, "d/sub"))) },
		"a file": func(root string) {
			require.NoError(t, os.RemoveAll(filepath.Join(root, "d/sub")))
			rewrite(t, filepath.Join(root, "d/sub"), "")
		},
		"a symlink to inside": func(root string) {
			require.NoError(t, os.Rename(filepath.Join(root, "d/sub"), filepath.Join(root, "d/other")))
			symlink(t, "other", filepath.Join(root, "d/sub"))
		},
		"a symlink to outside": func(root string) {
			require.NoError(t, os.Rename(filepath.Join(root, "d/sub"), filepath.Join(root, "other")))
			symlink(t, "../other", filepath.Join(root, "d/sub"))
		},
	} {
		root := write(t, map[string]string{"d/sub/a": "content"})
		tree := walk(t, nil, filepath.Join(root, "d"))
		change(root)
		_, err := tree.openEntry(2)
		requireCode(t, fault.CodeSourceChanged, "d/sub", err, name)
	}
}

func TestAFolderSwappedAfterALookIsNotOpened(t *testing.T) {
	dir := write(t, map[string]string{"a/": "", "b/": ""})
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	fi, err := root.Lstat("a")
	require.NoError(t, err)
	sub, err := openFolder("walk", root, "a", "d/a", fi)
	require.NoError(t, err)
	require.NoError(t, sub.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, "a")))
	symlink(t, "b", filepath.Join(dir, "a"))
	_, err = openFolder("walk", root, "a", "d/a", fi)
	requireCode(t, fault.CodeSourceChanged, "d/a", err)
}

func TestReadAtEndsWhereTheEntrySays(t *testing.T) {
	root := write(t, map[string]string{"a": "content"})
	tree := walk(t, nil, filepath.Join(root, "a"))
	f, err := tree.openEntry(0)
	require.NoError(t, err)
	defer f.Close()
	file, err := os.OpenFile(filepath.Join(root, "a"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString("and more")
	require.NoError(t, err)
	require.NoError(t, file.Close())
	for _, test := range []struct {
		off  int64
		len  int
		want string
		err  error
	}{
		{0, 7, "content", nil}, {0, 8, "content", io.EOF}, {3, 4, "tent", nil}, {3, 100, "tent", io.EOF}, {7, 0, "", nil},
		{7, 1, "", io.EOF}, {8, 1, "", io.EOF}, {100, 1, "", io.EOF}, {0, 0, "", nil},
	} {
		b := make([]byte, test.len)
		n, err := f.ReadAt(b, test.off)
		require.Equal(t, test.err, err, "%+v", test)
		require.Equal(t, test.want, string(b[:n]), "%+v", test)
	}
	_, err = f.ReadAt(make([]byte, 1), -1)
	requireCode(t, fault.CodeIO, "a", err)
	requireCode(t, fault.CodeSourceChanged, "a", f.Check())
}

func TestFilesOfOneNameAtTwoTopsAreApart(t *testing.T) {
	one, two := write(t, map[string]string{"x/a": "1", "b": "2"}), write(t, map[string]string{"a": "3", "y/b": "4"})
	tree := walk(t, nil, filepath.Join(one, "x"), filepath.Join(one, "b"), filepath.Join(two, "a"), filepath.Join(two, "y"))
	require.Equal(t, []string{"a", "b", "x/", "x/a", "y/", "y/b"}, pathsOf(tree))
	for path, want := range map[string]string{"a": "3", "b": "2", "x/a": "1", "y/b": "4"} {
		require.Equal(t, want, read(t, tree, path))
	}
}

func TestOnlyFilesAreOpened(t *testing.T) {
	tree := walk(t, nil, filepath.Join(write(t, map[string]string{"d/a": "1"}), "d"))
	_, err := tree.openEntry(0)
	requireCode(t, fault.CodeProtocol, "d", err)
	for _, id := range []uint32{2, 1 << 31, 1<<32 - 1} {
		_, err = tree.openEntry(id)
		requireCode(t, fault.CodeProtocol, "", err)
		_, err = tree.readEntry("read", id, nil)
		requireCode(t, fault.CodeProtocol, "", err)
	}
}

func TestReadFileIsForSmallFiles(t *testing.T) {
	root := t.TempDir()
	for name, size := range map[string]int64{"a": maxReadFile, "b": maxReadFile + 1} {
		rewrite(t, filepath.Join(root, name), "")
		require.NoError(t, os.Truncate(filepath.Join(root, name), size))
	}
	tree := walk(t, nil, root)
	got, err := tree.readEntry("read", 1, nil)
	require.NoError(t, err)
	require.Len(t, got, maxReadFile)
	got, err = tree.readEntry("read", 2, nil)
	require.Nil(t, got)
	requireCode(t, fault.CodeTooLarge, filepath.Base(root)+"/b", err)
}

// Claim: transfer.CodeIO
func TestAfterCloseNothingIsOpenedAndOpenFilesGoOn(t *testing.T) {
	tree := walk(t, nil, filepath.Join(write(t, map[string]string{"d/a": "1", "d/s/b": "2"}), "d"))
	f, err := tree.openEntry(1)
	require.NoError(t, err)
	require.NoError(t, tree.Close())
	_, err = tree.openEntry(3)
	require.ErrorIs(t, err, fs.ErrClosed)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Check())
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	requireCode(t, fault.CodeIO, "d/a", f.Check())
	require.NoError(t, tree.Close())
	require.Len(t, tree.Entries(), 4)
}

func TestManyFoldersAreNotAllKeptOpen(t *testing.T) {
	contents := make(map[string]string)
	for i := range 3 * maxFolders {
		contents["d/"+strings.Repeat("s/", i%20)+string(rune('a'+i/20))+"/f"] = "1"
	}
	tree := walk(t, nil, filepath.Join(write(t, contents), "d"))
	for range 2 {
		for path := range contents {
			require.Equal(t, "1", read(t, tree, path))
			require.LessOrEqual(t, len(tree.folders.open), maxFolders)
		}
	}
}
