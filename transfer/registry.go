package transfer

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/internal/registry"
)

var lastNumber atomic.Uint64

// Snapshot is a transfer as it stands, for diagnostics.
type Snapshot struct {
	Number    uint64 // among the transfers of this process
	ID        string // names it, and its state at the receiver
	Name      string
	Peer      string // the other side, as the session names it; with several sources, the first one
	Receiving bool   // this side receives the files
	Began     time.Time
	Progress  Progress
	Sources   []Source // those of a running one that receives, by name
	Failed    int      // files
	Err       error    // why it is over, if it is and has failed
}

// A Registry lists the transfers that run. The zero value is ready. It is safe for concurrent use; its methods do nothing on a
// nil Registry.
type Registry struct{ running registry.Registry[*Transfer] }

func (r *Registry) add(t *Transfer) {
	if r != nil {
		r.running.Add(t)
	}
}

func (r *Registry) remove(t *Transfer) {
	if r != nil {
		r.running.Remove(t)
	}
}

// Snapshots returns the transfers that run, the oldest first.
func (r *Registry) Snapshots() []Snapshot {
	if r == nil {
		return nil
	}
	all := r.running.All()
	slices.SortFunc(all, func(a, b *Transfer) int { return cmp.Compare(a.number, b.number) })
	shots := make([]Snapshot, len(all))
	for i, t := range all {
		shots[i] = t.Snapshot()
	}
	return shots
}

// Snapshot returns the transfer as it stands.
func (t *Transfer) Snapshot() Snapshot {
	p, from := t.Progress(), t.sources()
	t.mu.Lock()
	defer t.mu.Unlock()
	return Snapshot{t.number, idOf(t.root), t.name, t.peer, bool(t.direction), t.began, p, from, len(t.failed), t.err}
}

// shown returns the Snapshot for a session that the transfer runs on, or nil once the transfer is over.
func (t *Transfer) shown() any {
	t.mu.Lock()
	over := !t.ended.IsZero()
	t.mu.Unlock()
	if over {
		return nil
	}
	return t.Snapshot()
}
