package wire

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// any32 draws 32 bytes.
func any32(t *rapid.T, label string) [32]byte {
	return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label))
}

// anyFrame draws a frame of any kind, as a correct peer sends it.
func anyFrame(t *rapid.T) (kind Kind, flag bool, body func([]byte) []byte) {
	text := rapid.StringN(0, 50, 200).Draw(t, "text")
	why := Why{Code: rapid.StringMatching(`[a-z_]{1,32}`).Draw(t, "code"), Text: text}
	u32, u64 := rapid.Uint32().Draw(t, "u32"), rapid.Uint64().Draw(t, "u64")
	switch rapid.IntRange(0, 16).Draw(t, "kind") {
	case 0:
		id := ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		return KindHello, false, Hello{Role(rapid.IntRange(1, 2).Draw(t, "role")), rapid.IntRange(1, MaxLanes).Draw(t, "lanes"), Caps(u32), id}.Append
	case 1:
		token := rapid.SliceOfN(rapid.Byte(), 0, MaxToken).Draw(t, "token")
		return KindGet, rapid.Bool().Draw(t, "known"), Get{any32(t, "root"), token}.Append
	case 2:
		return KindOffer, rapid.Bool().Draw(t, "hashed"), func(b []byte) []byte { return append(b, CutName(text)...) }
	case 3:
		some := rapid.SliceOfN(rapid.Byte(), 2, 300).Draw(t, "entries")
		return KindManifest, false, func(b []byte) []byte { return append(b, some...) }
	case 4:
		return KindListed, false, Listed{any32(t, "root"), u32, u64}.Append
	case 5:
		return KindAccept, false, nil
	case 6:
		wants := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Want {
			w := Want{File: rapid.Uint32().Draw(t, "file"), Files: rapid.Uint32Range(1, 1000).Draw(t, "files")}
			if w.Files == 1 {
				w.Piece, w.Pieces = rapid.Uint32().Draw(t, "piece"), rapid.Uint32().Draw(t, "pieces")
			}
			return w
		}), 1, 20).Draw(t, "wants")
		return KindWant, rapid.Bool().Draw(t, "fresh"), func(b []byte) []byte { return AppendWants(b, wants) }
	case 7:
		return KindWantLayer, false, func(b []byte) []byte { return AppendFile(b, u32) }
	case 8:
		cvs := bytes.Repeat([]byte{byte(u32)}, 32*rapid.IntRange(1, 10).Draw(t, "cvs"))
		return KindLayer, false, Layer{u32, uint32(u64), cvs}.Append
	case 9:
		return KindWantRoot, false, func(b []byte) []byte { return AppendFile(b, u32) }
	case 10:
		return KindRoot, false, Root{u32, any32(t, "root")}.Append
	case 11:
		return KindFailed, false, func(b []byte) []byte { return AppendFailed(b, u32, why) }
	case 12:
		return KindAck, false, Ack{u64, u64 / 2, u32}.Append
	case 13:
		return KindPause, false, why.Append
	case 14:
		return KindAbort, false, why.Append
	case 15:
		return KindComplete, false, Summary{u64, u32, u32 / 2, rapid.Bool().Draw(t, "durable")}.Append
	}
	return KindLeftOut, false, LeftOut{max(1, u32), text}.Append
}

// However a stream is cut into reads, the same frames come out of it, and each of them is encoded as it was.
func TestFramesComeAsTheyWereSentHoweverTheyAreRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want [][]byte
		for range rapid.IntRange(1, 12).Draw(t, "frames") {
			kind, flag, body := anyFrame(t)
			one := AppendFrame(nil, kind, flag, body)
			stream, want = append(stream, one...), append(want, one)
		}
		var from io.Reader = bytes.NewReader(stream)
		switch rapid.IntRange(0, 3).Draw(t, "reads") {
		case 0:
			from = iotest.OneByteReader(from)
		case 1:
			from = iotest.HalfReader(from)
		case 2:
			from = iotest.DataErrReader(from)
		}
		r := NewReader(from)
		for i, one := range want {
			f, err := r.Read()
			require.NoError(t, err)
			made := AppendFrame(nil, f.Kind, f.Flag, func(b []byte) []byte { return append(b, f.Body...) })
			require.Equal(t, one, made, "frame %d", i)
		}
		_, err := r.Read()
		require.Equal(t, io.EOF, err)
	})
}

