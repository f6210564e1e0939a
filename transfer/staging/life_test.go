package staging

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/transfer/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
		{ID: 1, Kind: manifest.KindDir, Path: "d", Perm: 0o755, ModTime: at},
		{ID: 2, Kind: manifest.KindFile, Path: "d/a", Perm: 0o644, Size: 100, ModTime: at + 1},
		{ID: 3, Kind: manifest.KindDir, Path: "d/empty", Perm: 0o700, ModTime: at + 2},
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
	var e *Error
	isNew := errors.As(err, &e) && e.Code == CodeNoState
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
	var e *Error
	if errors.As(err, &e) && e.Code == CodeNoState {
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

// The power is cut at each operation of a transfer, again at some operation of what goes on after it, and then never.
func TestAPowerCutAtAnyOperationLosesNothingThatWasPromised(t *testing.T) {
	for name, w := range variants() {
		for _, noLinks := range []bool{false, true} {
			for seed := range uint64(4) {
				w.exact = w.exact && !noLinks
				cutAtEach(t, name, w, noLinks, seed, (*memDisk).cut)
			}
		}
	}
}

// A process that is killed loses nothing that it wrote: then SyncNone promises all that the others do.
func TestAKillAtAnyOperationLosesNothingThatWasPromised(t *testing.T) {
	ways := variants()
	ways["no sync"] = way{Options: Options{Rules: testRules, Sync: SyncNone}, syncAt: 40, batch: true, exact: true}
	ways["no sync, small"] = way{Options: Options{Rules: testRules, Sync: SyncNone}, small: true, batch: true, exact: true}
	for name, w := range ways {
		cutAtEach(t, name, w, false, 1, (*memDisk).kill)
	}
}

func TestSyncNoneNeverWaitsForTheDisk(t *testing.T) {
	d := newTestDisk(1, false)
	w := &way{Options: Options{Rules: testRules, Sync: SyncNone}, syncAt: 40}
	require.NoError(t, life(d, w, said{}))
	for _, op := range d.trace {
		require.NotContains(t, op, "sync")
	}
}

func cutAtEach(t *testing.T, name string, w way, noLinks bool, seed uint64, stop func(*memDisk) *memDisk) {
	for at := 1; ; at++ {
		d := newTestDisk(seed<<32+uint64(at), noLinks)
		d.cutAt = at
		heard := said{}
		err := life(d, &w, heard)
		msg := fmt.Sprintf("%s, no links %v, seed %d, cut at %d: %s", name, noLinks, seed, at, d.trace[len(d.trace)-1])
		if err == nil {
			require.Greater(t, at, 30, "a life has many operations")
			break
		}
		require.ErrorIs(t, err, errCut, msg)
		d = stop(d)
		requireTrue(t, d, &w, heard, msg)
		d.ops, d.cutAt = 0, 1+d.rng.IntN(60)
		next := again(d, &w)
		if err := life(d, next, heard); err != nil {
			msg += fmt.Sprintf(", and at %d: %s", d.cutAt, d.trace[len(d.trace)-1])
			require.ErrorIs(t, err, errCut, msg)
			d = stop(d)
			requireTrue(t, d, next, heard, msg)
		}
		d.cutAt = 0
		requireEnds(t, d, next, heard, msg)
	}
}

// again returns the options to go on with. Where all is published and the state is gone but for a rest, the tests begin again, over
// what is there.
func again(d *memDisk, w *way) *way {
	out := *w
	if _, begun := d.names[".xfer-"+testID+"/meta"]; !begun {
		out.Overwrite = true
	}
	return &out
}

// requireEnds takes the transfer to its end, and looks at all of it.
func requireEnds(t testing.TB, d *memDisk, w *way, heard said, msg string) {
	t.Helper()
	require.NoError(t, life(d, again(d, w), heard), msg)
	requireTrue(t, d, w, said{}, msg)
	for _, e := range tree() {
		n := d.names[e.Path]
		require.NotNil(t, n, "%s: %s", e.Path, msg)
		if e.Kind != manifest.KindSymlink {
			require.Equal(t, fs.FileMode(e.Perm)&^0o022, n.mode.Perm(), "%s: %s", e.Path, msg)
			require.Equal(t, e.ModTime, n.mtime.UnixNano(), "%s: %s", e.Path, msg)
		}
	}
	for name := range d.names {
		require.False(t, strings.HasPrefix(name, ".xfer-"), "%s: %s", name, msg)
	}
}

// Each operation fails once, in each way: the same call, or the transfer opened again, then ends well, also when the power is cut.
func TestAFailureOfAnyOperationIsTypedAndLosesNothing(t *testing.T) {
	for _, failure := range []error{syscall.ENOSPC, syscall.EIO} {
		for name, w := range variants() {
			for at := 1; ; at++ {
				d := newTestDisk(uint64(at), false)
				d.fail[at] = failure
				heard := said{}
				err := life(d, &w, heard)
				if d.ops < at {
					break
				}
				msg := fmt.Sprintf("%s, %v at %d: %s", name, failure, at, d.trace[at-1])
				var e *Error
				if err != nil {
					require.ErrorAs(t, err, &e, msg)
					require.ErrorIs(t, err, failure, msg)
					require.Equal(t, failure == syscall.ENOSPC, e.Code == CodeNoSpace, "%s: %v", msg, err)
				}
				if d.rng.IntN(2) == 0 {
					d = d.cut()
				}
				if d.names[".xfer-"+testID] != nil || d.names["l"] == nil {
					requireTrue(t, d, &w, heard, msg)
					requireEnds(t, d, &w, heard, msg)
				}
			}
		}
	}
}
