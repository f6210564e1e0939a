package metrics

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

func TestACollectorWithNothing(t *testing.T) {
	c := New()
	c.AddClient(nil)
	c.AddServer(nil)
	c.RemoveClient(nil)
	c.RemoveServer(nil)
	reg := prometheus.NewPedanticRegistry()
	require.NoError(t, reg.Register(c))
	got, err := reg.Gather()
	require.NoError(t, err)
	require.Empty(t, got)
	require.Error(t, reg.Register(c), "twice")
	require.Error(t, reg.Register(New()), "another with the same names")
	require.NoError(t, prometheus.WrapRegistererWith(prometheus.Labels{"node": "b"}, prometheus.NewPedanticRegistry()).Register(New()))
}

// One that is added twice counts once, and each of several Collectors has all of it.
func TestWhatIsAddedTwiceCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		require.NoError(t, p.server.Start(tag, func(b []byte) ([]byte, error) { return b, nil }))
		p.all.AddServer(p.server)
		p.all.AddClient(p.client)
		second := &pair{all: New(), reg: prometheus.NewPedanticRegistry()}
		second.all.AddClient(p.client)
		require.NoError(t, second.reg.Register(second.all))
		ours := p.connect(t)
		_, err := ours.Call(t.Context(), "", nil)
		require.NoError(t, err)
		synctest.Wait()
		for _, s := range []scrape{p.scraped(t, nil), second.scraped(t, nil)} {
			require.Equal(t, []float64{1, 1, 1}, []float64{s["peerlane_sessions{client,direct}"], s["peerlane_calls_total{client,out}"],
				s["peerlane_call_duration_seconds{client,answered}"]})
		}
		second.all.RemoveClient(p.client)
		_, err = ours.Call(t.Context(), "", nil)
		require.NoError(t, err)
		s := second.scraped(t, nil)
		require.Equal(t, []float64{1, 1, 0}, []float64{s["peerlane_calls_total{client,out}"], s["peerlane_call_duration_seconds{client,answered}"],
			s["peerlane_sessions{client,direct}"]}, "it is no longer followed")
		require.NoError(t, ours.Close())
	})
}

// The label has a bounded number of values for any number of tags. A tag may be any string.
//
// Claim: metrics.MaxTags
func TestTheTagsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		require.NoError(t, p.server.Start("bad \xff UTF-8", func(b []byte) ([]byte, error) { return b, nil }))
		require.Contains(t, p.scraped(t, nil), "peerlane_sessions{server,tag=bad \uFFFD UTF-8,direct}")
		const count = 3 * MaxTags
		for n := range count {
			name := protocol.ID(fmt.Sprintf("/%03d", n))
			require.NoError(t, p.server.Start(name, func(b []byte) ([]byte, error) { return b, nil }))
			_, err := p.client.Send(t.Context(), p.Bob.ID(), name, nil)
			require.NoError(t, err)
		}
		synctest.Wait()
		families, err := p.reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			tags := make(map[string]bool)
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "tag" {
						tags[l.GetValue()] = true
					}
				}
			}
			require.LessOrEqual(t, len(tags), MaxTags+1, f.GetName())
		}
		s := p.scraped(t, nil)
		for _, name := range []string{"peerlane_sessions_opened_total{client,tag=other}",
			"peerlane_calls_total{client,tag=other,out}", "peerlane_call_duration_seconds{client,tag=other,answered}"} {
			require.InDelta(t, count-MaxTags, s[name], 1, name)
		}
		sum := 0.0
		for at, v := range s {
			if strings.HasPrefix(at, "peerlane_calls_total{server,") {
				sum += v
			}
		}
		require.EqualValues(t, count, sum)
	})
}

// The text format has the classic buckets, and the protobuf format the native ones too.
func TestHistogramsAreNativeWhereThatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		require.NoError(t, p.server.Start(tag, func(b []byte) ([]byte, error) { return b, nil }))
		_, err := p.connect(t).Call(t.Context(), "", nil)
		require.NoError(t, err)
		families, err := p.reg.Gather()
		require.NoError(t, err)
		var h *dto.Histogram
		for _, f := range families {
			if f.GetName() == "peerlane_call_duration_seconds" {
				h = f.GetMetric()[0].GetHistogram()
			}
		}
		require.Len(t, h.GetPositiveSpan(), 1)
		require.Len(t, h.GetBucket(), len(fast))
		recorder := httptest.NewRecorder()
		promhttp.HandlerFor(p.reg, promhttp.HandlerOpts{}).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		text, err := io.ReadAll(recorder.Body)
		require.NoError(t, err)
		require.Contains(t, string(text), `peerlane_call_duration_seconds_bucket{result="answered",role="client",tag="/measured/1.0.0",le="0.025"} 1`)
		require.Contains(t, string(text), `peerlane_call_duration_seconds_bucket{result="answered",role="client",tag="/measured/1.0.0",le="0.01"} 0`)
	})
}

