package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/ticket"
)

// ended is a session that says that it was ended.
type ended struct {
	name string
	to   chan<- string
}

func (e *ended) Abort() { e.to <- e.name }

func TestThePeerWithTheMostGuestsLosesItsOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := make(chan string, 100)
		g := newGuests()
		g.most = 6
		come := func(peer string, n int) (s *ended) {
			s = &ended{fmt.Sprint(peer, n), to}
			g.come(peer, s)
			return s
		}
		lost := func() (all []string) {
			synctest.Wait()
			for len(to) > 0 {
				all = append(all, <-to)
			}
			return all
		}
		come("honest", 1)
		last := come("evil", 0)
		for n := range 4 {
			last = come("evil", n+1)
		}
		require.Empty(t, lost())
		come("evil", 5)
		require.Equal(t, []string{"evil0"}, lost())
		come("late", 1)
		require.Equal(t, []string{"evil1"}, lost())
		g.leave("evil", last)
		g.leave("evil", last)
		come("late", 2)
		require.Empty(t, lost())
		require.Equal(t, 6, g.total)

		g.shown("honest")
		g.shown("honest")
		for n := range 20 {
			come("honest", n+2)
		}
		require.Empty(t, lost(), "its sessions do not count any more")
		require.Equal(t, 5, g.total)
		time.Sleep(guestTime - time.Second)
		come("new", 1)
		require.Empty(t, lost())
		time.Sleep(2 * time.Second)
		gone := lost()
		slices.Sort(gone)
		require.Equal(t, []string{"evil2", "evil3", "evil5", "late1", "late2"}, gone)
		require.Equal(t, 1, g.total)
		g.close()
		come("closed", 1)
		time.Sleep(time.Hour)
		require.Empty(t, lost())

		for n := range mostKnown {
			g.shown(fmt.Sprint(n))
		}
		require.Len(t, g.known, mostKnown)
		require.Len(t, g.order, mostKnown)
		require.False(t, g.known["honest"])
	})
}

// Four peers without a ticket fill what they may, and the holder of the ticket gets in.
func TestStrangersDoNotKeepTheHolderOfATicketOut(t *testing.T) {
	t.Parallel()
	from := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(from, []byte("hello"), 0o600))
	tree, err := source.Walk(t.Context(), []string{from}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, tree.Close()) }()
	g := newGuests()
	g.most, g.time = 20, 2*time.Second
	host := hostFlags{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}
	e, err := host.open(t.Context(), newDisplay(new(lockedBuffer)), nil, nil, nil, g)
	require.NoError(t, err)
	defer func() { require.NoError(t, e.close()) }()
	share, err := e.service.Share(tree, &transfer.ShareOptions{Many: true, OnBegun: func(t *transfer.Transfer) { g.shown(t.Snapshot().Peer) }})
	require.NoError(t, err)
	at := peer.AddrInfo{ID: e.node.ID(), Addrs: e.addrs()}
	text, err := ticket.Ticket{Sources: []peer.AddrInfo{at}, Root: share.Ref().Root, Token: share.Ref().Token}.Encode()
	require.NoError(t, err)

	for range 4 {
		stranger := testnet.Host(t, testnet.TCPTLS)
		cfg := peerlane.DefaultClientConfig()
		cfg.AdmitAll = true
		c, err := peerlane.NewClient(stranger, cfg)
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		stranger.Peerstore().AddAddrs(at.ID, at.Addrs, time.Hour)
		for range 20 {
			_, err := c.Connect(t.Context(), at.ID, transferTag)
			require.NoError(t, err)
		}
	}
	count := func() int { g.mu.Lock(); defer g.mu.Unlock(); return g.total }
	require.LessOrEqual(t, count(), g.most)
	to, out := t.TempDir(), new(lockedBuffer)
	get := getCmd{Ticket: text, Dir: to}
	require.NoError(t, get.Run(t.Context(), stdio{strings.NewReader(""), out, out}), "%s", out)
	data, err := os.ReadFile(filepath.Join(to, "file"))
	require.NoError(t, err)
	require.Equal(t, "hello", string(data))
	require.Eventually(t, func() bool { return len(e.server.Sessions()) == 0 }, 30*time.Second, 10*time.Millisecond, "they had their time")
}
