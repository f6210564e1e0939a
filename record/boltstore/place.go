package boltstore

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane/record"
)

// Commit records, in a transaction of the application, that the record seq of the peer's log is applied: together with the effect, or not
// at all. AckRecord, after the transaction, notifies the peer.
//
// The error is ErrApplied if the record is applied already, by the transaction of another stream: return the error, so that the transaction
// is rolled back. It is record.ErrRange if the record is not the next one, because those between are not applied. It is another error if no
// stream has begun yet, or if tx belongs to another DB or cannot write.
func (s *Store) Commit(tx *bbolt.Tx, seq uint64) error {
	if tx == nil || tx.DB() != s.db {
		return s.errorf("commit", errors.New("the transaction is over, or of another DB"))
	}
	b, err := s.bucket(tx)
	if err != nil {
		return s.errorf("commit", err)
	}
	p, err := loadPlace(b)
	if err == nil && p.none() {
		p.log = s.inProgress()
	}
	switch {
	case err != nil:
	case p.none():
		err = errors.New("no stream has begun to read")
	case seq <= p.applied:
		err = fmt.Errorf("%w: record %d, and %d are", ErrApplied, seq, p.applied)
	case seq != p.applied+1:
		err = fmt.Errorf("%w: record %d, and %d is due", record.ErrRange, seq, p.applied+1)
	default:
		p.applied = seq
		err = b.Put(placeKey, p.encode())
	}
	if err != nil {
		return s.errorf("commit", err)
	}
	return nil
}

// inProgress returns the log that the stream reads while nothing of it is applied.
func (s *Store) inProgress() record.LogID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reading
}

// Applied implements record.Store: it stores a position, in a transaction of its own. A position that Commit has stored already costs only
// a read. A position at 0 is not stored: while nothing is applied, another log may replace this one.
func (s *Store) Applied(log record.LogID, seq uint64) error {
	var p inPlace
	var due bool
	look := func(b *bbolt.Bucket) (err error) {
		if p, err = loadPlace(b); err == nil {
			due, err = p.due(log, seq, s.inProgress())
		}
		return err
	}
	if err := s.view("place", look); err != nil {
		return err
	}
	if !due && p.none() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reading = log
	}
	if !due {
		return nil
	}
	return s.update("place", func(b *bbolt.Bucket) error {
		if err := look(b); err != nil {
			return err
		}
		if !due { // any more
			return errUnchanged
		}
		return b.Put(placeKey, inPlace{log: log, applied: seq}.encode())
	})
}

// due reports whether the position at the record seq of log must be stored after p. reading is the log that was begun at its beginning.
func (p inPlace) due(log record.LogID, seq uint64, reading record.LogID) (bool, error) {
	switch {
	case log == record.LogID{}:
		return false, fmt.Errorf("%w: a place in no log", record.ErrRange)
	case p.none() && seq > 0 && log != reading && !p.dropped:
		return false, fmt.Errorf("%w: the writer has seen its records up to %d applied, and nothing is kept here of its log %x: "+
			"this DB is new, or not the one that was used; give that one back, or drop the place here (DropPlace) to read on from record %d",
			record.ErrHistory, seq, log[:4], seq+1)
	case !p.none() && p.log != log:
		return false, fmt.Errorf("%w: the place is at record %d of log %x, and this is log %x",
			record.ErrHistory, p.applied, p.log[:4], log[:4])
	}
	return seq > p.applied, nil
}

// DropPlace forgets the position in the peer's log: the next stream reads from where its writer begins, whatever its log is. It skips
// records that the writer already knows to be applied, and reads again those that were applied here without the writer knowing. The error
// is ErrHeld while a stream has the Store. Make sure that no handler of an earlier stream still calls Commit.
func (s *Store) DropPlace() error {
	return s.alone("drop place", func(b *bbolt.Bucket) error {
		return b.Put(placeKey, inPlace{dropped: true}.encode())
	})
}