// Counters never go back, whoever scrapes, while sessions and lanes begin and end.
func TestScrapesDuringTraffic(t *testing.T) {
	p := busy(t)
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			for range 100 {
				p.once(t)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		work.Wait()
	}()
	var scrapers sync.WaitGroup
	for range 3 {
		scrapers.Go(func() {
			var last scrape
			for {
				select {
				case <-done:
					return
				default:
					last = p.scraped(t, last)
				}
			}
		})
	}
	scrapers.Go(func() {
		for range 50 {
			other := New()
			other.AddClient(p.client)
			other.AddServer(p.server)
			other.RemoveClient(p.client)
			other.RemoveServer(p.server)
		}
	})
	scrapers.Wait()
	last := p.scraped(t, nil)
	require.EqualValues(t, 200, last["peerlane_calls_total{server,in}"])
	require.EqualValues(t, 200, last["peerlane_calls_total{client,out}"])
	require.EqualValues(t, 200, last["peerlane_sessions_opened_total{client}"])
	require.EqualValues(t, 200, last["peerlane_streams_ended_total{client}"])
	require.EqualValues(t, 200, last["peerlane_call_duration_seconds{client,answered}"])
}

// busy returns a client and a server on one real host.
func busy(t *testing.T) *pair {
	t.Helper()
	h := newHost(t)
	s, err := peerlane.NewServer(h, &peerlane.ServerConfig{AdmitAll: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Stop() })
	c, err := peerlane.NewClient(h, &peerlane.ClientConfig{AdmitAll: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, s.Start(tag, func(b []byte) ([]byte, error) { return b, nil }))
	s.SetStream("echo", func(st *session.Stream) { _, _ = st.Write([]byte("x")) })
	p := &pair{Hosts: &peerlanetest.Hosts{Alice: h, Bob: h}, client: c, server: s, all: New(), reg: prometheus.NewRegistry()}
	p.all.AddClient(c)
	p.all.AddServer(s)
	require.NoError(t, p.reg.Register(p.all))
	return p
}

// once opens a session, makes a call and a stream, and closes it.
func (p *pair) once(t *testing.T) {
	ours, err := p.client.Connect(t.Context(), p.Bob.ID(), tag)
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := ours.Call(t.Context(), "", []byte("x")); err != nil {
		t.Error(err)
	}
	if st, err := ours.OpenStream(t.Context(), "echo", nil); err != nil {
		t.Error(err)
	} else {
		_, _ = st.Read(make([]byte, 1))
		_ = st.Close()
	}
	_ = ours.Close()
}

// A measurement allocates nothing.
func TestAMeasurementAllocatesNothing(t *testing.T) {
	c := New()
	w := &registry.Watch{Tag: tag, Observers: new(registry.Observers)}
	stop := w.Observers.Add(c.timers[client])
	defer stop()
	for m := range registry.NumMeasures {
		w.Observe(m, 20*time.Millisecond)
		require.Zero(t, testing.AllocsPerRun(1000, func() { w.Observe(m, 20*time.Millisecond) }), m)
	}
}

// BenchmarkObserve is one measurement, of each of two callers at once.
func BenchmarkObserve(b *testing.B) {
	c := New()
	w := &registry.Watch{Tag: tag, Observers: new(registry.Observers)}
	defer w.Observers.Add(c.timers[client])()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Observe(registry.CallAnswered, 20*time.Millisecond)
		}
	})
}

// BenchmarkScrape scrapes a server with 1000 sessions.
func BenchmarkScrape(b *testing.B) {
	h := newHost(b)
	s, err := peerlane.NewServer(h, &peerlane.ServerConfig{AdmitAll: true, MaxConcurrentConns: 2000, IdleTimeout: time.Hour})
	require.NoError(b, err)
	b.Cleanup(func() { _ = s.Stop() })
	c, err := peerlane.NewClient(h, &peerlane.ClientConfig{AdmitAll: true, Heartbeat: time.Hour})
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	require.NoError(b, s.Start(tag, func(b []byte) ([]byte, error) { return b, nil }))
	for range 1000 {
		_, err := c.Connect(b.Context(), h.ID(), tag)
		require.NoError(b, err)
	}
	all, reg := New(), prometheus.NewRegistry()
	all.AddServer(s)
	require.NoError(b, reg.Register(all))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
