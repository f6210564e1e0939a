package manifest

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/fault"
)

func TestTheRootIsThatOfTheEntriesBytes(t *testing.T) {
	var entries []Entry
	var wire []byte
	for _, test := range goldenEntries {
		entries = append(entries, test.e)
		wire = append(wire, unhex(t, test.hex)...)
	}
	root, err := Root(entries)
	require.NoError(t, err)
	require.EqualValues(t, b3tree.Sum(wire), root)

	empty, err := Root(nil)
	require.NoError(t, err)
	require.Equal(t, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", hex.EncodeToString(empty[:]))
}

func TestTheRootDoesNotDependOnTheBatches(t *testing.T) {
	entries := many(3000)
	want, err := Root(entries)
	require.NoError(t, err)
	for _, most := range []int{1, 7, 1000} {
		var h Hasher
		for rest := entries; len(rest) > 0; {
			b, n, err := AppendBatch(nil, rest[:min(most, len(rest))])
			require.NoError(t, err)
			rest = rest[n:]
			got, err := ConsumeBatch(nil, b)
			require.NoError(t, err)
			for i := range got {
				require.NoError(t, h.Add(&got[i]))
			}
		}
		require.Equal(t, want, h.Sum(), most)
	}
}

// Claim: transfer.Entry.Flags, transfer.Entry.Hash, transfer.Entry.ID, transfer.Entry.Kind, transfer.Entry.ModTime
// Claim: transfer.Entry.Path, transfer.Entry.Perm, transfer.Entry.Size, transfer.Entry.Target
func TestEveryFieldIsInTheRoot(t *testing.T) {
	e := Entry{ID: 1, Kind: KindFile, Flags: FlagHashed, Perm: 0o644, Size: 3, ModTime: 4, Path: "a"}
	was, err := Root([]Entry{e})
	require.NoError(t, err)
	for name, change := range map[string]func(*Entry){
		"id":    func(e *Entry) { e.ID++ },
		"kind":  func(e *Entry) { e.Kind, e.Flags, e.Size = KindDir, 0, 0 },
		"flags": func(e *Entry) { e.Flags |= FlagSparse },
		"perm":  func(e *Entry) { e.Perm = 0o600 },
		"size":  func(e *Entry) { e.Size++ },
		"mtime": func(e *Entry) { e.ModTime++ },
		"path":  func(e *Entry) { e.Path = "b" },
		"hash":  func(e *Entry) { e.Hash[31]++ },
	} {
		other := e
		change(&other)
		now, err := Root([]Entry{other})
		require.NoError(t, err)
		require.NotEqual(t, was, now, name)
	}
	link := Entry{ID: 1, Kind: KindSymlink, Path: "a", Target: "b"}
	was, err = Root([]Entry{link})
	require.NoError(t, err)
	link.Target = "c"
	now, err := Root([]Entry{link})
	require.NoError(t, err)
	require.NotEqual(t, was, now, "target")
}

func TestAnEntryThatCannotBeIsNotInTheRoot(t *testing.T) {
	var h Hasher
	good, bad := file(1, "a"), Entry{}
	require.NoError(t, h.Add(&good))
	requireCode(t, fault.CodeProtocol, h.Add(&bad))
	want, err := Root([]Entry{good})
	require.NoError(t, err)
	require.Equal(t, want, h.Sum())
	_, err = Root([]Entry{good, bad})
	requireCode(t, fault.CodeProtocol, err)
}
