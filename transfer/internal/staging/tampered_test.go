package staging

import (
	"bytes"
	"io/fs"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// half is a transfer with half of d/a, its layer, and a small file that is durable and has no name yet.
func halfDone(t *testing.T) *memDisk {
	t.Helper()
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{})
	require.NoError(t, s.WriteAt(2, content(2, 100)[:50], 0))
	require.NoError(t, s.SetLayer(2, 0, cv(2)))
	require.NoError(t, s.SetRoot(2, [32]byte{2}))
	require.NoError(t, s.WriteFile(7, content(7, 30)))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	return d
}

// What another program does to the state is found by Open, or by who uses it: nothing that it has put there is taken for received data.
func TestAStateThatAnotherProgramChangedIsNotBelieved(t *testing.T) {
	dir := ".xfer-" + testID
	half := []Range{{0, 50}}
	for name, v := range map[string]struct {
		do   func(t *testing.T, d *memDisk)
		code fault.Code // of Open
		have []Range
	}{
		"nothing": {do: func(*testing.T, *memDisk) {}, have: half},
		"no list": {do: func(_ *testing.T, d *memDisk) { delete(d.names, dir+"/meta") }, code: fault.CodeNoState},
		"a list that is cut": {do: func(_ *testing.T, d *memDisk) {
			n := d.names[dir+"/meta"]
			n.data = n.data[:len(n.data)-1]
		}, code: fault.CodeNoState},
		"a list with another byte": {do: func(_ *testing.T, d *memDisk) { d.names[dir+"/meta"].data[30] ^= 1 }, code: fault.CodeNoState},
		"a list that is a link":    {do: func(_ *testing.T, d *memDisk) { d.names[dir+"/meta"].mode = fs.ModeSymlink | 0o777 }, code: fault.CodePathUnsafe},
		"a list that is a folder":  {do: func(_ *testing.T, d *memDisk) { d.names[dir+"/meta"].mode = fs.ModeDir | 0o700 }, code: fault.CodePathUnsafe},
		"another umask is refused": {do: func(_ *testing.T, d *memDisk) { d.names[dir+"/meta"].data[6] = 0xff }, code: fault.CodeNoState},
		"no journal":               {do: func(_ *testing.T, d *memDisk) { delete(d.names, dir+"/journal") }},
		"a journal of another": {do: func(_ *testing.T, d *memDisk) {
			d.names[dir+"/journal"].data[8] ^= 1
		}},
		"a journal that is a link": {do: func(_ *testing.T, d *memDisk) { d.names[dir+"/journal"].mode = fs.ModeSymlink | 0o777 }, code: fault.CodePathUnsafe},
		"a journal with more": {do: func(_ *testing.T, d *memDisk) {
			n := d.names[dir+"/journal"]
			n.data = appendRecord(n.data, record{kind: recordRanges, id: 2, have: ranges{{50, 101}}})
		}, have: half},
		"a journal of no file": {do: func(_ *testing.T, d *memDisk) {
			n := d.names[dir+"/journal"]
			n.data = appendRecord(n.data, record{kind: recordReset, id: 1})
			n.data = appendRecord(n.data, record{kind: recordReset, id: 2})
		}, have: half},
		"a journal that forgets": {do: func(_ *testing.T, d *memDisk) {
			n := d.names[dir+"/journal"]
			n.data = appendRecord(n.data, record{kind: recordReset, id: 2})
		}},
		"no part":      {do: func(_ *testing.T, d *memDisk) { delete(d.names, dir+"/2.part") }},
		"another part": {do: func(_ *testing.T, d *memDisk) { d.names[dir+"/2.part"].inode = 777 }},
		"a part that is shorter": {do: func(_ *testing.T, d *memDisk) {
			n := d.names[dir+"/2.part"]
			n.data = n.data[:60]
		}},
		"a part that is a folder": {do: func(_ *testing.T, d *memDisk) { d.names[dir+"/2.part"].mode = fs.ModeDir | 0o700 }},
		"no directory":            {do: func(_ *testing.T, d *memDisk) { delete(d.names, dir) }, code: fault.CodeNoState},
		"a directory that is a file": {do: func(_ *testing.T, d *memDisk) {
			d.names[dir].mode = 0o600
		}, code: fault.CodePathUnsafe},
		"someone has it": {do: func(t *testing.T, d *memDisk) {
			_, err := d.Lock(dir + "/lock")
			require.NoError(t, err)
		}, code: fault.CodeBusy},
		"files of no transfer": {do: func(t *testing.T, d *memDisk) {
			putFile(d, dir+"/99.part", 5, d.names[dir].mtime)
			putFile(d, dir+"/x.part", 5, d.names[dir].mtime)
			putFile(d, dir+"/notes", 5, d.names[dir].mtime)
		}, have: half},
	} {
		t.Run(name, func(t *testing.T) {
			d := halfDone(t)
			v.do(t, d)
			s, err := Open(d, testID, &Options{Rules: testRules})
			require.Equal(t, v.code, fault.CodeOf(err), "%v", err)
			if err != nil {
				_, err := Open(d, testID, &Options{Rules: testRules})
				require.Equal(t, v.code, fault.CodeOf(err), "it holds no lock")
				return
			}
			require.Equal(t, v.have, s.Have(2))
			for _, r := range v.have {
				b := make([]byte, r.To-r.From)
				_, err := s.ReadAt(2, b, r.From)
				require.NoError(t, err)
				require.Equal(t, content(2, 100)[r.From:r.To], b)
			}
			require.NoError(t, s.Close())
		})
	}
}

