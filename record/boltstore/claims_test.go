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

// Claim: record.Place.Acked, record.Place.Applied, record.Place.Log, record.Place.Next, record.Place.Peer
func TestThePlacesOfTwoSidesFitTogether(t *testing.T) {
	writer, reader := newStore(t), newStore(t)
	fresh := place(t, writer)
	require.NotEqual(t, record.LogID{}, fresh.Log)
	require.Equal(t, record.Place{Log: fresh.Log, Next: 1}, fresh)
	w, r := mustConnect(t, writer, reader)
	write(t, w, 1, 5)
	take(t, r, reader, 1, 3)
	require.NoError(t, w.BarrierTo(t.Context(), 3))
	kill(w)
	<-r.Done()
	from, to := place(t, writer), place(t, reader)
	require.Equal(t, fresh.Log, from.Log, "the same log")
	require.Equal(t, uint64(6), from.Next)
	require.Equal(t, uint64(3), from.Acked)
	require.Zero(t, from.Applied)
	require.Equal(t, from.Log, to.Peer)
	require.Equal(t, uint64(3), to.Applied)
	require.Equal(t, uint64(1), to.Next, "it has written nothing itself")
}
