package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/peerlane/peerlane/record"
)

func TestAStreamGoesOnWhereTheLastOneStood(t *testing.T) {
	writer, reader := newStore(t), newStore(t)
	w, r := mustConnect(t, writer, reader)
	write(t, w, 1, 5)
	take(t, r, reader, 1, 2)
	require.NoError(t, w.BarrierTo(t.Context(), 2))
	read(t, r, 3) // and no more
	kill(w)
	<-r.Done()

	w, r = mustConnect(t, writer, reader)
	write(t, w, 6, 7)
	take(t, r, reader, 3, 7)
	settle(t, w)
	require.NoError(t, w.CloseWrite())
	_, err := r.ReadRecord(t.Context())
	require.Equal(t, io.EOF, err)
	require.NoError(t, w.Close())
	require.NoError(t, r.Close())
	require.Equal(t, numbers(1, 7), applied(t, reader.db))
	require.Equal(t, uint64(7), place(t, writer).Acked)
}

// A writer that restarts sends what was not acknowledged again, under the same numbers: after it has closed its DB, and from what is
// in the file at some moment, as after it was killed.
func TestAWriterRestarts(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "writer")
			db, reader := openDB(t, path), newStore(t)
			w, r := mustConnect(t, storeIn(t, db), reader)
			write(t, w, 1, 50)
			take(t, r, reader, 1, 20)
			require.NoError(t, w.BarrierTo(t.Context(), 20))
			if killed {
				path = copyDB(t, db)
			}
			kill(w)
			<-r.Done()
			require.NoError(t, db.Close())

			w, r = mustConnect(t, storeIn(t, openDB(t, path)), reader)
			take(t, r, reader, 21, 50)
			write(t, w, 51, 60)
			take(t, r, reader, 51, 60)
			settle(t, w)
			require.Equal(t, numbers(1, 60), applied(t, reader.db))
		})
	}
}

// A reader that restarts gets nothing twice that it has applied, whether the writer knows of it or not.
func TestAReaderRestarts(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "reader")
			db, writer := openDB(t, path), newStore(t)
			reader := storeIn(t, db)
			w, r := mustConnect(t, writer, reader)
			write(t, w, 1, 50)
			take(t, r, reader, 1, 20)
			require.NoError(t, commit(reader, read(t, r, 21))) // and not acknowledged
			read(t, r, 22)                                     // and not applied
			if killed {
				path = copyDB(t, db)
			}
			kill(r)
			<-w.Done()
			require.NoError(t, db.Close())

			db = openDB(t, path)
			reader = storeIn(t, db)
			w, r = mustConnect(t, writer, reader)
			take(t, r, reader, 22, 50)
			settle(t, w)
			require.Equal(t, numbers(1, 50), applied(t, db))
		})
	}
}

func TestAReaderWithoutCommitKeepsWhatItAcknowledges(t *testing.T) {
	writer, reader := newStore(t), newStore(t)
	w, r := mustConnect(t, writer, reader)
	write(t, w, 1, 3)
	for n := uint64(1); n <= 2; n++ {
		read(t, r, n)
		require.NoError(t, r.AckRecord(n))
	}
	require.NoError(t, w.BarrierTo(t.Context(), 2))
	require.Equal(t, uint64(2), place(t, reader).Applied, "kept before the writer knows")
	kill(w)
	<-r.Done()
	_, r = mustConnect(t, writer, reader)
	read(t, r, 3)
}

// The peer has come back, and the loss of the first stream has not been noticed: it is told, and what is under way on it is not
// applied a second time.
func TestTwoStreamsAtOnceApplyNothingTwice(t *testing.T) {
	writer, reader := newStore(t), newStore(t)
	w1, r1 := mustConnect(t, writer, reader)
	write(t, w1, 1, 3)
	old := read(t, r1, 1)

	w2, r2 := mustConnect(t, writer, reader)
	for _, s := range []*record.Stream{w1, r1} {
		<-s.Done()
		require.True(t, errors.Is(s.Err(), record.ErrSuperseded) || isRemote(s.Err(), record.CodeSuperseded), "%v", s.Err())
	}
	_, err := w1.WriteRecord(t.Context(), nil)
	require.Error(t, err)

	again := read(t, r2, 1)
	both := make(chan error)
	for _, r := range []record.Record{old, again} {
		go func() { both <- commit(reader, r) }()
	}
	first, second := <-both, <-both
	if first != nil {
		first, second = second, first
	}
	require.NoError(t, first)
	require.ErrorIs(t, second, ErrApplied)
	require.Error(t, r1.AckRecord(1))
	require.NoError(t, r2.AckRecord(1))
	take(t, r2, reader, 2, 3)
	settle(t, w2)
	require.Equal(t, numbers(1, 3), applied(t, reader.db))
}

func isRemote(err error, code record.Code) bool {
	var e *record.Error
	return errors.As(err, &e) && e.Remote && e.Code == code
}

// AckRecord in a transaction is a mistake, but no deadlock. What else a stream does waits until the transaction is over.
func TestAckRecordInATransactionDoesNotWait(t *testing.T) {
	writer, reader := newStore(t), newStore(t)
	w, r := mustConnect(t, writer, reader)
	write(t, w, 1, 2)
	require.NoError(t, reader.db.Update(func(tx *bbolt.Tx) error {
		rec := read(t, r, 1)
		require.NoError(t, apply(tx, rec))
		require.NoError(t, reader.Commit(tx, 1))
		require.NoError(t, r.AckRecord(1))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, w.BarrierTo(ctx, 1), context.DeadlineExceeded, "told before it was kept")
		return nil
	}))
	require.NoError(t, w.BarrierTo(t.Context(), 1))
	take(t, r, reader, 2, 2)
	settle(t, w)
}

