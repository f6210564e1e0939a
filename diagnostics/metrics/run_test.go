package metrics

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/diagnostics"
	"github.com/peerlane/peerlane/internal/test/oldpeer"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

const tag = "/measured/1.0.0"

// A pair is a client and a server on hosts of their own, in memory, and a Collector of both.
type pair struct {
	*peerlanetest.Hosts
	client *peerlane.Client
	server *peerlane.Server
	all    *Collector
	reg    *prometheus.Registry
}

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
	p := &pair{h, client, server, New(), prometheus.NewPedanticRegistry()}
	p.all.AddClient(client)
	p.all.AddServer(server)
	require.NoError(t, p.reg.Register(p.all))
	return p
}

func (p *pair) connect(t *testing.T) *session.Session {
	t.Helper()
	s, err := p.client.Connect(t.Context(), p.Bob.ID(), tag)
	require.NoError(t, err)
	return s
}

// A scrape has the value of each series, as name{label,label}, and of a histogram its count. Its sum is name_sum{...}.
type scrape map[string]float64

// scraped returns a scrape, and checks that no counter is less than in the last one.
func (p *pair) scraped(t *testing.T, last scrape) scrape {
	t.Helper()
	families, err := p.reg.Gather()
	require.NoError(t, err)
	got := make(scrape)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := make([]string, 0, 3)
			for _, name := range []string{"role", "tag", "limit", "by", "direction", "form", "kind", "path", "result"} {
				for _, l := range m.GetLabel() {
					if l.GetName() == name && name != "tag" {
						labels = append(labels, l.GetValue())
					} else if l.GetName() == name && l.GetValue() != tag {
						labels = append(labels, "tag="+l.GetValue())
					}
				}
			}
			at := f.GetName() + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.GetHistogram() != nil:
				got[at] = float64(m.GetHistogram().GetSampleCount())
				got[strings.Replace(at, "{", "_sum{", 1)] = m.GetHistogram().GetSampleSum()
			case m.GetCounter() != nil:
				got[at] = m.GetCounter().GetValue()
			default:
				got[at] = m.GetGauge().GetValue()
			}
		}
	}
	for at, was := range last {
		if strings.Contains(at, "_total{") || strings.Contains(at, "_seconds") {
			require.GreaterOrEqual(t, got[at], was, at)
		}
	}
	return got
}

// requireThat checks the named series, and that the others of the same metrics are 0.
func (s scrape) requireThat(t *testing.T, want scrape) {
	t.Helper()
	named := make(map[string]bool)
	for at := range want {
		named[at[:strings.Index(at, "{")]] = true
	}
	got := make(scrape)
	for at, v := range s {
		if named[at[:strings.Index(at, "{")]] && v != 0 {
			got[at] = math.Round(v*1e6) / 1e6
		}
	}
	require.Equal(t, want, got)
}

// gaugesAreZero checks that nothing is open.
func (s scrape) gaugesAreZero(t *testing.T) {
	t.Helper()
	for _, m := range byTag {
		if m.kind == prometheus.GaugeValue {
			for at, v := range s {
				require.False(t, strings.HasPrefix(at, m.name+"{") && v != 0, at)
			}
		}
	}
	for at, v := range s {
		require.False(t, strings.HasPrefix(at, "peerlane_limit_used{") && v != 0, at)
	}
}

