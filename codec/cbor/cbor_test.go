package cbor_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/codec/cbor"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

var _ session.Codec = cbor.Codec{}

type value struct {
	A int
	B []string
	C map[string]*value
	D []byte    `cbor:",omitempty"`
	T time.Time `cbor:",omitzero"`
}

func TestValuesComeBack(t *testing.T) {
	at := time.Date(2026, 12, 1, 13, 30, 0, 123456789, time.UTC)
	in := value{1, []string{"x"}, map[string]*value{"k": {A: 2}, "nil": nil}, []byte{0xFF}, at}
	b, err := cbor.Codec{}.Marshal(in)
	require.NoError(t, err)
	again, err := cbor.Codec{}.Marshal(in)
	require.NoError(t, err)
	require.Equal(t, b, again, "maps are sorted")
	for _, c := range []cbor.Codec{{}, {DisallowUnknownFields: true}} {
		var out value
		require.NoError(t, c.Unmarshal(b, &out))
		require.True(t, at.Equal(out.T))
		out.T = at
		require.Equal(t, in, out)
	}
	require.Equal(t, "cbor", cbor.Codec{}.Name())

	b, err = cbor.Codec{}.Marshal((*value)(nil))
	require.NoError(t, err)
	require.Equal(t, []byte{0xF6}, b)
	out := &value{A: 1}
	require.NoError(t, cbor.Codec{}.Unmarshal(b, &out))
	require.Nil(t, out)
	_, err = cbor.Codec{}.Marshal(make(chan int))
	require.Error(t, err)
}

// Claim: cbor.Codec.DisallowUnknownFields
func TestUnknownFields(t *testing.T) {
	b, err := cbor.Codec{}.Marshal(map[string]int{"A": 1, "Z": 2})
	require.NoError(t, err)
	var out value
	require.NoError(t, cbor.Codec{}.Unmarshal(b, &out))
	require.Equal(t, 1, out.A)
	require.ErrorContains(t, cbor.Codec{DisallowUnknownFields: true}.Unmarshal(b, &out), "unknown field")
}

func TestWhatIsNotOneValueIsRefused(t *testing.T) {
	for name, bad := range map[string]string{
		"nothing": "", "half a map": "a1", "two values": "a0a0", "another type": "a1614161 78", "a key twice": "a2614101614102", "no UTF-8": "61ff",
		"a length of 2^63": "9b7fffffffffffffff", "a text of 2^32": "7b0000000100000000", "a break alone": "ff", "reserved": "1c",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(bad, " ", ""))
		require.NoError(t, err)
		var out value
		require.Error(t, cbor.Codec{}.Unmarshal(b, &out), name)
		var untyped any
		if name != "another type" {
			require.Error(t, cbor.Codec{}.Unmarshal(b, &untyped), name)
		}
	}
	require.Error(t, cbor.Codec{}.Unmarshal([]byte{0xA0}, value{}), "no pointer")
	require.Error(t, cbor.Codec{}.Unmarshal([]byte{0xA0}, nil))
}

