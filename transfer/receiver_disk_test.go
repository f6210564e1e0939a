package transfer

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

var errStopped = errors.New("stopped")

// faultyDisk is a disk that fails as it is told.
type faultyDisk struct {
	staging.FS
	open  func(name string) error // of OpenFile
	read  func(name string) error // of ReadAt
	write func(name string) error // of WriteAt
	sync  func(name string) error // of Datasync
	reads *atomic.Int32           // counts those of parts
	room  []int64                 // bytes and inodes, if not nil
}

func failing(f func(string) error, name string) error {
	if f == nil {
		return nil
	}
	return f(name)
}

func (d faultyDisk) OpenFile(name string, flag int, perm fs.FileMode) (staging.File, error) {
	if err := failing(d.open, name); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return faultyFile{f, name, d}, nil
}

func (d faultyDisk) Room() (bytes, inodes int64, err error) {
	if d.room != nil {
		return d.room[0], d.room[1], nil
	}
	return d.FS.Room()
}

type faultyFile struct {
	staging.File
	name string
	disk faultyDisk
}

func (f faultyFile) ReadAt(b []byte, off int64) (int, error) {
	if f.disk.reads != nil && strings.HasSuffix(f.name, ".part") {
		f.disk.reads.Add(1)
	}
	if err := failing(f.disk.read, f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

func (f faultyFile) WriteAt(b []byte, off int64) (int, error) {
	if err := failing(f.disk.write, f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f faultyFile) Datasync() error {
	if err := failing(f.disk.sync, f.name); err != nil {
		return err
	}
	return f.File.Datasync()
}

// onDiskOf returns a receiver on a faulty disk.
func onDiskOf(t *testing.T, dir string, o ReceiveOptions, d faultyDisk) (r *receiver, end func()) {
	t.Helper()
	disk, err := openRoot(dir)
	require.NoError(t, err)
	d.FS = disk
	o = o.withDefaults()
	tr, ctx := newTransfer(receives, "bob", o.Options)
	r = newReceiver(ctx, tr, o, d)
	return r, func() {
		r.fail(errStopped)
		tr.end(r.run())
		require.NoError(t, disk.Close())
	}
}

// withPieces stores the state of a file of zeros, with the first of its pieces.
func withPieces(t *testing.T, dir string, l listing, pieces int) {
	t.Helper()
	disk, err := openRoot(dir)
	require.NoError(t, err)
	st, err := staging.Create(disk, idOf(l.root), l.entries, nil)
	require.NoError(t, err)
	shape, err := b3tree.ShapeOf(l.entries[0].Size)
	require.NoError(t, err)
	for i := range pieces {
		off, n := shape.Span(i)
		cv, err := shape.ZeroCV(i)
		require.NoError(t, err)
		require.NoError(t, st.SetLayer(0, i, cv[:]))
		require.NoError(t, st.WriteZeros(0, off, int64(n)))
	}
	require.NoError(t, st.Sync())
	require.NoError(t, st.Close())
	require.NoError(t, disk.Close())
}

func TestVerifySaysHowMuchOfAnEarlierRunIsRead(t *testing.T) {
	const pieces = samplePieces + 40
	for verify, want := range map[Verify]int{VerifySample: samplePieces + 2, VerifyAll: pieces, VerifyNothing: 0} {
		dir, l := t.TempDir(), listingOf(t, (pieces+1)*pieceSize)
		withPieces(t, dir, l, pieces)
		var reads atomic.Int32
		r, end := onDiskOf(t, dir, ReceiveOptions{Verify: verify}, faultyDisk{reads: &reads})
		require.NoError(t, r.begin(l, nil))
		require.Equal(t, want, int(reads.Load()))
		require.Equal(t, int64(pieces*pieceSize), r.t.Progress().Resumed)
		require.Equal(t, 1, r.active[0].left)
		end()
	}
}

// A few pieces are all read, whichever sample is taken.
func TestASampleOfAFewPiecesIsAllOfThem(t *testing.T) {
	dir, l := t.TempDir(), listingOf(t, 10*pieceSize)
	withPieces(t, dir, l, 7)
	var reads atomic.Int32
	r, end := onDiskOf(t, dir, ReceiveOptions{}, faultyDisk{reads: &reads})
	require.NoError(t, r.begin(l, nil))
	require.EqualValues(t, 7, reads.Load())
	end()
}

func TestWhatCannotBeReadAgainIsFetchedAgain(t *testing.T) {
	dir, l := t.TempDir(), listingOf(t, 10*pieceSize)
	withPieces(t, dir, l, 7)
	var events []Event
	o := ReceiveOptions{Options: Options{OnEvent: func(e Event) { events = append(events, e) }}}
	r, end := onDiskOf(t, dir, o, faultyDisk{read: func(name string) error {
		if strings.HasSuffix(name, ".part") {
			return syscall.EIO
		}
		return nil
	}})
	require.NoError(t, r.begin(l, nil))
	require.Zero(t, r.t.Progress().Resumed)
	require.Equal(t, fileNew, r.files[0])
	require.Empty(t, r.st.Have(0))
	end()
	require.Len(t, events, 1)
	require.Equal(t, EventFetchedAgain, events[0].Kind)
	require.ErrorIs(t, events[0].Err, syscall.EIO)
}

// The state of another tree has the name if only the first half of the root is the same.
func TestAStateOfAnotherTreeIsReplaced(t *testing.T) {
	dir, l := t.TempDir(), listingOf(t, 3*pieceSize)
	other := listingOf(t, 5*pieceSize)
	other.root = l.root
	withPieces(t, dir, other, 1)
	r, end := onDiskOf(t, dir, ReceiveOptions{}, faultyDisk{})
	found, err := r.recall(l.root)
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, r.begin(l, nil))
	require.Equal(t, l.entries, r.entries)
	require.Empty(t, r.st.Have(0))
	end()
}

func TestAnUnfinishedTreeIsRecalledByItsRoot(t *testing.T) {
	dir, l := t.TempDir(), listingOf(t, 3*pieceSize)
	r, end := onDiskOf(t, dir, ReceiveOptions{}, faultyDisk{})
	found, err := r.recall(l.root)
	require.NoError(t, err)
	require.False(t, found, "there is none")
	end()
	withPieces(t, dir, l, 2)
	r, end = onDiskOf(t, dir, ReceiveOptions{}, faultyDisk{})
	found, err = r.recall(l.root)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, int64(2*pieceSize), r.t.Progress().Resumed)
	busy, endToo := onDiskOf(t, dir, ReceiveOptions{}, faultyDisk{})
	_, err = busy.recall(l.root)
	require.Equal(t, CodeBusy, CodeOf(err), "another receiver has it")
	endToo()
	end()
}

func TestABeginningThatFailsFailsForAllSources(t *testing.T) {
	l := listingOf(t, 3*pieceSize)
	broken := errors.New("broken")
	r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{open: func(name string) error {
		if strings.HasSuffix(name, "meta") {
			return broken
		}
		return nil
	}})
	err := r.begin(l, nil)
	require.ErrorIs(t, err, broken)
	require.Equal(t, err, r.begin(l, nil), "the same")
	end()

	r, end = onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{})
	require.NoError(t, r.begin(l, nil))
	require.NoError(t, r.begin(l, nil), "a second source has the same tree")
	l.root[0]++
	require.Equal(t, CodeProtocol, CodeOf(r.begin(l, nil)))
	end()
}

