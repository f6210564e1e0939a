package oldsession_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/oldrecord"
	"github.com/peerlane/peerlane/internal/test/oldsession"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

const records = 200

// oldConn is a stream of an old session as oldrecord takes it, which sets no deadlines.
type oldConn struct {
	net.Conn
	*oldsession.Stream
}

func (c oldConn) Read(p []byte) (int, error)  { return c.Stream.Read(p) }
func (c oldConn) Write(p []byte) (int, error) { return c.Stream.Write(p) }
func (c oldConn) Close() error                { return c.Stream.Close() }

// writeRecords opens a record stream from one side, and writes until all is known to be applied.
func writeRecords(ctx context.Context, from side) error {
	switch s := from.(type) {
	case *newSide:
		st, err := record.Open(ctx, s.Session, "records", nil)
		if err != nil {
			return err
		}
		for i := range records {
			if _, err := st.WriteRecord(ctx, fmt.Append(nil, i)); err != nil {
				return err
			}
		}
		if err := st.Barrier(ctx); err != nil {
			return err
		}
		return st.Close()
	case *oldSide:
		st, err := s.OpenStream(ctx, "records")
		if err != nil {
			return err
		}
		old, err := oldrecord.Open(oldConn{Stream: st})
		if err != nil {
			return err
		}
		for i := range records {
			if err := old.Send(fmt.Append(nil, i)); err != nil {
				return err
			}
		}
		if err := old.Await(records); err != nil {
			return err
		}
		return old.End()
	}
	return fmt.Errorf("a side of type %T", from)
}

// readRecords serves a record stream, and returns what has come in order.
func readRecords(ctx context.Context, st lane) (got []string, err error) {
	switch st := st.(type) {
	case *session.Stream:
		var r *record.Stream
		if r, err = record.AcceptConn(ctx, st, nil); err != nil {
			return nil, err
		}
		err = record.Apply(ctx, r, func(_ context.Context, one record.Record) error {
			got = append(got, string(one.Payload))
			return nil
		}, nil)
		_ = r.Close() // an old writer has ended
		return got, err
	case *oldsession.Stream:
		var old *oldrecord.Peer
		if old, err = oldrecord.Accept(oldConn{Stream: st}); err != nil {
			return nil, err
		}
		for {
			seq, b, err := old.Receive()
			if err == io.EOF {
				_ = old.End() // a new writer may have closed
				return got, nil
			}
			if err != nil {
				return got, err
			}
			got = append(got, string(b))
			if err := old.Ack(seq); err != nil {
				return got, err
			}
		}
	}
	return nil, fmt.Errorf("a stream of type %T", st)
}

// A record stream of the frozen peer's on a session of the frozen peer's, both ways, whoever dialed.
func TestRecordsOfOldAndNewAreApplied(t *testing.T) {
	var want []string
	for i := range records {
		want = append(want, fmt.Sprint(i))
	}
	each(t, terms{link: delayed, limits: small}, func(t *testing.T, w *world) {
		type result struct {
			got []string
			err error
		}
		came := make(chan result, 2)
		for _, h := range w.at {
			h.stream = func(st lane, _ string) {
				got, err := readRecords(t.Context(), st)
				came <- result{got, err}
			}
		}
		for name, way := range w.ways() {
			require.NoError(t, writeRecords(t.Context(), way.from), name)
			r := <-came
			require.NoError(t, r.err, name)
			require.Equal(t, want, r.got, name)
		}
	})
}
