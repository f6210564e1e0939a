package record_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/resume"
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

		p := peerlanetest.NewSessions(t, nil)
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

// A nil pointer in an error is an easy mistake: it is an error as any other, whatever hook returns it.
func TestNilPointersInErrorsAreErrors(t *testing.T) {
	for _, none := range []error{(*session.Error)(nil), (*record.Error)(nil), (*record.RecordFailure)(nil), (*net.OpError)(nil)} {
		synctest.Test(t, func(t *testing.T) {
			p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{ResumeWindow: time.Second}})
			record.Handle(p.ToBob, "refused", func(record.AcceptInfo) (*record.Options, error) { return nil, none }, func(*record.Stream) {})
			_, err := record.Open(t.Context(), p.Alice, "refused", nil)
			require.ErrorIs(t, err, record.ErrNotTaken)
			bulk.Handle(p.ToBob, "refused", func(bulk.AcceptInfo) (*bulk.Options, error) { return nil, none }, func(*bulk.Lane) {})
			_, err = bulk.Open(t.Context(), p.Alice, "refused", nil)
			require.ErrorIs(t, err, bulk.ErrNotTaken)
			record.Handle(p.ToBob, "failed", nil, func(s *record.Stream) {
				_ = record.Apply(t.Context(), s, func(context.Context, record.Record) error { return none }, nil)
			})
			s, err := record.Open(t.Context(), p.Alice, "failed", nil)
			require.NoError(t, err)
			_, err = s.WriteRecord(t.Context(), nil)
			require.NoError(t, err)
			var failed *record.RecordFailure
			require.ErrorAs(t, s.Barrier(t.Context()), &failed)
			require.Contains(t, failed.Message, "nil")
			_ = s.Close()

			_, err = resume.DialContext(t.Context(), func(context.Context) (net.Conn, error) {
				return nil, none
			}, nil)
			require.ErrorContains(t, err, "nil")
			p.ToBob.SetStream("lane", func(st *session.Stream) {
				st.ForLane().FlushOnClose(func(context.Context) error { return none })
			})
			_, err = p.Alice.OpenStream(t.Context(), "lane", nil)
			require.NoError(t, err)
			synctest.Wait()
			require.ErrorContains(t, p.Bob.Close(), "nil")
		})
		synctest.Test(t, func(t *testing.T) {
			here, there := faultnet.Pipe(faultnet.LinkOptions{})
			a, err := session.NewAcceptor(nil)
			require.NoError(t, err)
			served := make(chan error, 1)
			go func() { served <- a.Serve(there, "alice") }()
			s, err := session.Dial(t.Context(), here, "bob", func(context.Context, session.Want) (net.Conn, error) { return nil, none },
				&session.Config{ResumeWindow: time.Second})
			require.NoError(t, err)
			for _, o := range []session.StreamOptions{{Dedicated: true}, {Dedicated: true, Resumable: true}} {
				_, err = s.OpenStream(t.Context(), "x", &o)
				require.ErrorContains(t, err, "nil")
			}
			require.NoError(t, here.Close())
			<-s.Done()
			require.ErrorIs(t, s.Err(), session.ErrSessionLost)
			<-served
			require.NoError(t, a.Shutdown(t.Context()))
		})
	}
}
