package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlane/peerlane/internal/registry"
)

// A gauge is a figure of a role and tag that goes up and down.
type gauge int

const (
	sessionsDirect gauge = iota
	sessionsRelayed
	sessionsDetached
	callsIn
	callsOut
	streamsShared
	streamsDedicated
	streamsResumable
	recordStreams
	recordsOutstanding
	recordsPending
	bulkLanes
	transfersIn
	transfersOut
	replayBytes
	keeperWanted
	keeperOpen
	oldCalls
	numGauges
)

// A figure is a value of a metric, and the value of its last label, which is empty if there is none.
type figure struct {
	label string
	of    func(*row) float64
}

// A metric is one of a role and tag.
type metric struct {
	name, help string
	label      string // beside role and tag; may be empty
	kind       prometheus.ValueType
	figures    []figure
	desc       *prometheus.Desc
}

// newMetric returns the metric with its desc.
func newMetric(kind prometheus.ValueType, name, help, label string, figures ...figure) *metric {
	labels := []string{"role", "tag"}
	if label != "" {
		labels = append(labels, label)
	}
	return &metric{name, help, label, kind, figures, prometheus.NewDesc(name, help, labels, nil)}
}

// send sends the metric's values.
func (m *metric) send(ch chan<- prometheus.Metric, r *row, role, tag string) {
	for _, f := range m.figures {
		labels := []string{role, tag, f.label}
		if m.label == "" {
			labels = labels[:2]
		}
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, f.of(r), labels...)
	}
}

func total(name, help string, c registry.Counter) *metric {
	return newMetric(prometheus.CounterValue, name, help, "", count("", c))
}

// inOut returns a metric with a value for each direction.
func inOut(name, help string, in, out registry.Counter) *metric {
	return newMetric(prometheus.CounterValue, name, help, "direction", count("in", in), count("out", out))
}

// byWhom returns a metric with a value for each side that something may come from.
func byWhom(name, help string, local, peer, network registry.Counter) *metric {
	return newMetric(prometheus.CounterValue, name, help, "by", count("local", local), count("peer", peer), count("network", network))
}

func level(name, help string, g gauge) *metric {
	return newMetric(prometheus.GaugeValue, name, help, "", now("", g))
}

func count(label string, c registry.Counter) figure {
	return figure{label, func(r *row) float64 { return float64(r.counts[c]) }}
}

func now(label string, g gauge) figure {
	return figure{label, func(r *row) float64 { return r.gauges[g] }}
}

