package manifest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

func TestAFolderComesDirectlyBeforeWhatIsInIt(t *testing.T) {
	sorted := []string{"a", "a/b", "a/b/c", "a/z", "a b", "a-b", "a-b/c", "a.b", "b", "é"}
	for i, a := range sorted {
		for j, b := range sorted {
			require.Equal(t, i < j, Compare(a, b) < 0, "%q %q", a, b)
			require.Equal(t, i == j, Compare(a, b) == 0, "%q %q", a, b)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-c\-/]{0,6}`)
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		require.Equal(t, slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")), Compare(a, b))
	})
}

// Claim: transfer.CodeExists, transfer.Error.Code
func TestTheCheckerFindsWhatMustNotBeTogether(t *testing.T) {
	all := Rules{Portable: true, Symlinks: true}
	for _, test := range []struct {
		name     string
		code     fault.Code
		portable bool // only then
		entries  []Entry
	}{
		{"a tree", "", false, []Entry{dir(1, "a"), file(2, "a/b"), dir(3, "a/c"), file(9, "a/c/d"), file(10, "b/implied/x"), link(11, "l", "a")}},
		{"an empty one", "", false, nil},
		{"twice", fault.CodeExists, false, []Entry{file(1, "a"), file(2, "a")}},
		{"twice, as folders", fault.CodeExists, false, []Entry{dir(1, "a"), dir(2, "a")}},
		{"out of order", fault.CodeProtocol, false, []Entry{file(1, "b"), file(2, "a")}},
		{"in the order of bytes", fault.CodeProtocol, false, []Entry{dir(1, "a"), file(2, "a-b"), file(3, "a/b")}},
		{"a folder after what is in it", fault.CodeProtocol, false, []Entry{file(1, "a/b"), dir(2, "a")}},
		{"a number twice", fault.CodeProtocol, false, []Entry{file(1, "a"), file(1, "b")}},
		{"a number that falls", fault.CodeProtocol, false, []Entry{file(2, "a"), file(1, "b")}},
		{"a file as a folder", fault.CodeExists, false, []Entry{file(1, "a"), file(2, "a/b")}},
		{"a file as a folder, deep", fault.CodeExists, false, []Entry{dir(1, "a"), file(2, "a/b"), file(3, "a/b/c/d")}},
		{"through a symlink", fault.CodePathUnsafe, false, []Entry{dir(1, "a"), link(2, "b", "a"), file(3, "b/c")}},
		{"case", fault.CodeExists, true, []Entry{file(1, "A"), file(2, "a")}},
		{"case, of implied folders", fault.CodeExists, true, []Entry{file(1, "A/x"), file(2, "a/y")}},
		{"case, of a file and an implied folder", fault.CodeExists, true, []Entry{file(1, "A"), file(2, "a/y")}},
		{"case, of a link and a folder", fault.CodeExists, true, []Entry{dir(1, "B"), link(2, "a", "B"), file(3, "b/c")}},
		{"composed and not", fault.CodeExists, true, []Entry{file(1, "e\u0301"), file(2, "\u00e9")}},
		{"composed, and case", fault.CodeExists, true, []Entry{file(1, "E\u0301"), file(2, "\u00e9")}},
		{"the sign for kelvin", fault.CodeExists, true, []Entry{file(1, "k"), file(2, "\u212a")}},
		{"ss", fault.CodeExists, true, []Entry{file(1, "strasse"), file(2, "straße")}},
		{"greek sigmas", fault.CodeExists, true, []Entry{file(1, "ς"), file(2, "σ")}},
		{"not seen by HFS+", fault.CodeExists, true, []Entry{file(1, "a"), file(2, "a\u200d")}},
		{"the same names in two folders", "", false, []Entry{file(1, "a/B"), file(2, "b/B"), file(3, "b/c/B")}},
		{"an unsafe path", fault.CodePathUnsafe, false, []Entry{file(1, "a/../b")}},
	} {
		requireIs := func(code fault.Code, err error) {
			t.Helper()
			if code == "" {
				require.NoError(t, err, test.name)
				return
			}
			requireCode(t, code, err, test.name)
		}
		requireIs(test.code, check(t, all, test.entries...))
		if test.portable {
			test.code = ""
		}
		requireIs(test.code, check(t, Rules{Symlinks: true}, test.entries...))
	}
}

// Claim: transfer.CodeTooLarge, transfer.Rules.Bytes, transfer.Rules.Entries, transfer.Rules.ManifestBytes
func TestTheLimitsHold(t *testing.T) {
	large := file(2, "b")
	large.Size = 11
	huge := file(2, "b")
	huge.Size = math.MaxInt64
	for _, test := range []struct {
		name    string
		rules   Rules
		entries []Entry
		ok      bool
	}{
		{"entries", Rules{Entries: 2}, []Entry{file(1, "a"), file(2, "b")}, true},
		{"too many", Rules{Entries: 1}, []Entry{file(1, "a"), file(2, "b")}, false},
		{"implied folders", Rules{Entries: 3}, []Entry{file(1, "a/b/c")}, true},
		{"too many implied folders", Rules{Entries: 3}, []Entry{file(1, "a/b/c/d")}, false},
		{"bytes", Rules{Bytes: 11}, []Entry{file(1, "a"), large}, true},
		{"too many bytes", Rules{Bytes: 10}, []Entry{file(1, "a"), large}, false},
		{"bytes by default", Rules{}, []Entry{file(1, "a"), huge}, false},
		{"bytes that run over", Rules{Bytes: math.MaxInt64}, []Entry{{ID: 1, Kind: KindFile, Path: "a", Size: 1}, huge}, false},
		{"a manifest", Rules{ManifestBytes: 58}, []Entry{file(1, "a"), file(2, "b")}, true},
		{"too large a manifest", Rules{ManifestBytes: 57}, []Entry{file(1, "a"), file(2, "b")}, false},
	} {
		err := check(t, test.rules, test.entries...)
		if test.ok {
			require.NoError(t, err, test.name)
			continue
		}
		requireCode(t, fault.CodeTooLarge, err, test.name)
	}
	for _, rules := range []Rules{{Entries: -1}, {Bytes: -1}, {ManifestBytes: -1}} {
		_, err := NewChecker(rules)
		require.Error(t, err)
	}
}

func TestTheRoomIsWhatTheEntriesLeave(t *testing.T) {
	c, err := NewChecker(Rules{Entries: 3})
	require.NoError(t, err)
	require.Equal(t, 3, c.Room())
	require.NoError(t, c.Add(file(1, "a/b")))
	require.Equal(t, 1, c.Room(), "a folder is implied")
	require.Error(t, c.Add(file(2, "b/c")))
	require.Zero(t, c.Room())
	c, err = NewChecker(Rules{})
	require.NoError(t, err)
	require.Equal(t, 1_000_000, c.Room())
}

// A slow, plain judgement of the same thing: what the Checker takes has no two places in one, in whatever way.
func TestTheCheckerAgreesWithAPlainModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.StringMatching(`[aAéÉb](/[aAb]){0,2}`)
		paths := rapid.SliceOfNDistinct(path, 1, 8, rapid.ID[string]).Draw(t, "paths")
		slices.SortFunc(paths, Compare)
		kinds := rapid.SliceOfN(rapid.SampledFrom([]Kind{KindFile, KindDir}), len(paths), len(paths)).Draw(t, "kinds")
		c, err := NewChecker(Rules{Portable: true})
		require.NoError(t, err)
		for i, p := range paths {
			if err = c.Add(Entry{ID: uint32(i), Kind: kinds[i], Path: p}); err != nil {
				break
			}
		}
		require.Equal(t, modelTakes(paths, kinds), err == nil, "%q %v: %v", paths, kinds, err)
	})
}

func modelTakes(paths []string, kinds []Kind) bool {
	spelled := make(map[string]string) // places, by their folded names
	for i, p := range paths {
		for j := range paths {
			if kinds[i] == KindFile && strings.HasPrefix(paths[j], p+"/") {
				return false
			}
		}
		for end := 1; end <= len(p); end++ {
			if end < len(p) && p[end] != '/' {
				continue
			}
			key := strings.ToLower(p[:end])
			if other, taken := spelled[key]; taken && other != p[:end] {
				return false
			}
			spelled[key] = p[:end]
		}
	}
	return true
}

// many returns n sorted entries, in folders of a thousand.
func many(n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = file(uint32(i), fmt.Sprintf("Photos/album %06d/Image %04d.JPG", i/1000, i%1000))
	}
	return entries
}

func TestAMillionEntriesTakeSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("a million entries")
	}
	entries := many(900_000) // and 901 folders
	start := time.Now()
	require.NoError(t, check(t, Rules{Portable: true}, entries...))
	require.Less(t, time.Since(start), 30*time.Second, "of which 3 are the aim, without the race detector")
}

func BenchmarkChecker(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 990_000} {
		entries := many(n)
		flat := make([]Entry, n)
		for i := range flat {
			flat[i] = file(uint32(i), fmt.Sprintf("ÉImage %07d.JPG", i)) // one folder, and the slow way to fold
		}
		for name, entries := range map[string][]Entry{"tree": entries, "flat": flat} {
			for _, portable := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%d/portable=%v", name, n, portable), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						c, _ := NewChecker(Rules{Portable: portable})
						for _, e := range entries {
							if err := c.Add(e); err != nil {
								b.Fatal(err)
							}
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/entry")
				})
			}
		}
	}
}

func BenchmarkBatches(b *testing.B) {
	entries := many(100_000)
	b.ReportAllocs()
	for b.Loop() {
		var wire []byte
		for rest := entries; len(rest) > 0; {
			var n int
			wire, n, _ = AppendBatch(wire[:0], rest)
			if _, err := ConsumeBatch(nil, wire); err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(entries)), "ns/entry")
}
