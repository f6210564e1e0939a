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
// A Store has no copy of its data in memory: every call reads the DB, so that a transaction that is rolled back, including the
// application's, leaves nothing behind.
type Store struct {
	db   *bbolt.DB
	name []byte

	mu      sync.Mutex
	newest  *hold        // of the stream that came last; nil: no stream has the Store
	active  *hold        // the hold whose Begin has returned and whose End has not been called; nil: none
	reading record.LogID // the log that the active one reads from its beginning, while nothing of it is applied; zero: see the DB
}

var _ record.Store = (*Store)(nil)

// hold is the hold of one stream, from Begin to End:
//
//	Begin ── newest, the previous one is notified ── its End ── active ── End
type hold struct {
	lost func()
	over chan struct{} // closed when it is released
}

// New returns the Store called name in db, and creates it if there is none. The DB remains the caller's: close it after the streams.
//
// The error matches record.ErrInvalid if db is nil or name is not a valid bbolt key; otherwise it is the DB's error. The stored data is
// examined when a stream begins, and by Place.
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

// create creates the bucket, with a new log.
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

// beginLog creates a new log without records.
func beginLog(b *bbolt.Bucket) error {
	if _, err := b.CreateBucket(recordsKey); err != nil {
		return err
	}
	return b.Put(logKey, outLog{id: record.NewLogID(), next: 1}.encode())
}

// Begin implements record.Store: it takes the Store for one stream. It notifies the stream that had the Store, and waits for it. The error
// matches ErrDamaged or ErrFormat if the stored data is invalid.
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

// End implements record.Store: it releases the Store, even if it returns an error.
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

// alone changes the bucket while no stream has the Store. A stream that begins meanwhile waits.
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

// Place returns the positions in both logs as stored in the DB, or the errors of Begin.
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

// errUnchanged ends a transaction without changes.
var errUnchanged = errors.New("unchanged")

// update changes the bucket in a transaction, and rolls the transaction back if fn returns an error. errUnchanged counts as no error.
func (s *Store) update(op string, fn func(*bbolt.Bucket) error) error {
	return s.within(op, s.db.Update, fn)
}

// view reads the bucket in a transaction.
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

// transact runs fn in a transaction. bbolt panics at damaged pages; transact returns that as an error.
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

// bucket returns the Store's bucket.
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
