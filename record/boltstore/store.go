package boltstore

import (
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/peerlane/peerlane/record"
)

// A Store is a record.Store in a DB. It is safe for concurrent use.
//
// Of what it keeps it has no copy in memory: every call looks at what the DB has, so that a transaction that is rolled back, the
// application's included, leaves nothing behind.
type Store struct {
	db   *bbolt.DB
	name []byte

	mu      sync.Mutex
	newest  *hold        // of the last that came; nil: nobody has it
	active  *hold        // whose Begin has returned and whose End has not been called; nil: nobody's
	reading record.LogID // what the active one reads from its beginning, while nothing of it is applied; zero: see the DB
}

var _ record.Store = (*Store)(nil)

// hold is one stream's, from Begin to End:
//
//	Begin ── newest, the one before is told ── its End ── active ── End
type hold struct {
	lost func()
	over chan struct{} // closed when it is given back
}

// New returns the Store called name in db, and makes it when there is none. The DB stays the caller's: close it after the streams.
//
// The error matches record.ErrInvalid when db is nil or name is no key for bbolt, or is what db says. What is kept is looked at when a stream begins, and by Place.
func New(db *bbolt.DB, name string) (*Store, error) {
	s := &Store{db: db, name: []byte(name)}
	if db == nil {
		return nil, s.errorf("open", fmt.Errorf("%w: db is nil", record.ErrInvalid))
	}
	if name == "" || len(name) > bbolt.MaxKeySize {
		return nil, s.errorf("open", fmt.Errorf("%w: name of %d bytes, want 1 to %d", record.ErrInvalid, len(name), bbolt.MaxKeySize))
	}
	var found bool
	err := s.transact("open", db.View, func(tx *bbolt.Tx) error {
		found = s.exists(tx)
		return nil
	})
	if err == nil && !found {
		err = s.transact("open", db.Update, s.create)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) exists(tx *bbolt.Tx) bool {
	top := tx.Bucket(topKey)
	return top != nil && top.Bucket(s.name) != nil
}

// create makes the bucket, with a new log.
func (s *Store) create(tx *bbolt.Tx) error {
	top, err := tx.CreateBucketIfNotExists(topKey)
	if err != nil || s.exists(tx) {
		return err
	}
	b, err := top.CreateBucket(s.name)
	if err != nil {
		return err
	}
	return beginLog(b)
}

// beginLog makes a new log, with no records.
func beginLog(b *bbolt.Bucket) error {
	if _, err := b.CreateBucket(recordsKey); err != nil {
		return err
	}
	return b.Put(logKey, outLog{id: record.NewLogID(), next: 1}.encode())
}

// Begin is part of record.Store: it takes the Store for one stream. The one that had it is told, and waited for. The error matches
// ErrDamaged or ErrFormat when what is kept cannot be understood.
func (s *Store) Begin(lost func()) (record.Place, error) {
	h := &hold{lost: lost, over: make(chan struct{})}
	s.mu.Lock()
	before := s.newest
	s.newest = h
	s.mu.Unlock()
	if before != nil {
		before.lost()
		<-before.over
	}
	place, err := s.Place()
	if err != nil {
		s.release(h)
		return place, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active, s.reading = h, record.LogID{}
	return place, nil
}

// End is part of record.Store: it gives the Store back, also when it returns an error.
func (s *Store) End(acked uint64) error {
	s.mu.Lock()
	h := s.active
	s.active = nil
	s.mu.Unlock()
	if h == nil {
		return s.errorf("end", errors.New("no stream has it"))
	}
	defer s.release(h)
	return s.forget(acked)
}

func (s *Store) release(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == h {
		s.newest = nil
	}
	close(h.over)
}

// alone changes the bucket while no stream has the Store. One that comes meanwhile waits.
func (s *Store) alone(op string, fn func(*bbolt.Bucket) error) error {
	h := &hold{lost: func() {}, over: make(chan struct{})}
	s.mu.Lock()
	if s.newest != nil {
		s.mu.Unlock()
		return s.errorf(op, ErrHeld)
	}
	s.newest = h
	s.mu.Unlock()
	defer s.release(h)
	return s.update(op, fn)
}

// Place returns where both logs stand, as the DB has it, or as Begin why that cannot be said.
func (s *Store) Place() (record.Place, error) {
	var place record.Place
	err := s.view("place", func(b *bbolt.Bucket) error {
		l, err := loadLog(b)
		if err != nil {
			return err
		}
		p, err := loadPlace(b)
		if err != nil {
			return err
		}
		place = record.Place{Log: l.id, Next: l.next, Acked: l.acked, Peer: p.log, Applied: p.applied}
		return checkRecords(b, l)
	})
	return place, err
}

// errUnchanged ends a transaction that has nothing to write.
var errUnchanged = errors.New("unchanged")

// update changes the bucket in a transaction, which is rolled back when fn returns an error; errUnchanged is none.
func (s *Store) update(op string, fn func(*bbolt.Bucket) error) error {
	return s.within(op, s.db.Update, fn)
}

// view looks at the bucket in a transaction.
func (s *Store) view(op string, fn func(*bbolt.Bucket) error) error {
	return s.within(op, s.db.View, fn)
}

func (s *Store) within(op string, run func(func(*bbolt.Tx) error) error, fn func(*bbolt.Bucket) error) error {
	return s.transact(op, run, func(tx *bbolt.Tx) error {
		b, err := s.bucket(tx)
		if err != nil {
			return err
		}
		return fn(b)
	})
}

// transact runs fn in a transaction. bbolt panics at pages that it cannot make sense of: that is an error here.
func (s *Store) transact(op string, run func(func(*bbolt.Tx) error) error, fn func(*bbolt.Tx) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.errorf(op, damagedf("bbolt: %v", v))
		}
	}()
	if err := run(fn); err != nil && err != errUnchanged {
		return s.errorf(op, err)
	}
	return nil
}

// bucket returns what the Store keeps.
func (s *Store) bucket(tx *bbolt.Tx) (*bbolt.Bucket, error) {
	if top := tx.Bucket(topKey); top != nil {
		if b := top.Bucket(s.name); b != nil {
			return b, nil
		}
	}
	return nil, damagedf("the bucket is gone")
}

func (s *Store) errorf(op string, err error) error {
	return fmt.Errorf("boltstore %q: %s: %w", s.name, op, err)
}
