package staging

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

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
// Claim: transfer.Error.Code
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
				var e *fault.Error
				if err != nil {
					require.ErrorAs(t, err, &e, msg)
					require.ErrorIs(t, err, failure, msg)
					require.Equal(t, failure == syscall.ENOSPC, e.Code == fault.CodeNoSpace, "%s: %v", msg, err)
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
