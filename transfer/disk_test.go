package transfer_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/source"
)

// badDisk is a disk that fails on command.
type badDisk struct {
	staging.FS

	mu      sync.Mutex
	room    int64 // bytes that may still be written
	write   error // what writes beyond that fail with
	sync    error // what syncs of files fail with
	said    int64 // what Room says, if it is not 0
	refused int   // writes and syncs that have failed
}

func newDisk(t testing.TB) *badDisk {
	d := &badDisk{room: 1 << 60}
	transfer.SetDisk(t, func(disk staging.FS) staging.FS {
		d.FS = disk
		return d
	})
	return d
}

// set changes what fails.
func (d *badDisk) set(room int64, write, sync error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room, d.write, d.sync = room, write, sync
}

func (d *badDisk) OpenFile(name string, flag int, perm fs.FileMode) (staging.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &badFile{f, d}, nil
}

func (d *badDisk) SyncAll() error { return errors.ErrUnsupported }

func (d *badDisk) Room() (bytes, inodes int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.said != 0 {
		return d.said, -1, nil
	}
	return d.FS.Room()
}

type badFile struct {
	staging.File
	d *badDisk
}

func (f *badFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.room -= int64(len(b)); f.d.room < 0 {
		f.d.room += int64(len(b))
		f.d.refused++
		return 0, f.d.write
	}
	return f.File.WriteAt(b, off)
}

func (f *badFile) Datasync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.sync != nil {
		f.d.refused++
		return f.d.sync
	}
	return f.File.Datasync()
}

var onDisk = content{"large": 4 << 20, "small/a": 100, "small/b": 60000, "two": 300000, "empty": 0}

// Claim: transfer.CodeNoSpace
func TestAFullDiskPausesTheTransfer(t *testing.T) {
	for _, way := range []string{"push", "fetch", "fetch hashed"} {
		for what, fill := range map[string]func(d *badDisk){
			"at the start":    func(d *badDisk) { d.set(20000, syscall.ENOSPC, nil) },
			"in the middle":   func(d *badDisk) { d.set(2<<20, syscall.ENOSPC, nil) },
			"when it is said": func(d *badDisk) { d.set(1<<60, nil, syscall.ENOSPC) }, // delayed allocation
			"by a quota":      func(d *badDisk) { d.set(1<<20, syscall.EDQUOT, nil) },
		} {
			t.Run(way+", "+what, func(t *testing.T) {
				from, to := write(t, onDisk), t.TempDir()
				d := newDisk(t)
				synctest.Test(t, func(t *testing.T) {
					var here, there told
					fullFor := time.AfterFunc(time.Millisecond, func() { fill(d) })
					defer fullFor.Stop()
					time.AfterFunc(time.Minute, func() { d.set(1<<60, nil, nil) })
					ctx, cancel := context.WithTimeout(t.Context(), hour)
					defer cancel()
					began := time.Now()
					p, tree := newPair(t), walk(t, from)
					slow := transfer.Options{Rate: 1 << 20, OnEvent: here.event}
					takes := transfer.ReceiveOptions{Options: transfer.Options{OnEvent: there.event}}
					if way == "push" {
						service(t, p, into(to, takes))
						_, err := transfer.Push(ctx, always(p.Alice), tree, &slow).Wait()
						require.NoError(t, err)
					} else {
						if way == "fetch hashed" {
							require.NoError(t, tree.Hash(ctx, &source.HashOptions{Workers: 1}))
						}
						share, err := service(t, p, &transfer.ServiceConfig{Options: slow}).Share(tree, nil)
						require.NoError(t, err)
						defer share.Close()
						_, err = transfer.Fetch(ctx, []transfer.Dialer{always(p.Alice)}, share.Ref(), to, &takes).Wait()
						require.NoError(t, err)
					}
					require.GreaterOrEqual(t, time.Since(began), time.Minute)
					for _, side := range []*told{&here, &there} {
						require.Equal(t, transfer.EventPaused, side.kinds()[0])
						require.Equal(t, transfer.EventResumed, side.kinds()[len(side.kinds())-1])
						require.Equal(t, transfer.CodeNoSpace, transfer.CodeOf(side.events[0].Err))
					}
				})
				same(t, from, filepath.Join(to, "tree"))
			})
		}
	}
}

