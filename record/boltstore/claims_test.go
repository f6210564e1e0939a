package boltstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/record"
)

func TestArgumentsThatAreNilAreErrors(t *testing.T) {
	_, err := New(nil, "orders")
	require.ErrorIs(t, err, record.ErrInvalid)
	require.ErrorContains(t, err, "db is nil")
	require.ErrorContains(t, newStore(t).Commit(nil, 1), "the transaction is over")
}

// AckRecord waits for no disk. What it has said is there once Close has returned.
func TestAPlaceIsOnTheDiskWhenCloseHasReturned(t *testing.T) {
	writer, reader := newStore(t), newStore(t)
	w, r := mustConnect(t, writer, reader)
	write(t, w, 1, 3)
	for n := uint64(1); n <= 3; n++ {
		read(t, r, n)
		require.NoError(t, r.AckRecord(n))
	}
	require.NoError(t, r.Close())
	require.Equal(t, uint64(3), place(t, reader).Applied)
}
