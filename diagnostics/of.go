package diagnostics

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/cause"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
)

// OfClient returns c as it stands. Nil gives the zero ClientSnapshot.
func OfClient(c *peerlane.Client) ClientSnapshot {
	if c == nil {
		return ClientSnapshot{}
	}
	side := c.ForDiagnostics()
	v := ClientSnapshot{Version: Version, Taken: now(), Host: side.Host, Keys: side.Keys, Sessions: sessionsOf(c.Sessions()), Totals: totalsOf(side.Counts()),
		Limits: limitsOf(side.Limits), Ended: eventsOf(side.Closes), Failed: eventsOf(side.Refusals)}
	for _, k := range side.Keepers {
		v.Keepers = append(v.Keepers, KeeperSnapshot{k.Peer, k.Tag, k.Want, k.Open, k.Opening, causeOf(k.Last)})
	}
	slices.SortFunc(v.Keepers, func(a, b KeeperSnapshot) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Want, b.Want), cmp.Compare(a.Open, b.Open),
			cmp.Compare(a.Opening, b.Opening))
	})
	return v
}

// OfServer returns s as it stands. Nil gives the zero ServerSnapshot.
func OfServer(s *peerlane.Server) ServerSnapshot {
	if s == nil {
		return ServerSnapshot{}
	}
	side := s.ForDiagnostics()
	v := ServerSnapshot{Version: Version, Taken: now(), Host: side.Host, Keys: side.Keys, Tags: side.Tags, Sessions: sessionsOf(s.Sessions()),
		Totals: totalsOf(side.Counts()),
		Limits: limitsOf(side.Limits), Ended: eventsOf(side.Closes), Refused: eventsOf(side.Refusals)}
	for _, c := range side.Calls {
		v.Calls = append(v.Calls, CallSnapshot{c.Peer, c.Tag, c.Path, utc(c.Began), c.In, c.Out})
	}
	slices.SortFunc(v.Calls, func(a, b CallSnapshot) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Tag, b.Tag), a.Began.Compare(b.Began))
	})
	return v
}

func now() time.Time { return utc(time.Now()) }

// utc returns t as it is in JSON.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Round(0) // without the monotonic clock
}

func sessionsOf(all []*session.Session) []SessionSnapshot {
	if len(all) == 0 {
		return nil
	}
	shots := make([]SessionSnapshot, 0, len(all))
	for _, s := range all {
		shots = append(shots, sessionOf(s))
	}
	order := func(a, b *SessionSnapshot) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Tag, b.Tag), a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	}
	slices.SortFunc(shots, func(a, b SessionSnapshot) int { return order(&a, &b) })
	return shots
}

func sessionOf(s *session.Session) SessionSnapshot {
	state := s.ForDiagnostics().State()
	v := state.Snapshot.(session.Snapshot)
	shot := SessionSnapshot{
		ID: v.ID.String(), Peer: v.Peer, Tag: v.Tag, Agent: v.Agent, Dialer: v.Dialer, Sealed: v.Sealed, Draining: v.Draining, Idle: v.Idle,
		Started: utc(v.Started), LastActive: utc(v.LastActive), LastHeard: utc(v.LastHeard), LastReceived: utc(v.LastReceived), RTT: Duration(v.RTT),
		State: string(v.State), StateSince: utc(v.StateSince),
		Resumable: v.Resumable, Resumes: v.Resumes, Migrations: v.Migrations, Resent: v.Resent,
		ReplayUsed: v.Unacked, ReplayWindow: v.ReplayWindow, PeerMemory: v.PeerBytes,
		BytesIn: v.BytesIn, BytesOut: v.BytesOut, RequestsIn: v.RequestsIn, RequestsOut: v.RequestsOut,
		MessagesIn: v.MessagesIn, MessagesOut: v.MessagesOut, InFlightIn: v.InFlightIn, InFlightOut: v.InFlightOut,
		Undelivered: v.Undelivered, Late: v.Late, Refused: v.Refused, Cancelled: v.Cancelled,
	}
	if c, ok := state.Conn.(interface{ Path() peerlane.Path }); ok {
		shot.Path = pathOf(c.Path())
	}
	for _, c := range state.Carriers {
		shot.Carriers = append(shot.Carriers, CarrierSnapshot{c.Path, utc(c.Since), utc(c.Until), c.Moved, c.Phase, causeOf(c.Err)})
	}
	for _, st := range state.Streams {
		shot.Streams = append(shot.Streams, StreamSnapshot{
			st.ID, st.Name, st.Kind, st.Local, st.Bulk, st.State, utc(st.Opened), st.In, st.Out, st.Credit, st.Unread})
	}
	slices.SortFunc(shot.Streams, func(a, b StreamSnapshot) int {
		return cmp.Or(a.Opened.Compare(b.Opened), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name))
	})
	shot.addLanes(state.Lanes)
	return shot
}

