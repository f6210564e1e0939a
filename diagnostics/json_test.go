package diagnostics

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/snapshots.json anew")

// fill sets every field of v to a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2026, 1, 2, 3, 4, *n, 5000, time.UTC)
		return
	case *Duration:
		*x = Duration(time.Duration(*n)*time.Millisecond + 250*time.Microsecond)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field, n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.String:
		v.SetString("text " + string(rune('a'+*n%26)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.5)
	default:
		panic(v.Kind())
	}
}

type all struct {
	Client  ClientSnapshot  `json:"client"`
	Server  ServerSnapshot  `json:"server"`
	Summary SummarySnapshot `json:"summary"`
}

// The JSON of version 1 is in testdata/snapshots.json, and can be read back. Renaming a field needs a new Version.
//
// Claim: diagnostics.Version, diagnostics.ClientSnapshot.Version, diagnostics.ServerSnapshot.Version, diagnostics.SummarySnapshot.Version
func TestTheJSONOfTheVersion(t *testing.T) {
	var v all
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	v.Client.Version, v.Server.Version, v.Summary.Version = Version, Version, Version
	got, err := json.MarshalIndent(v, "", "\t")
	require.NoError(t, err)
	file := filepath.Join("testdata", "snapshots.json")
	if *update {
		require.NoError(t, os.WriteFile(file, append(got, '\n'), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got)+"\n")
	var back all
	decoder := json.NewDecoder(bytes.NewReader(want))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&back))
	require.Equal(t, v, back)
}

// Each duration says its unit, and no name is Go's.
func TestTheNamesOfFields(t *testing.T) {
	seen := make(map[reflect.Type]bool)
	var look func(reflect.Type)
	look = func(of reflect.Type) {
		for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || of == reflect.TypeFor[time.Time]() || seen[of] {
			return
		}
		seen[of] = true
		for f := range of.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			require.Regexp(t, "^[a-z]+(_[a-z]+)*$", name, "%v.%s", of, f.Name)
			require.Equal(t, f.Type == reflect.TypeFor[Duration](), strings.HasSuffix(name, "_ms"), name)
			look(f.Type)
		}
	}
	look(reflect.TypeFor[all]())
	require.Len(t, seen, 18)
}

func TestDurationsAreMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0", time.Nanosecond: "0.000001", 1500 * time.Microsecond: "1.5", time.Hour: "3600000", -time.Second: "-1000"} {
		b, err := json.Marshal(Duration(d))
		require.NoError(t, err)
		require.Equal(t, want, string(b))
		var back Duration
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, d.String(), back.String())
	}
	var d Duration
	require.Error(t, json.Unmarshal([]byte(`"1s"`), &d))
}

// Nothing gives nothing.
func TestNilIsTheZeroSnapshot(t *testing.T) {
	require.Zero(t, OfClient(nil))
	require.Zero(t, OfServer(nil))
	b, err := json.Marshal(OfClient(nil))
	require.NoError(t, err)
	require.Equal(t, `{"version":0,"host":""}`, string(b))
	require.Zero(t, Summary(OfClient(nil), OfServer(nil)).Sessions)
}

// Claim: diagnostics.SummarySnapshot.Taken, diagnostics.SummarySnapshot.Go, diagnostics.SummarySnapshot.Module
// Claim: diagnostics.SummarySnapshot.Uptime, diagnostics.SummarySnapshot.Goroutines, diagnostics.SummarySnapshot.Heap
// Claim: diagnostics.SummarySnapshot.Sessions, diagnostics.SummarySnapshot.Streams, diagnostics.SummarySnapshot.Records
// Claim: diagnostics.SummarySnapshot.Bulk, diagnostics.SummarySnapshot.Transfers, diagnostics.SummarySnapshot.BytesIn
// Claim: diagnostics.SummarySnapshot.BytesOut
func TestTheSummaryOfAProcess(t *testing.T) {
	one := SessionSnapshot{BytesIn: 1, BytesOut: 2, Streams: make([]StreamSnapshot, 3), Records: make([]RecordSnapshot, 2), Bulk: make([]BulkSnapshot, 1)}
	one.Transfers = []TransferSnapshot{{Number: 1}, {Number: 2}}
	other := SessionSnapshot{BytesIn: 10, BytesOut: 20, Transfers: []TransferSnapshot{{Number: 2}}}
	v := Summary(ClientSnapshot{Sessions: []SessionSnapshot{one, other}}, ServerSnapshot{Sessions: []SessionSnapshot{other}})
	require.Equal(t, []int{3, 3, 2, 1, 2}, []int{v.Sessions, v.Streams, v.Records, v.Bulk, v.Transfers})
	require.Equal(t, []uint64{21, 42}, []uint64{v.BytesIn, v.BytesOut})
	require.WithinDuration(t, time.Now(), v.Taken, time.Minute)
	require.Regexp(t, `^go\d|^devel`, v.Go)
	require.NotEmpty(t, v.Module)
	require.Positive(t, v.Uptime)
	require.GreaterOrEqual(t, v.Goroutines, 2)
	require.Greater(t, v.Heap, uint64(10_000))
}

func TestTheVersionOfTheModule(t *testing.T) {
	other := &debug.Module{Path: "example.com/other", Version: "v9.9.9"}
	for _, test := range []struct {
		info debug.BuildInfo
		want string
	}{
		{debug.BuildInfo{Main: debug.Module{Path: module, Version: "v1.2.3"}}, "v1.2.3"},
		{debug.BuildInfo{Main: *other, Deps: []*debug.Module{other, {Path: module, Version: "v1.0.0"}}}, "v1.0.0"},
		{debug.BuildInfo{Main: *other, Deps: []*debug.Module{{Path: module, Version: "v1.0.0", Replace: &debug.Module{Version: "v1.0.1"}}}}, "v1.0.1"},
		{debug.BuildInfo{Main: debug.Module{Path: module}}, "(devel)"},
		{debug.BuildInfo{Main: *other}, "(devel)"},
	} {
		require.Equal(t, test.want, versionIn(&test.info))
	}
}
