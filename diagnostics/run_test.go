package diagnostics

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

const tag = "/diagnosed/1.0.0"

// A pair is a client and a server on hosts of their own, in memory.
type pair struct {
	*peerlanetest.Hosts
	client *peerlane.Client
	server *peerlane.Server
}

// newPair returns a pair. The test closes it, or t does.
func newPair(t *testing.T, hosts *peerlanetest.HostsOptions) *pair {
	t.Helper()
	h := peerlanetest.NewHosts(t, hosts)
	config := peerlane.DefaultServerConfig()
	config.AdmitAll = true
	server, err := peerlane.NewServer(h.Bob, config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	calls := peerlane.DefaultClientConfig()
	calls.AdmitAll, calls.Path = true, peerlane.AllowRelay
	client, err := peerlane.NewClient(h.Alice, calls)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return &pair{h, client, server}
}

// connect opens a session, and returns it from both sides.
func (p *pair) connect(t *testing.T) (ours, theirs *session.Session) {
	t.Helper()
	ours, err := p.client.Connect(t.Context(), p.Bob.ID(), tag)
	require.NoError(t, err)
	synctest.Wait()
	for _, s := range p.server.Sessions() {
		if s.ID() == ours.ID() {
			return ours, s
		}
	}
	require.FailNow(t, "the server has no such session")
	return nil, nil
}

// settle lets everything arrive that is under way.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// both returns the snapshots of the client and the server, each with its only session, when nothing is under way.
func (p *pair) both(t *testing.T) (*SessionSnapshot, *SessionSnapshot) {
	t.Helper()
	settle()
	c, s := OfClient(p.client), OfServer(p.server)
	require.Len(t, c.Sessions, 1)
	require.Len(t, s.Sessions, 1)
	return &c.Sessions[0], &s.Sessions[0]
}

// requireGone checks that nothing is left in the snapshots but the past.
func (p *pair) requireGone(t *testing.T) {
	t.Helper()
	settle()
	c, s := OfClient(p.client), OfServer(p.server)
	require.Empty(t, c.Sessions)
	require.Empty(t, s.Sessions)
	require.Empty(t, c.Keepers)
	require.Empty(t, s.Calls)
	for _, l := range append(c.Limits, s.Limits...) {
		require.Zero(t, l.Used, "%+v", l)
		require.False(t, l.Warning)
	}
	sum := Summary(c, s)
	require.Equal(t, SummarySnapshot{Version: Version, Taken: sum.Taken, Go: sum.Go, Module: sum.Module, Uptime: sum.Uptime,
		Goroutines: sum.Goroutines, Heap: sum.Heap, Totals: sum.Totals}, sum)
	require.Equal(t, sum.Totals.Opened, sum.Totals.Ended)
}

// A run over calls and messages is counted as it was done.
//
// Claim: diagnostics.SessionSnapshot.ID, diagnostics.SessionSnapshot.Peer, diagnostics.SessionSnapshot.Tag, diagnostics.SessionSnapshot.Agent
// Claim: diagnostics.SessionSnapshot.Dialer, diagnostics.SessionSnapshot.Sealed, diagnostics.SessionSnapshot.Idle
// Claim: diagnostics.SessionSnapshot.Started, diagnostics.SessionSnapshot.LastActive, diagnostics.SessionSnapshot.LastHeard
// Claim: diagnostics.SessionSnapshot.LastReceived
// Claim: diagnostics.SessionSnapshot.RTT, diagnostics.SessionSnapshot.State, diagnostics.SessionSnapshot.StateSince
// Claim: diagnostics.SessionSnapshot.Path, diagnostics.SessionSnapshot.Carriers, diagnostics.SessionSnapshot.Resumable
// Claim: diagnostics.SessionSnapshot.ReplayUsed, diagnostics.SessionSnapshot.ReplayWindow, diagnostics.SessionSnapshot.PeerMemory
// Claim: diagnostics.SessionSnapshot.BytesIn, diagnostics.SessionSnapshot.BytesOut, diagnostics.SessionSnapshot.RequestsIn
// Claim: diagnostics.SessionSnapshot.RequestsOut, diagnostics.SessionSnapshot.MessagesIn, diagnostics.SessionSnapshot.MessagesOut
// Claim: diagnostics.SessionSnapshot.InFlightIn, diagnostics.SessionSnapshot.InFlightOut, diagnostics.SessionSnapshot.Refused
// Claim: diagnostics.SessionSnapshot.Cancelled, diagnostics.SessionSnapshot.Undelivered, diagnostics.SessionSnapshot.Late
// Claim: diagnostics.ClientSnapshot.Taken, diagnostics.ClientSnapshot.Host, diagnostics.ClientSnapshot.Sessions
// Claim: diagnostics.ServerSnapshot.Taken, diagnostics.ServerSnapshot.Host, diagnostics.ServerSnapshot.Tags
// Claim: diagnostics.ServerSnapshot.Sessions
func TestCallsAndMessagesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		gate := make(chan struct{})
		require.NoError(t, p.server.Handle(tag, func(ctx context.Context, r *peerlane.Request) ([]byte, error) {
			if string(r.Value) == "wait" {
				select {
				case <-gate:
				case <-ctx.Done():
				}
			}
			return r.Value, nil
		}))
		p.server.SetLink("news", func(*session.Message) {})
		ours, _ := p.connect(t)
		for range 3 {
			_, err := ours.Call(t.Context(), "", []byte("now"))
			require.NoError(t, err)
		}
		for range 5 {
			require.NoError(t, ours.Send(t.Context(), "news", make([]byte, 100)))
		}
		require.NoError(t, ours.Flush(t.Context()))
		_, err := ours.Call(t.Context(), "nowhere", nil)
		require.ErrorIs(t, err, session.ErrNotFound)
		cancelled, cancel := context.WithCancel(t.Context())
		go func() { _, _ = ours.Call(cancelled, "", []byte("wait")) }()
		go func() { _, _ = ours.Call(t.Context(), "", []byte("wait")) }()
		time.Sleep(50 * time.Millisecond)
		cancel()
		c, s := p.both(t)
		raw := ours.Snapshot()
		require.Equal(t, ours.ID().String(), c.ID)
		require.Equal(t, c.ID, s.ID)
		require.Equal(t, []string{p.Bob.ID().String(), p.Alice.ID().String()}, []string{c.Peer, s.Peer})
		require.Equal(t, []string{tag, tag}, []string{c.Tag, s.Tag})
		require.Equal(t, tag, raw.Tag)
		require.Contains(t, c.Agent, "peerlane")
		require.Equal(t, []bool{true, false}, []bool{c.Dialer, s.Dialer})
		require.Equal(t, []bool{false, false}, []bool{c.Sealed, c.Idle})
		require.Equal(t, []int{1, 1, 0, 0}, []int{c.InFlightOut, s.InFlightIn, c.InFlightIn, s.InFlightOut})
		require.Equal(t, []uint64{6, 5, 0, 0}, []uint64{c.RequestsOut, s.RequestsIn, c.RequestsIn, s.RequestsOut}, "one was refused")
		require.Equal(t, []uint64{5, 5, 0, 0}, []uint64{c.MessagesOut, s.MessagesIn, c.MessagesIn, s.MessagesOut})
		require.Equal(t, []uint64{1, 1}, []uint64{s.Refused, s.Cancelled})
		require.Equal(t, []uint64{0, 0}, []uint64{c.Undelivered, c.Late})
		require.Equal(t, []uint64{c.BytesOut, c.BytesIn}, []uint64{s.BytesIn, s.BytesOut})
		require.Greater(t, c.BytesOut, uint64(500))
		require.Equal(t, []string{"connected", "connected"}, []string{c.State, s.State})
		require.Equal(t, c.Started, c.StateSince)
		require.WithinDuration(t, time.Now(), c.LastActive, 2*time.Second)
		require.WithinDuration(t, time.Now(), c.LastHeard, 2*time.Second)
		require.Equal(t, c.LastHeard, utc(raw.LastHeard))
		require.Equal(t, c.LastReceived, utc(raw.LastReceived))
		require.InDelta(t, 20, float64(c.RTT)/float64(time.Millisecond), 5)
		require.True(t, c.Resumable)
		require.Equal(t, []int{1 << 20, 1 << 20}, []int{c.ReplayWindow, raw.ReplayWindow})
		require.LessOrEqual(t, c.ReplayUsed, 1000)
		require.Equal(t, []int64{0, 0}, []int64{c.PeerMemory, raw.PeerBytes})
		require.NotEmpty(t, c.Path.Transport)
		require.Contains(t, c.Path.Text, "direct, "+c.Path.Transport)
		require.Len(t, c.Carriers, 1)
		require.Equal(t, CarrierSnapshot{Path: c.Path.Text, Since: c.Started}, c.Carriers[0])

		client, server := OfClient(p.client), OfServer(p.server)
		require.Equal(t, []string{p.Alice.ID().String(), p.Bob.ID().String()}, []string{client.Host, server.Host})
		require.Equal(t, []time.Time{now(), now()}, []time.Time{client.Taken, server.Taken})
		require.Equal(t, []string{tag}, server.Tags)
		require.Len(t, append(client.Sessions, server.Sessions...), 2)
		limits := server.Limits
		require.Equal(t, []Limit{
			{Name: "calls", Used: 1, Max: 1000}, {Name: "memory", Used: s.PeerMemory, Max: 1 << 30}, {Name: "sessions", Used: 1, Max: 1000},
		}, limits)
		require.Positive(t, s.PeerMemory)
		close(gate)
		synctest.Wait()
		require.NoError(t, ours.Close())
		p.requireGone(t)
	})
}