func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// A run over calls, messages and streams is counted as it was done, and stays so when its sessions have ended.
func TestCallsMessagesAndStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		gate := make(chan struct{})
		require.NoError(t, p.server.Start(tag, func(b []byte) ([]byte, error) {
			if string(b) == "wait" {
				<-gate
			}
			return b, nil
		}))
		p.server.SetLink("news", func(*session.Message) {})
		p.server.SetStream("echo", func(st *session.Stream) { _, _ = io.Copy(st, st) })
		none := p.scraped(t, nil)
		require.Zero(t, none["peerlane_sessions{server,direct}"])
		require.Contains(t, none, "peerlane_sessions{server,direct}", "of a tag that is served, there is a 0 before its first session")

		ours := p.connect(t)
		for range 3 {
			_, err := ours.Call(t.Context(), "", []byte("now"))
			require.NoError(t, err)
		}
		_, err := ours.Call(t.Context(), "nowhere", nil)
		require.ErrorIs(t, err, session.ErrNotFound)
		for range 5 {
			require.NoError(t, ours.Send(t.Context(), "news", make([]byte, 100)))
		}
		go func() { _, _ = ours.Call(t.Context(), "", []byte("wait")) }()
		streams := make([]*session.Stream, 0, 3)
		for _, opts := range []*session.StreamOptions{nil, {Dedicated: true}, {Dedicated: true, Resumable: true}} {
			st, err := ours.OpenStream(t.Context(), "echo", opts)
			require.NoError(t, err)
			_, err = st.Write(make([]byte, 1000))
			require.NoError(t, err)
			_, err = io.ReadFull(st, make([]byte, 1000))
			require.NoError(t, err)
			streams = append(streams, st)
		}
		settle()
		open := p.scraped(t, none)
		open.requireThat(t, scrape{
			"peerlane_sessions{client,direct}": 1, "peerlane_sessions{server,direct}": 1,
			"peerlane_sessions_opened_total{client}": 1, "peerlane_sessions_opened_total{server}": 1,
			"peerlane_calls_total{client,out}": 5, "peerlane_calls_total{server,in}": 4,
			"peerlane_refusals_total{server}":      1,
			"peerlane_calls_in_flight{client,out}": 1, "peerlane_calls_in_flight{server,in}": 1,
			"peerlane_messages_total{client,out}": 5, "peerlane_messages_total{server,in}": 5,
			"peerlane_streams{client,shared}": 1, "peerlane_streams{client,dedicated}": 1, "peerlane_streams{client,resumable}": 1,
			"peerlane_streams{server,shared}": 1, "peerlane_streams{server,dedicated}": 1, "peerlane_streams{server,resumable}": 1,
			"peerlane_stream_bytes_total{client,in}": 3000, "peerlane_stream_bytes_total{client,out}": 3000,
			"peerlane_stream_bytes_total{server,in}": 3000, "peerlane_stream_bytes_total{server,out}": 3000,
			"peerlane_call_duration_seconds{client,answered}": 3, "peerlane_call_duration_seconds{client,failed}": 1,
			"peerlane_call_duration_seconds_sum{client,answered}": .06, "peerlane_call_duration_seconds_sum{client,failed}": .02,
		})
		require.Positive(t, open["peerlane_limit_used{server,calls}"])
		require.EqualValues(t, p.server.Sessions()[0].Snapshot().BytesIn, open["peerlane_session_bytes_total{server,in}"])
		require.Equal(t, open["peerlane_session_bytes_total{server,in}"], open["peerlane_session_bytes_total{client,out}"])

		close(gate)
		for _, st := range streams {
			require.NoError(t, st.Close())
		}
		require.NoError(t, ours.Close())
		settle()
		ended := p.scraped(t, open)
		ended.gaugesAreZero(t)
		ended.requireThat(t, scrape{
			"peerlane_sessions_opened_total{client}": 1, "peerlane_sessions_opened_total{server}": 1,
			"peerlane_sessions_ended_total{client,local}": 1, "peerlane_sessions_ended_total{server,peer}": 1,
			"peerlane_calls_total{client,out}": 5, "peerlane_calls_total{server,in}": 4,
			"peerlane_streams_ended_total{client}": 3, "peerlane_streams_ended_total{server}": 3,
			"peerlane_stream_bytes_total{client,in}": 3000, "peerlane_stream_bytes_total{client,out}": 3000,
			"peerlane_stream_bytes_total{server,in}": 3000, "peerlane_stream_bytes_total{server,out}": 3000,
		})
		require.Equal(t, diagnostics.ByLocal, diagnostics.OfClient(p.client).Ended[0].Why.By)

		_, err = p.client.Connect(t.Context(), p.Bob.ID(), "/nobody/serves/this")
		require.Error(t, err)
		require.NoError(t, p.client.Close())
		require.NoError(t, p.server.Stop())
		settle()
		closed := p.scraped(t, ended)
		closed.gaugesAreZero(t)
		require.EqualValues(t, 1, closed["peerlane_sessions_failed_total{client,tag=/nobody/serves/this,network}"]+
			closed["peerlane_sessions_failed_total{client,tag=/nobody/serves/this,peer}"]+
			closed["peerlane_sessions_failed_total{client,tag=/nobody/serves/this,local}"])

		p.all.RemoveClient(p.client)
		p.all.RemoveServer(p.server)
		p.all.RemoveServer(p.server)
		gone := p.scraped(t, closed)
		maps.DeleteFunc(closed, func(at string, _ float64) bool { return strings.HasPrefix(at, "peerlane_limit_max") })
		maps.DeleteFunc(gone, func(at string, _ float64) bool { return strings.HasPrefix(at, "peerlane_limit_max") })
		require.Equal(t, closed, gone, "they keep what was counted")
	})
}

