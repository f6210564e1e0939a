// Package origin remembers where a host has the addresses of peers from, for people who ask why a peer cannot be reached.
package origin

import (
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

// Bounds of a Table.
const (
	maxPeers = 1024
	maxAddrs = 32 // of a peer
	maxFrom  = 4  // of an address
)

// A Table says where addresses of peers are from. It is safe for concurrent use. A nil Table knows nothing.
type Table struct {
	mu    sync.Mutex
	peers map[peer.ID]*known
	turn  uint64 // counts uses
}

// known are the addresses of one peer.
type known struct {
	addrs []from
	used  uint64 // turn of the last use
}

// from is where an address is from.
type from struct {
	addr ma.Multiaddr
	all  []string
}

// metadata is where the peerstore of a host, which is in memory, keeps its Table.
const metadata = "peerlane/origin"

// New gives the host with this peerstore and Peer ID a Table.
func New(of peerstore.Peerstore, host peer.ID) (*Table, error) {
	t := &Table{peers: make(map[peer.ID]*known)}
	return t, of.Put(host, metadata, t)
}

// Of returns the Table of a host, or nil if it has none.
func Of(of peerstore.Peerstore, host peer.ID) *Table {
	t, err := of.Get(host, metadata)
	if err != nil {
		return nil
	}
	table, _ := t.(*Table)
	return table
}

// Note records that addresses of a peer are from a source, as "given" or "mDNS".
func (t *Table) Note(source string, pid peer.ID, addrs ...ma.Multiaddr) {
	if t == nil || len(addrs) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn++
	k := t.peers[pid]
	if k == nil {
		k = &known{}
		t.peers[pid] = k
	}
	k.used = t.turn
	for _, a := range addrs {
		k.note(source, a)
	}
	t.trimLocked()
}

func (k *known) note(source string, a ma.Multiaddr) {
	for i := range k.addrs {
		f := &k.addrs[i]
		if !f.addr.Equal(a) {
			continue
		}
		if len(f.all) < maxFrom && !slices.Contains(f.all, source) {
			f.all = append(f.all, source)
		}
		return
	}
	if len(k.addrs) == maxAddrs {
		k.addrs = slices.Delete(k.addrs, 0, 1)
	}
	k.addrs = append(k.addrs, from{a, []string{source}})
}

// trimLocked forgets the peer that was noted the longest ago, if there are too many.
func (t *Table) trimLocked() {
	if len(t.peers) <= maxPeers {
		return
	}
	var oldest peer.ID
	used := t.turn + 1
	for pid, k := range t.peers {
		if k.used < used {
			oldest, used = pid, k.used
		}
	}
	delete(t.peers, oldest)
}

// From returns where an address of a peer is from. It returns nothing if that was not noted.
func (t *Table) From(pid peer.ID, a ma.Multiaddr) []string {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.peers[pid]
	if k == nil {
		return nil
	}
	for _, f := range k.addrs {
		if f.addr.Equal(a) {
			return slices.Clone(f.all)
		}
	}
	return nil
}