// Each limit has its edge where it says.
//
// Claim: cbor.Codec.MaxBytes, cbor.Codec.MaxDepth, cbor.Codec.MaxElements
func TestTheLimits(t *testing.T) {
	nested := func(n int) []byte { return append(bytes.Repeat([]byte{0x81}, n), 0) }
	flat := func(n int) []byte { // 9a: an array with a length of four bytes
		return append([]byte{0x9A, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, make([]byte, n)...)
	}
	text := func(n int) []byte { // 5a: a string of bytes, likewise
		return append([]byte{0x5A, byte((n - 5) >> 24), byte((n - 5) >> 16), byte((n - 5) >> 8), byte(n - 5)}, make([]byte, n-5)...)
	}
	array := func(n int) []byte { return []byte{0x99, byte(n >> 8), byte(n)} } // of a length of two bytes
	arrays := func(n, m int) []byte {
		return append(array(n), bytes.Repeat(append(array(m), make([]byte, m)...), n)...)
	}
	maps := func(n int) []byte { return append(array(n), bytes.Repeat([]byte{0xA1, 0x01, 0x61, 'x'}, n)...) }
	tags := func(n int) []byte { return append(array(n), bytes.Repeat([]byte{0xC1, 0x01}, n)...) }
	chunks := func(n int) []byte { return append(append([]byte{0x5F}, bytes.Repeat([]byte{0x41, 0xFF}, n)...), 0xFF) }
	for _, l := range []struct {
		name       string
		codec      cbor.Codec
		most, over []byte
	}{
		{"MaxBytes", cbor.Codec{MaxBytes: 10}, text(10), text(11)},
		{"MaxBytes by default", cbor.Codec{}, text(4 << 20), text(4<<20 + 1)},
		{"MaxDepth", cbor.Codec{MaxDepth: 5}, nested(5), nested(6)},
		{"MaxDepth by default", cbor.Codec{}, nested(32), nested(33)},
		{"MaxElements", cbor.Codec{MaxElements: 20}, flat(20), flat(21)},
		{"MaxElements by default", cbor.Codec{}, flat(1 << 18), flat(1<<18 + 1)},
		{"MaxElements of several", cbor.Codec{MaxElements: 20}, arrays(4, 4), arrays(3, 6)},
		{"MaxElements of several by default", cbor.Codec{}, arrays(1<<10, 255), arrays(1<<10, 256)},
		{"MaxElements of maps", cbor.Codec{MaxElements: 20}, maps(6), maps(7)},
		{"MaxElements of tags", cbor.Codec{MaxElements: 20}, tags(10), tags(11)},
		{"MaxElements of chunks", cbor.Codec{MaxElements: 20}, chunks(20), chunks(21)},
	} {
		var out any
		require.NoError(t, l.codec.Unmarshal(l.most, &out), l.name)
		require.Error(t, l.codec.Unmarshal(l.over, &out), l.name)
	}
	_, err := cbor.Codec{MaxBytes: 3}.Marshal("xxx")
	require.ErrorContains(t, err, "4 bytes, at most 3")
	for _, c := range []cbor.Codec{{MaxBytes: -1}, {MaxDepth: -1}, {MaxElements: -1}, {MaxDepth: 3}, {MaxElements: 15}} {
		require.ErrorContains(t, c.Unmarshal([]byte{0}, new(int)), "cbor: codec:")
	}
	_, err = cbor.Codec{MaxBytes: -1}.Marshal(1)
	require.Error(t, err)
}

// What is over the limit of elements, or malformed at its end, costs no memory, however large the elements are once they are decoded.
func TestRefusedValuesCostNothing(t *testing.T) {
	type large [1 << 10]int64
	for name, data := range map[string][]byte{
		"elements": append([]byte{0x9A, 0, 8, 0, 0}, bytes.Repeat([]byte{0xF6}, 8<<16)...),
		"no end":   append([]byte{0x9A, 0, 3, 0, 0}, bytes.Repeat([]byte{0xF6}, 3<<16-1)...),
		"no text":  append([]byte{0x9A, 0, 3, 0, 0}, append(bytes.Repeat([]byte{0xF6}, 3<<16-1), 0x7B, 0xFF, 0, 0, 0, 0, 0, 0, 0)...),
		"no head":  append([]byte{0x9A, 0, 3, 0, 0}, append(bytes.Repeat([]byte{0xF6}, 3<<16-1), 0x1B, 0)...),
		"reserved": append([]byte{0x9A, 0, 3, 0, 0}, append(bytes.Repeat([]byte{0xF6}, 3<<16-1), 0x1C)...),
	} {
		var out []*large
		var all []large
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		require.Error(t, cbor.Codec{}.Unmarshal(data, &out), name)
		require.Error(t, cbor.Codec{}.Unmarshal(data, &all), name)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), name)
	}
}

func TestTypedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		server, err := peerlane.NewServer(h.Bob, nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, server.Stop()) }()
		client, err := peerlane.NewClient(h.Alice, nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, client.Close()) }()
		require.NoError(t, peerlane.HandleTyped(server, "/double", cbor.Codec{}, func(_ context.Context, _ *peerlane.Request, v value) (value, error) {
			return value{A: 2 * v.A}, nil
		}))
		got, err := peerlane.Call[value](t.Context(), client, h.Bob.ID(), "/double", cbor.Codec{}, value{A: 21})
		require.NoError(t, err)
		require.Equal(t, 42, got.A)
		_, err = client.Send(t.Context(), h.Bob.ID(), "/double", []byte{0x9B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF})
		var e *peerlane.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, codes.Undecodable, e.Code)
	})
}

// FuzzUnmarshal: what is decoded comes back, and nothing is decoded that holds more than the limits allow.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{"f6", "a16141 01", "83010203", "9f0102ff", "a2614101614202", "c074323032362d31322d30315431333a33303a30305a", "9b7fffffffffffffff",
		"818181818181818100", "5f42010243030405ff", "d9d9f7a0", "fb3ff199999999999a", "c249010000000000000000"} {
		b, err := hex.DecodeString(strings.ReplaceAll(seed, " ", ""))
		require.NoError(f, err)
		f.Add(b)
	}
	c := cbor.Codec{MaxBytes: 1 << 12, MaxDepth: 6, MaxElements: 20}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v value
		if c.Unmarshal(b, &v) == nil {
			again, err := c.Marshal(v)
			var back value
			if err != nil || (cbor.Codec{}).Unmarshal(again, &back) != nil || back.A != v.A || !reflect.DeepEqual(v.B, back.B) {
				t.Fatalf("%x: %+v, then %+v: %v", b, v, back, err)
			}
		}
		var out any
		if c.Unmarshal(b, &out) != nil {
			return
		}
		if again, err := (cbor.Codec{}).Marshal(out); err == nil {
			if err := (cbor.Codec{}).Unmarshal(again, new(any)); err != nil {
				t.Fatalf("%x, then %x: %v", b, again, err)
			}
		}
	})
}

func BenchmarkUnmarshal(b *testing.B) {
	data, err := cbor.Codec{}.Marshal(value{A: 1, B: []string{strings.Repeat("x", 1000)}, C: map[string]*value{"k": {A: 2}}})
	require.NoError(b, err)
	for name, c := range map[string]cbor.Codec{"zero": {}, "limits": {MaxDepth: 8}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				var v value
				if err := c.Unmarshal(data, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