// Records, barriers and bulk lanes are counted, and stay so when the lanes, and then their session, have ended.
func TestRecordsAndBulkLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		record.Handle(p.server, "log", nil, func(st *record.Stream) {
			_ = record.Apply(t.Context(), st, func(context.Context, record.Record) error { return nil }, nil)
		})
		bulk.Handle(p.server, "bulk", nil, func(l *bulk.Lane) { _, _ = io.Copy(l, l) })
		require.NoError(t, p.server.Listen(tag))
		ours := p.connect(t)
		var last scrape
		for n := range 2 {
			st, err := record.Open(t.Context(), ours, "log", nil)
			require.NoError(t, err)
			for range 3 {
				for range 7 {
					_, err := st.WriteRecord(t.Context(), make([]byte, 100))
					require.NoError(t, err)
				}
				require.NoError(t, st.Barrier(t.Context()))
			}
			l, err := bulk.Open(t.Context(), ours, "bulk", nil)
			require.NoError(t, err)
			_, err = l.Write(make([]byte, 5000))
			require.NoError(t, err)
			_, err = io.ReadFull(l, make([]byte, 5000))
			require.NoError(t, err)
			settle()
			open := p.scraped(t, last)
			require.Equal(t, []float64{1, 1, 1, 1}, []float64{open["peerlane_record_streams{client}"], open["peerlane_record_streams{server}"],
				open["peerlane_bulk_lanes{client}"], open["peerlane_bulk_lanes{server}"]})
			require.NoError(t, st.Close())
			require.NoError(t, l.Close())
			settle()
			last = p.scraped(t, open)
			require.Zero(t, last["peerlane_record_streams{server}"])
			count := float64(n + 1)
			last.requireThat(t, scrape{
				"peerlane_records_total{client,out}": 21 * count, "peerlane_records_total{server,in}": 21 * count,
				"peerlane_record_bytes_total{client,out}": 2100 * count,
				"peerlane_record_bytes_total{server,in}":  last["peerlane_record_bytes_total{server,in}"],
				"peerlane_barrier_wait_seconds{client}":   3 * count,
				"peerlane_bulk_bytes_total{client,in}":    5000 * count, "peerlane_bulk_bytes_total{client,out}": 5000 * count,
				"peerlane_bulk_bytes_total{server,in}": 5000 * count, "peerlane_bulk_bytes_total{server,out}": 5000 * count,
			})
			require.InDelta(t, .06*count, last["peerlane_barrier_wait_seconds_sum{client}"], .02*count)
		}
		require.NoError(t, ours.Close())
		settle()
		ended := p.scraped(t, last)
		ended.gaugesAreZero(t)
		require.EqualValues(t, 42, ended["peerlane_records_total{server,in}"])
	})
}