// A changed byte is refused, or makes another frame: it is never a panic, and each error is of the protocol.
func TestAChangedByteIsNoPanic(t *testing.T) {
	for _, make := range frames {
		whole := make()
		for i := range whole {
			for _, change := range []byte{1, 0x80, 0xff} {
				b := bytes.Clone(whole)
				b[i] ^= change
				r := NewReader(bytes.NewReader(b))
				f, err := r.Read()
				if err == nil {
					again(t, f)
					continue
				}
				require.True(t, fault.CodeOf(err) == fault.CodeProtocol || err == io.ErrUnexpectedEOF, "%v", err)
			}
		}
	}
}

func TestABreachOfTheProtocolHasItsCode(t *testing.T) {
	err := Breachf("%d lanes of %w", 3, io.EOF)
	require.EqualError(t, err, "protocol error: 3 lanes of EOF")
	require.ErrorIs(t, err, ErrProtocol)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, fault.CodeProtocol, fault.CodeOf(err))
}

func TestABodyThatDoesNotFitItsKindIsABug(t *testing.T) {
	for kind, n := range map[Kind]int{KindAccept: 1, KindHello: 27, KindOffer: 256, KindManifest: MaxBody + 1, KindWant: 15, KindAbort: 1} {
		require.PanicsWithValue(t, fmt.Sprintf("BUG: %v of %d bytes", kind, n), func() {
			AppendFrame(nil, kind, false, func(b []byte) []byte { return append(b, make([]byte, n)...) })
		})
	}
}

func TestNamesOfKindsAreThoseOfTheSpec(t *testing.T) {
	seen := make(map[string]bool)
	for kind := range kinds {
		name := kind.String()
		require.Regexp(t, `^[A-Z_]+$`, name)
		require.False(t, seen[name], name)
		seen[name] = true
	}
	require.Len(t, seen, 18)
	require.Equal(t, "frame 0x7f", Kind(0x7f).String())
	require.Equal(t, "DATA ZEROS PACK", Data.String()+" "+Zeros.String()+" "+Pack.String())
	require.Equal(t, "data frame 0x09", DataKind(9).String())
}

func TestCapabilitiesAreASet(t *testing.T) {
	require.True(t, OurCaps.Has(CapLeftOut))
	require.True(t, OurCaps.Has(CapLeftOut|CapAnyRoot))
	require.False(t, CapLeftOut.Has(CapLeftOut|CapAnyRoot))
	require.True(t, Caps(0).Has(0))
	require.True(t, Caps(1<<31|uint32(OurCaps)).Has(OurCaps), "those of a later version do not matter")
}

func TestAPackIsReadFileByFile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hashed := rapid.Bool().Draw(t, "hashed")
		files := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 40), 1, 8).Draw(t, "files")
		var pack []byte
		for i, data := range files {
			head := make([]byte, PackedHead)
			PutPackedHead(head, uint32(i), len(data))
			pack = append(pack, head...)
			if hashed {
				pack = append(pack, bytes.Repeat([]byte{byte(i)}, HashSize)...)
			}
			pack = append(pack, data...)
		}
		rest := pack
		for i, data := range files {
			var p Packed
			var err error
			p, rest, err = ConsumePacked(rest, hashed)
			require.NoError(t, err)
			require.Equal(t, uint32(i), p.File)
			require.True(t, bytes.Equal(data, p.Data))
			require.Equal(t, hashed, p.Hash != nil)
		}
		require.Empty(t, rest)
		cut := pack[:rapid.IntRange(0, len(pack)-1).Draw(t, "cut")]
		for range files {
			var err error
			if _, cut, err = ConsumePacked(cut, hashed); err != nil {
				require.ErrorIs(t, err, ErrProtocol)
				return
			}
		}
		t.Fatal("a PACK that is cut off is read as if it were whole")
	})
}
