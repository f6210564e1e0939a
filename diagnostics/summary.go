package diagnostics

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/peerlane/peerlane/session"
)

// A SummarySnapshot is the process as it stands, and the totals of Clients and Servers in it.
type SummarySnapshot struct {
	Version int       `json:"version"` // Version
	Taken   time.Time `json:"taken,omitzero"`

	Go         string   `json:"go"`                 // the version of Go that built the program
	Module     string   `json:"module"`             // the version of peerlane in it; "(devel)" if none was recorded
	Uptime     Duration `json:"uptime_ms"`          // since the program began
	Goroutines int      `json:"goroutines"`         // of the whole process
	Heap       uint64   `json:"heap"`               // bytes of objects in the heap, dead ones that are not collected yet included
	Warnings   []Limit  `json:"warnings,omitempty"` // the limits with a Warning

	Sessions  int    `json:"sessions"`
	Detached  int    `json:"detached"` // sessions without a connection
	Draining  int    `json:"draining"`
	InFlight  int    `json:"in_flight"` // requests not yet answered, of both sides
	Streams   int    `json:"streams"`
	Records   int    `json:"records"`
	Bulk      int    `json:"bulk"`
	Transfers int    `json:"transfers"` // each counts once
	BytesIn   uint64 `json:"bytes_in"`  // of the sessions that are open; Totals has those of all
	BytesOut  uint64 `json:"bytes_out"`
	Totals    Totals `json:"totals,omitzero"`
}

// A Part is what Summary adds up: a ClientSnapshot or a ServerSnapshot.
type Part interface {
	parts() ([]SessionSnapshot, []Limit, *Totals)
}

func (c ClientSnapshot) parts() ([]SessionSnapshot, []Limit, *Totals) {
	return c.Sessions, c.Limits, &c.Totals
}
func (s ServerSnapshot) parts() ([]SessionSnapshot, []Limit, *Totals) {
	return s.Sessions, s.Limits, &s.Totals
}

// began is when the program began, as far as this package can tell.
var began = time.Now()

// Summary returns the process as it stands, and the totals of parts. A session between two parts counts twice.
func Summary(parts ...Part) SummarySnapshot {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap) // unlike runtime.ReadMemStats, it does not stop the world
	v := SummarySnapshot{
		Version: Version, Taken: now(), Go: runtime.Version(), Module: moduleVersion(), Uptime: Duration(time.Since(began)),
		Goroutines: runtime.NumGoroutine(), Heap: heap[0].Value.Uint64(),
	}
	transfers := make(map[uint64]bool)
	for _, p := range parts {
		sessions, limits, totals := p.parts()
		v.Totals.Add(totals)
		for i := range sessions {
			v.add(&sessions[i], transfers)
		}
		for _, l := range limits {
			if l.Warning {
				v.Warnings = append(v.Warnings, l)
			}
		}
	}
	v.Transfers = len(transfers)
	return v
}

// add adds a session to the totals, and the numbers of its transfers to a set.
func (v *SummarySnapshot) add(s *SessionSnapshot, transfers map[uint64]bool) {
	v.Sessions++
	if s.State == string(session.StateDetached) {
		v.Detached++
	}
	if s.Draining {
		v.Draining++
	}
	v.InFlight += s.InFlightIn + s.InFlightOut
	v.Streams += len(s.Streams)
	v.Records += len(s.Records)
	v.Bulk += len(s.Bulk)
	v.BytesIn += s.BytesIn
	v.BytesOut += s.BytesOut
	for i := range s.Transfers {
		transfers[s.Transfers[i].Number] = true
	}
}

// module is the path of this module.
const module = "github.com/peerlane/peerlane"

// moduleVersion returns the version of this module, as the build recorded it.
var moduleVersion = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	return versionIn(info)
})

func versionIn(info *debug.BuildInfo) string {
	for _, m := range append(info.Deps, &info.Main) {
		switch {
		case m.Path != module:
		case m.Replace != nil && m.Replace.Version != "":
			return m.Replace.Version
		case m.Version != "":
			return m.Version
		}
	}
	return "(devel)"
}
