package transfer

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// deafOrigin is an attached origin whose other end reads all, and says nothing.
func deafOrigin(t *testing.T, r *receiver) (o *origin, end func()) {
	t.Helper()
	o, theirs := fakeOrigin(r)
	go func() {
		for b := make([]byte, 1<<16); ; {
			if _, err := theirs.Read(b); err != nil {
				return
			}
		}
	}()
	require.NoError(t, o.attach())
	return o, func() {
		o.detach()
		closeBoth(o.ctl, theirs)
	}
}

// zerosOf delivers pieces of zeros of a file.
func zerosOf(t *testing.T, r *receiver, o *origin, id uint32, first, n int) {
	t.Helper()
	h := wire.DataHeader{Kind: wire.Zeros, File: id, Piece: uint32(first), Count: uint32(n)}
	require.NoError(t, r.deliver(&delivery{o: o, h: h}))
}

// treeOf is the listing of files of whole pieces, without hashes.
func treeOf(t *testing.T, pieces ...int) listing {
	t.Helper()
	entries := filesOfPieces(t, false, pieces...)
	root, err := manifest.Root(entries)
	require.NoError(t, err)
	return listing{root: root, entries: entries}
}

// What a sync that fails has lost is missing again: pieces of a file that is being fetched, and files that were complete.
func TestWhatASyncHasLostIsFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := true
		r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{sync: func(name string) error {
			if fail && strings.HasSuffix(name, ".part") {
				return syscall.ENOSPC
			}
			return nil
		}})
		require.NoError(t, r.begin(treeOf(t, 3, 1, 2), nil))
		o, leave := deafOrigin(t, r)
		zerosOf(t, r, o, 0, 0, 2) // not all of it
		zerosOf(t, r, o, 2, 0, 2)
		data := make([]byte, pieceSize)
		sum := b3tree.Sum(data)
		d := &delivery{o: o, h: wire.DataHeader{Kind: wire.Data, File: 1, Count: 1}, hash: sum, data: data}
		require.NoError(t, r.deliver(d))
		require.NoError(t, r.rooted(o, wire.Root{File: 2, Root: layerOf(t, 2).root}))
		require.ElementsMatch(t, []uint32{1, 2}, r.whole)
		require.Equal(t, int64(5*pieceSize), r.t.Progress().Verified)

		require.NoError(t, r.settleOnce(), "it pauses, and tries again later")
		require.True(t, r.t.meter.isPaused())
		require.Equal(t, []fileState{fileActive, fileWanted, fileActive}, r.files, "and all that is lost is wanted again")
		require.Equal(t, []int{1, 2}, []int{r.active[0].left, r.active[2].left}, "only those were synced")
		require.NoError(t, r.settleOnce())
		require.Equal(t, []int{3, 2}, []int{r.active[0].left, r.active[2].left})
		require.Zero(t, r.t.Progress().Verified)
		require.Zero(t, r.t.Progress().Durable)

		fail = false
		zerosOf(t, r, o, 0, 0, 3)
		zerosOf(t, r, o, 2, 0, 2)
		require.NoError(t, r.deliver(d))
		require.False(t, r.t.meter.isPaused(), "a write that succeeds ends the pause")
		require.NoError(t, r.rooted(o, wire.Root{File: 0, Root: layerOf(t, 3).root}))
		require.NoError(t, r.rooted(o, wire.Root{File: 2, Root: layerOf(t, 2).root}))
		require.NoError(t, r.settleOnce())
		require.Equal(t, []fileState{filePlaced, filePlaced, filePlaced}, r.files)
		require.Equal(t, int64(6*pieceSize), r.t.Progress().Durable)
		leave()
		end()
	})
}

