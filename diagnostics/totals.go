package diagnostics

import "github.com/peerlane/peerlane/internal/registry"

// Totals are counts of all sessions since the Client or Server was made, of those that have ended too. None of them goes back.
type Totals struct {
	Opened uint64 `json:"opened"` // sessions
	Ended  uint64 `json:"ended"`  // of them
	Failed uint64 `json:"failed"` // sessions that a Client could not open, or a Server refused

	Resumes    uint64 `json:"resumes"`
	Migrations uint64 `json:"migrations"`
	Resent     uint64 `json:"resent"` // bytes

	BytesIn     uint64 `json:"bytes_in"` // of frames, before the seal
	BytesOut    uint64 `json:"bytes_out"`
	RequestsIn  uint64 `json:"requests_in"`
	RequestsOut uint64 `json:"requests_out"`
	MessagesIn  uint64 `json:"messages_in"`
	MessagesOut uint64 `json:"messages_out"`
	Undelivered uint64 `json:"undelivered"`
	Refused     uint64 `json:"refused"`
	RecordsIn   uint64 `json:"records_in"`
	RecordsOut  uint64 `json:"records_out"`
	BulkIn      uint64 `json:"bulk_in"` // bytes
	BulkOut     uint64 `json:"bulk_out"`
}

// totalsOf adds up the counts of all tags.
func totalsOf(tags []registry.TagCounts) Totals {
	var c registry.Counts
	for i := range tags {
		c.Add(&tags[i].Counts)
	}
	return Totals{
		Opened: c[registry.SessionsOpened], Ended: c[registry.SessionsEndedLocal] + c[registry.SessionsEndedPeer] + c[registry.SessionsEndedNetwork],
		Failed:  c[registry.SessionsFailedLocal] + c[registry.SessionsFailedPeer] + c[registry.SessionsFailedNetwork],
		Resumes: c[registry.Resumes], Migrations: c[registry.Migrations], Resent: c[registry.Resent],
		BytesIn: c[registry.BytesIn], BytesOut: c[registry.BytesOut], RequestsIn: c[registry.CallsIn], RequestsOut: c[registry.CallsOut],
		MessagesIn: c[registry.MessagesIn], MessagesOut: c[registry.MessagesOut], Undelivered: c[registry.Undelivered], Refused: c[registry.Refused],
		RecordsIn: c[registry.RecordsIn], RecordsOut: c[registry.RecordsOut], BulkIn: c[registry.BulkBytesIn], BulkOut: c[registry.BulkBytesOut],
	}
}

// Add adds other.
func (t *Totals) Add(other *Totals) {
	t.Opened += other.Opened
	t.Ended += other.Ended
	t.Failed += other.Failed
	t.Resumes += other.Resumes
	t.Migrations += other.Migrations
	t.Resent += other.Resent
	t.BytesIn += other.BytesIn
	t.BytesOut += other.BytesOut
	t.RequestsIn += other.RequestsIn
	t.RequestsOut += other.RequestsOut
	t.MessagesIn += other.MessagesIn
	t.MessagesOut += other.MessagesOut
	t.Undelivered += other.Undelivered
	t.Refused += other.Refused
	t.RecordsIn += other.RecordsIn
	t.RecordsOut += other.RecordsOut
	t.BulkIn += other.BulkIn
	t.BulkOut += other.BulkOut
}
