package transfer

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/files"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// fakeFiles are files of no disk.
type fakeFiles struct {
	entries []manifest.Entry
	data    map[uint32][]byte // of zeros, if missing
	fail    map[uint32]error  // of whatever is done with a file
	check   map[uint32]error  // of Check alone
	holes   map[uint32]int64  // a file is one hole up to there
	layers  func(id uint32) ([]b3tree.CV, b3tree.Root, error)

	opens, reads, closes int
}

func (f *fakeFiles) bytesOf(id uint32) []byte {
	if b, ok := f.data[id]; ok {
		return b
	}
	return make([]byte, f.entries[id].Size)
}

func (f *fakeFiles) Open(id uint32) (files.File, error) {
	f.opens++
	if err := f.fail[id]; err != nil {
		return nil, err
	}
	return &fakeFile{f, id}, nil
}

func (f *fakeFiles) ReadFile(id uint32, buf []byte) ([]byte, error) {
	f.reads++
	if err := f.fail[id]; err != nil {
		return buf, err
	}
	return append(buf, f.bytesOf(id)...), nil
}

func (f *fakeFiles) Layer(_ context.Context, id uint32) ([]b3tree.CV, b3tree.Root, error) {
	return f.layers(id)
}

type fakeFile struct {
	*fakeFiles
	id uint32
}

func (f *fakeFile) ReadAt(b []byte, off int64) (int, error) {
	f.reads++
	if n := copy(b, f.bytesOf(f.id)[off:]); n < len(b) {
		return n, io.EOF
	}
	return len(b), nil
}

func (f *fakeFile) Check() error { return f.check[f.id] }
func (f *fakeFile) Close() error { f.closes++; return nil }

func (f *fakeFile) Hole(off int64) (end int64, hole bool) {
	if to := f.holes[f.id]; off < to {
		return to, true
	}
	return f.entries[f.id].Size, false
}

// sending is a sender of fake files, whose control stream is read by hand.
type sending struct {
	*sender
	fake   *fakeFiles
	theirs net.Conn
	heard  []wire.Frame // on the control stream
	over   chan struct{}
}

func newSending(hashed bool, entries []manifest.Entry) *sending {
	ours, theirs := net.Pipe()
	tr, _ := newTransfer(sends, "bob", Options{}.withDefaults())
	fake := &fakeFiles{entries: entries, fail: map[uint32]error{}, check: map[uint32]error{}, holes: map[uint32]int64{}, data: map[uint32][]byte{}}
	s := &sending{
		sender: &sender{
			t: tr, entries: entries, files: fake, hashed: hashed, ctl: newControl(pipeStream{ours}), wants: newWantQueue(entries),
			asks: newAskQueue(), gone: make(map[uint32]bool),
		},
		fake: fake, theirs: theirs, over: make(chan struct{}),
	}
	go func() { // reads all that is said
		defer close(s.over)
		for in := wire.NewReader(theirs); ; {
			f, err := in.Read()
			if err != nil {
				return
			}
			f.Body = append([]byte(nil), f.Body...)
			s.heard = append(s.heard, f)
		}
	}()
	return s
}

// end ends the sender, and returns the frames that the receiver was sent on the control stream.
func (s *sending) end() []wire.Frame {
	s.ctl.end() // when all has left
	_ = s.ctl.st.Close()
	<-s.over
	s.t.end(nil)
	return s.heard
}

// laneFrame is a frame of a data lane.
type laneFrame struct {
	wire.DataHeader
	body []byte // after the header
}

