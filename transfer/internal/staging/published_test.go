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

// begun returns a disk with an unfinished transfer: d/a is published, x is not.
func begun(t *testing.T, o *Options) *memDisk {
	t.Helper()
	d := newTestDisk(1, false)
	s, err := Create(d, testID, tree(), o)
	require.NoError(t, err)
	require.NoError(t, receive(s, &way{}, tree()[1], said{}))
	require.NoError(t, publish(s, 2))
	require.NoError(t, s.Close())
	return d
}

func TestOpenLooksAtWhatTheJournalCallsPublished(t *testing.T) {
	for name, test := range map[string]struct {
		do        func(d *memDisk)
		published bool
		code      fault.Code // of Existing
	}{
		"as it was":             {do: func(*memDisk) {}, published: true},
		"deleted":               {do: func(d *memDisk) { delete(d.names, "d/a") }},
		"deleted with all":      {do: func(d *memDisk) { delete(d.names, "d/a"); delete(d.names, "d") }},
		"moved away":            {do: func(d *memDisk) { require.NoError(t, d.Rename("d/a", "d/mine")) }},
		"written to":            {do: func(d *memDisk) { d.names["d/a"].mtime = time.Now() }, code: fault.CodeExists},
		"longer":                {do: func(d *memDisk) { d.names["d/a"].data = make([]byte, 101) }, code: fault.CodeExists},
		"a folder":              {do: func(d *memDisk) { d.names["d/a"].mode = fs.ModeDir | 0o755 }, code: fault.CodeExists},
		"a symlink":             {do: func(d *memDisk) { d.names["d/a"].mode = fs.ModeSymlink | 0o777 }, code: fault.CodeExists},
		"its folder is a link":  {do: func(d *memDisk) { d.names["d"].mode = fs.ModeSymlink | 0o777 }, code: fault.CodePathUnsafe},
		"its folder is a file":  {do: func(d *memDisk) { d.names["d"].mode = 0o644 }, code: fault.CodeExists},
		"its folder is secret":  {do: func(d *memDisk) { d.names["d"].mode = fs.ModeDir }, published: true},
		"its time was cut to 1": {do: func(d *memDisk) { n := d.names["d/a"]; n.mtime = n.mtime.Truncate(time.Second) }, published: true},
	} {
		for _, overwrite := range []bool{false, true} {
			o := &Options{Rules: testRules, Overwrite: overwrite}
			d := begun(t, o)
			test.do(d)
			s, err := Open(d, testID, o)
			require.NoError(t, err, name)
			require.Equal(t, test.published, s.Published(2), name)
			if test.published {
				require.NoError(t, s.Close(), name)
				continue
			}
			require.Empty(t, s.Have(2), name)
			require.True(t, s.IsEmpty(), name)
			same, err := s.Existing(2)
			require.False(t, same, name)
			if overwrite && test.code == fault.CodeExists && d.names["d"].mode.IsDir() && !d.names["d/a"].mode.IsDir() {
				test.code = ""
			}
			if test.code != "" {
				requireIs(t, test.code, err)
				require.NoError(t, s.Close(), name)
				continue
			}
			require.NoError(t, err, name)
			require.NoError(t, s.Close(), name)
			delete(d.names, "d/mine")
			requireEnds(t, d, &way{Options: *o}, said{}, name)
		}
	}
}

// Claim: transfer.CodeGone
func TestFinishMissesWhatIsGone(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(d *memDisk)
		code fault.Code
	}{
		"deleted": {func(d *memDisk) { delete(d.names, "d/a") }, fault.CodeGone},
		"longer":  {func(d *memDisk) { d.names["d/a"].data = make([]byte, 101) }, fault.CodeExists},
		"a link":  {func(d *memDisk) { d.names["d/a"].mode = fs.ModeSymlink | 0o777 }, fault.CodeExists},
		"changed": {func(d *memDisk) { d.names["d/a"].mtime = time.Unix(2e9, 5) }, fault.CodeExists},
	} {
		d := begun(t, &Options{Rules: testRules})
		s, err := Open(d, testID, &Options{Rules: testRules})
		require.NoError(t, err)
		for _, e := range tree() {
			if e.Kind == manifest.KindFile && !s.Published(e.ID) {
				require.NoError(t, receive(s, &way{}, e, said{}))
				require.NoError(t, publish(s, e.ID))
			}
		}
		was := *d.names["d/a"]
		test.do(d)
		err = s.Finish()
		requireIs(t, test.code, err)
		require.ErrorContains(t, err, `"d/a"`, name)
		d.names["d/a"] = &was // put back
		require.NoError(t, s.Finish(), name)
	}
}