func TestATransferThatDoesNotFitIsNotBegun(t *testing.T) {
	for want, room := range map[string][]int64{
		"786432 bytes are needed, and 1000 are free": {1000, -1},
		"1 files are to come, and the disk has room": {1 << 40, 0},
	} {
		dir := t.TempDir()
		r, end := onDiskOf(t, dir, ReceiveOptions{}, faultyDisk{room: room})
		err := r.begin(listingOf(t, 3*pieceSize), nil)
		require.Equal(t, CodeNoSpace, CodeOf(err))
		require.ErrorContains(t, err, want)
		require.Equal(t, "there is not enough room", whyOf(err).Text)
		end()
		all, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, all, "and nothing is left of it")
	}
	r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{room: []int64{1 << 40, -1}})
	require.NoError(t, r.begin(listingOf(t, 3*pieceSize), nil), "where the system does not count inodes")
	end()
}

// existing makes a file that has the size and time of the only entry of a listing.
func existing(t *testing.T, dir string, l listing) {
	t.Helper()
	name := filepath.Join(dir, l.entries[0].Path)
	require.NoError(t, os.WriteFile(name, make([]byte, l.entries[0].Size), 0o644))
	at := time.Unix(0, l.entries[0].ModTime)
	require.NoError(t, os.Chtimes(name, at, at))
}

