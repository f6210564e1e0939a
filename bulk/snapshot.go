package bulk

import (
	"cmp"
	"slices"
	"time"

	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/session"
)

// Snapshot is a lane as it stands.
type Snapshot struct {
	ID         uint64 // among the lanes of this process
	Name       string
	Peer       string
	Opened     time.Time
	Mode       Mode   // what carries the lane
	FellBack   error  // why Mode, or Strands, is not what was asked for; nil if it is
	Strands    int    // streams that have carried it
	Compressed bool   // zstd was agreed on
	Read       uint64 // bytes
	Written    uint64 // bytes
	Raw, Wire  uint64 // of a lane in blocks: bytes of blocks sent, and what they were on the wire
}

// Snapshot returns the lane as it stands.
func (l *Lane) Snapshot() Snapshot {
	v := Snapshot{
		ID: l.id, Name: l.name, Peer: l.peer, Opened: l.opened, Mode: l.mode, FellBack: l.why, Strands: 1,
		Read: l.read.Load(), Written: l.written.Load(),
	}
	if f := l.framed; f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		v.Strands, v.Compressed, v.Raw, v.Wire = len(f.strands), f.zstd, f.raw, f.wire
	}
	return v
}

// A Registry lists the lanes that are open. The zero value is ready. It is safe for concurrent use; its methods do nothing on a nil
// Registry.
type Registry struct{ open registry.Registry[*Lane] }

func (r *Registry) add(l *Lane) {
	if r != nil {
		r.open.Add(l)
	}
}

func (r *Registry) remove(l *Lane) {
	if r != nil {
		r.open.Remove(l)
	}
}

// list makes snapshots list the lane, until unlist is called. The session ends the lane with itself.
func (l *Lane) list(s *session.Session) {
	l.opts.Registry.add(l)
	l.hide = s.ForDiagnostics().Show("bulk", l.name, func() any { return l.Snapshot() }, l.count)
}

// count adds the lane's counts to c.
func (l *Lane) count(c *registry.Counts) {
	v := l.Snapshot()
	c.Add(&registry.Counts{registry.BulkBytesIn: v.Read, registry.BulkBytesOut: v.Written, registry.BlocksRaw: v.Raw, registry.BlocksWire: v.Wire})
}

// unlist ends what list began, if anything.
func (l *Lane) unlist() {
	l.opts.Registry.remove(l)
	if l.hide != nil {
		l.hide()
	}
}

// Snapshots returns the lanes that are open, by peer, name and age.
func (r *Registry) Snapshots() []Snapshot {
	if r == nil {
		return nil
	}
	all := make([]Snapshot, 0)
	for _, l := range r.open.All() {
		all = append(all, l.Snapshot())
	}
	slices.SortFunc(all, func(a, b Snapshot) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}
