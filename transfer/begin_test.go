package transfer

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/staging"
)

// beginning returns a receiver to dir, and what ends it.
func beginning(t *testing.T, dir string) (r *receiver, end func(error) error) {
	t.Helper()
	disk, err := openRoot(dir)
	require.NoError(t, err)
	o := ReceiveOptions{Verify: VerifyAll}.withDefaults()
	tr, ctx := newTransfer(receives, "b", o.Options)
	r = newReceiver(ctx, tr, o, disk)
	return r, func(err error) error {
		r.fail(err)
		err = r.run()
		tr.end(err)
		require.NoError(t, disk.Close())
		return err
	}
}

func listingOf(t *testing.T, size int64) listing {
	t.Helper()
	entries := []manifest.Entry{{Kind: manifest.KindFile, Perm: 0o644, Path: "a", Size: size}}
	root, err := manifest.Root(entries)
	require.NoError(t, err)
	return listing{root: root, entries: entries}
}

func TestABeginningThatComesTooLateLeavesNoStateOpen(t *testing.T) {
	dir, stopped := t.TempDir(), errors.New("stopped")
	r, end := beginning(t, dir)
	require.ErrorIs(t, end(stopped), stopped)
	l := listingOf(t, 1000)
	require.ErrorIs(t, r.begin(l, nil), stopped)
	_, err := staging.Open(r.disk, idOf(l.root), nil)
	require.Error(t, err)

	again, end := beginning(t, dir)
	require.NoError(t, again.begin(l, nil), "nobody holds the state")
	require.ErrorIs(t, end(stopped), stopped)
}

func TestAStopEndsTheReadingOfWhatIsHereAndForgetsNothing(t *testing.T) {
	dir, stopped := t.TempDir(), errors.New("stopped")
	l := listingOf(t, 3<<20)
	r, end := beginning(t, dir)
	require.NoError(t, r.begin(l, nil))
	piece := make([]byte, r.shapeOf(0).PieceSize())
	cv, err := r.shapeOf(0).PieceCV(0, piece)
	require.NoError(t, err)
	require.NoError(t, r.st.SetLayer(0, 0, cv[:]))
	require.NoError(t, r.st.SetLayer(0, 1, make([]byte, len(cv))), "of a piece that does not come")
	require.NoError(t, r.st.WriteAt(0, piece, 0))
	require.NoError(t, r.st.Sync())
	require.ErrorIs(t, end(stopped), stopped)

	r, end = beginning(t, dir)
	st, err := r.state(l)
	require.NoError(t, err)
	r.st, r.entries, r.files = st, st.Entries(), make([]fileState, 1)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(stopped)
	r.ctx = ctx
	require.ErrorIs(t, r.resume(0), stopped)
	require.Equal(t, []staging.Range{{From: 0, To: int64(len(piece))}}, st.Have(0))
	require.ErrorIs(t, end(stopped), stopped)
}

func TestTheHashOfAPieceThatDidNotComeIsForgotten(t *testing.T) {
	for _, pieces := range []int{0, 1} {
		dir, stopped, other := t.TempDir(), errors.New("stopped"), make([]byte, b3tree.HashSize)
		l := listingOf(t, 3<<20)
		r, end := beginning(t, dir)
		require.NoError(t, r.begin(l, nil))
		for i := range pieces + 1 {
			cv, err := r.shapeOf(0).ZeroCV(i)
			require.NoError(t, err)
			require.NoError(t, r.st.SetLayer(0, i, cv[:]))
		}
		require.NoError(t, r.st.WriteAt(0, make([]byte, pieces*r.shapeOf(0).PieceSize()), 0))
		require.NoError(t, r.st.Sync())
		require.ErrorIs(t, end(stopped), stopped)

		r, end = beginning(t, dir)
		require.NoError(t, r.begin(l, nil))
		require.Len(t, r.active, pieces, "it is gone on with")
		require.NoError(t, r.st.SetLayer(0, pieces, other), "the file is another one now")
		require.ErrorIs(t, end(stopped), stopped)
	}
}

func TestTheDefaultsOfOptionsAreThoseThatTheyState(t *testing.T) {
	o := Options{}.withDefaults()
	o.OnEvent = nil
	require.Equal(t, Options{Lanes: 4, ResumeWindow: 2 * time.Minute, StallAfter: 15 * time.Second}, o)
	v, err := NewService(nil)
	require.NoError(t, err)
	require.Equal(t, 4, v.cfg.Pending)
	require.NoError(t, v.Close())
	for n, ok := range map[int]bool{-1: false, 1: true, 16: true, 17: false} {
		_, err := NewService(&ServiceConfig{Options: Options{Lanes: n}})
		require.Equal(t, ok, err == nil, "%d lanes: %v", n, err)
	}
}