func TestAnExistingFileThatCannotBeReadIsAnErrorOfTheDestination(t *testing.T) {
	for code, cause := range map[Code]error{CodeDenied: fs.ErrPermission, CodeIO: syscall.EIO} {
		for _, at := range []string{"open", "read"} {
			dir, l := t.TempDir(), listingOf(t, 3*pieceSize)
			existing(t, dir, l)
			fail := func(name string) error {
				if name == "a" {
					return cause
				}
				return nil
			}
			d := faultyDisk{read: fail}
			if at == "open" {
				d = faultyDisk{open: fail}
			}
			r, end := onDiskOf(t, dir, ReceiveOptions{Checksum: true}, d)
			err := r.begin(l, nil)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, code, e.Code)
			require.Equal(t, "a", e.Path)
			require.Equal(t, AreaDestination, e.Area)
			require.ErrorIs(t, err, cause)
			end()
		}
	}
}

func TestAnExistingFileIsComparedWhenThatIsAskedFor(t *testing.T) {
	for _, checksum := range []bool{false, true} {
		dir, l := t.TempDir(), listingOf(t, 3*pieceSize)
		existing(t, dir, l)
		r, end := onDiskOf(t, dir, ReceiveOptions{Checksum: checksum}, faultyDisk{})
		require.NoError(t, r.begin(l, nil))
		if !checksum {
			require.Equal(t, filePlaced, r.files[0], "by size and time")
			require.Equal(t, 1, r.t.Progress().FilesDone)
		} else {
			require.Equal(t, fileUnsure, r.files[0])
			require.Len(t, r.unasked, 1)
			require.Equal(t, layerOf(t, 3).root, r.unsure[0].root)
			o := &origin{supplier: supplier{unsure: 1}}
			require.Zero(t, r.owedLocked(o), "it was not asked")
			r.unsure[0].asked = &o.supplier
			require.Equal(t, int64(3*pieceSize), r.owedLocked(o))
		}
		end()
	}
}

func TestFilesThatAreTooLargeAreRefused(t *testing.T) {
	for size, want := range map[int64]Code{4 << 40: "", 4<<40 + 1: CodeTooLarge, 1 << 60: CodeTooLarge} {
		err := checkSizes([]manifest.Entry{{Path: "a", Size: size}})
		require.Equal(t, want, CodeOf(err), "%d", size)
	}
}