func TestALayerThatAnotherProgramChangedIsNotHad(t *testing.T) {
	name := ".xfer-" + testID + "/2.layer"
	for what, v := range map[string]struct {
		do   func(d *memDisk)
		have bool
	}{
		"nothing":  {func(*memDisk) {}, true},
		"deleted":  {func(d *memDisk) { delete(d.names, name) }, false},
		"shorter":  {func(d *memDisk) { d.names[name].data = d.names[name].data[:31] }, false},
		"a folder": {func(d *memDisk) { d.names[name].mode = fs.ModeDir | 0o700 }, false},
		"longer":   {func(d *memDisk) { d.names[name].data = append(d.names[name].data, cv(9)...) }, true},
	} {
		t.Run(what, func(t *testing.T) {
			d := halfDone(t)
			v.do(d)
			s, err := Open(d, testID, &Options{Rules: testRules})
			require.NoError(t, err)
			b, err := s.Layer(2)
			require.NoError(t, err)
			if v.have {
				require.Equal(t, cv(2), b)
			} else {
				require.Empty(t, b)
			}
			sum, found := s.Root(2)
			require.True(t, found)
			require.Equal(t, [32]byte{2}, sum)
			require.NoError(t, s.Close())
		})
	}
}

// A part that another program swaps while the transfer runs is not written to once it has been closed.
func TestAPartThatIsSwappedWhileItIsClosedIsNotUsed(t *testing.T) {
	d := newTestDisk(1, false)
	s := createMem(t, d, Options{OpenParts: 1})
	require.NoError(t, s.WriteAt(2, content(2, 100)[:50], 0))
	require.NoError(t, s.WriteAt(5, content(5, 64), 0))
	require.NoError(t, s.Sync()) // closes one of them
	require.NoError(t, s.WriteAt(7, content(7, 30), 0))
	require.NoError(t, s.Sync())
	d.names[".xfer-"+testID+"/2.part"].inode = 777
	err := s.WriteAt(2, content(2, 100)[50:], 50)
	require.Equal(t, fault.CodeIO, fault.CodeOf(err))
	require.ErrorContains(t, err, "another program has changed")
	require.Equal(t, []Range{{50, 100}}, s.Missing(2))
	require.NoError(t, s.Close())
}

// Layers are what was set, whatever the order, the syncs and the processes.
func TestLayersAreWhatWasSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pieces = 24
		entries := []manifest.Entry{{Kind: manifest.KindFile, Path: "a", Size: pieces * 1024}}
		d := newDisk(rapid.Uint64().Draw(t, "seed"))
		s, err := Create(d, testID, entries, nil)
		require.NoError(t, err)
		value := func(i int) []byte { return bytes.Repeat([]byte{byte(i + 1)}, cvSize) }
		var have, durable [pieces]bool
		model := func(have [pieces]bool) []byte {
			var b []byte
			last := -1
			for i, is := range have {
				if is {
					last = i
				}
			}
			for i := range last + 1 {
				if have[i] {
					b = append(b, value(i)...)
				} else {
					b = append(b, make([]byte, cvSize)...)
				}
			}
			return b
		}
		for range rapid.IntRange(1, 30).Draw(t, "calls") {
			switch rapid.IntRange(0, 5).Draw(t, "call") {
			case 0, 1, 2:
				first := rapid.IntRange(0, pieces-1).Draw(t, "first")
				n := rapid.IntRange(1, min(4, pieces-first)).Draw(t, "n")
				var cvs []byte
				for i := first; i < first+n; i++ {
					cvs = append(cvs, value(i)...)
					have[i] = true
				}
				require.NoError(t, s.SetLayer(0, first, cvs))
				cvs[0] ^= 0xff
				require.Equal(t, fault.CodeProtocol, fault.CodeOf(s.SetLayer(0, first, cvs)), "another value")
			case 3:
				require.NoError(t, s.Sync())
				durable = have
			case 4:
				require.NoError(t, s.Sync())
				require.NoError(t, s.Close())
				s, err = Open(d, testID, nil)
				require.NoError(t, err)
				durable = have
			case 5:
				require.NoError(t, s.Close())
				s, err = Open(d, testID, nil)
				require.NoError(t, err)
				have = durable
			}
			got, err := s.Layer(0)
			require.NoError(t, err)
			want := model(have)
			require.True(t, bytes.Equal(want, got[:min(len(want), len(got))]) && len(bytes.Trim(got[min(len(want), len(got)):], "\x00")) == 0,
				"%v: %x", have, got)
		}
	})
}

