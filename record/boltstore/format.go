package boltstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane/record"
)

// What a Store keeps, format 1. Integers are big endian; crc is CRC-32C of what is before it.
//
//	"peerlane/record"        a bucket, of all Stores
//	    name                 a bucket, of one
//	        "log"            version u8 = 1, log 16, next u64, acked u64, crc u32
//	        "place"          version u8 = 1, log 16, applied u64, crc u32          of the peer; not there: none yet
//	        "records"        a bucket: number u64 -> payload, from acked + 1 or less to next - 1
//
// A place with a log of zeros has been dropped: the next stream begins where its writer does.
var (
	topKey     = []byte("peerlane/record")
	logKey     = []byte("log")
	placeKey   = []byte("place")
	recordsKey = []byte("records")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const (
	format    = 1
	logIDSize = len(record.LogID{})
	logSize   = 1 + logIDSize + 8 + 8 + 4
	placeSize = 1 + logIDSize + 8 + 4
	keySize   = 8
)

// outLog is where this side stands in the log that it writes.
type outLog struct {
	id    record.LogID
	next  uint64
	acked uint64
}

func (l outLog) encode() []byte {
	b := append(make([]byte, 0, logSize), format)
	b = append(b, l.id[:]...)
	b = binary.BigEndian.AppendUint64(b, l.next)
	b = binary.BigEndian.AppendUint64(b, l.acked)
	return seal(b)
}

func decodeLog(b []byte) (outLog, error) {
	if err := check("log", b, logSize); err != nil {
		return outLog{}, err
	}
	l := outLog{record.LogID(b[1:]), binary.BigEndian.Uint64(b[17:]), binary.BigEndian.Uint64(b[25:])}
	if l.id == (record.LogID{}) || l.acked >= l.next {
		return l, damagedf("log %x with %d acknowledged of %d records", l.id[:4], l.acked, l.next-1)
	}
	return l, nil
}

// inPlace is where this side stands in the log of its peer.
type inPlace struct {
	log     record.LogID // zero: in none
	applied uint64
	dropped bool // in none, and wherever the next one begins will do
}

func (p inPlace) none() bool { return p.log == record.LogID{} }

func (p inPlace) encode() []byte {
	b := append(make([]byte, 0, placeSize), format)
	b = append(b, p.log[:]...)
	return seal(binary.BigEndian.AppendUint64(b, p.applied))
}

// decodePlace takes what is kept; nil is no place.
func decodePlace(b []byte) (inPlace, error) {
	if b == nil {
		return inPlace{}, nil
	}
	if err := check("place", b, placeSize); err != nil {
		return inPlace{}, err
	}
	p := inPlace{log: record.LogID(b[1:]), applied: binary.BigEndian.Uint64(b[17:])}
	p.dropped = p.none()
	if p.dropped != (p.applied == 0) {
		return p, damagedf("a place, %d, in log %x", p.applied, p.log[:4])
	}
	return p, nil
}

// seal appends the checksum.
func seal(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// check looks at the version, size and checksum of what is kept under a key.
func check(what string, b []byte, size int) error {
	switch {
	case len(b) == 0:
		return damagedf("no %s", what)
	case b[0] != format:
		return fmt.Errorf("%w: the %s is of format %d, and this is format %d", ErrFormat, what, b[0], format)
	case len(b) != size:
		return damagedf("%s of %d bytes, want %d", what, len(b), size)
	case binary.BigEndian.Uint32(b[size-4:]) != crc32.Checksum(b[:size-4], castagnoli):
		return damagedf("%s has a wrong checksum", what)
	}
	return nil
}

func loadLog(b *bbolt.Bucket) (outLog, error)    { return decodeLog(b.Get(logKey)) }
func loadPlace(b *bbolt.Bucket) (inPlace, error) { return decodePlace(b.Get(placeKey)) }

// loadRecords returns the bucket of the records.
func loadRecords(b *bbolt.Bucket) (*bbolt.Bucket, error) {
	if r := b.Bucket(recordsKey); r != nil {
		return r, nil
	}
	return nil, damagedf("no records")
}

// recordKey returns the key of the record seq.
func recordKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// recordNumber is the other way round. Keys of another size are no record's: it returns 0.
func recordNumber(key []byte) uint64 {
	if len(key) != keySize {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}

func damagedf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}
