package record_test

import (
	"errors"
	"iter"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/record"
)

// brokenStore has a tail of one record that it cannot read, or takes no place, or both.
type brokenStore struct {
	tail, place error
}

func (b *brokenStore) Begin(func()) (record.Place, error) {
	p := record.Place{Log: record.NewLogID(), Next: 1}
	if b.tail != nil {
		p.Next = 2
	}
	return p, nil
}

func (b *brokenStore) Tail(uint64) iter.Seq2[record.Record, error] {
	return func(yield func(record.Record, error) bool) { yield(record.Record{}, b.tail) }
}

func (b *brokenStore) Append(uint64, iter.Seq[[]byte], uint64) error { return nil }
func (b *brokenStore) Applied(record.LogID, uint64) error            { return b.place }
func (b *brokenStore) End(uint64) error                              { return nil }

// Both sides learn it when the Store of one has something against the stream: no hello has been accepted then.
// Claim: record.ErrHistory
func TestAStoreThatWantsNoStreamRefusesIt(t *testing.T) {
	unreadable := errors.New("unreadable")
	for _, c := range []struct {
		name  string
		store brokenStore
		want  error
		code  record.Code
	}{
		{"its tail cannot be read", brokenStore{tail: unreadable}, unreadable, record.CodeStore},
		{"its place cannot be kept", brokenStore{place: unreadable}, unreadable, record.CodeStore},
		{"it knows another history", brokenStore{place: record.ErrHistory}, record.ErrHistory, record.CodeHistory},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := net.Pipe()
			accepted := make(chan error, 1)
			go func() {
				_, err := record.AcceptConn(t.Context(), b, &record.Options{Store: &c.store})
				accepted <- err
			}()
			_, err := record.OpenConn(t.Context(), a, nil)
			var e *record.Error
			require.ErrorAs(t, err, &e)
			require.True(t, e.Remote, "%v", err)
			require.Equal(t, c.code, e.Code, "%v", err)
			require.ErrorIs(t, <-accepted, c.want)
		})
	}
}