// The time without a connection, and the time until a relayed session is direct, are those of the network.
func TestResumesAndTheWayToADirectConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: 5 * time.Millisecond, Relayed: true})
		require.NoError(t, p.server.Start(tag, func(b []byte) ([]byte, error) { return b, nil }))
		ours := p.connect(t)
		settle()
		relayed := p.scraped(t, nil)
		relayed.requireThat(t, scrape{"peerlane_sessions{client,relayed}": 1, "peerlane_sessions{server,relayed}": 1})
		peerlanetest.OpenDirect(t, p.Alice, p.Bob)
		time.Sleep(10 * time.Second)
		settle()
		direct := p.scraped(t, relayed)
		direct.requireThat(t, scrape{
			"peerlane_sessions{client,direct}": 1, "peerlane_sessions{server,direct}": 1,
			"peerlane_migrations_total{client}": 1, "peerlane_migrations_total{server}": 1,
			"peerlane_time_to_direct_seconds{client}": 1, "peerlane_time_to_direct_seconds{server}": 1,
			"peerlane_time_to_direct_seconds_sum{client}": direct["peerlane_time_to_direct_seconds_sum{client}"],
			"peerlane_time_to_direct_seconds_sum{server}": direct["peerlane_time_to_direct_seconds_sum{server}"],
		})
		require.InDelta(t, 5, direct["peerlane_time_to_direct_seconds_sum{client}"], 5)
		require.InDelta(t, direct["peerlane_time_to_direct_seconds_sum{client}"], direct["peerlane_time_to_direct_seconds_sum{server}"], .1)

		p.Vanish(true)
		time.Sleep(20 * time.Second)
		lost := p.scraped(t, direct)
		lost.requireThat(t, scrape{"peerlane_sessions{client,detached}": 1, "peerlane_sessions{server,detached}": 1})
		p.Vanish(false)
		require.NoError(t, ours.AwaitCarrier(t.Context()))
		settle()
		back := p.scraped(t, lost)
		require.Equal(t, []float64{1, 1, 1}, []float64{back["peerlane_resumes_total{client}"], back["peerlane_resume_duration_seconds{client}"],
			back["peerlane_resume_duration_seconds{server}"]}, fmt.Sprint(back))
		require.InDelta(t, 12, back["peerlane_resume_duration_seconds_sum{client}"], 10)
	})
}

// Keepers, transfers and the calls of old peers are gauges too.
func TestKeepersTransfersAndOldCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		gate := make(chan struct{})
		require.NoError(t, p.server.Start(tag, func(b []byte) ([]byte, error) {
			<-gate
			return b, nil
		}))
		k, err := p.client.Keep(p.Bob.ID(), tag, &peerlane.KeeperConfig{Sessions: 2})
		require.NoError(t, err)
		answered := make(chan error, 1)
		go func() {
			_, err := (&oldpeer.Client{Host: p.Alice}).Send(t.Context(), p.Bob.ID(), tag, []byte("x"))
			answered <- err
		}()
		settle()
		p.scraped(t, nil).requireThat(t, scrape{"peerlane_keeper_sessions_wanted{client}": 2, "peerlane_keeper_sessions{client}": 2,
			"peerlane_old_calls{server}": 1})
		close(gate)
		require.NoError(t, <-answered)
		require.NoError(t, k.Close())
		settle()
		p.scraped(t, nil).gaugesAreZero(t)
	})
	var r row
	r.addSession(&diagnostics.SessionSnapshot{Transfers: []diagnostics.TransferSnapshot{{Receiving: true}, {}, {}}})
	require.Equal(t, []float64{1, 2}, []float64{r.gauges[transfersIn], r.gauges[transfersOut]})
}
