package session_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// What runs on streams is reported as the streams are. What is open when the session ends is reported as ended before OnClose.
func TestHooksSeeRecordStreamsAndBulkLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		hooks := &session.Hooks{
			OnLaneOpen:  func(_ *session.Session, l session.Lane) { got.add("open " + l.Kind + " " + l.Name) },
			OnLaneClose: func(_ *session.Session, l session.Lane) { got.add("close " + l.Kind + " " + l.Name) },
			OnClose:     func(*session.Session) { got.add("close") },
		}
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{Hooks: hooks}, Accept: &session.AcceptorConfig{}})
		record.Handle(p.ToBob, "orders", nil, func(st *record.Stream) {
			_ = record.Apply(t.Context(), st, func(context.Context, record.Record) error { return nil }, nil)
		})
		bulk.Handle(p.ToBob, "backup", nil, func(l *bulk.Lane) { _, _ = io.Copy(io.Discard, l) })

		orders, err := record.Open(t.Context(), p.Alice, "orders", nil)
		require.NoError(t, err)
		_ = orders.Close()
		time.Sleep(time.Minute)
		require.ElementsMatch(t, []string{"open stream orders", "open record orders", "close record orders", "close stream orders"}, got.get())
		require.Equal(t, "open stream orders", got.get()[0])

		l, err := bulk.Open(t.Context(), p.Alice, "backup", &bulk.Options{Mode: bulk.Dedicated})
		require.NoError(t, err)
		_, err = l.Write([]byte("bytes"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		open := got.get()[4:]
		require.Contains(t, open, "open bulk backup")
		require.NotContains(t, open, "close bulk backup")
		p.Alice.Abort()
		time.Sleep(time.Minute)
		all := got.get()
		require.Contains(t, all, "close bulk backup")
		require.Contains(t, all, "close stream backup")
		require.Equal(t, "close", all[len(all)-1])
	})
}
