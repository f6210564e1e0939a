package staging

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestMain(m *testing.M) {
	procs.One()
	goleak.VerifyTestMain(m)
}

const testID = "0123abcd"

var testRules = &manifest.Rules{Symlinks: true}

// content is what the file id consists of: no piece is like another, and none is zero.
func content(id uint32, size int64) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(1 + (int(id)*41+i*7+i/256)%255)
	}
	return b
}

// tree is a transfer with something of everything.
func tree() []manifest.Entry {
	at := time.Unix(1_700_000_000, 5).UnixNano()
	return []manifest.Entry{
		{ID: 1, Kind: manifest.KindDir, Path: "d", Perm: 0o555, ModTime: at},
		{ID: 2, Kind: manifest.KindFile, Path: "d/a", Perm: 0o644, Size: 100, ModTime: at + 1},
		{ID: 3, Kind: manifest.KindDir, Path: "d/empty", Perm: 0o300, ModTime: at + 2},
		{ID: 4, Kind: manifest.KindFile, Path: "d/none", Perm: 0o600, ModTime: at + 3},
		{ID: 5, Kind: manifest.KindFile, Path: "e/f/b", Perm: 0o755, Size: 64, ModTime: at + 4},
		{ID: 6, Kind: manifest.KindSymlink, Path: "l", Target: "d/a"},
		{ID: 7, Kind: manifest.KindFile, Path: "x", Perm: 0o444, Size: 30, ModTime: at + 5},
	}
}

// said is what Have has told someone, of whom it then expects that it holds.
type said map[uint32]ranges

// way is how a transfer is received.
type way struct {
	Options

	syncAt int64 // bytes that are dirty; 0: never
	small  bool  // by WriteFile, where nothing is had
	batch  bool  // published together
	exact  bool  // no file may be in its place without the journal or Open knowing it
}