// send takes what is wanted off the queue, and returns the frames that a lane would carry.
func (s *sending) send(ctx context.Context, wants ...wire.Want) (frames []laneFrame, err error) {
	if err := s.wants.add(wantFrame(false, wants...)); err != nil {
		return nil, err
	}
	l := &outLane{sender: s.sender, full: make(chan outFrame, laneBuffers), empty: make(chan outFrame, laneBuffers+1), turn: s.wants.begin()}
	for range laneBuffers + 1 {
		l.empty <- outFrame{}
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for f := range l.full {
			h, err := wire.ConsumeDataHeader(f.b)
			if err != nil {
				panic(err)
			}
			frames = append(frames, laneFrame{h, append([]byte(nil), f.b[wire.DataHeaderSize:]...)})
			l.empty <- f
		}
	}()
	for s.wants.head < len(s.wants.items) && err == nil {
		j, _ := s.wants.next(l.turn, l.over.Load)
		if len(j.pack) > 0 {
			err = l.packFiles(ctx, j.pack)
		} else if j.pieces > 0 {
			err = l.pieces(ctx, j)
		}
	}
	close(l.full)
	<-written
	return frames, err
}

// failures returns the files that the receiver was told of, with their codes.
func failures(t *testing.T, frames []wire.Frame) map[uint32]string {
	t.Helper()
	all := make(map[uint32]string)
	for _, f := range frames {
		if f.Kind != wire.KindFailed {
			continue
		}
		id, why, err := wire.ConsumeFailed(f.Body)
		require.NoError(t, err)
		require.Empty(t, all[id], "once")
		all[id] = why.Code
	}
	return all
}

var errChanged = &Error{Op: "read", Area: AreaSource, Code: CodeSourceChanged, Text: "it is gone"}

func TestPiecesAreSentWithTheirHashesUnlessTheyAreKnown(t *testing.T) {
	for _, hashed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSending(hashed, filesOfPieces(t, false, 3, -1))
			frames, err := s.send(t.Context(), wire.Want{File: 0, Files: 2})
			require.NoError(t, err)
			require.Len(t, frames, 4)
			head := wire.HashSize
			if hashed {
				head = 0
			}
			for i, f := range frames[:3] {
				require.Equal(t, wire.DataHeader{Kind: wire.Data, Hashed: !hashed, Piece: uint32(i), Count: 1, Length: pieceSize}, f.DataHeader)
				require.Len(t, f.body, head+pieceSize)
				if !hashed {
					require.Equal(t, layerOf(t, 3).cvs[i], b3tree.CV(f.body[:head]))
				}
			}
			require.Equal(t, wire.DataHeader{Kind: wire.Pack, Hashed: !hashed, File: 1, Count: 1, Length: uint32(wire.PackedHead + head + 100)}, frames[3].DataHeader)
			p, rest, err := wire.ConsumePacked(frames[3].body, !hashed)
			require.NoError(t, err)
			require.Empty(t, rest)
			require.Equal(t, make([]byte, 100), p.Data)
			require.Equal(t, 1, s.fake.opens, "one file is opened once")
			require.Empty(t, s.end())
		})
	}
}

func TestHolesAreSentAsZeros(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entries := filesOfPieces(t, false, 10)
		entries[0].Flags = manifest.FlagSparse
		s := newSending(true, entries)
		s.fake.holes[0] = 7*pieceSize + 5 // the last of them is not one hole
		frames, err := s.send(t.Context(), wire.Want{File: 0, Files: 1, Piece: 1, Pieces: 9})
		require.NoError(t, err)
		require.Len(t, frames, 4)
		require.Equal(t, wire.DataHeader{Kind: wire.Zeros, Piece: 1, Count: 6}, frames[0].DataHeader)
		require.Equal(t, []uint32{7, 8, 9}, []uint32{frames[1].Piece, frames[2].Piece, frames[3].Piece})
		require.Equal(t, 3, s.fake.reads, "holes are not read")

		s.fake.check[0] = errChanged
		frames, err = s.send(t.Context(), wire.Want{File: 0, Files: 1, Pieces: 3})
		require.NoError(t, err)
		require.Empty(t, frames, "nothing is sent of a file that has changed")
		require.Equal(t, map[uint32]string{0: "source_changed"}, failures(t, s.end()))
	})
}