// A full disk is tried again until there is room, or the transfer ends.
func TestAFullDiskIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []Event
		o := ReceiveOptions{Options: Options{OnEvent: func(e Event) { events = append(events, e) }}}
		r, end := onDiskOf(t, t.TempDir(), o, faultyDisk{})
		full := &Error{Area: AreaDestination, Code: CodeNoSpace}
		tries := 0
		began := time.Now()
		require.NoError(t, r.stage(func() error {
			if tries++; tries <= 10 {
				return full
			}
			return nil
		}))
		require.Equal(t, 10*fullRetry, time.Since(began))
		require.False(t, r.t.meter.isPaused())

		tries = 0
		require.NoError(t, r.stage(func() error {
			if tries++; tries <= 2 {
				return &Error{Code: CodeIO, Err: staging.ErrLost}
			}
			return nil
		}), "what a failing sync took is written again at once")
		require.Equal(t, 10*fullRetry, time.Since(began))
		require.ErrorIs(t, r.stage(func() error { return syscall.EIO }), syscall.EIO)

		time.AfterFunc(5*time.Second, func() { r.fail(errStopped) })
		require.Equal(t, error(full), r.stage(func() error { return full }))
		require.ErrorIs(t, r.wait(time.Hour), errStopped)
		end()
		require.Equal(t, EventPaused, events[0].Kind)
		require.Equal(t, EventResumed, events[1].Kind)
		require.Equal(t, EventPaused, events[2].Kind)
		require.Len(t, events, 3)
	})
}

// fakeOrigin is an origin whose other end is read by hand. Its session is none.
func fakeOrigin(r *receiver) (o *origin, theirs net.Conn) {
	ours, theirs := net.Pipe()
	o = &origin{r: r, ctl: newControl(pipeStream{ours}), peer: "bob", supplier: newSupplier(true), last: time.Now(), answered: time.Now()}
	return o, theirs
}

// nextKinds returns the kinds of the next frames.
func nextKinds(t *testing.T, in *wire.Reader, n int) (kinds []wire.Kind) {
	t.Helper()
	for range n {
		f, err := in.Read()
		require.NoError(t, err)
		kinds = append(kinds, f.Kind)
	}
	return kinds
}

func TestAnOriginThatAttachesLearnsHowItStands(t *testing.T) {
	for name, v := range map[string]struct {
		set  func(r *receiver)
		want []wire.Kind
	}{
		"in between":   {func(*receiver) {}, []wire.Kind{wire.KindAccept, wire.KindWant}},
		"while paused": {func(r *receiver) { r.t.meter.setPaused(true) }, []wire.Kind{wire.KindAccept, wire.KindPause, wire.KindWant}},
		"at the end":   {func(r *receiver) { r.over = true }, []wire.Kind{wire.KindAccept, wire.KindComplete}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{})
				require.NoError(t, r.begin(listingOf(t, 3*pieceSize), nil))
				v.set(r)
				o, theirs := fakeOrigin(r)
				require.NoError(t, o.attach())
				require.Equal(t, v.want, nextKinds(t, wire.NewReader(theirs), len(v.want)))
				require.Len(t, r.sources(), 1)
				o.detach()
				require.Empty(t, r.sources())
				closeBoth(o.ctl, theirs)
				end()
			})
		})
	}
}

// The pieces that an origin delivers are written, and the root is asked for after the last one; a wrong one is asked for again.
func TestDeliveriesAreVerifiedAndWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{})
		require.NoError(t, r.begin(listingOf(t, 3*pieceSize), nil))
		o, theirs := fakeOrigin(r)
		in := wire.NewReader(theirs)
		require.NoError(t, o.attach())
		require.Equal(t, []wire.Kind{wire.KindAccept, wire.KindWant}, nextKinds(t, in, 2))
		l := layerOf(t, 3)
		deliver := func(i int, data []byte, hash b3tree.CV) {
			d := &delivery{o: o, h: wire.DataHeader{Kind: wire.Data, File: 0, Piece: uint32(i), Count: 1}, hash: hash, data: data}
			require.NoError(t, r.deliver(d))
		}
		deliver(1, make([]byte, pieceSize), l.cvs[1])
		require.Equal(t, int64(pieceSize), r.t.Progress().Verified)
		deliver(2, make([]byte, pieceSize), b3tree.CV{1})
		require.Equal(t, 1, r.t.Progress().Bad)
		require.Equal(t, pieceWanted, r.active[0].state[2])
		require.NoError(t, r.deliver(&delivery{o: o, h: wire.DataHeader{Kind: wire.Zeros, File: 0, Piece: 0, Count: 1}}))
		require.Equal(t, []wire.Kind{wire.KindWant}, nextKinds(t, in, 1), "the wrong one again")
		deliver(2, make([]byte, pieceSize), l.cvs[2])
		require.Equal(t, []wire.Kind{wire.KindWantRoot}, nextKinds(t, in, 1))
		require.Equal(t, CodeProtocol, CodeOf(r.rooted(&origin{}, wire.Root{Root: l.root})), "of one that was not asked")
		require.NoError(t, r.rooted(o, wire.Root{Root: l.root}))
		require.Equal(t, fileWhole, r.files[0])
		require.NoError(t, r.rooted(o, wire.Root{Root: l.root}), "once more is no harm")
		require.NoError(t, r.settleOnce())
		require.Equal(t, filePlaced, r.files[0])
		require.Equal(t, int64(3*pieceSize), r.t.Progress().Durable)
		closeBoth(o.ctl, theirs)
		end()
	})
}