// A run over streams, record streams and bulk lanes is counted as it was done.
//
// Claim: diagnostics.SessionSnapshot.Streams, diagnostics.SessionSnapshot.Records, diagnostics.SessionSnapshot.Bulk
// Claim: diagnostics.StreamSnapshot.ID, diagnostics.StreamSnapshot.Name, diagnostics.StreamSnapshot.Kind, diagnostics.StreamSnapshot.Local
// Claim: diagnostics.StreamSnapshot.Bulk, diagnostics.StreamSnapshot.State, diagnostics.StreamSnapshot.Opened
// Claim: diagnostics.StreamSnapshot.BytesIn, diagnostics.StreamSnapshot.BytesOut, diagnostics.StreamSnapshot.Credit
// Claim: diagnostics.StreamSnapshot.Unread
func TestStreamsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		ended := make(chan struct{})
		read := func(n int64) func(*session.Stream) {
			return func(st *session.Stream) {
				_, _ = io.CopyN(io.Discard, st, n)
				_, _ = st.Write(make([]byte, 7))
				<-ended
			}
		}
		for name, n := range map[string]int64{"shared": 400, "dedicated": 400, "resumable": 400, "bulk": 0} {
			p.server.SetStream(name, read(n))
		}
		require.NoError(t, p.server.Listen(tag))
		ours, _ := p.connect(t)
		options := map[string]*session.StreamOptions{"shared": nil, "dedicated": {Dedicated: true}, "resumable": {Dedicated: true, Resumable: true},
			"bulk": {Bulk: true}}
		open := make(map[string]*session.Stream)
		for _, name := range []string{"shared", "dedicated", "resumable", "bulk"} {
			st, err := ours.OpenStream(t.Context(), name, options[name])
			require.NoError(t, err)
			open[name] = st
			if name != "bulk" {
				_, err = st.Write(make([]byte, 1000))
				require.NoError(t, err)
			}
			time.Sleep(time.Millisecond) // so that their order is known
		}
		require.NoError(t, open["bulk"].CloseWrite())
		_, err := io.ReadFull(open["bulk"], make([]byte, 7))
		require.NoError(t, err)

		c, s := p.both(t)
		opened := c.Streams[0].Opened
		const window = 512 << 10
		want := []StreamSnapshot{
			{ID: c.Streams[0].ID, Name: "shared", Kind: "shared", Local: true, State: "open", BytesIn: 7, BytesOut: 1000, Credit: window - 1000, Unread: 7},
			{ID: c.Streams[1].ID, Name: "dedicated", Kind: "dedicated", Local: true, State: "open", BytesOut: 1000},
			{Name: "resumable", Kind: "resumable", Local: true, State: "open", BytesOut: 1000},
			{ID: c.Streams[3].ID, Name: "bulk", Kind: "shared", Local: true, Bulk: true, State: "local-closed", BytesIn: 7, Credit: window},
		}
		for i := range want {
			require.WithinDuration(t, opened.Add(time.Duration(i)*time.Millisecond), c.Streams[i].Opened, time.Millisecond/2)
			want[i].Opened = c.Streams[i].Opened
		}
		require.Equal(t, want, c.Streams)
		for i := range want {
			v := &want[i]
			v.Local, v.Bulk, v.Opened = false, false, s.Streams[i].Opened
			v.BytesIn, v.BytesOut = v.BytesOut, 7
			switch v.Kind {
			case "shared":
				v.Credit, v.Unread = window-7, int(v.BytesIn)-min(400, int(v.BytesIn))
			default:
				v.BytesIn = 400 // read by the application
			}
		}
		want[0].State, want[3].State = "open", "peer-closed"
		require.Equal(t, want, s.Streams)
		require.Empty(t, c.Records)
		require.Empty(t, c.Bulk)
		require.Equal(t, 4, Summary(OfClient(p.client)).Streams)

		close(ended)
		for _, st := range open {
			_ = st.Close() // the peer leaves some unread
		}
		c, s = p.both(t)
		require.Empty(t, c.Streams)
		require.Empty(t, s.Streams)
		_ = ours.Close()
		p.requireGone(t)
	})
}

