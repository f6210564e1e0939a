package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// frames has one of each kind, as the spec has them, and what it is made of.
var frames = map[string]func() []byte{
	// kind 01, flags 00, zero 0000, length 0000001c; magic, version 01, role 02, lanes 0004, caps, id
	"01000000" + "0000001c" + "f5706c78" + "01" + "02" + "0004" + "00000003" + "0102030405060708090a0b0c0d0e0f10": func() []byte {
		return AppendFrame(nil, KindHello, false, Hello{Receiver, 4, OurCaps, ID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}.Append)
	},
	// flags 01 known, length 35: root 32, token 3
	"02010000" + "00000023" + strings.Repeat("aa", 32) + "746f6b": func() []byte {
		return AppendFrame(nil, KindGet, true, Get{[32]byte(bytes.Repeat([]byte{0xaa}, 32)), []byte("tok")}.Append)
	},
	"03010000" + "00000004" + "6e616d65": func() []byte {
		return AppendFrame(nil, KindOffer, true, func(b []byte) []byte { return append(b, "name"...) })
	},
	// root 32, entries 7, bytes 258
	"05000000" + "0000002c" + strings.Repeat("bb", 32) + "00000007" + "0000000000000102": func() []byte {
		return AppendFrame(nil, KindListed, false, Listed{[32]byte(bytes.Repeat([]byte{0xbb}, 32)), 7, 258}.Append)
	},
	"06000000" + "00000000": func() []byte { return AppendFrame(nil, KindAccept, false, nil) },
	// flags 01 fresh; file 1, files 9, piece 0, pieces 0; file 2, files 1, piece 3, pieces 4
	"07010000" + "00000020" + "00000001" + "00000009" + "00000000" + "00000000" + "00000002" + "00000001" + "00000003" + "00000004": func() []byte {
		return AppendFrame(nil, KindWant, true, func(b []byte) []byte { return AppendWants(b, []Want{{1, 9, 0, 0}, {2, 1, 3, 4}}) })
	},
	"08000000" + "00000004" + "00000005": func() []byte {
		return AppendFrame(nil, KindWantLayer, false, func(b []byte) []byte { return AppendFile(b, 5) })
	},
	// file 5, first 16, one value
	"09000000" + "00000028" + "00000005" + "00000010" + strings.Repeat("cc", 32): func() []byte {
		return AppendFrame(nil, KindLayer, false, Layer{5, 16, bytes.Repeat([]byte{0xcc}, 32)}.Append)
	},
	"0b000000" + "00000024" + "00000005" + strings.Repeat("dd", 32): func() []byte {
		return AppendFrame(nil, KindRoot, false, Root{5, [32]byte(bytes.Repeat([]byte{0xdd}, 32))}.Append)
	},
	// file 6, code of 2 bytes, text
	"0c000000" + "00000009" + "00000006" + "02" + "696f" + "6261": func() []byte {
		return AppendFrame(nil, KindFailed, false, func(b []byte) []byte { return AppendFailed(b, 6, Why{"io", "ba"}) })
	},
	"0d000000" + "00000014" + "0000000000000001" + "0000000000000002" + "00000003": func() []byte {
		return AppendFrame(nil, KindAck, false, Ack{1, 2, 3}.Append)
	},
	"10000000" + "00000009" + "08" + "63616e63656c6564": func() []byte {
		return AppendFrame(nil, KindAbort, false, Why{Code: "canceled"}.Append)
	},
	"11000000" + "00000011" + "0000000000000009" + "00000002" + "00000001" + "01": func() []byte {
		return AppendFrame(nil, KindComplete, false, Summary{9, 2, 1, true}.Append)
	},
	// count 4, text
	"12000000" + "00000006" + "00000004" + "6869": func() []byte {
		return AppendFrame(nil, KindLeftOut, false, LeftOut{4, "hi"}.Append)
	},
}

func TestFramesAreThoseOfTheSpec(t *testing.T) {
	for want, make := range frames {
		b := make()
		require.Equal(t, want, hex.EncodeToString(b))
		f, err := NewReader(bytes.NewReader(b)).Read()
		require.NoError(t, err)
		require.Equal(t, b, again(t, f), f.Kind.String())
		for n := range len(b) {
			_, err := NewReader(bytes.NewReader(b[:n])).Read()
			if n == 0 {
				require.Equal(t, io.EOF, err)
			} else {
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%v cut after %d", f.Kind, n)
			}
		}
	}
}

