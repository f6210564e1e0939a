package boltstore

import (
	"fmt"
	"iter"

	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane/record"
)

const (
	tailBytes   = 256 << 10 // of records that one transaction of Tail reads, except for one larger record
	trimRecords = 1024      // that one transaction forgets, and twice as many as it writes
	fillPercent = 0.95      // of a page: records come in the order of their keys
)

// Append is part of record.Store: it keeps the records of one call in one transaction, and forgets acknowledged ones in it.
func (s *Store) Append(first uint64, records iter.Seq[[]byte], acked uint64) error {
	return s.update("append", func(b *bbolt.Bucket) error {
		l, err := loadLog(b)
		if err != nil {
			return err
		}
		kept, err := loadRecords(b)
		if err != nil {
			return err
		}
		if first != l.next || acked >= first {
			return fmt.Errorf("%w: records from %d with %d acknowledged, and %d is due", record.ErrRange, first, acked, l.next)
		}
		kept.FillPercent = fillPercent
		for payload := range records {
			if err := kept.Put(recordKey(l.next), payload); err != nil {
				return err
			}
			l.next++
		}
		return l.settle(b, kept, acked, int(l.next-first))
	})
}

// forget notes what is acknowledged, and forgets of it what one transaction may.
func (s *Store) forget(acked uint64) error {
	var l outLog
	err := s.view("end", func(b *bbolt.Bucket) (err error) {
		l, err = loadLog(b)
		return err
	})
	if err != nil || acked <= l.acked {
		return err
	}
	return s.update("end", func(b *bbolt.Bucket) error {
		l, err := loadLog(b)
		if err != nil {
			return err
		}
		kept, err := loadRecords(b)
		if err != nil {
			return err
		}
		if acked >= l.next {
			return fmt.Errorf("%w: record %d acknowledged, and %d are written", record.ErrRange, acked, l.next-1)
		}
		return l.settle(b, kept, acked, 0)
	})
}

// settle keeps l after written records more, and with those up to acked being acknowledged.
func (l outLog) settle(b, kept *bbolt.Bucket, acked uint64, written int) error {
	if written == 0 && acked <= l.acked {
		return errUnchanged
	}
	l.acked = max(l.acked, acked)
	if err := trim(kept, l.acked, 2*written+trimRecords); err != nil {
		return err
	}
	return b.Put(logKey, l.encode())
}

// trim forgets the records up to acked, the oldest first, and at most so many. It deletes by key: a bbolt cursor that deletes skips.
func trim(kept *bbolt.Bucket, acked uint64, most int) error {
	key, _ := kept.Cursor().First()
	if key == nil {
		return nil
	}
	n := recordNumber(key)
	if n == 0 {
		return damagedf("a record under the key %x", key)
	}
	for ; n <= acked && most > 0; n, most = n+1, most-1 {
		if err := kept.Delete(recordKey(n)); err != nil {
			return err
		}
	}
	return nil
}

// checkRecords looks whether the records that are to be there may be: the first and the last of them.
func checkRecords(b *bbolt.Bucket, l outLog) error {
	kept, err := loadRecords(b)
	if err != nil {
		return err
	}
	first, _ := kept.Cursor().First()
	last, _ := kept.Cursor().Last()
	if first == nil && l.acked == l.next-1 {
		return nil
	}
	if from, to := recordNumber(first), recordNumber(last); from == 0 || from > l.acked+1 || to >= l.next ||
		to < l.next-1 && l.acked < l.next-1 {
		return damagedf("records %x to %x are kept where %d to %d are due", first, last, l.acked+1, l.next-1)
	}
	return nil
}

// Tail is part of record.Store. It reads a part in a transaction of its own, then yields copies of that outside of it: the caller
// may take its time, and use the DB. What it yields is the log up to its end at the time when the last part was read; each
// payload is valid until the next is asked for. Records are not written beside it but by the stream that has the Store; one that is
// missing is an error that matches ErrDamaged, behind which nothing comes.
func (s *Store) Tail(seq uint64) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) {
		var part tailPart
		for {
			if err := s.view("tail", func(b *bbolt.Bucket) error { return part.read(b, seq) }); err != nil {
				yield(record.Record{}, err)
				return
			}
			if len(part.sizes) == 0 {
				return
			}
			rest := part.payloads
			for _, size := range part.sizes {
				if !yield(record.Record{Seq: seq, Payload: rest[:size:size]}, nil) {
					return
				}
				rest = rest[size:]
				seq++
			}
		}
	}
}

// tailPart is what Tail reads at once: the payloads one behind the other.
type tailPart struct {
	payloads []byte
	sizes    []int
}

// read takes the records from seq on. None is left when it takes none.
func (p *tailPart) read(b *bbolt.Bucket, seq uint64) error {
	p.payloads, p.sizes = p.payloads[:0], p.sizes[:0]
	l, err := loadLog(b)
	if err != nil {
		return err
	}
	kept, err := loadRecords(b)
	if err != nil {
		return err
	}
	c := kept.Cursor()
	key, payload := c.Seek(recordKey(seq))
	for ; seq < l.next && len(p.payloads) < tailBytes && len(p.sizes) < tailBytes/64; seq++ {
		if recordNumber(key) != seq {
			return damagedf("record %d is missing", seq)
		}
		if len(p.sizes) > 0 && len(p.payloads)+len(payload) > tailBytes {
			break
		}
		p.payloads = append(p.payloads, payload...)
		p.sizes = append(p.sizes, len(payload))
		key, payload = c.Next()
	}
	return nil
}

// DropLog begins a new log: what is kept and not acknowledged is dropped, for ever, and the peer has to DropPlace before it reads the
// new one. ErrHeld while a stream has the Store.
func (s *Store) DropLog() error {
	return s.alone("drop log", func(b *bbolt.Bucket) error {
		if b.Bucket(recordsKey) != nil {
			if err := b.DeleteBucket(recordsKey); err != nil {
				return err
			}
		}
		return beginLog(b)
	})
}
