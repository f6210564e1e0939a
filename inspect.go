package peerlane

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// ForDiagnostics returns what package diagnostics shows of c beside its sessions. Programs have no use for it.
func (c *Client) ForDiagnostics() registry.Side {
	p := c.pool
	p.mu.Lock()
	keys, pooled := p.keys, len(p.entries)
	var old []registry.Limit
	for key, places := range p.old {
		old = append(old, registry.Limit{Name: "old-calls", Peer: key.peer.String(), Tag: string(key.tag), Used: int64(len(places)), Max: int64(cap(places))})
	}
	p.mu.Unlock()
	v := registry.Side{Host: p.host.ID().String(), Keys: keyIDs(keys), Closes: p.ends.all(), Refusals: p.failed.All(),
		Keepers: c.keepers.inspect(), Counts: p.ends.counts, Observe: p.ends.observers.Add}
	v.Limits = append(limitsOf(p.quota), registry.Limit{Name: "pool", Used: int64(pooled), Max: int64(p.cfg.MaxIdleConns)})
	v.Limits = append(v.Limits, old...)
	v.Limits = append(v.Limits, dialSlots.inspect(p.host.Network())...)
	return v
}

// ForDiagnostics returns what package diagnostics shows of s beside its sessions. Programs have no use for it.
func (s *Server) ForDiagnostics() registry.Side {
	v := registry.Side{Host: s.host.ID().String(), Keys: keyIDs(s.currentKeys()), Closes: s.ends.all(), Refusals: s.refused.All(),
		Limits: limitsOf(s.quota), Counts: s.ends.counts, Observe: s.ends.observers.Add}
	for _, t := range s.servedTags() {
		v.Tags = append(v.Tags, string(t.tag))
		for _, c := range t.legacyCalls() {
			v.Calls = append(v.Calls, registry.Call{Peer: c.conn.RemotePeer().String(), Tag: string(t.tag), Path: pathText(c.conn.Path()),
				Began: c.started, In: c.in.Load(), Out: c.out.Load()})
		}
	}
	return v
}

func keyIDs(keys *psk.Keyring) []string {
	if keys == nil {
		return nil
	}
	var all []string
	for _, id := range keys.IDs() {
		all = append(all, id.String())
	}
	return all
}

// limitsOf returns the bounds of a quota. One that is not set is left out.
func limitsOf(q *session.Quota) []registry.Limit {
	v := q.Snapshot()
	all := []registry.Limit{
		{Name: "sessions", Used: int64(v.Sessions), Max: int64(q.MaxSessions)},
		{Name: "calls", Used: int64(v.Calls), Max: int64(q.MaxCalls)},
		{Name: "memory", Used: v.Bytes, Max: q.MaxBytes, Refused: v.Refused},
	}
	return slices.DeleteFunc(all, func(l registry.Limit) bool { return l.Max <= 0 })
}

// inspect returns the slots of a host.
func (t *slotTable) inspect(of network.Network) []registry.Limit {
	var all []registry.Limit
	var to []peer.ID // written as text once the lock, which all dials take, is released
	t.mu.Lock()
	for key, s := range t.rows {
		if key.from == of {
			all = append(all, registry.Limit{Name: "slots", Tag: string(key.tag), Used: int64(len(s.held)), Max: int64(s.sure)})
			to = append(to, key.to)
		}
	}
	t.mu.Unlock()
	for i := range all {
		all[i].Peer = to[i].String()
	}
	return all
}

// inspect returns the keepers.
func (s *keeperSet) inspect() []registry.Keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []registry.Keeper
	for k := range s.all {
		all = append(all, k.inspect())
	}
	return all
}

func (k *Keeper) inspect() registry.Keeper {
	k.mu.Lock()
	defer k.mu.Unlock()
	return registry.Keeper{Peer: k.peer.String(), Tag: string(k.tag), Want: k.cfg.Sessions, Open: len(k.sessions), Opening: int(k.opening.Load()),
		Last: k.last}
}

// pathText returns p as text, or "" for no path.
func pathText(p Path) string {
	if p.Transport == "" {
		return ""
	}
	return p.String()
}

// noteFailed records that no session was opened, unless that was no longer wanted.
func (p *pool) noteFailed(ctx context.Context, key poolKey, path Path, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	p.ends.failed(key.tag, err)
	p.failed.Add(registry.Event{At: time.Now(), Peer: key.peer.String(), Tag: string(key.tag), Path: pathText(path), Err: err})
}

// noteRefused records that a carrier was refused.
func (t *servedTag) noteRefused(conn *Conn, err error) {
	t.server.ends.failed(t.tag, err)
	t.server.refused.Add(registry.Event{At: time.Now(), Peer: conn.RemotePeer().String(), Tag: string(t.tag), Path: pathText(conn.Path()), Err: err})
}