// A file whose name is taken meanwhile is stuck: the others are named, and the error says which ones are not.
func TestAFileWhoseNameIsTakenMeanwhileIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r, end := onDiskOf(t, dir, ReceiveOptions{}, faultyDisk{})
		require.NoError(t, r.begin(treeOf(t, 2, 2), nil))
		o, leave := deafOrigin(t, r)
		for id := range uint32(2) {
			zerosOf(t, r, o, id, 0, 2)
			require.NoError(t, r.rooted(o, wire.Root{File: id, Root: layerOf(t, 2).root}))
		}
		l := listingOf(t, 5)
		l.entries[0].Path = "0"
		existing(t, dir, l)
		require.NoError(t, r.settleOnce())
		require.Equal(t, filePlaced, r.files[1])
		require.Len(t, r.stuck, 1)
		done, err := r.finish()
		require.True(t, done)
		require.Equal(t, CodeExists, CodeOf(err))
		require.ErrorContains(t, err, `publish "0"`)
		require.FileExists(t, filepath.Join(dir, "1"))
		leave()
		end()
	})
}

// Files that failed are skipped at the end, and the origins are told how many.
func TestTheEndCountsWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{})
		require.NoError(t, r.begin(treeOf(t, 2, 1), nil))
		o, theirs := fakeOrigin(r)
		heard := make(chan wire.Summary, 1)
		go func() {
			for in := wire.NewReader(theirs); ; {
				f, err := in.Read()
				if err != nil {
					return
				}
				if f.Kind == wire.KindComplete {
					sum, _ := wire.ConsumeSummary(f.Body)
					heard <- sum
				}
			}
		}()
		require.NoError(t, o.attach())
		zerosOf(t, r, o, 0, 0, 2)
		require.NoError(t, r.rooted(o, wire.Root{File: 0, Root: layerOf(t, 2).root}))
		require.NoError(t, r.lacking(o, 1, wire.Why{Code: "source_changed", Text: "it is gone"}))
		require.NoError(t, r.lacking(o, 1, wire.Why{Code: "io"}), "said again, it is no news")
		require.NoError(t, r.lacking(o, 0, wire.Why{Code: "io"}), "it has arrived before")
		require.Equal(t, CodeProtocol, CodeOf(r.lacking(o, 2, wire.Why{Code: "io"})))
		require.Equal(t, []fileState{fileWhole, fileFailed}, r.files)
		require.NoError(t, r.settleOnce())
		done, err := r.finish()
		require.NoError(t, err)
		require.True(t, done)
		require.Equal(t, wire.Summary{Bytes: 2 * pieceSize, Files: 1, Failed: 1, Durable: true}, <-heard)
		require.NoError(t, o.completed(wire.Frame{Kind: wire.KindComplete}))
		require.Equal(t, CodeProtocol, CodeOf(o.completed(wire.Frame{Kind: wire.KindComplete, Body: []byte{1}})))
		require.NoError(t, o.lost(errStopped), "what happens to the origin now does not matter")
		o.detach()
		closeBoth(o.ctl, theirs)
		end()
		failed := r.t.result().Failed
		require.Len(t, failed, 1)
		require.Equal(t, "it is gone", failed[0].Text)
	})
}

// The sender's root of an existing file decides what becomes of the file.
func TestAComparisonDecidesWhatBecomesOfAFile(t *testing.T) {
	for name, v := range map[string]struct {
		overwrite bool
		root      b3tree.Root
		want      fileState
		stuck     int
	}{
		"the same":            {root: layerOf(t, 3).root, want: filePlaced},
		"another":             {root: b3tree.Root{1}, want: fileUnsure, stuck: 1},
		"another, overwrites": {root: b3tree.Root{1}, overwrite: true, want: fileActive},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, l := t.TempDir(), listingOf(t, 3*pieceSize)
				existing(t, dir, l)
				r, end := onDiskOf(t, dir, ReceiveOptions{Checksum: true, Overwrite: v.overwrite}, faultyDisk{})
				require.NoError(t, r.begin(l, nil))
				o, leave := deafOrigin(t, r)
				require.Same(t, &o.supplier, r.unsure[0].asked)
				require.NoError(t, r.rooted(o, wire.Root{Root: v.root}))
				require.Equal(t, v.want, r.files[0])
				require.Len(t, r.stuck, v.stuck)
				require.Empty(t, r.unsure)
				require.Zero(t, o.unsure)
				switch v.want {
				case filePlaced:
					require.Equal(t, int64(3*pieceSize), r.t.Progress().Resumed)
					require.Zero(t, r.left)
				case fileActive:
					require.Len(t, o.wanted, 3)
				default:
					_, err := r.finish()
					require.Equal(t, CodeExists, CodeOf(err))
				}
				leave()
				end()
			})
		})
	}
}

