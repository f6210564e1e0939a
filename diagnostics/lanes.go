package diagnostics

import "time"

// A StreamSnapshot is a stream of a session as it stands.
type StreamSnapshot struct {
	ID    uint64 `json:"id"` // on the wire; 0 if it has none
	Name  string `json:"name"`
	Kind  string `json:"kind"`           // "shared", "dedicated" or "resumable"
	Local bool   `json:"local"`          // this side opened it
	Bulk  bool   `json:"bulk,omitempty"` // session.StreamOptions.Bulk
	// State is "opening", "open", "local-closed" or "peer-closed" when one side has ended its direction, or "closing" when both have.
	State    string    `json:"state"`
	Opened   time.Time `json:"opened,omitzero"`
	BytesIn  uint64    `json:"bytes_in"` // received; of a dedicated or resumable stream, read
	BytesOut uint64    `json:"bytes_out"`
	Credit   int       `json:"credit"` // bytes that the peer has room for, of shared streams
	Unread   int       `json:"unread"` // bytes received and not read, of shared streams
}

// A RecordSnapshot is a record stream as it stands: see record.Snapshot.
type RecordSnapshot struct {
	ID     uint64    `json:"id"` // among the record streams of this process
	Name   string    `json:"name"`
	Opened time.Time `json:"opened,omitzero"`
	Error  string    `json:"error,omitempty"` // why it has ended, while it is being closed

	BatchesOut   uint64 `json:"batches_out"` // BATCH frames
	BatchesIn    uint64 `json:"batches_in"`
	AcksOut      uint64 `json:"acks_out"` // ACK frames
	AcksIn       uint64 `json:"acks_in"`
	PiggybackOut uint64 `json:"piggyback_out"` // acknowledgements in a BATCH
	PiggybackIn  uint64 `json:"piggyback_in"`
	FailuresOut  uint64 `json:"failures_out"` // FAIL frames
	FailuresIn   uint64 `json:"failures_in"`
	RecordsOut   uint64 `json:"records_out"`
	RecordsIn    uint64 `json:"records_in"`
	BytesOut     uint64 `json:"bytes_out"` // of the written payloads
	BytesIn      uint64 `json:"bytes_in"`  // of the received records, with their lengths

	Barriers    uint64   `json:"barriers"`        // completed waits for the peer
	BarrierWait Duration `json:"barrier_wait_ms"` // FlushWait plus ApplyWait, in total
	FlushWait   Duration `json:"flush_wait_ms"`   // until the conn had taken the record
	ApplyWait   Duration `json:"apply_wait_ms"`   // and from then on

	Written          uint64 `json:"written"`           // number of the last record written
	Acked            uint64 `json:"acked"`             // of the last that the peer has applied
	Outstanding      uint64 `json:"outstanding"`       // records written and not acknowledged
	OutstandingBytes int    `json:"outstanding_bytes"` // bytes kept for them, with their lengths
	Received         uint64 `json:"received"`          // number of the last record received
	Delivered        uint64 `json:"delivered"`         // of the last record read
	Applied          uint64 `json:"applied"`           // of the last record acknowledged here
	PendingApply     uint64 `json:"pending_apply"`     // records received and not applied
	PeakPendingApply uint64 `json:"peak_pending_apply"`
	PendingAck       uint64 `json:"pending_ack"` // records applied and not yet reported to the peer
}

// A BulkSnapshot is a bulk lane as it stands: see bulk.Snapshot.
type BulkSnapshot struct {
	ID         uint64    `json:"id"` // among the lanes of this process
	Name       string    `json:"name"`
	Opened     time.Time `json:"opened,omitzero"`
	Mode       string    `json:"mode"`                // "shared" or "dedicated"
	FellBack   string    `json:"fell_back,omitempty"` // why Mode or Strands differs from the options
	Strands    int       `json:"strands"`
	Compressed bool      `json:"compressed"` // zstd was agreed on
	BytesIn    uint64    `json:"bytes_in"`   // read
	BytesOut   uint64    `json:"bytes_out"`  // written
	BlocksRaw  uint64    `json:"blocks_raw"` // of a lane in blocks: bytes of the blocks sent
	BlocksWire uint64    `json:"blocks_wire"`
}

// A TransferSnapshot is a running transfer as it stands: see transfer.Progress for its figures.
type TransferSnapshot struct {
	Number    uint64    `json:"number"` // among the transfers of this process
	ID        string    `json:"id"`     // names it, and its state at the receiver
	Name      string    `json:"name"`
	Receiving bool      `json:"receiving"` // this side receives the files
	Began     time.Time `json:"began,omitzero"`
	Phase     string    `json:"phase"` // a transfer.Phase

	Files     int              `json:"files"`
	FilesDone int              `json:"files_done"`
	FilesBad  int              `json:"files_bad"`
	Bytes     int64            `json:"bytes"`
	Verified  int64            `json:"verified"`
	Durable   int64            `json:"durable"`
	Resumed   int64            `json:"resumed"`
	Crossed   int64            `json:"crossed"`
	Rate      float64          `json:"rate"` // bytes per second over the last ten seconds
	ETA       Duration         `json:"eta_ms"`
	Lanes     int              `json:"lanes"`
	Stalls    int              `json:"stalls"`
	Losses    int              `json:"losses"`
	Bad       int              `json:"bad"`
	Sources   []SourceSnapshot `json:"sources,omitempty"` // of one that receives, by name
}

// A SourceSnapshot is a peer that a transfer receives from.
type SourceSnapshot struct {
	Peer   string  `json:"peer"`
	Lanes  int     `json:"lanes"`
	Bytes  int64   `json:"bytes"` // verified since it was last reached
	Rate   float64 `json:"rate"`  // bytes per second over the last second
	Wanted int     `json:"wanted"`
	Bad    int     `json:"bad"`
}