// addLanes adds what runs on the session. A transfer that runs on it twice, as with two sources, is added once.
func (s *SessionSnapshot) addLanes(lanes []any) {
	for _, lane := range lanes {
		switch lane := lane.(type) {
		case record.Snapshot:
			s.Records = append(s.Records, recordOf(&lane))
		case bulk.Snapshot:
			s.Bulk = append(s.Bulk, bulkOf(&lane))
		case transfer.Snapshot:
			s.Transfers = append(s.Transfers, transferOf(&lane))
		}
	}
	slices.SortFunc(s.Records, func(a, b RecordSnapshot) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Bulk, func(a, b BulkSnapshot) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Transfers, func(a, b TransferSnapshot) int { return cmp.Compare(a.Number, b.Number) })
	s.Transfers = slices.CompactFunc(s.Transfers, func(a, b TransferSnapshot) bool { return a.Number == b.Number })
}

func pathOf(p peerlane.Path) *PathSnapshot {
	shot := &PathSnapshot{Text: p.String(), Transport: p.Transport, Relayed: p.Relayed, Limited: p.Limited, RelayData: p.RelayData,
		RelayLeft: p.RelayLeft, Expires: utc(p.Expires)}
	if p.Relayed {
		shot.Relay = p.Relay.String()
	}
	return shot
}

func recordOf(v *record.Snapshot) RecordSnapshot {
	return RecordSnapshot{
		ID: v.ID, Name: v.Name, Opened: utc(v.Opened), Error: textOf(v.Err),
		BatchesOut: v.BatchesOut, BatchesIn: v.BatchesIn, AcksOut: v.AcksOut, AcksIn: v.AcksIn,
		PiggybackOut: v.PiggybackOut, PiggybackIn: v.PiggybackIn, FailuresOut: v.FailuresOut, FailuresIn: v.FailuresIn,
		RecordsOut: v.RecordsOut, RecordsIn: v.RecordsIn, BytesOut: v.BytesOut, BytesIn: v.BytesIn,
		Barriers: v.Barriers, BarrierWait: Duration(v.BarrierWait), FlushWait: Duration(v.FlushWait), ApplyWait: Duration(v.ApplyWait),
		Written: v.Written, Acked: v.Acked, Outstanding: v.Outstanding, OutstandingBytes: v.OutstandingBytes,
		Received: v.Received, Delivered: v.Delivered, Applied: v.Applied,
		PendingApply: v.PendingApply, PeakPendingApply: v.PeakPendingApply, PendingAck: v.PendingAck,
	}
}

func bulkOf(v *bulk.Snapshot) BulkSnapshot {
	return BulkSnapshot{
		ID: v.ID, Name: v.Name, Opened: utc(v.Opened), Mode: v.Mode.String(), FellBack: textOf(v.FellBack), Strands: v.Strands,
		Compressed: v.Compressed, BytesIn: v.Read, BytesOut: v.Written, BlocksRaw: v.Raw, BlocksWire: v.Wire,
	}
}

func transferOf(v *transfer.Snapshot) TransferSnapshot {
	p := &v.Progress
	shot := TransferSnapshot{
		Number: v.Number, ID: v.ID, Name: v.Name, Receiving: v.Receiving, Began: utc(v.Began), Phase: string(p.Phase),
		Files: p.Files, FilesDone: p.FilesDone, FilesBad: p.FilesBad, Bytes: p.Bytes, Verified: p.Verified, Durable: p.Durable,
		Resumed: p.Resumed, Crossed: p.Crossed, Rate: p.RateSlow, ETA: Duration(p.ETA), Lanes: p.Lanes, Stalls: p.Stalls,
		Losses: p.Losses, Bad: p.Bad,
	}
	for _, from := range v.Sources {
		shot.Sources = append(shot.Sources, SourceSnapshot(from))
	}
	return shot
}

// warnAt is the part of a Limit, in percent, from which it has a Warning.
const warnAt = 80

func limitsOf(all []registry.Limit) []Limit {
	shots := make([]Limit, 0, len(all))
	for _, l := range all {
		warn := l.Max > 0 && float64(l.Used)*100 >= float64(l.Max)*warnAt
		shots = append(shots, Limit{l.Name, l.Peer, l.Tag, l.Used, l.Max, l.Refused, warn})
	}
	slices.SortFunc(shots, func(a, b Limit) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Tag, b.Tag))
	})
	return shots
}

func eventsOf(all []registry.Event) []Event {
	var shots []Event
	for _, e := range all {
		shots = append(shots, Event{utc(e.At), e.Peer, e.Tag, e.Session, e.Path, causeOf(e.Err)})
	}
	return shots
}

// causeOf returns an error as a Cause, or nil for nil.
func causeOf(err error) *Cause {
	if err == nil {
		return nil
	}
	by, code := cause.Of(err)
	c := &Cause{By: by, Text: textOf(err)}
	if code != codes.OK {
		c.Code = code.String()
	}
	return c
}

// maxText bounds the text of an error.
const maxText = 512

func textOf(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return text
}
