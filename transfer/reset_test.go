package transfer

import (
	"errors"
	"io/fs"
	"path"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// journalDisk is a disk that calls synced when a journal is synced.
type journalDisk struct {
	staging.FS
	synced func()
}

func (d journalDisk) OpenFile(name string, flag int, perm fs.FileMode) (staging.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil || path.Base(name) != "journal" {
		return f, err
	}
	return journalFile{f, d.synced}, nil
}

type journalFile struct {
	staging.File
	synced func()
}

func (f journalFile) Datasync() error {
	f.synced()
	return f.File.Datasync()
}

// asked returns a receiver with a file whose pieces are all present, of an origin that is not attached.
func asked(t *testing.T) (r *receiver, o *origin, a *active) {
	t.Helper()
	r, end := beginning(t, t.TempDir())
	stopped := errors.New("stopped")
	t.Cleanup(func() { require.ErrorIs(t, end(stopped), stopped) })
	require.NoError(t, r.begin(listingOf(t, 3<<20), nil))
	a = r.newActive(0)
	for i := range a.state {
		cv, err := a.shape.ZeroCV(i)
		require.NoError(t, err)
		require.NoError(t, r.st.SetLayer(0, i, cv[:]))
		a.state[i], a.layer[i] = pieceHere, cv
	}
	require.NoError(t, r.st.WriteAt(0, make([]byte, 3<<20), 0))
	require.NoError(t, r.st.Sync())
	o = &origin{r: r, supplier: newSupplier(true)}
	a.left, a.next = 0, len(a.state)
	return r, o, a
}

// Reset waits for the disk. Everything else of the receiver would wait too if the lock were held.
func TestNoLockIsHeldWhileTheDiskForgetsAFile(t *testing.T) {
	for name, begin := range map[string]func(r *receiver, o *origin, a *active){
		"that does not match": func(r *receiver, o *origin, a *active) {
			a.asked = &o.supplier
			r.active[0], r.files[0] = a, fileActive
		},
		"that is replaced": func(r *receiver, o *origin, a *active) {
			r.o.Overwrite, r.files[0], r.cursor = true, fileUnsure, 1
			r.unsure[0] = &unsure{asked: &o.supplier}
			o.unsure = 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r *receiver
			syncs, isArmed := 0, false
			SetDisk(t, func(disk staging.FS) staging.FS {
				return journalDisk{disk, func() {
					if !isArmed {
						return
					}
					syncs++
					if !r.mu.TryLock() {
						t.Error("the lock is held")
						return
					}
					defer r.mu.Unlock()
					if r.files[0] == fileNew {
						t.Error("nothing of it may be requested yet")
					}
				}}
			})
			var o *origin
			var a *active
			r, o, a = asked(t)
			begin(r, o, a)
			isArmed = true
			require.NoError(t, r.rooted(o, wire.Root{File: 0, Root: b3tree.Root{1}}))
			isArmed = false
			require.Equal(t, 1, syncs)
			require.False(t, o.resetting)
			require.Empty(t, r.st.Have(0))
			if now := r.active[0]; now != nil {
				require.NotSame(t, a, now)
				require.Equal(t, len(now.state), now.left)
				return
			}
			require.Equal(t, fileNew, r.files[0])
			require.Zero(t, r.cursor)
		})
	}
}

func TestAFileThatIsBeingForgottenIsNotLost(t *testing.T) {
	r, _, a := asked(t)
	r.active[0], r.files[0] = a, fileActive
	a.resetting = true
	require.NoError(t, r.st.Reset(0))
	require.NoError(t, r.wantLost())
	require.Empty(t, r.again)
	require.Zero(t, a.left)
	a.resetting = false
	require.NoError(t, r.wantLost())
	require.Len(t, r.again, len(a.state))
}

// The answers of an origin are not read while its reader waits for the disk.
func TestAnOriginDoesNotStallWhileItsReaderWaitsForTheDisk(t *testing.T) {
	r, o, a := asked(t)
	r.active[0], a.asked = a, &o.supplier
	now := time.Now()
	o.last, o.answered, o.resetting = now, now.Add(-time.Hour), true
	require.False(t, r.isStalledLocked(o, now))
	o.answered, o.resetting = now.Add(-time.Hour), false
	require.True(t, r.isStalledLocked(o, now))
}