func TestHeadersAreComparedWithTheList(t *testing.T) {
	r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{})
	l := treeOf(t, 3, 0, -1, 1)
	require.NoError(t, r.begin(l, nil))
	fits := func(h wire.DataHeader) bool {
		err := r.fits(h)
		require.True(t, err == nil || CodeOf(err) == CodeProtocol, "%v", err)
		return err == nil
	}
	data := wire.DataHeader{Kind: wire.Data, Hashed: true, Count: 1, Length: pieceSize}
	require.True(t, fits(data))
	for name, change := range map[string]func(h *wire.DataHeader){
		"no hash":           func(h *wire.DataHeader) { h.Hashed = false },
		"too long":          func(h *wire.DataHeader) { h.Length++ },
		"too short":         func(h *wire.DataHeader) { h.Length-- },
		"no such piece":     func(h *wire.DataHeader) { h.Piece = 3 },
		"a folder":          func(h *wire.DataHeader) { h.File = 1 },
		"no such file":      func(h *wire.DataHeader) { h.File = 4 },
		"a piece of 100 B":  func(h *wire.DataHeader) { h.File = 2 },
		"a second of one":   func(h *wire.DataHeader) { h.File, h.Piece = 3, 1 },
		"zeros of one":      func(h *wire.DataHeader) { *h = wire.DataHeader{Kind: wire.Zeros, File: 3, Count: 1} },
		"zeros beyond":      func(h *wire.DataHeader) { *h = wire.DataHeader{Kind: wire.Zeros, Piece: 1, Count: 3} },
		"zeros beyond 2^32": func(h *wire.DataHeader) { *h = wire.DataHeader{Kind: wire.Zeros, Piece: 1<<32 - 1, Count: 1<<32 - 1} },
	} {
		h := data
		change(&h)
		require.False(t, fits(h), name)
	}
	require.True(t, fits(wire.DataHeader{Kind: wire.Zeros, Piece: 1, Count: 2}))
	require.True(t, fits(wire.DataHeader{Kind: wire.Pack, Hashed: true, File: 2, Count: 1, Length: 140}))
	end()
}

// Memory for frames is used again, unless a frame needs more than usual.
func TestTheMemoryOfADeliveryIsGivenBackOnce(t *testing.T) {
	d := &delivery{}
	d.room(10)
	require.Len(t, d.data, 10)
	require.NotNil(t, d.pooled)
	d.free()
	require.Nil(t, d.data)
	d.free()
	d.room(maxPiece)
	require.Len(t, d.data, maxPiece)
	require.Nil(t, d.pooled)
	d.free()
	require.Len(t, d.data, maxPiece, "it is not from the pool")
}

// A transfer whose sessions have all lost their connections waits.
func TestATransferWithoutAConnectionWaits(t *testing.T) {
	tr, _ := newTransfer(receives, "bob", Options{}.withDefaults())
	require.False(t, tr.isAway(), "it runs on none yet")
	tr.meter.setPhase(PhaseData)
	require.Equal(t, PhaseData, tr.Progress().Phase)
	require.Empty(t, tr.sources())
	tr.receivesFrom(func() []Source { return []Source{{Peer: "bob"}} })
	require.Equal(t, []Source{{Peer: "bob"}}, tr.sources())
	tr.Cancel()
	tr.end(&Error{Code: CodeCanceled})
	tr.Cancel() // has no effect any more
	r, err := tr.Wait()
	require.Equal(t, CodeCanceled, CodeOf(err))
	require.Equal(t, PhaseFailed, r.Progress.Phase)
	select {
	case <-tr.Done():
	default:
		t.Fatal("it is over")
	}
}

func TestADialerIsHeldToItsWord(t *testing.T) {
	var none Dialer = func(context.Context) (*session.Session, error) { return nil, nil }
	_, err := none.call(t.Context())
	require.Equal(t, CodeInvalid, CodeOf(err))
	var nilError Dialer = func(context.Context) (*session.Session, error) { return nil, (*net.OpError)(nil) }
	_, err = nilError.call(t.Context())
	require.ErrorContains(t, err, "a nil *net.OpError")
}