// again decodes a frame's body and encodes it again; nil when it is not one.
func again(t testing.TB, f Frame) []byte {
	t.Helper()
	var body func([]byte) []byte
	var err error
	switch f.Kind {
	case KindHello:
		var h Hello
		h, err = ConsumeHello(f.Body)
		body = h.Append
	case KindGet:
		body = ConsumeGet(f.Body).Append
	case KindListed:
		body = ConsumeListed(f.Body).Append
	case KindWant:
		var wants []Want
		wants, err = ConsumeWants(nil, f.Body)
		body = func(b []byte) []byte { return AppendWants(b, wants) }
	case KindWantLayer, KindWantRoot:
		body = func(b []byte) []byte { return AppendFile(b, ConsumeFile(f.Body)) }
	case KindLayer:
		var l Layer
		l, err = ConsumeLayer(f.Body)
		body = l.Append
	case KindRoot:
		body = ConsumeRoot(f.Body).Append
	case KindFailed:
		var file uint32
		var w Why
		file, w, err = ConsumeFailed(f.Body)
		body = func(b []byte) []byte { return AppendFailed(b, file, w) }
	case KindAck:
		body = ConsumeAck(f.Body).Append
	case KindPause, KindAbort:
		var w Why
		w, err = ConsumeWhy(f.Body)
		body = w.Append
	case KindComplete:
		var s Summary
		if len(f.Body) > 0 {
			s, err = ConsumeSummary(f.Body)
			body = s.Append
		}
	case KindLeftOut:
		var l LeftOut
		l, err = ConsumeLeftOut(f.Body)
		body = l.Append
	case KindOffer, KindManifest, KindAccept, KindResume:
		body = func(b []byte) []byte { return append(b, f.Body...) }
	}
	if err != nil {
		require.ErrorIs(t, err, ErrProtocol)
		return nil
	}
	return AppendFrame(nil, f.Kind, f.Flag, body)
}

func TestReaderRefusesWhatTheSpecDoesNotHave(t *testing.T) {
	for name, frame := range map[string]string{
		"an unknown kind":           "7f000000" + "00000000",
		"a flag that means nothing": "06010000" + "00000000",
		"a second flag":             "07020000" + "00000010",
		"bits that are zero":        "06000001" + "00000000",
		"a body where none is":      "06000000" + "00000001" + "00",
		"a body that is too short":  "08000000" + "00000003" + "000000",
		"a body that is too long":   "04000000" + "00010001",
		"4 GiB":                     "04000000" + "ffffffff",
	} {
		b, err := hex.DecodeString(frame)
		require.NoError(t, err)
		_, err = NewReader(bytes.NewReader(b)).Read()
		require.ErrorIs(t, err, ErrProtocol, name)
	}
}

func TestBodiesThatAreNone(t *testing.T) {
	hello := Hello{Sender, 1, 0, ID{}}.Append(nil)
	for i, b := range [][2]byte{{0, 0}, {4, 2}, {5, 3}, {5, 0}, {7, 17}, {7, 0}} {
		bad := bytes.Clone(hello)
		bad[b[0]] = b[1]
		_, err := ConsumeHello(bad)
		require.ErrorIs(t, err, ErrProtocol, i)
	}
	_, err := ConsumeHello(append(bytes.Clone(hello[:4]), append([]byte{2}, hello[5:]...)...))
	require.ErrorContains(t, err, "update the older one")
	for _, w := range []Want{{0, 0, 0, 0}, {0, 2, 1, 0}, {0, 2, 0, 1}} {
		_, err := ConsumeWants(nil, AppendWants(nil, []Want{w}))
		require.ErrorIs(t, err, ErrProtocol, w)
	}
	_, err = ConsumeWants(nil, make([]byte, 17))
	require.ErrorIs(t, err, ErrProtocol)
	_, err = ConsumeLayer(make([]byte, 8+33))
	require.ErrorIs(t, err, ErrProtocol)
	for _, b := range []string{"\x00x", "\x02x", "\x01X", "\x21" + strings.Repeat("a", 33), "\x01a" + strings.Repeat("t", 1025)} {
		_, err = ConsumeWhy([]byte(b))
		require.ErrorIs(t, err, ErrProtocol, "%q", b)
	}
	_, err = ConsumeSummary(append(make([]byte, 16), 2))
	require.ErrorIs(t, err, ErrProtocol)
	_, err = ConsumeLeftOut([]byte{0, 0, 0, 0, 'x'})
	require.ErrorIs(t, err, ErrProtocol)
}

func TestTextsAreCutWhereACharacterEnds(t *testing.T) {
	name := CutName(strings.Repeat("ä", 200))
	require.Equal(t, strings.Repeat("ä", 127), name)
	require.Equal(t, "a\uFFFDb", CutName("a\xffb"))
	w, err := ConsumeWhy(Why{"io", strings.Repeat("x", 5000)}.Append(nil))
	require.NoError(t, err)
	require.Len(t, w.Text, 1024)
	l, err := ConsumeLeftOut(LeftOut{1, strings.Repeat("x", 5000)}.Append(nil))
	require.NoError(t, err)
	require.Len(t, l.Text, 1024)
}

