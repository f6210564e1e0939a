package boltstore

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane/record"
)

// Commit keeps, in a transaction of the application's, that the record seq of the peer's log is applied: with the effect, or not at
// all. AckRecord after the transaction tells the peer.
//
// It is ErrApplied when the transaction sees that the record is applied already, by another stream's: return it, so that the
// transaction is rolled back. record.ErrRange is a record that is not the next one: those between are not applied. It is an error
// when no stream has begun yet, and when tx is of another DB or cannot write.
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

// inProgress returns the log that the stream reads of which nothing is applied yet.
func (s *Store) inProgress() record.LogID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reading
}

// Applied is part of record.Store: it keeps a place, in a transaction of its own. What Commit has kept already costs nothing but
// a look. A place at 0 is not kept: while nothing is applied, another log may take this one's place.
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

// due reports whether the place at the record seq of log is to be kept after p. reading is the log that was begun at its beginning.
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

// DropPlace forgets the place in the peer's log: the next stream reads from where its writer begins, whatever its log is. What
// the writer has seen applied before is not read; what has been applied here and the writer has not seen is read again. ErrHeld
// while a stream has the Store; see that nothing of an earlier one calls Commit any more.
func (s *Store) DropPlace() error {
	return s.alone("drop place", func(b *bbolt.Bucket) error {
		return b.Put(placeKey, inPlace{dropped: true}.encode())
	})
}
