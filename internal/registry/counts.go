package registry

// OtherTag stands for all tags beyond the first MaxTags of a Client or Server.
const OtherTag = "other"

// MaxTags bounds the tags that a Client or Server has counts for.
const MaxTags = 64

// A Counter only grows. In means from the peer.
type Counter int

// The counters of the sessions of a tag.
const (
	SessionsOpened Counter = iota
	SessionsEndedLocal
	SessionsEndedPeer
	SessionsEndedNetwork
	SessionsFailedLocal // a Client could not open one, or a Server refused one
	SessionsFailedPeer
	SessionsFailedNetwork
	Resumes
	Migrations
	Resent // bytes
	BytesIn
	BytesOut
	CallsIn
	CallsOut
	MessagesIn
	MessagesOut
	Undelivered
	Late
	Refused
	Cancelled
	StreamsEnded
	StreamBytesIn
	StreamBytesOut
	BatchesIn
	BatchesOut
	AcksIn
	AcksOut
	PiggybackIn
	PiggybackOut
	FailuresIn
	FailuresOut
	RecordsIn
	RecordsOut
	RecordBytesIn
	RecordBytesOut
	BulkBytesIn
	BulkBytesOut
	BlocksRaw
	BlocksWire
	NumCounters // how many there are
)

// Counts has a value for each Counter.
type Counts [NumCounters]uint64

// Add adds the values of other.
func (c *Counts) Add(other *Counts) {
	for i, n := range other {
		c[i] += n
	}
}

// A TagCounts has the counts of all sessions of a tag, of those that have ended too. None of them ever goes back.
type TagCounts struct {
	Tag string // or OtherTag
	Counts
}