// Claim: diagnostics.RecordSnapshot.ID, diagnostics.RecordSnapshot.Name, diagnostics.RecordSnapshot.Opened, diagnostics.RecordSnapshot.Error
// Claim: diagnostics.RecordSnapshot.BatchesOut, diagnostics.RecordSnapshot.BatchesIn, diagnostics.RecordSnapshot.AcksOut
// Claim: diagnostics.RecordSnapshot.AcksIn, diagnostics.RecordSnapshot.PiggybackOut, diagnostics.RecordSnapshot.PiggybackIn
// Claim: diagnostics.RecordSnapshot.FailuresOut, diagnostics.RecordSnapshot.FailuresIn, diagnostics.RecordSnapshot.RecordsOut
// Claim: diagnostics.RecordSnapshot.RecordsIn, diagnostics.RecordSnapshot.BytesOut, diagnostics.RecordSnapshot.BytesIn
// Claim: diagnostics.RecordSnapshot.Barriers, diagnostics.RecordSnapshot.BarrierWait, diagnostics.RecordSnapshot.FlushWait
// Claim: diagnostics.RecordSnapshot.ApplyWait, diagnostics.RecordSnapshot.Written, diagnostics.RecordSnapshot.Acked
// Claim: diagnostics.RecordSnapshot.Outstanding, diagnostics.RecordSnapshot.OutstandingBytes, diagnostics.RecordSnapshot.Received
// Claim: diagnostics.RecordSnapshot.Delivered, diagnostics.RecordSnapshot.Applied, diagnostics.RecordSnapshot.PendingApply
// Claim: diagnostics.RecordSnapshot.PeakPendingApply, diagnostics.RecordSnapshot.PendingAck
func TestRecordStreamsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		more, ended := make(chan struct{}), make(chan struct{})
		record.Handle(p.server, "log", nil, func(s *record.Stream) {
			for i := range 7 {
				r, err := s.ReadRecord(context.Background())
				if err != nil {
					return
				}
				if i < 5 {
					_ = s.AckRecord(r.Seq)
				}
			}
			close(more)
			<-ended
		})
		require.NoError(t, p.server.Listen(tag))
		ours, _ := p.connect(t)
		log, err := record.Open(t.Context(), ours, "log", nil)
		require.NoError(t, err)
		for range 5 {
			_, err := log.WriteRecord(t.Context(), make([]byte, 100))
			require.NoError(t, err)
		}
		require.NoError(t, log.Barrier(t.Context()))
		for range 3 {
			_, err := log.WriteRecord(t.Context(), make([]byte, 100))
			require.NoError(t, err)
		}
		<-more
		c, s := p.both(t)
		require.Len(t, c.Records, 1)
		require.Len(t, s.Records, 1)
		out, in := c.Records[0], s.Records[0]
		require.Equal(t, RecordSnapshot{
			ID: out.ID, Name: "log", Opened: out.Opened, BatchesOut: out.BatchesOut, AcksIn: out.AcksIn,
			RecordsOut: 8, BytesOut: 800, Barriers: 1, BarrierWait: out.BarrierWait, FlushWait: out.FlushWait, ApplyWait: out.ApplyWait,
			Written: 8, Acked: 5, Outstanding: 3, OutstandingBytes: out.OutstandingBytes,
		}, out)
		require.Equal(t, RecordSnapshot{
			ID: in.ID, Name: "log", Opened: in.Opened, BatchesIn: out.BatchesOut, AcksOut: out.AcksIn,
			RecordsIn: 8, BytesIn: 808, Received: 8, Delivered: 7, Applied: 5, PendingApply: 3, PeakPendingApply: in.PeakPendingApply,
		}, in)
		require.Positive(t, out.AcksIn)
		require.Equal(t, 303, out.OutstandingBytes)
		require.GreaterOrEqual(t, in.PeakPendingApply, uint64(3))
		require.Equal(t, out.BarrierWait, out.FlushWait+out.ApplyWait)
		require.GreaterOrEqual(t, out.ApplyWait, Duration(20*time.Millisecond))
		require.Equal(t, []uint64{0, 0, 0, 0}, []uint64{out.PiggybackOut, out.PiggybackIn, out.FailuresOut, out.FailuresIn})
		require.Equal(t, []any{uint64(0), ""}, []any{in.PendingAck, in.Error})
		require.Len(t, c.Streams, 1, "its stream")
		require.Equal(t, 2, Summary(OfClient(p.client), OfServer(p.server)).Records)

		close(ended)
		_ = log.CloseWithError(record.CodeApplication, "enough")
		c, s = p.both(t)
		require.Empty(t, c.Records)
		require.Empty(t, s.Records)
		_ = ours.Close()
		p.requireGone(t)
	})
}