func TestHistoriesThatDoNotFitAreForAPersonToDecideOn(t *testing.T) {
	// Before: 10 written, 8 of them applied and acknowledged. Older copies are from after 5, 4 of them applied.
	for _, c := range []struct {
		name           string
		writer, reader string // which DB
		says           []string
	}{
		{"the writer's DB was deleted", "new", "now",
			[]string{"the reader is at record 8 of log ", "one of them has begun anew", "drop the place, or the log"}},
		{"the reader's DB was deleted", "now", "new",
			[]string{"the writer has seen its records up to 8 applied", "this DB is new", "(DropPlace) to read on from record 9"}},
		{"the writer's DB is an older copy", "old", "now",
			[]string{"the reader goes on with record 9, and the writer has 1 up to 5", "one of them has gone back in time"}},
		{"the reader's DB is an older copy", "now", "old",
			[]string{"the reader goes on with record 5, and the writer has 9 up to 10", "one of them has gone back in time"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			writer, reader, oldWriter, oldReader := twoHistories(t)
			pick := func(which string, now, old *Store) *Store {
				return map[string]*Store{"now": now, "old": old, "new": newStore(t)}[which]
			}
			writer, reader = pick(c.writer, writer, oldWriter), pick(c.reader, reader, oldReader)
			wasW, wasR, wasTail := place(t, writer), place(t, reader), tail(t, writer, place(t, writer).Acked+1)

			for range 2 { // the second time it is no other
				w, r, werr, rerr := connect(t, writer, reader)
				if w != nil { // has its ACCEPT, and is told then
					<-w.Done()
					werr = w.Err()
				}
				require.Nil(t, r)
				for _, err := range []error{werr, rerr} {
					require.ErrorIs(t, err, record.ErrHistory)
					for _, s := range c.says {
						require.ErrorContains(t, err, s)
					}
				}
			}
			require.Equal(t, wasW, place(t, writer))
			require.Equal(t, wasR, place(t, reader))
			require.Equal(t, wasTail, tail(t, writer, wasW.Acked+1), "nothing is dropped")

			require.NoError(t, reader.DropPlace(), "the person's decision: the writer is right")
			w, r := mustConnect(t, writer, reader)
			if next := wasW.Next; next > wasW.Acked+1 {
				read(t, r, wasW.Acked+1)
			} else {
				write(t, w, next, next)
				read(t, r, next)
			}
		})
	}
}

func TestTheOtherSideLearnsThatItsReaderHasNoPlaceWhenItAccepts(t *testing.T) {
	writer, _, _, _ := twoHistories(t)
	reader := newStore(t)
	a, b := net.Pipe()
	accepted := make(chan error, 1)
	go func() {
		w, err := record.AcceptConn(context.Background(), b, &record.Options{Store: writer})
		if err == nil {
			<-w.Done()
			err = w.Err()
		}
		accepted <- err
	}()
	_, err := record.OpenConn(t.Context(), a, &record.Options{Store: reader})
	require.ErrorIs(t, err, record.ErrHistory)
	require.ErrorIs(t, <-accepted, record.ErrHistory)
	require.Equal(t, []uint64{9, 10}, tail(t, writer, 9))
}

// twoHistories returns the Stores of a writer and a reader with a history, and what they were in the middle of it.
func twoHistories(t *testing.T) (writer, reader, oldWriter, oldReader *Store) {
	writer, reader = newStore(t), newStore(t)
	w, r := mustConnect(t, writer, reader)
	write(t, w, 1, 5)
	take(t, r, reader, 1, 4)
	oldWriter, oldReader = storeIn(t, openDB(t, copyDB(t, writer.db))), storeIn(t, openDB(t, copyDB(t, reader.db)))
	write(t, w, 6, 10)
	take(t, r, reader, 5, 8)
	require.NoError(t, w.BarrierTo(t.Context(), 8))
	kill(w)
	<-r.Done()
	return writer, reader, oldWriter, oldReader
}

func copyDB(t *testing.T, db *bbolt.DB) string {
	path := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(path, 0o600) }))
	return path
}

func TestAStreamWhoseDBFailsEndsAndSaysSo(t *testing.T) {
	writer, reader := newStore(t), newStore(t)
	w, r := mustConnect(t, writer, reader)
	write(t, w, 1, 1)
	require.NoError(t, writer.db.Close())
	_, err := w.WriteRecord(t.Context(), payload(2))
	require.ErrorIs(t, err, record.ErrStore)
	require.ErrorIs(t, err, berrors.ErrDatabaseNotOpen)
	<-r.Done()
	require.True(t, isRemote(r.Err(), record.CodeStore), "%v", r.Err())

	_, r, werr, rerr := connect(t, writer, reader)
	require.ErrorIs(t, werr, record.ErrStore)
	if rerr == nil { // it had accepted when the writer came to its Store
		<-r.Done()
		rerr = r.Err()
	}
	require.Error(t, rerr)
}