// life takes the transfer from wherever it stands to its end, or to the first error.
func life(d *memDisk, w *way, heard said) error {
	s, err := Open(d, testID, &w.Options)
	var e *fault.Error
	isNew := errors.As(err, &e) && e.Code == fault.CodeNoState
	if isNew {
		if err := Discard(d, testID); err != nil {
			return err
		}
		clear(heard) // requireTrue has seen that there was nothing, or all
		s, err = Create(d, testID, tree(), &w.Options)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	var batch []uint32
	for _, e := range s.Entries() {
		if e.Kind != manifest.KindFile || s.Published(e.ID) {
			continue
		}
		same, err := s.Existing(e.ID)
		if err == nil && same {
			if w.exact && !isNew && !w.Overwrite {
				panic(fmt.Sprintf("BUG: %q is in its place, and not published: %q", e.Path, d.trace))
			}
			if err := s.Adopt(e.ID); err != nil {
				return err
			}
			continue
		} else if err != nil {
			return err
		}
		if err := receive(s, w, e, heard); err != nil {
			return err
		}
		if batch = append(batch, e.ID); !w.batch {
			if err := publish(s, batch...); err != nil {
				return err
			}
			batch = nil
		}
	}
	if err := publish(s, batch...); err != nil {
		return err
	}
	return s.Finish()
}

// publish returns the first failure.
func publish(s *Staging, ids ...uint32) error {
	for _, failed := range s.Publish(ids) {
		return failed.Err
	}
	return nil
}

// cv is the layer of a file, in the tests: that of one piece.
func cv(id uint32) []byte { return bytes.Repeat([]byte{byte(id)}, cvSize) }

// receive writes what is missing of a file in pieces of 16, or all.
func receive(s *Staging, w *way, e manifest.Entry, heard said) error {
	data := content(e.ID, e.Size)
	if err := s.SetRoot(e.ID, [32]byte(cv(e.ID))); err != nil {
		return err
	}
	if w.small && len(s.Have(e.ID)) == 0 {
		return s.WriteFile(e.ID, data)
	}
	if err := s.SetLayer(e.ID, 0, cv(e.ID)); err != nil {
		return err
	}
	for _, r := range s.Missing(e.ID) {
		for at := r.From; at < r.To; at += 16 {
			if err := s.WriteAt(e.ID, data[at:min(at+16, r.To)], at); err != nil {
				return err
			}
			if w.syncAt > 0 && s.Dirty() >= w.syncAt {
				if err := s.Sync(); err != nil {
					return err
				}
			}
			for _, have := range s.Have(e.ID) {
				heard[e.ID] = heard[e.ID].add(have)
			}
		}
	}
	return nil
}

// requireTrue sees that nothing on the disk is half, and that Have is neither too much nor less than it was.
func requireTrue(t testing.TB, d *memDisk, w *way, heard said, msg string) {
	t.Helper()
	want := map[string]manifest.Entry{}
	for _, e := range tree() {
		want[e.Path] = e
	}
	for name, n := range d.outside() {
		e, known := want[name]
		switch {
		case name == "victim":
			require.Equal(t, "untouched", string(n.data), msg)
		case n.mode.IsDir():
			require.True(t, known || name == "e" || name == "e/f", "%s: %s", name, msg)
		case n.mode&fs.ModeSymlink != 0:
			require.Equal(t, e.Target, n.target, msg)
		default:
			require.True(t, known, "%s: %s", name, msg)
			require.Equal(t, string(content(e.ID, e.Size)), string(n.data), "%s is whole: %s", name, msg)
			require.Equal(t, fs.FileMode(e.Perm)&^0o022, n.mode, "%s: %s", name, msg)
		}
	}
	s, err := Open(d, testID, &w.Options)
	var e *fault.Error
	if errors.As(err, &e) && e.Code == fault.CodeNoState {
		if _, begun := d.names[".xfer-"+testID+"/meta"]; !begun && d.names["l"] == nil {
			require.Empty(t, heard, msg)
		}
		return
	}
	require.NoError(t, err, msg)
	defer s.Close()
	for _, e := range s.Entries() {
		if s.Published(e.ID) {
			require.NotNil(t, d.names[e.Path], "%s: %s", e.Path, msg)
			continue
		}
		have := ranges(s.Have(e.ID))
		if len(have) > 0 {
			layer, err := s.Layer(e.ID)
			require.NoError(t, err, msg)
			require.Equal(t, cv(e.ID), layer, "%s: %s", e.Path, msg)
			sum, found := s.Root(e.ID)
			require.True(t, found, "%s: %s", e.Path, msg)
			require.Equal(t, cv(e.ID), sum[:], "%s: %s", e.Path, msg)
		}
		for _, r := range have {
			b := make([]byte, r.To-r.From)
			_, err := s.ReadAt(e.ID, b, r.From)
			require.NoError(t, err, msg)
			require.Equal(t, content(e.ID, e.Size)[r.From:r.To], b, "a false have of %s, %v: %s", e.Path, r, msg)
		}
		for _, r := range heard[e.ID] {
			require.Len(t, append(ranges(nil), have...).add(r), len(have), "%s has %v, and %v was promised: %s", e.Path, have, r, msg)
		}
	}
}

func variants() map[string]way {
	return map[string]way{
		"each write synced": {Options: Options{Rules: testRules, Sync: SyncEach}, exact: true},
		"batches":           {Options: Options{Rules: testRules}, syncAt: 40, exact: true},
		"late":              {Options: Options{Rules: testRules, OpenParts: 1}, batch: true, exact: true},
		"overwrite":         {Options: Options{Rules: testRules, Overwrite: true}, syncAt: 40},
		"small":             {Options: Options{Rules: testRules}, small: true, batch: true, exact: true},
		"small, one by one": {Options: Options{Rules: testRules}, small: true, exact: true},
		"small, overwrite":  {Options: Options{Rules: testRules, Overwrite: true}, small: true, batch: true},
	}
}

func newTestDisk(seed uint64, noLinks bool) *memDisk {
	d := newDisk(seed)
	d.noLinks = noLinks
	victim := &node{inode: 999, mode: 0o600, data: []byte("untouched"), synced: []byte("untouched"), links: 1}
	d.names["victim"], d.durable["victim"] = victim, victim
	return d
}