func TestAFileThatCannotBeSentFailsAloneAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSending(false, filesOfPieces(t, false, -1, 2, -1, 2, 0, -1))
		s.fake.fail[0] = errChanged
		s.fake.fail[1] = &Error{Op: "open", Area: AreaSource, Code: CodeDenied, Text: "no", Err: syscall.EACCES}
		s.fake.check[3] = errors.New("the disk fails")
		for range 2 {
			frames, err := s.send(t.Context(), wire.Want{File: 0, Files: 6})
			require.NoError(t, err)
			var sent []uint32
			for _, f := range frames {
				sent = append(sent, f.File)
				require.Equal(t, wire.Pack, f.Kind)
			}
			require.Equal(t, []uint32{2, 5}, sent)
		}
		require.Equal(t, map[uint32]string{0: "source_changed", 1: "denied", 3: "io"}, failures(t, s.end()))
		failed := s.t.result().Failed
		require.Len(t, failed, 3)
		require.Equal(t, "send", failed[0].Op)
		require.Equal(t, "bob", failed[0].Peer)
		require.Equal(t, CodeIO, failed[2].Code, "an error without a code is one of this side's disk")
	})
}

func TestAPackOfFilesThatAllFailIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSending(true, filesOfPieces(t, false, -1, -1))
		s.fake.fail[0], s.fake.fail[1] = errChanged, errChanged
		frames, err := s.send(t.Context(), wire.Want{File: 0, Files: 2})
		require.NoError(t, err)
		require.Empty(t, frames)
		require.Len(t, failures(t, s.end()), 2)
	})
}

// If no more files can be opened, the others would fail too.
func TestTooManyOpenFilesEndTheTransfer(t *testing.T) {
	for _, cause := range []error{syscall.EMFILE, syscall.ENFILE} {
		for _, pieces := range []int{-1, 2} {
			synctest.Test(t, func(t *testing.T) {
				s := newSending(true, filesOfPieces(t, false, pieces))
				s.fake.fail[0] = &Error{Area: AreaSource, Code: CodeIO, Err: cause}
				_, err := s.send(t.Context(), wire.Want{File: 0, Files: 1})
				require.ErrorIs(t, err, cause)
				require.Empty(t, failures(t, s.end()))
			})
		}
	}
}

func TestALostLaneSendsNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSending(true, filesOfPieces(t, false, 3))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.send(ctx, wire.Want{File: 0, Files: 1})
		require.Equal(t, errLaneLost, err)
		require.Empty(t, failures(t, s.end()), "the file is not to blame")
	})
}

func TestTheRootReadsWhatWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entries := filesOfPieces(t, false, 5, -1, 0, 5)
		entries[3].Flags = manifest.FlagSparse
		s := newSending(false, entries)
		s.fake.holes[3] = 4 * pieceSize
		_, err := s.send(t.Context(), wire.Want{File: 0, Files: 1, Piece: 1, Pieces: 3})
		require.NoError(t, err)
		s.fake.reads = 0
		require.NoError(t, s.sendRoot(t.Context(), 0))
		require.Equal(t, 2, s.fake.reads, "the first piece and the last")
		require.NoError(t, s.sendRoot(t.Context(), 1))
		s.fake.reads = 0
		require.NoError(t, s.sendRoot(t.Context(), 3))
		require.Equal(t, 1, s.fake.reads, "holes are not read")
		s.fake.check[0] = errChanged
		require.NoError(t, s.sendRoot(t.Context(), 0))
		require.Equal(t, s.fake.opens, s.fake.closes+1, "all but the lane's")
		frames := s.end()
		require.Len(t, frames, 4)
		for i, want := range []wire.Root{
			{File: 0, Root: layerOf(t, 5).root}, {File: 1, Root: b3tree.Sum(make([]byte, 100))}, {File: 3, Root: layerOf(t, 5).root},
		} {
			require.Equal(t, wire.KindRoot, frames[i].Kind)
			require.Equal(t, want, wire.ConsumeRoot(frames[i].Body))
		}
		require.Equal(t, map[uint32]string{0: "source_changed"}, failures(t, frames))
	})
}