// Where times are not stored, a time proves nothing.
func TestFinishBelievesNoTimeThatTheDiskDoesNotStore(t *testing.T) {
	for name, keeps := range map[string]func(time.Time) time.Time{
		"ignored": func(time.Time) time.Time { return time.Unix(3e9, 7) },
		"a day":   func(at time.Time) time.Time { return at.Truncate(24 * time.Hour) },
	} {
		d := newTestDisk(1, false)
		d.keeps = keeps
		s, err := Create(d, testID, []manifest.Entry{file7(5)}, &Options{Rules: testRules})
		require.NoError(t, err)
		require.NoError(t, s.WriteFile(7, []byte("hello")))
		require.NoError(t, publish(s, 7))
		d.names["x"].mtime = time.Unix(2e9, 5)
		require.NoError(t, s.Finish(), name)
	}
}

func TestFinishDoesNotMissWhatIsLeftOut(t *testing.T) {
	d := newTestDisk(1, false)
	s, err := Create(d, testID, []manifest.Entry{file7(5)}, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, s.Adopt(7))
	require.NoError(t, s.Finish())
	require.NotContains(t, d.names, "x")
}

// file7 returns the entry of a file with size bytes.
func file7(size int64) manifest.Entry {
	return manifest.Entry{ID: 7, Kind: manifest.KindFile, Path: "x", Perm: 0o644, Size: size, ModTime: 1e18 + 1_567_891_234}
}