// byTag are the metrics of a role and tag, in the order of docs/DIAGNOSTICS.md.
var byTag = []*metric{
	newMetric(prometheus.GaugeValue, "peerlane_sessions", "Open sessions. Those without a connection are detached.", "path",
		now("direct", sessionsDirect), now("relayed", sessionsRelayed), now("detached", sessionsDetached)),
	total("peerlane_sessions_opened_total", "Sessions that were opened.", registry.SessionsOpened),
	byWhom("peerlane_sessions_ended_total", "Sessions that have ended, by the side that ended them.",
		registry.SessionsEndedLocal, registry.SessionsEndedPeer, registry.SessionsEndedNetwork),
	byWhom("peerlane_sessions_failed_total", "Sessions that a client could not open, and connections that a server refused.",
		registry.SessionsFailedLocal, registry.SessionsFailedPeer, registry.SessionsFailedNetwork),
	total("peerlane_resumes_total", "Resumes of sessions that had lost their connections.", registry.Resumes),
	total("peerlane_migrations_total", "Moves of sessions from a live connection to another.", registry.Migrations),
	total("peerlane_resent_bytes_total", "Bytes that were sent again on another connection.", registry.Resent),
	level("peerlane_replay_bytes", "Bytes kept until the peer acknowledges them, to be sent again on another connection.", replayBytes),
	inOut("peerlane_session_bytes_total", "Bytes of frames of sessions, before the seal.", registry.BytesIn, registry.BytesOut),
	inOut("peerlane_calls_total", "Calls: in is served here, out is made here.", registry.CallsIn, registry.CallsOut),
	newMetric(prometheus.GaugeValue, "peerlane_calls_in_flight", "Calls that are not answered yet.", "direction",
		now("in", callsIn), now("out", callsOut)),
	total("peerlane_calls_cancelled_total", "Calls that the peer cancelled.", registry.Cancelled),
	total("peerlane_replies_late_total", "Replies whose callers had given up.", registry.Late),
	inOut("peerlane_messages_total", "One-way messages.", registry.MessagesIn, registry.MessagesOut),
	total("peerlane_messages_undelivered_total", "One-way messages that failed.", registry.Undelivered),
	total("peerlane_refusals_total", "Calls, messages and streams of peers that were refused.", registry.Refused),
	newMetric(prometheus.GaugeValue, "peerlane_streams", "Open streams.", "kind",
		now("shared", streamsShared), now("dedicated", streamsDedicated), now("resumable", streamsResumable)),
	total("peerlane_streams_ended_total", "Streams that have ended.", registry.StreamsEnded),
	inOut("peerlane_stream_bytes_total", "Bytes of streams: received or, of dedicated streams, read; and sent.",
		registry.StreamBytesIn, registry.StreamBytesOut),
	level("peerlane_record_streams", "Open record streams.", recordStreams),
	inOut("peerlane_records_total", "Records: received and written.", registry.RecordsIn, registry.RecordsOut),
	inOut("peerlane_record_bytes_total", "Bytes of records: received with their lengths, and written without.",
		registry.RecordBytesIn, registry.RecordBytesOut),
	inOut("peerlane_record_batches_total", "BATCH frames of record streams.", registry.BatchesIn, registry.BatchesOut),
	inOut("peerlane_record_acks_total", "ACK frames of record streams.", registry.AcksIn, registry.AcksOut),
	inOut("peerlane_record_piggybacks_total", "Acknowledgements in BATCH frames of record streams.", registry.PiggybackIn, registry.PiggybackOut),
	inOut("peerlane_record_failures_total", "FAIL frames of record streams.", registry.FailuresIn, registry.FailuresOut),
	level("peerlane_records_outstanding", "Records written here that the peer has not acknowledged.", recordsOutstanding),
	level("peerlane_records_pending", "Records received that the application has not applied.", recordsPending),
	level("peerlane_bulk_lanes", "Open bulk lanes.", bulkLanes),
	inOut("peerlane_bulk_bytes_total", "Bytes of bulk lanes: read and written.", registry.BulkBytesIn, registry.BulkBytesOut),
	newMetric(prometheus.CounterValue, "peerlane_bulk_block_bytes_total", "Bytes of the blocks that bulk lanes have sent, before and after compression.",
		"form", count("raw", registry.BlocksRaw), count("wire", registry.BlocksWire)),
	newMetric(prometheus.GaugeValue, "peerlane_transfers", "Transfers of files that run on a session: in receives, out sends.", "direction",
		now("in", transfersIn), now("out", transfersOut)),
	level("peerlane_keeper_sessions_wanted", "Sessions that keepers want.", keeperWanted),
	level("peerlane_keeper_sessions", "Sessions that keepers have.", keeperOpen),
	level("peerlane_old_calls", "Calls of pointsub v0.0.2 peers that are being served.", oldCalls),
}

// A limitValue is a figure of a limit.
type limitValue int

const (
	limitUsed limitValue = iota
	limitMax
	limitRefusals
	numLimitValues
)

// A limitMetric is one of a role and limit.
type limitMetric struct {
	name, help string
	kind       prometheus.ValueType
	value      limitValue
	desc       *prometheus.Desc
}

func ofLimit(kind prometheus.ValueType, name, help string, v limitValue) *limitMetric {
	return &limitMetric{name, help, kind, v, prometheus.NewDesc(name, help, []string{"role", "limit"}, nil)}
}

// byLimit are the metrics of a role and limit.
var byLimit = []*limitMetric{
	ofLimit(prometheus.GaugeValue, "peerlane_limit_used", "How much of a limit is in use.", limitUsed),
	ofLimit(prometheus.GaugeValue, "peerlane_limit_max", "The limit.", limitMax),
	ofLimit(prometheus.CounterValue, "peerlane_limit_refusals_total", "Calls and messages that were refused for lack of room.", limitRefusals),
}