func TestALayerIsSentInPartsAndComparedWithTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pieces = wire.MaxCVs + 100
		l := layerOf(t, pieces)
		s := newSending(true, filesOfPieces(t, true, pieces, pieces, pieces))
		s.fake.layers = func(id uint32) ([]b3tree.CV, b3tree.Root, error) {
			switch id {
			case 1:
				return l.cvs, b3tree.Root{1}, nil
			case 2:
				return nil, b3tree.Root{}, errChanged
			}
			return l.cvs, l.root, nil
		}
		for id := range uint32(3) {
			require.NoError(t, s.sendLayer(t.Context(), id))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, s.sendLayer(ctx, 0), "run says why")
		frames := s.end()
		var got []byte
		for _, f := range frames[:2] {
			part, err := wire.ConsumeLayer(f.Body)
			require.NoError(t, err)
			require.Equal(t, len(got), int(part.First)*b3tree.HashSize)
			got = append(got, part.CVs...)
		}
		require.Equal(t, b3tree.AppendLayer(nil, l.cvs), got)
		require.Equal(t, map[uint32]string{1: "source_changed", 2: "source_changed"}, failures(t, frames[2:]))
		require.Len(t, frames, 4)
	})
}

func TestRequestsForHashesMustFitTheTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hashed := range []bool{false, true} {
			s := newSending(hashed, filesOfPieces(t, false, 2, -1, 0))
			right, wrong := wire.KindWantRoot, wire.KindWantLayer
			if hashed {
				right, wrong = wrong, right
			}
			want := func(kind wire.Kind, id uint32) error {
				return s.ask(wire.Frame{Kind: kind, Body: wire.AppendFile(nil, id)})
			}
			require.NoError(t, want(right, 0))
			require.Equal(t, CodeProtocol, CodeOf(want(wrong, 0)))
			require.Equal(t, hashed, want(right, 1) != nil, "a file of one piece has no layer")
			require.Equal(t, CodeProtocol, CodeOf(want(right, 2)), "a folder")
			require.Equal(t, CodeProtocol, CodeOf(want(right, 3)), "no entry")
			s.end()
		}
	})
}

func TestWhatAReceiverMaySayDependsOnWhetherItHasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSending(false, filesOfPieces(t, false, 2, -1))
		s.t.meter.bytes.Store(1000)
		s.t.meter.files.Store(2)
		accept := wire.Frame{Kind: wire.KindAccept}
		require.Equal(t, CodeProtocol, CodeOf(s.take(wire.Frame{Kind: wire.KindAck, Body: wire.Ack{}.Append(nil)})), "before ACCEPT")
		require.NoError(t, s.take(accept))
		require.Equal(t, PhaseData, s.t.Progress().Phase)
		require.Equal(t, CodeProtocol, CodeOf(s.take(accept)), "twice")
		for _, kind := range []wire.Kind{wire.KindHello, wire.KindGet, wire.KindOffer, wire.KindManifest, wire.KindListed, wire.KindLayer, wire.KindRoot} {
			require.Equal(t, CodeProtocol, CodeOf(s.take(wire.Frame{Kind: kind})), kind.String())
		}
		ack := wire.Ack{Durable: 1 << 60, Verified: 1 << 63, Published: 7}
		require.NoError(t, s.take(wire.Frame{Kind: wire.KindAck, Body: ack.Append(nil)}))
		p := s.t.Progress()
		require.Equal(t, []int64{1000, 1000, 2}, []int64{p.Verified, p.Durable, int64(p.FilesDone)}, "no more than there is")
		require.Equal(t, CodeProtocol, CodeOf(s.take(wire.Frame{Kind: wire.KindFailed, Body: wire.AppendFailed(nil, 2, wire.Why{Code: "io"})})))
		require.Equal(t, CodeProtocol, CodeOf(s.take(wire.Frame{Kind: wire.KindComplete, Body: make([]byte, 3)})))
		require.NoError(t, s.take(wire.Frame{Kind: wire.KindComplete, Body: wire.Summary{Bytes: 5, Files: 1}.Append(nil)}))
		require.Equal(t, int64(5), s.t.Progress().Verified)
		s.end()
	})
}
