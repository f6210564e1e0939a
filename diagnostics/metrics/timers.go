package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlane/peerlane/internal/registry"
)

// A histogram is a metric of durations, with the labels role and tag.
type histogram struct {
	name, help string
	label      string // beside role and tag; may be empty
	buckets    []float64
	measures   map[registry.Measure]string // with the value of label for each
}

var (
	fast = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	slow = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
)

var histograms = []histogram{
	{"peerlane_call_duration_seconds", "Time from a call made here to its answer or failure.", "result", fast,
		map[registry.Measure]string{registry.CallAnswered: "answered", registry.CallFailed: "failed"}},
	{"peerlane_barrier_wait_seconds", "Time that one barrier of a record stream took.", "", fast, map[registry.Measure]string{registry.BarrierWait: ""}},
	{"peerlane_resume_duration_seconds", "Time from the loss of a session's connection to its next connection.", "", slow,
		map[registry.Measure]string{registry.ResumeTime: ""}},
	{"peerlane_time_to_direct_seconds", "Time from a session's first relayed connection to its next direct one.", "", slow,
		map[registry.Measure]string{registry.DirectTime: ""}},
}

// newVectors returns the vectors of the histograms, and the one of each measure. They have native buckets beside the classic ones: a scrape
// gets those that it asks for.
func newVectors() (all []*prometheus.HistogramVec, of func(m registry.Measure, role, tag string) prometheus.Observer) {
	var vectors [registry.NumMeasures]*prometheus.HistogramVec
	var labels [registry.NumMeasures]string
	for _, h := range histograms {
		names := []string{"role", "tag"}
		if h.label != "" {
			names = append(names, h.label)
		}
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: h.name, Help: h.help, Buckets: h.buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, names)
		all = append(all, v)
		for m, label := range h.measures {
			vectors[m], labels[m] = v, label
		}
	}
	return all, func(m registry.Measure, role, tag string) prometheus.Observer {
		if labels[m] == "" {
			return vectors[m].WithLabelValues(role, tag)
		}
		return vectors[m].WithLabelValues(role, tag, labels[m])
	}
}

// timers is the registry.Observer of a role.
type timers struct {
	role string
	tags *tagSet
	of   func(m registry.Measure, role, tag string) prometheus.Observer

	mu    sync.Mutex                                       // of those who change known
	known atomic.Pointer[map[timerKey]prometheus.Observer] // bounded by the values of tag
}

// timerKey names a series: tag is the value of the label.
type timerKey struct {
	m   registry.Measure
	tag string
}

func newTimers(role string, tags *tagSet, of func(m registry.Measure, role, tag string) prometheus.Observer) *timers {
	t := &timers{role: role, tags: tags, of: of}
	t.known.Store(new(map[timerKey]prometheus.Observer))
	return t
}

// Observe implements registry.Observer.
func (t *timers) Observe(m registry.Measure, tag string, took time.Duration) {
	o := (*t.known.Load())[timerKey{m, tag}]
	if o == nil {
		o = t.find(m, t.tags.name(tag))
	}
	o.Observe(took.Seconds())
}

// find returns the series for a value of the label tag, which it makes if need be.
func (t *timers) find(m registry.Measure, tag string) prometheus.Observer {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := timerKey{m, tag}
	old := *t.known.Load()
	if o := old[key]; o != nil {
		return o
	}
	all := maps.Clone(old)
	if all == nil {
		all = make(map[timerKey]prometheus.Observer)
	}
	all[key] = t.of(m, t.role, tag)
	t.known.Store(&all)
	return all[key]
}
