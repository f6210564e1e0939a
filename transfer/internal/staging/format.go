package staging

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"math"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	metaMagic    = 0x7078666d // "pxfm" (manifest/SPEC.md 4.1)
	journalMagic = 0x7078666a // "pxfj" (5.1)
	version      = 1

	metaHead    = 20 // magic 4, version 1, zero 1, umask 2, count 4, bytes 8
	journalHead = 12 // magic 4, version 1, zero 3, meta's CRC 4
	recordHead  = 8  // kind 1, zero 1, count 2, id 4
	itemSize    = 16
	crcSize     = 4
	maxItems    = 4096
	rootItems   = 2
)

// recordKind is what a record of the journal says (5.2).
type recordKind uint8

const (
	recordPart      recordKind = 1
	recordRanges    recordKind = 2
	recordReset     recordKind = 3
	recordPublished recordKind = 4
	recordRoot      recordKind = 5
	recordLayer     recordKind = 6
)

// record is one of the journal.
type record struct {
	kind  recordKind
	id    uint32
	inode uint64 // of a PART
	have  ranges // of RANGES; of LAYER, in pieces
	root  [32]byte
}

var errMeta = errors.New("the list of files on the disk is damaged")

// encodeMeta returns what meta holds, with its CRC at the end.
func encodeMeta(umask fs.FileMode, entries []manifest.Entry) ([]byte, error) {
	size := metaHead + crcSize
	for i := range entries {
		size += entries[i].EncodedSize()
	}
	b := make([]byte, 0, size)
	b = binary.BigEndian.AppendUint32(b, metaMagic)
	b = append(b, version, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(umask))
	b = binary.BigEndian.AppendUint32(b, uint32(len(entries)))
	b = binary.BigEndian.AppendUint64(b, 0)
	var err error
	for i := range entries {
		if b, err = manifest.AppendEntry(b, &entries[i]); err != nil {
			return nil, err
		}
	}
	binary.BigEndian.PutUint64(b[12:], uint64(len(b)-metaHead))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// consumeMeta takes what meta holds, and returns its CRC too.
func consumeMeta(b []byte) (entries []manifest.Entry, umask fs.FileMode, crc uint32, err error) {
	if len(b) < metaHead+crcSize {
		return nil, 0, 0, errMeta
	}
	body := b[:len(b)-crcSize]
	crc = crcOfMeta(b)
	count := binary.BigEndian.Uint32(b[8:])
	umask = fs.FileMode(binary.BigEndian.Uint16(b[6:]))
	switch {
	case crc32.Checksum(body, castagnoli) != crc, binary.BigEndian.Uint32(b) != metaMagic, b[4] != version, b[5] != 0,
		umask&^0o777 != 0, binary.BigEndian.Uint64(b[12:]) != uint64(len(body)-metaHead), uint64(count) > uint64(len(body)):
		return nil, 0, 0, errMeta
	}
	rest := body[metaHead:]
	for range count {
		e, n, err := manifest.ConsumeEntry(rest)
		if err != nil {
			return nil, 0, 0, err
		}
		entries, rest = append(entries, e), rest[n:]
	}
	if len(rest) > 0 {
		return nil, 0, 0, errMeta
	}
	return entries, umask, crc, nil
}

// crcOfMeta returns the CRC that b, which is a meta's, ends with.
func crcOfMeta(b []byte) uint32 { return binary.BigEndian.Uint32(b[len(b)-crcSize:]) }

// appendJournalHead appends what a journal begins with (spec 5.1); meta is the CRC of meta.
func appendJournalHead(b []byte, meta uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, journalMagic)
	b = append(b, version, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, meta)
}

// isJournal reports whether b begins as the journal of the transfer whose meta has that CRC.
func isJournal(b []byte, meta uint32) bool {
	return len(b) >= journalHead && string(b[:journalHead]) == string(appendJournalHead(nil, meta))
}

// appendRecord appends r; RANGES and LAYER as more than one record, when they are many.
func appendRecord(b []byte, r record) []byte {
	for len(r.have) > maxItems {
		b = appendRecord(b, record{kind: r.kind, id: r.id, have: r.have[:maxItems]})
		r.have = r.have[maxItems:]
	}
	start := len(b)
	count := len(r.have)
	switch r.kind {
	case recordPart:
		count = 1
	case recordRoot:
		count = rootItems
	}
	b = append(b, byte(r.kind), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(count))
	b = binary.BigEndian.AppendUint32(b, r.id)
	switch r.kind {
	case recordPart:
		b = binary.BigEndian.AppendUint64(b, r.inode)
		b = binary.BigEndian.AppendUint64(b, 0)
	case recordRoot:
		b = append(b, r.root[:]...)
	}
	for _, have := range r.have {
		b = binary.BigEndian.AppendUint64(b, uint64(have.From))
		b = binary.BigEndian.AppendUint64(b, uint64(have.To))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// consumeRecord takes the record that b begins with, and returns how many bytes that were: 0 for a tail that is none.
func consumeRecord(b []byte) (record, int) {
	if len(b) < recordHead+crcSize {
		return record{}, 0
	}
	r := record{kind: recordKind(b[0]), id: binary.BigEndian.Uint32(b[4:])}
	count := int(binary.BigEndian.Uint16(b[2:]))
	end := recordHead + count*itemSize
	if count > maxItems || len(b) < end+crcSize || b[1] != 0 ||
		crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return record{}, 0
	}
	items := b[recordHead:end]
	switch {
	case r.kind == recordPart && count == 1 && binary.BigEndian.Uint64(items[8:]) == 0:
		r.inode = binary.BigEndian.Uint64(items)
	case r.kind == recordRoot && count == rootItems:
		copy(r.root[:], items)
	case (r.kind == recordRanges || r.kind == recordLayer) && count > 0:
		r.have = make(ranges, 0, count)
		for ; len(items) > 0; items = items[itemSize:] {
			from, to := binary.BigEndian.Uint64(items), binary.BigEndian.Uint64(items[8:])
			if from >= to || to > math.MaxInt64 {
				return record{}, 0
			}
			r.have = append(r.have, Range{int64(from), int64(to)})
		}
	case (r.kind == recordReset || r.kind == recordPublished) && count == 0:
	default:
		return record{}, 0
	}
	return r, end + crcSize
}