func TestResetOfAPublishedFileForgetsIt(t *testing.T) {
	d := begun(t, &Options{Rules: testRules})
	s, err := Open(d, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, s.Reset(2))
	require.False(t, s.Published(2))
	require.Equal(t, []Range{{0, 100}}, s.Missing(2))
	require.Contains(t, d.names, "d/a", "what is there stays")
	require.NoError(t, s.Close())
	delete(d.names, "d/a")
	s, err = Open(d, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.False(t, s.Published(2), "the journal knows")
	require.NoError(t, s.Close())
}

// If a file system does not store a time as it is, it is asked how it stores it.
func TestATimeIsKnownAgainOnAnyDisk(t *testing.T) {
	last := time.Unix(1<<31-1, 0)
	cut := func(unit time.Duration) func(time.Time) time.Time {
		return func(at time.Time) time.Time { return at.Truncate(unit) }
	}
	for name, keeps := range map[string]func(time.Time) time.Time{
		"as it is": func(at time.Time) time.Time { return at },
		"NTFS":     cut(100), "a ms": cut(time.Millisecond), "exFAT": cut(10 * time.Millisecond), "a second": cut(time.Second), "FAT": cut(2 * time.Second),
		"up to 2038": func(at time.Time) time.Time {
			if at.After(last) {
				return last
			}
			return at.Truncate(time.Second)
		},
		"from 1980": func(at time.Time) time.Time {
			if first := time.Unix(315532800, 0); at.Before(first) {
				return first
			}
			return at
		},
		"wrapped": func(at time.Time) time.Time { return time.Unix(int64(int32(at.Unix())), 0) },
		"a day":   cut(24 * time.Hour),
	} {
		for _, at := range []int64{1e18 + 1_567_891_234, 4e18, -1e9, 1<<63 - 1, -1 << 63} {
			d := newTestDisk(1, true)
			d.keeps = keeps
			e := file7(5)
			e.ModTime = at
			s, err := Create(d, testID, []manifest.Entry{e}, &Options{Rules: testRules})
			require.NoError(t, err)
			require.NoError(t, s.WriteFile(7, []byte("hello")))
			require.NoError(t, publish(s, 7))
			require.NoError(t, s.Close())
			s, err = Open(d, testID, &Options{Rules: testRules})
			require.NoError(t, err)
			require.True(t, s.Published(7), "%s, %d: gone on with", name, at)
			require.NoError(t, s.Finish())

			s, err = Create(d, testID, []manifest.Entry{e}, &Options{Rules: testRules})
			require.NoError(t, err)
			same, err := s.Existing(7)
			require.NoError(t, err, "%s, %d: once more", name, at)
			require.True(t, same, "%s, %d: once more", name, at)
			require.NoError(t, s.Close())
			d.names["x"].mtime = d.names["x"].mtime.Add(3 * time.Second)
			s, err = Open(d, testID, &Options{Rules: testRules})
			require.NoError(t, err)
			_, err = s.Existing(7)
			requireIs(t, fault.CodeExists, err)
			require.NoError(t, s.Close())
		}
	}
}

// Where there are no hard links, another program may make a file between the look and the rename.
func TestNothingIsReplacedWithoutHardLinks(t *testing.T) {
	for _, noNew := range []bool{false, true} {
		d := newTestDisk(1, true)
		d.noNew = noNew
		s, err := Create(d, testID, []manifest.Entry{file7(5)}, &Options{Rules: testRules})
		require.NoError(t, err)
		require.NoError(t, s.WriteFile(7, []byte("hello")))
		mine := func() { putFile(d, "x", 4, time.Now()) }
		if noNew { // then there is nothing that is sure: it must be there before
			mine()
		} else {
			d.between = mine
		}
		requireIs(t, fault.CodeExists, publish(s, 7))
		require.Len(t, d.names["x"].data, 4)
		require.NoError(t, s.Close())
	}
}

// Folders are opened up while there is something to be done in them, and are then as they were, whatever becomes of the transfer.
func TestFoldersThatAllowNothingAreFilled(t *testing.T) {
	at := time.Unix(1_700_000_000, 0).UnixNano()
	for _, perm := range []uint16{0o555, 0o500, 0o300, 0o100, 0o600, 0o400, 0o200, 0} {
		for _, overwrite := range []bool{false, true} {
			o := &Options{Rules: testRules, Overwrite: overwrite}
			entries := []manifest.Entry{
				{ID: 0, Kind: manifest.KindDir, Path: "r", Perm: perm, ModTime: at},
				{ID: 1, Kind: manifest.KindDir, Path: "r/s", Perm: perm, ModTime: at},
				{ID: 2, Kind: manifest.KindFile, Path: "r/s/f", Size: 5, ModTime: at, Perm: 0o444},
				{ID: 3, Kind: manifest.KindSymlink, Path: "r/s/l", Target: "f"},
			}
			d := newTestDisk(1, false)
			run := func(body string, failing bool) {
				s, err := Create(d, testID, entries, o)
				require.NoError(t, err)
				for _, e := range entries {
					if e.Kind != manifest.KindFile {
						continue
					}
					same, err := s.Existing(e.ID)
					require.NoError(t, err, "%o", perm)
					if same {
						require.NoError(t, s.Adopt(e.ID))
						continue
					}
					require.NoError(t, s.WriteFile(e.ID, []byte(body)))
					require.NoError(t, publish(s, e.ID), "%o", perm)
				}
				if failing {
					require.NoError(t, s.Close())
				} else {
					require.NoError(t, s.Finish(), "%o", perm)
				}
				if !failing || d.ops > 60 {
					require.Equal(t, fs.FileMode(perm), d.names["r"].mode.Perm())
					require.Equal(t, fs.FileMode(perm), d.names["r/s"].mode.Perm())
				}
				if failing {
					s, err := Open(d, testID, o)
					require.NoError(t, err)
					require.NoError(t, s.Abort())
				}
				require.Equal(t, body, string(d.names["r/s/f"].data))
			}
			run("hello", false)
			run("hello", false) // once more
			entries = append(entries, manifest.Entry{ID: 4, Kind: manifest.KindFile, Path: "r/s/new", Size: 5, ModTime: at, Perm: 0o444})
			d.ops = 60
			run("hello", true)
			run("hello", false)
			if overwrite {
				entries[2].ModTime += 5e9
				run("other", false)
			}
		}
	}
}

// A folder that is not of the transfer, as one that was moved and linked to a mount, gets its own mode back.
func TestAFolderThatIsNotOfTheTransferIsAsItWas(t *testing.T) {
	for _, end := range []func(*Staging) error{(*Staging).Finish, (*Staging).Close, (*Staging).Abort} {
		d := newTestDisk(1, false)
		e := file7(5)
		e.Path = "e/f/x"
		require.NoError(t, d.Mkdir("e", 0o755))
		require.NoError(t, d.Mkdir("e/f", 0o111))
		s, err := Create(d, testID, []manifest.Entry{e}, &Options{Rules: testRules})
		require.NoError(t, err)
		require.NoError(t, s.WriteFile(7, []byte("hello")))
		require.NoError(t, publish(s, 7))
		require.Equal(t, fs.FileMode(0o711), d.names["e/f"].mode.Perm())
		require.NoError(t, end(s))
		require.Equal(t, fs.FileMode(0o111), d.names["e/f"].mode.Perm())
	}
}

// foreign is a disk whose folders are another user's.
type foreign struct{ *memDisk }

func (foreign) ChmodDir(name string, _ fs.FileMode) error {
	return &fs.PathError{Op: "chmod", Path: name, Err: fs.ErrPermission}
}

func (foreign) Chtimes(name string, _ time.Time) error {
	if strings.HasPrefix(name, ".xfer-") {
		return nil
	}
	return &fs.PathError{Op: "chtimes", Path: name, Err: fs.ErrPermission}
}

func TestAFolderOfAnotherUserIsLeftAsItIsWhenThatIsRight(t *testing.T) {
	d := newTestDisk(1, false)
	entries := tree()[:2]
	s, err := Create(d, testID, entries, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, receive(s, &way{}, entries[1], said{}))
	require.NoError(t, publish(s, 2))
	require.NoError(t, s.Finish())

	s, err = Create(foreign{d}, testID, entries, &Options{Rules: testRules})
	require.NoError(t, err)
	same, err := s.Existing(2)
	require.True(t, same && err == nil, "%v", err)
	require.NoError(t, s.Adopt(2))
	require.NoError(t, s.Finish())

	entries = append(entries, manifest.Entry{ID: 3, Kind: manifest.KindFile, Path: "d/new", Size: 5, Perm: 0o644})
	s, err = Create(foreign{d}, testID, entries, &Options{Rules: testRules})
	require.NoError(t, err)
	require.NoError(t, s.WriteFile(3, []byte("hello")))
	requireIs(t, fault.CodeDenied, publish(s, 3))
	require.NoError(t, s.Close())
}