func TestALayerThatIsTrimmedKeepsWhatItIsTold(t *testing.T) {
	s := createMem(t, newTestDisk(1, false), Options{})
	require.NoError(t, s.TrimLayer(2, nil), "of a file without a layer")
	require.NoError(t, s.SetLayer(2, 0, cv(2)))
	require.NoError(t, s.TrimLayer(2, []Range{{0, 1}}))
	b, err := s.Layer(2)
	require.NoError(t, err)
	require.Equal(t, cv(2), b)
	require.NoError(t, s.TrimLayer(2, nil))
	b, err = s.Layer(2)
	require.NoError(t, err)
	require.Empty(t, bytes.Trim(b, "\x00"))
	require.NoError(t, s.SetLayer(2, 0, cv(5)), "another value may come now")
	for _, err := range []error{s.TrimLayer(1, nil), s.TrimLayer(99, nil), s.SetRoot(99, [32]byte{}), second(s.Layer(99))} {
		require.Equal(t, fault.CodeProtocol, fault.CodeOf(err))
	}
	require.NoError(t, s.SetRoot(2, [32]byte{1}))
	require.NoError(t, s.SetRoot(2, [32]byte{1}), "once more")
	require.Equal(t, fault.CodeProtocol, fault.CodeOf(s.SetRoot(2, [32]byte{2})))
	require.NoError(t, s.Close())
}

// Symlinks are made at the end, and replace nothing unless that is allowed.
func TestLinksAreMadeAtTheEnd(t *testing.T) {
	for name, v := range map[string]struct {
		make      func(d *memDisk)
		overwrite bool
		code      fault.Code
	}{
		"nothing there":           {make: func(*memDisk) {}},
		"the same link":           {make: func(d *memDisk) { _ = d.Symlink("d/a", "l") }},
		"another link":            {make: func(d *memDisk) { _ = d.Symlink("other", "l") }, code: fault.CodeExists},
		"another link, replaced":  {make: func(d *memDisk) { _ = d.Symlink("other", "l") }, overwrite: true},
		"a file":                  {make: func(d *memDisk) { putFile(d, "l", 3, d.names["."].mtime) }, code: fault.CodeExists},
		"a file, replaced":        {make: func(d *memDisk) { putFile(d, "l", 3, d.names["."].mtime) }, overwrite: true},
		"a folder is not removed": {make: func(d *memDisk) { _ = d.Mkdir("l", 0o755) }, overwrite: true, code: fault.CodeExists},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTestDisk(1, false)
			s := createMem(t, d, Options{Overwrite: v.overwrite})
			for _, id := range []uint32{2, 5, 7} {
				require.NoError(t, s.WriteFile(id, content(id, tree()[id-1].Size)))
			}
			require.Empty(t, s.Publish([]uint32{2, 4, 5, 7}))
			require.Nil(t, d.names["l"], "nothing is written through one")
			v.make(d)
			err := s.Finish()
			require.Equal(t, v.code, fault.CodeOf(err), "%v", err)
			if err != nil {
				require.ErrorContains(t, err, `"l"`)
				delete(d.names, "l")
				require.NoError(t, s.Finish(), "the same call, when it is out of the way")
			}
			require.Equal(t, "d/a", d.names["l"].target)
			names, err := d.ReadDir(".")
			require.NoError(t, err)
			require.False(t, slices.ContainsFunc(names, func(name string) bool { return name == ".xfer-"+testID }))
		})
	}
}

func TestAStateThatIsDiscardedIsGone(t *testing.T) {
	d := halfDone(t)
	require.Equal(t, fault.CodeProtocol, fault.CodeOf(Discard(d, "no id")))
	require.Equal(t, fault.CodeProtocol, fault.CodeOf(Discard(nil, testID)))
	require.NoError(t, Discard(d, "ffff"), "there is none")
	s, err := Open(d, testID, &Options{Rules: testRules})
	require.NoError(t, err)
	require.Equal(t, fault.CodeBusy, fault.CodeOf(Discard(d, testID)))
	require.NoError(t, s.Abort())
	require.NoError(t, s.Abort(), "again")
	names, err := d.ReadDir(".")
	require.NoError(t, err)
	require.Equal(t, []string{"victim"}, names)
	_, err = Open(d, testID, nil)
	require.Equal(t, fault.CodeNoState, fault.CodeOf(err))

	d = halfDone(t)
	d.names[".xfer-"+testID].mode = 0o600
	require.Equal(t, fault.CodePathUnsafe, fault.CodeOf(Discard(d, testID)), "a file of that name is somebody's")
	for _, err := range []error{second(States(nil)), second(Cleanup(nil, 0))} {
		require.Equal(t, fault.CodeProtocol, fault.CodeOf(err))
	}
}

func second[T any](_ T, err error) error { return err }
