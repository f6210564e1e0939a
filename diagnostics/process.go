package diagnostics

import (
	"time"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/transfer"
)

// Sources are the parts of a process that a ProcessSnapshot covers. Nil ones are skipped.
type Sources struct {
	Clients   []*peerlane.Client
	Servers   []*peerlane.Server
	Transfers *transfer.Registry // also has the transfers that look for their peers
}

// A ProcessSnapshot is a snapshot of all clients and servers of a program.
type ProcessSnapshot struct {
	Version   int                `json:"version"` // Version
	Taken     time.Time          `json:"taken,omitzero"`
	Summary   SummarySnapshot    `json:"summary"`
	Clients   []ClientSnapshot   `json:"clients,omitempty"`   // in the order of Sources
	Servers   []ServerSnapshot   `json:"servers,omitempty"`   // in the order of Sources
	Transfers []TransferSnapshot `json:"transfers,omitempty"` // of Sources.Transfers, the oldest first
}

// OfProcess returns a snapshot of sources.
func OfProcess(sources Sources) ProcessSnapshot {
	v := ProcessSnapshot{Version: Version, Taken: now()}
	var parts []Part
	for _, c := range sources.Clients {
		if c != nil {
			v.Clients = append(v.Clients, OfClient(c))
			parts = append(parts, &v.Clients[len(v.Clients)-1])
		}
	}
	for _, s := range sources.Servers {
		if s != nil {
			v.Servers = append(v.Servers, OfServer(s))
			parts = append(parts, &v.Servers[len(v.Servers)-1])
		}
	}
	for _, t := range sources.Transfers.Snapshots() {
		v.Transfers = append(v.Transfers, transferOf(&t))
	}
	v.Summary = summaryOf(parts, v.Transfers)
	return v
}