func TestATransferThatHasNoRoomIsNotBegun(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := write(t, onDisk), t.TempDir()
			newDisk(t).said = 1 << 20
			synctest.Test(t, func(t *testing.T) {
				_, err := moved(t.Context(), t, way, newPair(t), walk(t, from), to, transfer.ReceiveOptions{})
				require.Equal(t, transfer.CodeNoSpace, transfer.CodeOf(err), "%v", err)
			})
			require.Empty(t, namesIn(t, to))
		})
	}
}

// namesIn returns what is in a folder.
func namesIn(t *testing.T, dir string) (all []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, d := range list {
		all = append(all, d.Name())
	}
	return all
}

// Claim: transfer.CodeExists
func TestATransferThatFindsSomethingInItsWayLeavesNothing(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := write(t, onDisk), t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(to, "tree/two"), 0o755))
			same, err := os.ReadFile(filepath.Join(from, "small/a"))
			require.NoError(t, err)
			require.NoError(t, os.MkdirAll(filepath.Join(to, "tree/small"), 0o755))
			there := filepath.Join(to, "tree/small/a")
			require.NoError(t, os.WriteFile(there, same, 0o640))
			info, err := os.Stat(filepath.Join(from, "small/a"))
			require.NoError(t, err)
			require.NoError(t, os.Chtimes(there, time.Time{}, info.ModTime())) // one that counts as received, before what is in the way
			synctest.Test(t, func(t *testing.T) {
				_, err := moved(t.Context(), t, way, newPair(t), walk(t, from), to, transfer.ReceiveOptions{})
				require.Equal(t, transfer.CodeExists, transfer.CodeOf(err), "%v", err)
			})
			require.Equal(t, []string{"tree"}, namesIn(t, to))
		})
	}
}

func TestATransferThatCannotGoOnKeepsWhatHasCome(t *testing.T) {
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := write(t, content{"large": 8 << 20}), t.TempDir()
			tree := walk(t, from)
			half(t, way, tree, to, 3*time.Second)
			d := newDisk(t)
			d.said = 1 << 20
			synctest.Test(t, func(t *testing.T) {
				_, err := moved(t.Context(), t, way, newPair(t), tree, to, transfer.ReceiveOptions{})
				require.Equal(t, transfer.CodeNoSpace, transfer.CodeOf(err), "%v", err)
			})
			d.said = 0
			require.Positive(t, whole(t, way, tree, to, transfer.ReceiveOptions{}).Progress.Resumed)
		})
	}
}

// Claim: transfer.CodeIO
func TestADiskThatFailsEndsTheTransferAndKeepsWhatHasCome(t *testing.T) {
	for way := range ways {
		for what, fail := range map[string]func(d *badDisk){
			"a write": func(d *badDisk) { d.set(256<<10, syscall.EIO, nil) },
			"a sync":  func(d *badDisk) { d.set(1<<60, nil, syscall.EIO) },
		} {
			t.Run(way+", "+what, func(t *testing.T) {
				from, to := write(t, content{"large": 8 << 20}), t.TempDir()
				d := newDisk(t)
				tree := walk(t, from)
				slow := transfer.ReceiveOptions{Options: transfer.Options{Rate: 1 << 20}}
				synctest.Test(t, func(t *testing.T) {
					time.AfterFunc(5*time.Second, func() { fail(d) })
					ctx, cancel := context.WithTimeout(t.Context(), hour)
					defer cancel()
					_, err := moved(ctx, t, way, newPair(t), tree, to, slow)
					require.Equal(t, transfer.CodeIO, transfer.CodeOf(err), "%v", err)
				})
				d.set(1<<60, nil, nil)
				result := whole(t, way, tree, to, transfer.ReceiveOptions{})
				require.Greater(t, result.Progress.Resumed, int64(3<<20))
				same(t, from, filepath.Join(to, "tree"))
			})
		}
	}
}
