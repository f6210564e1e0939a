package record_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/testsession"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

func TestArgumentsThatAreNilAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := record.Open(t.Context(), nil, "x", nil)
		require.ErrorIs(t, err, record.ErrInvalid)
		require.ErrorContains(t, err, "session is nil")
		_, err = record.OpenConn(t.Context(), nil, nil)
		require.ErrorIs(t, err, record.ErrInvalid)
		require.ErrorContains(t, err, "conn is nil")
		_, err = record.AcceptConn(t.Context(), nil, nil)
		require.ErrorContains(t, err, "conn is nil")

		p := testsession.New(t, faultnet.LinkOptions{}, session.Config{})
		record.Handle(p.ToBob, "x", nil, func(s *record.Stream) { _, _ = s.ReadRecord(t.Context()) })
		s, err := record.Open(t.Context(), p.Alice, "x", nil)
		require.NoError(t, err)
		fn := func(context.Context, record.Record) error { return nil }
		require.ErrorContains(t, record.Apply(t.Context(), nil, fn, nil), "stream is nil")
		require.ErrorContains(t, record.Apply(t.Context(), s, nil, nil), "fn is nil")
		err = record.Apply(t.Context(), s, fn, &record.ApplyOptions{Parallel: -1})
		require.ErrorIs(t, err, record.ErrInvalid)
		require.ErrorContains(t, err, "ApplyOptions.Parallel")
		require.NoError(t, s.Close())

		record.Handle(p.ToBob, "x", nil, nil)
		_, err = record.Open(t.Context(), p.Alice, "x", nil)
		require.ErrorIs(t, err, record.ErrNotTaken, "nothing serves it")
	})
}
