package manifest

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// goldenEntries are one of each kind, by field: kind, flags, perm, id, size, mtime, path's length, target's length, path, target.
var goldenEntries = []struct {
	hex string
	e   Entry
}{
	{"01 01 01a4 00000007 0000000000001000 0000000000000001 0003 0000 612f62",
		Entry{ID: 7, Kind: KindFile, Flags: FlagSparse, Perm: 0o644, Size: 4096, ModTime: 1, Path: "a/b"}},
	{"02 00 01ff 00000008 0000000000000000 ffffffffffffffff 0001 0000 63",
		Entry{ID: 8, Kind: KindDir, Perm: 0o777, ModTime: -1, Path: "c"}},
	{"03 00 0000 ffffffff 0000000000000000 0000000000000000 0001 0003 64 612f62",
		Entry{ID: math.MaxUint32, Kind: KindSymlink, Path: "d", Target: "a/b"}},
	{"01 02 01a4 00000009 0000000000000003 0000000000000000 0001 0000 65" +
		"6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85", // the last 32 are the hash
		Entry{ID: 9, Kind: KindFile, Flags: FlagHashed, Perm: 0o644, Size: 3, Path: "e", Hash: b3tree.Sum([]byte("abc"))}},
	{"01 03 0000 0000000a 0000000000000000 0000000000000000 0001 0000 66" +
		"0000000000000000000000000000000000000000000000000000000000000000",
		Entry{ID: 10, Kind: KindFile, Flags: FlagSparse | FlagHashed, Path: "f"}},
}

func TestEntriesGolden(t *testing.T) {
	for _, test := range goldenEntries {
		b, err := AppendEntry(nil, &test.e)
		require.NoError(t, err)
		require.Equal(t, unhex(t, test.hex), b, "%+v", test.e)
		require.Equal(t, len(b), test.e.EncodedSize())
		e, n, err := ConsumeEntry(append(b, "more"...))
		require.NoError(t, err)
		require.Equal(t, len(b), n)
		require.Equal(t, test.e, e)
		for n := range b {
			_, _, err := ConsumeEntry(b[:n])
			requireCode(t, fault.CodeProtocol, err, "%x", b[:n])
		}
	}
}

// Claim: transfer.CodeProtocol
func TestEntriesThatCannotBeAreRefused(t *testing.T) {
	good := file(1, "a")
	for name, change := range map[string]func(*Entry){
		"no kind":                  func(e *Entry) { e.Kind = 0 },
		"unknown kind":             func(e *Entry) { e.Kind = 4 },
		"unknown flag":             func(e *Entry) { e.Flags = 4 },
		"sparse dir":               func(e *Entry) { e.Kind, e.Flags = KindDir, FlagSparse },
		"hashed dir":               func(e *Entry) { e.Kind, e.Flags = KindDir, FlagHashed },
		"hashed symlink":           func(e *Entry) { e.Kind, e.Perm, e.Target, e.Flags = KindSymlink, 0, "b", FlagHashed },
		"file with a stray hash":   func(e *Entry) { e.Flags, e.Hash[31] = FlagSparse, 1 },
		"dir with a hash":          func(e *Entry) { e.Kind, e.Hash[0] = KindDir, 1 },
		"setuid":                   func(e *Entry) { e.Perm = 0o4755 },
		"sticky":                   func(e *Entry) { e.Perm = 0o1777 },
		"negative size":            func(e *Entry) { e.Size = -1 },
		"dir with a size":          func(e *Entry) { e.Kind, e.Size = KindDir, 1 },
		"symlink with a size":      func(e *Entry) { e.Kind, e.Perm, e.Target, e.Size = KindSymlink, 0, "b", 1 },
		"symlink with a mode":      func(e *Entry) { e.Kind, e.Target = KindSymlink, "b" },
		"symlink without a target": func(e *Entry) { e.Kind, e.Perm = KindSymlink, 0 },
		"file with a target":       func(e *Entry) { e.Target = "b" },
		"no path":                  func(e *Entry) { e.Path = "" },
		"long path":                func(e *Entry) { e.Path = strings.Repeat("a", MaxPath+1) },
		"longest path":             func(e *Entry) { e.Path = strings.Repeat("a", math.MaxUint16+2) },
		"long target": func(e *Entry) {
			e.Kind, e.Perm, e.Target = KindSymlink, 0, strings.Repeat("a", MaxPath+1)
		},
	} {
		e := good
		change(&e)
		b, err := AppendEntry(nil, &e)
		requireCode(t, fault.CodeProtocol, err, name)
		require.Empty(t, b, name)
		_, n, err := AppendBatch(nil, []Entry{e})
		requireCode(t, fault.CodeProtocol, err, name)
		require.Zero(t, n)
		require.Equal(t, fault.CodeProtocol, codeOf(check(t, Rules{Symlinks: true}, e)), name)
	}
}