// A file whose pieces do not make what the sender has is fetched once more, and then fails.
func TestAFileThatIsNotTheSendersIsFetchedOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{}, faultyDisk{})
		require.NoError(t, r.begin(listingOf(t, 2*pieceSize), nil))
		o, theirs := fakeOrigin(r)
		go func() { // reads all that is said
			for in := wire.NewReader(theirs); ; {
				if _, err := in.Read(); err != nil {
					return
				}
			}
		}()
		require.NoError(t, o.attach())
		for round := range 2 {
			for i := range uint32(2) {
				require.NoError(t, r.deliver(&delivery{o: o, h: wire.DataHeader{Kind: wire.Zeros, Piece: i, Count: 1}}))
			}
			require.NoError(t, r.rooted(o, wire.Root{Root: b3tree.Root{1}}))
			require.Empty(t, r.st.Have(0))
			if round == 0 {
				require.Equal(t, 1, r.active[0].restarts)
				require.Zero(t, r.t.Progress().Verified)
			}
		}
		require.Equal(t, fileFailed, r.files[0])
		require.Empty(t, r.active)
		closeBoth(o.ctl, theirs)
		end()
		failed := r.t.result().Failed
		require.Len(t, failed, 1)
		require.Equal(t, CodeHashMismatch, failed[0].Code)
	})
}

func TestAStallIsSilenceWhileSomethingIsWanted(t *testing.T) {
	r, end := onDiskOf(t, t.TempDir(), ReceiveOptions{Options: Options{StallAfter: 10 * time.Second}}, faultyDisk{})
	require.NoError(t, r.begin(listingOf(t, 3*pieceSize), nil))
	now := time.Now()
	newOrigin := func() *origin {
		o := &origin{r: r, supplier: newSupplier(true), last: now.Add(-time.Hour), answered: now}
		o.wanted[keyOf(0, 0)] = 1
		return o
	}
	require.True(t, r.isStalledLocked(newOrigin(), now))
	idle := newOrigin()
	clear(idle.wanted)
	require.False(t, r.isStalledLocked(idle, now), "nothing is wanted of it")
	require.Equal(t, now, idle.last)
	slow := newOrigin()
	slow.heard.Store(now.Add(-time.Second).UnixNano())
	require.False(t, r.isStalledLocked(slow, now), "a part of a piece came")
	r.t.meter.setPaused(true)
	require.False(t, r.isStalledLocked(newOrigin(), now), "the disk is full")
	r.t.meter.setPaused(false)

	hashing := newOrigin()
	hashing.last = now
	a := r.newActive(0)
	a.left, a.asked = 0, &hashing.supplier
	r.active[0] = a
	hashing.answered = now.Add(-10 * time.Second)
	require.False(t, r.isStalledLocked(hashing, now), "it has to read the file first")
	hashing.answered = now.Add(-11 * time.Second)
	require.True(t, r.isStalledLocked(hashing, now))
	delete(r.active, 0)
	end()
}
