package boltstore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane/record"
)

func TestFormat(t *testing.T) {
	require.Equal(t, ""+
		"01"+ // version
		"01020300000000000000000000000000"+ // log
		"0000000000000007"+ // next
		"0000000000000005"+ // acked
		"c1d37c1a", // crc
		hex.EncodeToString(outLog{id: peerLog, next: 7, acked: 5}.encode()))
	require.Equal(t, ""+
		"01"+ // version
		"01020300000000000000000000000000"+ // log
		"0000000000000009"+ // applied
		"fee1bef3", // crc
		hex.EncodeToString(inPlace{log: peerLog, applied: 9}.encode()))
}

func FuzzDecode(f *testing.F) {
	f.Add(outLog{id: peerLog, next: 7, acked: 5}.encode())
	f.Add(inPlace{log: peerLog, applied: 9}.encode())
	f.Add(inPlace{dropped: true}.encode())
	f.Add(inPlace{applied: 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := decodeLog(b); err == nil {
			require.Equal(t, b, l.encode())
		}
		if p, err := decodePlace(b); err == nil && b != nil {
			require.Equal(t, b, p.encode())
		}
	})
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	l, p := outLog{id: peerLog, next: 7, acked: 5}.encode(), inPlace{log: peerLog, applied: 9}.encode()
	for bit := range 8 * logSize {
		b := bytes.Clone(l)
		b[bit/8] ^= 1 << (bit % 8)
		_, err := decodeLog(b)
		require.Error(t, err, "bit %d", bit)
	}
	for bit := range 8 * placeSize {
		b := bytes.Clone(p)
		b[bit/8] ^= 1 << (bit % 8)
		_, err := decodePlace(b)
		require.Error(t, err, "bit %d", bit)
	}
}

// Claim: boltstore.ErrDamaged, boltstore.ErrFormat
func TestWhatIsDamagedIsAnError(t *testing.T) {
	put := func(key, value []byte) func(*bbolt.Bucket) error {
		return func(b *bbolt.Bucket) error { return b.Put(key, value) }
	}
	records := func(fn func(*bbolt.Bucket) error) func(*bbolt.Bucket) error {
		return func(b *bbolt.Bucket) error { return fn(b.Bucket(recordsKey)) }
	}
	remove := func(seq uint64) func(*bbolt.Bucket) error {
		return records(func(b *bbolt.Bucket) error { return b.Delete(recordKey(seq)) })
	}
	for _, c := range []struct {
		name   string
		damage func(*bbolt.Bucket) error
		want   error
		says   string
	}{
		{"no log", func(b *bbolt.Bucket) error { return b.Delete(logKey) }, ErrDamaged, "no log"},
		{"an empty log", put(logKey, nil), ErrDamaged, "no log"},
		{"a short log", put(logKey, []byte{1, 2}), ErrDamaged, "log of 2 bytes, want 37"},
		{"a log of the future", put(logKey, []byte{2, 2}), ErrFormat, "the log is of format 2, and this is format 1"},
		{"a log with other bits", put(logKey, append(make([]byte, 36), 1)), ErrFormat, "format 0"},
		{"a log that ends before it begins", put(logKey, outLog{id: peerLog}.encode()), ErrDamaged, "0 acknowledged of"},
		{"a log without a name", put(logKey, outLog{next: 6}.encode()), ErrDamaged, "log 00000000"},
		{"another end of the log", put(logKey, outLog{id: peerLog, next: 5}.encode()), ErrDamaged, "are kept where 1 to 4 are due"},
		{"a later end of the log", put(logKey, outLog{id: peerLog, next: 7}.encode()), ErrDamaged, "are kept where 1 to 6 are due"},
		{"a short place", put(placeKey, []byte{1}), ErrDamaged, "place of 1 bytes, want 29"},
		{"an empty place", put(placeKey, nil), ErrDamaged, "no place"},
		{"a place of the future", put(placeKey, []byte{9}), ErrFormat, "the place is of format 9"},
		{"a place in no log", put(placeKey, inPlace{applied: 3}.encode()), ErrDamaged, "a place, 3, in log 00000000"},
		{"a place that is none", put(placeKey, inPlace{log: peerLog}.encode()), ErrDamaged, "a place, 0, in log 01020300"},
		{"no records", func(b *bbolt.Bucket) error { return b.DeleteBucket(recordsKey) }, ErrDamaged, "no records"},
		{"the first record is gone", remove(1), ErrDamaged, "where 1 to 5 are due"},
		{"the last record is gone", remove(5), ErrDamaged, "where 1 to 5 are due"},
		{"a record in between is gone", remove(3), ErrDamaged, "record 3 is missing"},
		{"something else among the records", records(put([]byte("a"), nil)), ErrDamaged, "where 1 to 5 are due"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			require.NoError(t, s.Append(1, payloads(1, 5), 0))
			require.NoError(t, s.Applied(peerLog, 0))
			require.NoError(t, s.update("damage", c.damage))
			_, err := s.Begin(func() {})
			if err == nil {
				for _, err = range s.Tail(1) {
				}
			}
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.says)
			_, _ = s.Append(6, payloads(6, 6), 5), s.Applied(peerLog, 1)
			_ = s.db.Update(func(tx *bbolt.Tx) error { return s.Commit(tx, 1) })
			_ = s.End(5)
		})
	}
}

func TestABucketThatIsGoneIsAnError(t *testing.T) {
	s := newStore(t)
	require.NoError(t, s.db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(topKey) }))
	_, err := s.Begin(func() {})
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorIs(t, commit(s, record.Record{Seq: 1}), ErrDamaged)
}

// bbolt panics at a page that is not what it says it is.
func TestADamagedPageIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path)
	require.NoError(t, storeIn(t, db).Append(1, payloads(1, 1000), 0))
	size := db.Info().PageSize
	require.NoError(t, db.Close())

	file, err := os.ReadFile(path)
	require.NoError(t, err)
	at := bytes.Index(file, payload(500)) / size * size
	binary.NativeEndian.PutUint64(file[at:], 12345) // the page's own number
	require.NoError(t, os.WriteFile(path, file, 0o600))

	s := storeIn(t, openDB(t, path))
	begin(t, s)
	last, n := error(nil), 0
	for _, err := range s.Tail(1) {
		if last = err; err == nil {
			n++
		}
	}
	require.ErrorIs(t, last, ErrDamaged)
	require.Less(t, n, 500)
	require.NoError(t, s.Applied(peerLog, 0), "the rest of the DB is in use")
}