func TestConsumeEntryChecksLengthsBeforeItTakesAnything(t *testing.T) {
	head := "01 00 01a4 00000007 "
	for _, rest := range []string{
		"8000000000000000 0000000000000001 0001 0000 61", // size
		"0000000000000000 0000000000000001 1001 0000",    // path
		"0000000000000000 0000000000000001 0001 ffff 61", // target
	} {
		_, _, err := ConsumeEntry(append(unhex(t, head+rest), make([]byte, 1<<17)...))
		requireCode(t, fault.CodeProtocol, err, rest)
	}
}

func TestBatchesHoldToBothCaps(t *testing.T) {
	for _, test := range []struct{ path, count int }{
		{1, MaxBatch},
		{37, MaxBatch},                          // 65,000 and 2
		{38, (MaxBatchBytes - 2) / (28 + 38)},   // by bytes
		{MaxPath, (MaxBatchBytes - 2) / (4124)}, // the longest
	} {
		entries := make([]Entry, 1200)
		for i := range entries {
			entries[i] = file(uint32(i), strings.Repeat("p", test.path))
		}
		b, n, err := AppendBatch([]byte("before"), entries)
		require.NoError(t, err)
		require.Equal(t, test.count, n, test.path)
		require.LessOrEqual(t, len(b)-6, MaxBatchBytes)
		again, err := ConsumeBatch(nil, b[6:])
		require.NoError(t, err)
		require.Equal(t, entries[:n], again)
	}
	b, n, err := AppendBatch(nil, nil)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Empty(t, b)
}

func TestBatchesThatDoNotAddUpAreRefused(t *testing.T) {
	b, _, err := AppendBatch(nil, []Entry{file(1, "a"), file(2, "b")})
	require.NoError(t, err)
	for n := range b {
		got, err := ConsumeBatch(nil, b[:n])
		requireCode(t, fault.CodeProtocol, err)
		require.Empty(t, got)
	}
	for _, bad := range [][]byte{append(b, 0), {0, 0}, {0xff, 0xff}, append([]byte{0, 1}, b[2:]...), make([]byte, MaxBatchBytes+1)} {
		_, err := ConsumeBatch(nil, bad)
		requireCode(t, fault.CodeProtocol, err)
	}
}

// anyEntry draws entries that AppendEntry takes.
func anyEntry(t *rapid.T) Entry {
	e := Entry{
		ID:      rapid.Uint32().Draw(t, "id"),
		Kind:    Kind(rapid.IntRange(1, 3).Draw(t, "kind")),
		ModTime: rapid.Int64().Draw(t, "mtime"),
		Path:    rapid.StringN(1, 50, 200).Draw(t, "path"),
	}
	switch e.Kind {
	case KindFile:
		e.Size = rapid.Int64Min(0).Draw(t, "size")
		if e.Flags = Flags(rapid.IntRange(0, 3).Draw(t, "flags")); e.Flags&FlagHashed != 0 {
			e.Hash = b3tree.Sum([]byte(e.Path))
		}
		fallthrough
	case KindDir:
		e.Perm = rapid.Uint16Max(0o777).Draw(t, "perm")
	case KindSymlink:
		e.Target = rapid.StringN(1, 50, 200).Draw(t, "target")
	}
	return e
}

func TestWhatIsBatchedComesOutAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.Custom(anyEntry), 1, 100).Draw(t, "entries")
		var again []Entry
		for rest := entries; len(rest) > 0; {
			b, n, err := AppendBatch(nil, rest)
			require.NoError(t, err)
			require.Positive(t, n)
			again, err = ConsumeBatch(again, b)
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.Equal(t, entries, again)
	})
}

// What is taken is written the same.
func FuzzBatch(f *testing.F) {
	for _, test := range goldenEntries {
		b, _, err := AppendBatch(nil, []Entry{test.e})
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		entries, err := ConsumeBatch(nil, wire)
		if err != nil {
			require.Equal(t, fault.CodeProtocol, codeOf(err))
			return
		}
		again, n, err := AppendBatch(nil, entries)
		require.NoError(t, err)
		require.Equal(t, len(entries), n)
		require.Equal(t, wire, again)
	})
}
