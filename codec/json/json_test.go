package json_test

import (
	stdjson "encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codec/json"
	"github.com/peerlane/peerlane/session"
)

var _ session.Codec = json.Codec{}

type value struct {
	A int
	B []string
	C map[string]*value
}

func TestValuesComeBack(t *testing.T) {
	in := value{1, []string{"x", "ü \\ \" [ {"}, map[string]*value{"k": {A: 2}, "nil": nil}}
	b, err := json.Codec{}.Marshal(in)
	require.NoError(t, err)
	for _, c := range []json.Codec{{}, {DisallowUnknownFields: true}} {
		var out value
		require.NoError(t, c.Unmarshal(b, &out))
		require.Equal(t, in, out)
	}
	require.Equal(t, "json", json.Codec{}.Name())

	b, err = json.Codec{}.Marshal((*value)(nil))
	require.NoError(t, err)
	require.Equal(t, "null", string(b))
	out := &value{A: 1}
	require.NoError(t, json.Codec{}.Unmarshal(b, &out))
	require.Nil(t, out)
	_, err = json.Codec{}.Marshal(math.NaN())
	require.Error(t, err)
}

// Claim: json.Codec.DisallowUnknownFields
func TestUnknownFields(t *testing.T) {
	var out value
	require.NoError(t, json.Codec{}.Unmarshal([]byte(`{"A": 1, "Z": 2, "A": 3}`), &out))
	require.Equal(t, 3, out.A)
	require.ErrorContains(t, json.Codec{DisallowUnknownFields: true}.Unmarshal([]byte(`{"A": 1, "Z": 2}`), &out), `unknown field "Z"`)
}

func TestWhatIsNotOneValueIsRefused(t *testing.T) {
	for _, bad := range []string{"", " ", "{", "]", `{"A": "x"}`, `{} {}`, `{}]`, "\"\xff\"", `nul`, `{"A": 1e999}`} {
		for _, c := range []json.Codec{{}, {DisallowUnknownFields: true}} {
			var out value
			require.Error(t, c.Unmarshal([]byte(bad), &out), "%q", bad)
		}
	}
	require.Error(t, json.Codec{}.Unmarshal([]byte("{}"), value{}), "no pointer")
	require.Error(t, json.Codec{}.Unmarshal([]byte("{}"), nil))
}

// Each limit has its edge where it says.
//
// Claim: json.Codec.MaxBytes, json.Codec.MaxDepth, json.Codec.MaxElements
func TestTheLimits(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	flat := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("0,", n), ",") + "]" }
	text := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	for _, l := range []struct {
		name  string
		codec json.Codec
		most  string
		over  string
	}{
		{"MaxBytes", json.Codec{MaxBytes: 10}, text(10), text(11)},
		{"MaxBytes by default", json.Codec{}, text(4 << 20), text(4<<20 + 1)},
		{"MaxDepth", json.Codec{MaxDepth: 3}, nested(3), nested(4)},
		{"MaxDepth by default", json.Codec{}, nested(64), nested(65)},
		{"MaxElements", json.Codec{MaxElements: 5}, flat(5), flat(6)},
		{"MaxElements by default", json.Codec{}, flat(1 << 18), flat(1<<18 + 1)},
		{"MaxElements of several", json.Codec{MaxElements: 5}, `[{"a":1,"b":2},[3]]`, `[{"a":1,"b":2},[3,4]]`},
		{"text is no structure", json.Codec{MaxDepth: 1, MaxElements: 1}, `["[{,\"[{,\\"]`, `[[]]`},
	} {
		var out any
		require.NoError(t, l.codec.Unmarshal([]byte(l.most), &out), l.name)
		require.Error(t, l.codec.Unmarshal([]byte(l.over), &out), l.name)
	}
	_, err := json.Codec{MaxBytes: 4}.Marshal("xxx")
	require.ErrorContains(t, err, "5 bytes, at most 4")
	for _, c := range []json.Codec{{MaxBytes: -1}, {MaxDepth: -1}, {MaxElements: -1}, {MaxDepth: 10001}} {
		_, err := c.Marshal(1)
		require.ErrorContains(t, err, "want 1 to")
		require.ErrorContains(t, c.Unmarshal([]byte("1"), new(int)), "want 1 to")
	}
}

// FuzzUnmarshal compares the limits with a decoder that counts, and what is decoded with what comes back.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{"null", `{"A":1,"B":["x"],"C":{"k":{}}}`, `[[[1,2],[3]],{"a":{"b":[]}}]`, `"\\\"["`, "[[[[[[[[", `{"":{"":{"":0}}}`, "\xff"} {
		f.Add([]byte(seed))
	}
	c := json.Codec{MaxBytes: 1 << 12, MaxDepth: 6, MaxElements: 20}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v value
		_ = c.Unmarshal(b, &v)
		var out any
		err := c.Unmarshal(b, &out)
		if err != nil {
			if stdjson.Unmarshal(b, &out) == nil && len(b) <= c.MaxBytes && depthOf(out) <= c.MaxDepth && elementsOf(out) <= c.MaxElements &&
				strings.ToValidUTF8(string(b), "") == string(b) && !strings.Contains(string(b), ":") { // a key twice counts once in out
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		if d, n := depthOf(out), elementsOf(out); d > c.MaxDepth || n > c.MaxElements {
			t.Fatalf("%q: %d deep, %d elements", b, d, n)
		}
		again, err := json.Codec{}.Marshal(out)
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		var back any
		if err := (json.Codec{}).Unmarshal(again, &back); err != nil || !reflect.DeepEqual(out, back) {
			t.Fatalf("%q: %v, then %v: %v", b, out, back, err)
		}
	})
}

func depthOf(v any) int {
	most := 0
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			most = max(most, depthOf(e))
		}
	case map[string]any:
		for _, e := range v {
			most = max(most, depthOf(e))
		}
	default:
		return 0
	}
	return most + 1
}

// elementsOf counts an empty array or object as one element.
func elementsOf(v any) int {
	n := 0
	switch v := v.(type) {
	case []any:
		n = max(len(v), 1)
		for _, e := range v {
			n += elementsOf(e)
		}
	case map[string]any:
		n = max(len(v), 1)
		for _, e := range v {
			n += elementsOf(e)
		}
	}
	return n
}

func BenchmarkUnmarshal(b *testing.B) {
	data, err := json.Codec{}.Marshal(value{1, []string{strings.Repeat("x", 1000)}, map[string]*value{"k": {A: 2}}})
	require.NoError(b, err)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var v value
		if err := (json.Codec{}).Unmarshal(data, &v); err != nil {
			b.Fatal(err)
		}
	}
}
