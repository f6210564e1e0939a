package staging

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/transfer/internal/fault"
)

// goldenRecords are one of each kind, by field: kind, zero, count, id, items, CRC.
var goldenRecords = []struct {
	hex string
	r   record
}{
	{"01 00 0001 00000007 000000000000002a 0000000000000000", record{kind: recordPart, id: 7, inode: 42}},
	{"02 00 0002 00000007 0000000000000000 0000000000000010 0000000000000020 0000000000000100",
		record{kind: recordRanges, id: 7, have: ranges{{0, 16}, {32, 256}}}},
	{"03 00 0000 00000007", record{kind: recordReset, id: 7}},
	{"05 00 0002 00000007 000102030405060708090a0b0c0d0e0f 101112131415161718191a1b1c1d1e1f",
		record{kind: recordRoot, id: 7, root: [32]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
			16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}}},
	{"06 00 0001 00000007 0000000000000000 0000000000000010", record{kind: recordLayer, id: 7, have: ranges{{0, 16}}}},
	{"04 00 0000 ffffffff", record{kind: recordPublished, id: 1<<32 - 1}},
}

func TestRecordsGolden(t *testing.T) {
	for _, test := range goldenRecords {
		b := appendRecord(nil, test.r)
		want, err := hex.DecodeString(strings.ReplaceAll(test.hex, " ", ""))
		require.NoError(t, err)
		require.Equal(t, want, b[:len(b)-crcSize])
		r, n := consumeRecord(append(b, "more"...))
		require.Equal(t, len(b), n)
		require.Equal(t, test.r, r)
		for n := range b {
			_, taken := consumeRecord(b[:n])
			require.Zero(t, taken, "%x", b[:n])
			b[n] ^= 0x10
			_, taken = consumeRecord(b)
			require.Zero(t, taken, "%x", b)
			b[n] ^= 0x10
		}
	}
	_, n := consumeRecord(make([]byte, 100))
	require.Zero(t, n, "zeros are a tail")
}

func TestRangesBecomeSeveralRecordsWhenTheyAreMany(t *testing.T) {
	var have ranges
	for i := range int64(2*maxItems + 1) {
		have = append(have, Range{10 * i, 10*i + 1})
	}
	b := appendRecord(nil, record{kind: recordRanges, id: 1, have: have})
	var again ranges
	for len(b) > 0 {
		r, n := consumeRecord(b)
		require.Positive(t, n)
		again, b = append(again, r.have...), b[n:]
	}
	require.Equal(t, have, again)
}

func TestMetaGolden(t *testing.T) {
	b, err := encodeMeta(0o022, tree())
	require.NoError(t, err)
	// magic, version, zero, umask, count, bytes
	require.Equal(t, "7078666d"+"01"+"00"+"0012"+"00000007"+"00000000000000df", hex.EncodeToString(b[:metaHead]))
	entries, umask, _, err := consumeMeta(b)
	require.NoError(t, err)
	require.Equal(t, tree(), entries)
	require.EqualValues(t, 0o022, umask)
	for n := range b {
		_, _, _, err := consumeMeta(b[:n])
		require.Error(t, err, "%d bytes", n)
		b[n] ^= 1
		_, _, _, err = consumeMeta(b)
		require.Error(t, err, "byte %d", n)
		b[n] ^= 1
	}
}

func TestRangesAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set ranges
		var model [64]bool
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			r := Range{rapid.Int64Range(0, 64).Draw(t, "from"), rapid.Int64Range(0, 64).Draw(t, "to")}
			overlaps := false
			for i := r.From; i < r.To; i++ {
				overlaps = overlaps || model[i]
			}
			require.Equal(t, overlaps, r.From < r.To && set.overlaps(r), "%v %v", set, r)
			for i := r.From; i < r.To; i++ {
				model[i] = true
			}
			set = set.add(r)
			for i := 1; i < len(set); i++ {
				require.Less(t, set[i-1].To, set[i].From, "%v", set)
			}
			again := set.missing(64)
			for i := range int64(64) {
				in := ranges(again).overlaps(Range{i, i + 1})
				require.Equal(t, model[i], !in, "%v %v", set, again)
				require.Equal(t, model[i], set.overlaps(Range{i, i + 1}))
			}
		}
	})
}

// A journal that is cut anywhere, or overwritten from there on with what was on the disk before, says what its whole records say.
func TestATornTailOfTheJournalIsDropped(t *testing.T) {
	o := Options{Rules: testRules, Sync: SyncEach}
	d := newTestDisk(1, false)
	s, err := Create(d, testID, tree(), &o)
	require.NoError(t, err)
	name := ".xfer-" + testID + "/journal"
	ends := []int{len(d.names[name].data)}
	for at := int64(0); at < 96; at += 32 {
		require.NoError(t, s.WriteAt(2, content(2, 100)[at:at+16], at))
		ends = append(ends, len(d.names[name].data))
	}
	require.NoError(t, s.Close())
	whole := d.names[name].data
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range whole {
		d.names[name].data = append([]byte(nil), whole[:n]...)
		if n%2 == 0 {
			for range rng.IntN(60) {
				d.names[name].data = append(d.names[name].data, byte(rng.Uint32()))
			}
		}
		s, err := Open(d, testID, &o)
		require.NoError(t, err)
		want := 0
		for want+1 < len(ends) && ends[want+1] <= n {
			want++
		}
		require.Len(t, s.Have(2), want, "%d bytes of %d", n, len(whole))
		require.NoError(t, s.WriteAt(5, content(5, 16), 0))
		require.NoError(t, s.Close())
		s, err = Open(d, testID, &o)
		require.NoError(t, err)
		require.Len(t, s.Have(5), 1, "what is appended behind is read, %d bytes", n)
		require.Len(t, s.Have(2), want)
		require.NoError(t, s.Close())
	}
}

// What is taken is written the same.
func FuzzRecord(f *testing.F) {
	for _, test := range goldenRecords {
		f.Add(appendRecord(nil, test.r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n := consumeRecord(b)
		if n > 0 {
			require.Equal(t, b[:n], appendRecord(nil, r))
		}
	})
}

// Any journal opens, and never says more than the file has.
func FuzzJournal(f *testing.F) {
	head := len(appendJournalHead(nil, 0))
	var all []byte
	for _, test := range goldenRecords {
		test.r.id = 2
		all = appendRecord(all, test.r)
	}
	f.Add(all)
	f.Add(all[:50])
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newTestDisk(1, false)
		s, err := Create(d, testID, tree(), &Options{Rules: testRules})
		require.NoError(t, err)
		require.NoError(t, s.Close())
		journal := d.names[".xfer-"+testID+"/journal"]
		journal.data = append(journal.data[:head:head], b...)
		s, err = Open(d, testID, &Options{Rules: testRules})
		if err != nil {
			require.ErrorAs(t, err, new(*fault.Error))
			return
		}
		for _, r := range s.Have(2) {
			require.True(t, 0 <= r.From && r.From < r.To && r.To <= 100)
		}
	})
}

// What is taken for meta is written the same.
func FuzzMeta(f *testing.F) {
	b, err := encodeMeta(0o022, tree())
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if entries, umask, _, err := consumeMeta(b); err == nil {
			again, err := encodeMeta(umask, entries)
			require.NoError(t, err)
			require.Equal(t, b, again)
		}
	})
}
