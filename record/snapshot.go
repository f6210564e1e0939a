package record

import (
	"cmp"
	"slices"
	"time"

	"github.com/peerlane/peerlane/internal/registry"
)

// counters are the counters of a stream. Stream.mu guards them.
type counters struct {
	batchesOut, batchesIn     uint64
	acksOut, acksIn           uint64
	piggybackOut, piggybackIn uint64
	failuresOut, failuresIn   uint64
	recordsOut, recordsIn     uint64
	bytesOut, bytesIn         uint64
	barriers                  uint64
	flushWait, applyWait      time.Duration
	peakPending               uint64
}

func (c *counters) ackSent(riding bool) {
	if riding {
		c.piggybackOut++
	} else {
		c.acksOut++
	}
}

// countBarrier counts a wait that is over or abandoned.
func (c *counters) countBarrier(b *barrier, now time.Time) {
	flushed := b.flushed
	if flushed.IsZero() {
		flushed = now
	}
	c.barriers++
	c.flushWait += flushed.Sub(b.began)
	c.applyWait += now.Sub(flushed)
}

// count adds the stream's counts to c.
func (s *Stream) count(c *registry.Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &s.stats
	c.Add(&registry.Counts{
		registry.BatchesIn: n.batchesIn, registry.BatchesOut: n.batchesOut, registry.AcksIn: n.acksIn, registry.AcksOut: n.acksOut,
		registry.PiggybackIn: n.piggybackIn, registry.PiggybackOut: n.piggybackOut,
		registry.FailuresIn: n.failuresIn, registry.FailuresOut: n.failuresOut,
		registry.RecordsIn: n.recordsIn, registry.RecordsOut: n.recordsOut,
		registry.RecordBytesIn: n.bytesIn, registry.RecordBytesOut: n.bytesOut,
	})
}

// observeBarrier reports how long a barrier took, if there is an observer.
func (s *Stream) observeBarrier(took time.Duration) {
	if s.watch != nil {
		s.watch().Observe(registry.BarrierWait, took)
	}
}

// Snapshot is the state of a stream. Out counts what this side writes, In what it reads.
type Snapshot struct {
	ID     uint64 // among the streams of this process
	Name   string
	Peer   string
	Opened time.Time
	Err    error // why it has ended; nil while it has not

	BatchesOut, BatchesIn     uint64 // BATCH frames
	AcksOut, AcksIn           uint64 // ACK frames
	PiggybackOut, PiggybackIn uint64 // acknowledgements in a BATCH
	FailuresOut, FailuresIn   uint64 // FAIL frames
	RecordsOut, RecordsIn     uint64 // written here; received from the peer
	BytesOut, BytesIn         uint64 // of the written payloads; of the received records, with their lengths

	Barriers    uint64        // completed waits for the peer
	BarrierWait time.Duration // FlushWait plus ApplyWait, in total
	FlushWait   time.Duration // until the conn had taken the record
	ApplyWait   time.Duration // and from then on

	Written          uint64 // number of the last record written
	Acked            uint64 // of the last that the peer has applied
	Outstanding      uint64 // records written and not acknowledged
	OutstandingBytes int    // bytes kept for them, with their lengths

	Received         uint64 // number of the last record received
	Delivered        uint64 // of the last record read
	Applied          uint64 // of the last record acknowledged here
	PendingApply     uint64 // records received and not applied
	PeakPendingApply uint64 // the maximum of PendingApply
	PendingAck       uint64 // records applied and not yet reported to the peer
}

// Snapshot returns the current state of the stream.
func (s *Stream) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, o, in := &s.stats, &s.out, &s.in
	return Snapshot{
		ID: s.id, Name: s.name, Peer: s.peer, Opened: s.opened, Err: s.err,
		BatchesOut: c.batchesOut, BatchesIn: c.batchesIn,
		AcksOut: c.acksOut, AcksIn: c.acksIn,
		PiggybackOut: c.piggybackOut, PiggybackIn: c.piggybackIn,
		FailuresOut: c.failuresOut, FailuresIn: c.failuresIn,
		RecordsOut: c.recordsOut, RecordsIn: c.recordsIn,
		BytesOut: c.bytesOut, BytesIn: c.bytesIn,
		Barriers: c.barriers, BarrierWait: c.flushWait + c.applyWait, FlushWait: c.flushWait, ApplyWait: c.applyWait,
		Written: o.next - 1, Acked: o.acked, Outstanding: o.next - 1 - o.acked, OutstandingBytes: o.bytes,
		Received: in.next - 1, Delivered: in.delivered, Applied: in.applied,
		PendingApply: in.next - 1 - in.applied, PeakPendingApply: c.peakPending, PendingAck: in.applied - in.told,
	}
}

// A Registry lists open streams. The zero value is ready to use. It is safe for concurrent use; its methods do nothing on a nil Registry.
type Registry struct{ open registry.Registry[*Stream] }

func (r *Registry) add(s *Stream) {
	if r != nil {
		r.open.Add(s)
	}
}

func (r *Registry) remove(s *Stream) {
	if r != nil {
		r.open.Remove(s)
	}
}

// Snapshots returns the open streams, by peer, name and age.
func (r *Registry) Snapshots() []Snapshot {
	if r == nil {
		return nil
	}
	all := make([]Snapshot, 0)
	for _, s := range r.open.All() {
		all = append(all, s.Snapshot())
	}
	slices.SortFunc(all, func(a, b Snapshot) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}
