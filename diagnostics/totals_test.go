package diagnostics

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// A run over all lanes is counted as it was done, on both sides, and still is when everything has ended.
//
// Claim: diagnostics.ClientSnapshot.Totals, diagnostics.ServerSnapshot.Totals, diagnostics.SummarySnapshot.Totals
// Claim: diagnostics.Totals.Opened, diagnostics.Totals.Ended, diagnostics.Totals.Failed, diagnostics.Totals.Resumes
// Claim: diagnostics.Totals.Migrations, diagnostics.Totals.Resent, diagnostics.Totals.BytesIn, diagnostics.Totals.BytesOut
// Claim: diagnostics.Totals.RequestsIn, diagnostics.Totals.RequestsOut, diagnostics.Totals.MessagesIn, diagnostics.Totals.MessagesOut
// Claim: diagnostics.Totals.Undelivered, diagnostics.Totals.Refused, diagnostics.Totals.RecordsIn, diagnostics.Totals.RecordsOut
// Claim: diagnostics.Totals.BulkIn, diagnostics.Totals.BulkOut
func TestARunOverAllLanesIsInTheTotals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
		p.server.SetLink("echo", func(m *session.Message) { _ = m.Reply(m.Value) })
		p.server.SetLink("news", func(*session.Message) {})
		p.server.SetStream("text", func(st *session.Stream) { _, _ = io.Copy(st, st) })
		record.Handle(p.server, "log", nil, func(s *record.Stream) {
			for {
				r, err := s.ReadRecord(t.Context())
				if err != nil {
					return
				}
				_ = s.AckRecord(r.Seq)
			}
		})
		bulk.Handle(p.server, "files", nil, func(l *bulk.Lane) { _, _ = io.Copy(io.Discard, l) })
		require.NoError(t, p.server.Listen(tag))
		_, err := p.client.Connect(t.Context(), p.Bob.ID(), "/unserved")
		require.ErrorIs(t, err, peerlane.ErrNotServed)

		ours, _ := p.connect(t)
		for range 7 {
			_, err := ours.Call(t.Context(), "echo", make([]byte, 100))
			require.NoError(t, err)
		}
		for range 3 {
			require.NoError(t, ours.Send(t.Context(), "news", make([]byte, 100)))
		}
		require.NoError(t, ours.Send(t.Context(), "nobody", nil))
		require.Error(t, ours.Flush(t.Context()), "no handler")
		p.Vanish(true)
		time.Sleep(30 * time.Second)
		p.Vanish(false)
		p.Cut()
		require.NoError(t, ours.AwaitCarrier(t.Context()))
		require.NoError(t, ours.Reconnect(t.Context()))
		st, err := ours.OpenStream(t.Context(), "text", nil)
		require.NoError(t, err)
		_, err = st.Write(make([]byte, 10_000))
		require.NoError(t, err)
		require.NoError(t, st.CloseWrite())
		_, err = io.Copy(io.Discard, st)
		require.NoError(t, err)
		log, err := record.Open(t.Context(), ours, "log", nil)
		require.NoError(t, err)
		for range 5 {
			_, err := log.WriteRecord(t.Context(), make([]byte, 100))
			require.NoError(t, err)
		}
		require.NoError(t, log.Barrier(t.Context()))
		files, err := bulk.Open(t.Context(), ours, "files", nil)
		require.NoError(t, err)
		_, err = files.Write(make([]byte, 50_000))
		require.NoError(t, err)
		settle()

		for _, closed := range []bool{false, true} {
			if closed {
				require.NoError(t, files.Close())
				require.NoError(t, log.Close())
				require.NoError(t, st.Close())
				require.NoError(t, ours.Close())
				settle()
			}
			ended := map[bool]uint64{true: 1}[closed]
			c, s := OfClient(p.client).Totals, OfServer(p.server).Totals
			require.Equal(t, Totals{Opened: 1, Ended: ended, Failed: 1, Resumes: 1, Migrations: 1, Resent: c.Resent, BytesIn: c.BytesIn, BytesOut: c.BytesOut,
				RequestsOut: 7, MessagesOut: 4, Undelivered: 1, RecordsOut: 5, BulkOut: 50_000}, c)
			require.Equal(t, Totals{Opened: 1, Ended: ended, Resumes: 1, Migrations: 1, Resent: s.Resent, BytesIn: s.BytesIn, BytesOut: s.BytesOut,
				RequestsIn: 7, MessagesIn: 4, Refused: 1, RecordsIn: 5, BulkIn: 50_000}, s)
			require.Equal(t, []uint64{c.BytesIn, c.BytesOut}, []uint64{s.BytesOut, s.BytesIn})
			require.Greater(t, c.BytesOut, uint64(7*100+3*100+10_000+5*100+50_000))
			sum := Summary(OfClient(p.client), OfServer(p.server)).Totals
			require.Equal(t, []uint64{2, 7, 7, c.BytesIn + s.BytesIn}, []uint64{sum.Opened, sum.RequestsIn, sum.RequestsOut, sum.BytesIn})
		}
		p.requireGone(t)
	})
}
