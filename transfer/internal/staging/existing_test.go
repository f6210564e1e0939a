package staging

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestExistingTellsWhatIsThere(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	for name, test := range map[string]struct {
		put       func(d *memDisk)
		same      bool
		code      fault.Code
		overwrite fault.Code
	}{
		"nothing":       {put: func(*memDisk) {}},
		"a folder only": {put: func(d *memDisk) { _ = d.Mkdir("a", 0o755) }},
		"the same":      {put: func(d *memDisk) { putFile(d, "a/b", 20, at) }, same: true},
		"to the us":     {put: func(d *memDisk) { putFile(d, "a/b", 20, at.Truncate(time.Microsecond)) }, same: true},
		"to the second": {put: func(d *memDisk) { putFile(d, "a/b", 20, at.Truncate(time.Second)) }, same: true},
		"another time":  {put: func(d *memDisk) { putFile(d, "a/b", 20, at.Add(1)) }, code: fault.CodeExists},
		"another size":  {put: func(d *memDisk) { putFile(d, "a/b", 21, at) }, code: fault.CodeExists},
		"a link": {
			put:  func(d *memDisk) { _ = d.Mkdir("a", 0o755); _ = d.Symlink("../victim", "a/b") },
			code: fault.CodeExists,
		},
		"a folder": {
			put:  func(d *memDisk) { _ = d.Mkdir("a", 0o755); _ = d.Mkdir("a/b", 0o755) },
			code: fault.CodeExists, overwrite: fault.CodeExists,
		},
		"a link above": {
			put:  func(d *memDisk) { _ = d.Symlink("victim", "a") },
			code: fault.CodePathUnsafe, overwrite: fault.CodePathUnsafe,
		},
		"a file above": {
			put:  func(d *memDisk) { putFile(d, "a", 20, at) },
			code: fault.CodeExists, overwrite: fault.CodeExists,
		},
	} {
		for _, overwrite := range []bool{false, true} {
			d := newTestDisk(1, false)
			test.put(d)
			e := manifest.Entry{ID: 1, Kind: manifest.KindFile, Path: "a/b", Size: 20, Perm: 0o644, ModTime: at.UnixNano()}
			s, err := Create(d, testID, []manifest.Entry{e}, &Options{Rules: testRules, Overwrite: overwrite})
			require.NoError(t, err)
			same, err := s.Existing(1)
			require.Equal(t, test.same, same, name)
			if want := map[bool]fault.Code{false: test.code, true: test.overwrite}[overwrite]; want != "" {
				requireIs(t, want, err)
			} else {
				require.NoError(t, err, name)
			}
			if same {
				require.NoError(t, s.Adopt(1))
				require.True(t, s.Published(1))
				require.NoError(t, s.Sync())
				require.NoError(t, s.Close())
				s, err = Open(d, testID, &Options{Rules: testRules})
				require.NoError(t, err)
				require.True(t, s.Published(1), "the journal knows")
				require.NoError(t, s.Finish())
			}
		}
	}
}

// putFile makes a file of another program.
func putFile(d *memDisk, name string, size int, at time.Time) {
	if dir, _, found := strings.Cut(name, "/"); found {
		_ = d.Mkdir(dir, 0o755)
	}
	d.names[name] = &node{inode: d.next, mode: fs.FileMode(0o644), data: make([]byte, size), mtime: at, links: 1}
	d.next++
}
