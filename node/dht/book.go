package dht

import (
	"bytes"
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Limits of a book. Any host can announce anything.
const (
	maxHosts   = 16384
	maxAddrs   = 16 // of one host
	maxAddrLen = 512
	maxBook    = 16 << 20 // bytes of all addresses
	maxAge     = 24 * time.Hour
)

// A book keeps which hosts have announced themselves at a server, with which addresses. It is the DHT's ProviderStore in place of its own,
// which has no bound, and in which others can crowd out a host under its key. The DHT checks that who announces is who it says.
type book struct {
	mu    sync.Mutex
	hosts map[string]*list.Element // of announcements, by key
	old   *list.List               // all announcements, the oldest first
	size  int                      // bytes of their addresses
}

// announcement is what a host has announced.
type announcement struct {
	peer.AddrInfo

	key string
	at  time.Time
}

func newBook() *book { return &book{hosts: make(map[string]*list.Element), old: list.New()} }

// AddProvider keeps an announcement in place of the host's last one. It ignores what is not under the host's own key: nobody looks for
// that.
func (b *book) AddProvider(_ context.Context, key []byte, info peer.AddrInfo) error {
	if !bytes.Equal(key, keyOf(info.ID).Hash()) {
		return nil
	}
	info.Addrs = slices.Clone(info.Addrs[:min(len(info.Addrs), maxAddrs)])
	for _, a := range info.Addrs {
		if len(a.Bytes()) > maxAddrLen {
			return nil // no host has such an address
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetLocked(b.hosts[string(key)])
	one := &announcement{AddrInfo: info, key: string(key), at: time.Now()}
	b.hosts[one.key] = b.old.PushBack(one)
	b.size += one.size()
	for len(b.hosts) > maxHosts || b.size > maxBook {
		b.forgetLocked(b.old.Front())
	}
	return nil
}

// GetProviders returns the host that has announced itself under a key, if one has.
func (b *book) GetProviders(_ context.Context, key []byte) ([]peer.AddrInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.hosts[string(key)]
	if e == nil {
		return nil, nil
	}
	one := e.Value.(*announcement)
	if time.Since(one.at) > maxAge {
		b.forgetLocked(e)
		return nil, nil
	}
	return []peer.AddrInfo{one.AddrInfo}, nil
}

// forgetLocked forgets an announcement. A nil e is none. b.mu is held.
func (b *book) forgetLocked(e *list.Element) {
	if e == nil {
		return
	}
	one := e.Value.(*announcement)
	delete(b.hosts, one.key)
	b.old.Remove(e)
	b.size -= one.size()
}

// size returns how many bytes the addresses have.
func (a *announcement) size() (n int) {
	for _, at := range a.Addrs {
		n += len(at.Bytes())
	}
	return n
}

// Close implements kad.ProviderStore.
func (b *book) Close() error { return nil }