func TestDataFramesAreThoseOfTheSpec(t *testing.T) {
	var b [DataHeaderSize]byte
	h := DataHeader{Data, true, 1, 2, 1, 262144}
	h.Put(b[:])
	require.Equal(t, "01010000"+"00000001"+"00000002"+"00000001"+"00040000", hex.EncodeToString(b[:]))
	got, err := ConsumeDataHeader(b[:])
	require.NoError(t, err)
	require.Equal(t, h, got)
	for _, bad := range []DataHeader{
		{Data, false, 1, 2, 2, 1}, {Data, false, 1, 2, 1, 0}, {Data, false, 1, 2, 0, 1}, {Zeros, false, 1, 2, 3, 1}, {Zeros, true, 1, 2, 3, 0},
		{Zeros, false, 1, 2, 0, 0}, {Pack, false, 1, 1, 1, 1}, {Pack, false, 1, 0, 1, 0}, {Pack, false, 1, 0, 1, MaxPack + 1}, {4, false, 1, 0, 1, 1}, {},
	} {
		bad.Put(b[:])
		_, err := ConsumeDataHeader(b[:])
		require.ErrorIs(t, err, ErrProtocol, bad)
	}
	hello := AppendLaneHello(nil, ID{1, 2})
	require.Equal(t, "f5706c79"+"01000000"+"01020000000000000000000000000000", hex.EncodeToString(hello))
	id, err := ConsumeLaneHello(hello)
	require.NoError(t, err)
	require.Equal(t, ID{1, 2}, id)
	for i := range 8 {
		bad := bytes.Clone(hello)
		bad[i] ^= 1
		_, err := ConsumeLaneHello(bad)
		require.ErrorIs(t, err, ErrProtocol, i)
	}
}

func FuzzFrame(f *testing.F) {
	for _, make := range frames {
		f.Add(make())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for {
			frame, err := r.Read()
			if err != nil {
				return
			}
			if made := again(t, frame); made != nil && frame.Kind != KindHello && frame.Kind != KindFailed && frame.Kind != KindPause && frame.Kind != KindAbort && frame.Kind != KindLeftOut {
				require.True(t, bytes.Contains(b, made), "%v: %x", frame.Kind, made)
			}
		}
	})
}

func FuzzPack(f *testing.F) {
	pack := make([]byte, PackedHead, 64)
	PutPackedHead(pack, 7, 3)
	f.Add(append(pack, "abc"...), false)
	f.Add(append(append(pack, make([]byte, HashSize)...), "abc"...), true)
	f.Fuzz(func(t *testing.T, b []byte, hashed bool) {
		var made []byte
		for rest := b; len(rest) > 0; {
			p, after, err := ConsumePacked(rest, hashed)
			if err != nil {
				require.ErrorIs(t, err, ErrProtocol)
				return
			}
			var head [PackedHead]byte
			PutPackedHead(head[:], p.File, len(p.Data))
			made = append(append(append(made, head[:]...), p.Hash...), p.Data...)
			rest = after
		}
		require.True(t, bytes.Equal(b, made))
	})
}

// What a data lane begins with, and the head of a frame of it, are written as they were read.
func FuzzData(f *testing.F) {
	for _, h := range []DataHeader{{Data, true, 1, 2, 1, 262144}, {Zeros, false, 1, 2, 3, 0}, {Pack, true, 1, 0, 2, MaxPack}} {
		b := AppendLaneHello(nil, ID{1, 2})
		b = append(b, make([]byte, DataHeaderSize)...)
		h.Put(b[LaneHelloSize:])
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < LaneHelloSize+DataHeaderSize {
			return
		}
		if id, err := ConsumeLaneHello(b); err == nil {
			require.Equal(t, b[:LaneHelloSize], AppendLaneHello(nil, id))
		} else {
			require.ErrorIs(t, err, ErrProtocol)
		}
		head := b[LaneHelloSize : LaneHelloSize+DataHeaderSize]
		h, err := ConsumeDataHeader(head)
		if err != nil {
			require.ErrorIs(t, err, ErrProtocol)
			return
		}
		require.True(t, h.Count > 0 && (h.Kind != Pack || h.Length <= MaxPack))
		var again [DataHeaderSize]byte
		h.Put(again[:])
		require.Equal(t, head, again[:])
	})
}

var errHalted = errors.New("halted")

// halting returns one byte, and then an error, in turn.
type halting struct {
	rest   []byte
	halted bool
}

func (h *halting) Read(p []byte) (int, error) {
	if h.halted = !h.halted; h.halted {
		return 0, errHalted
	}
	if len(h.rest) == 0 {
		return 0, io.EOF
	}
	p[0], h.rest = h.rest[0], h.rest[1:]
	return 1, nil
}

func TestReaderGoesOnAfterADeadline(t *testing.T) {
	why := Why{Code: "io", Text: "it broke"}
	b := AppendFrame(AppendFrame(nil, KindAbort, false, why.Append), KindResume, false, nil)
	r := NewReader(&halting{rest: b})
	next := func() (f Frame, err error) {
		for range 1000 {
			if f, err = r.Read(); !errors.Is(err, errHalted) {
				break
			}
		}
		return f, err
	}
	f, err := next()
	require.NoError(t, err)
	got, err := ConsumeWhy(f.Body)
	require.NoError(t, err)
	require.Equal(t, why, got)
	f, err = next()
	require.NoError(t, err)
	require.Equal(t, KindResume, f.Kind)
	_, err = next()
	require.Equal(t, io.EOF, err)
}
