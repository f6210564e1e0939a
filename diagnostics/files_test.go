package diagnostics

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// Claim: diagnostics.BulkSnapshot.ID, diagnostics.BulkSnapshot.Name, diagnostics.BulkSnapshot.Opened, diagnostics.BulkSnapshot.Mode
// Claim: diagnostics.BulkSnapshot.FellBack, diagnostics.BulkSnapshot.Strands, diagnostics.BulkSnapshot.Compressed
// Claim: diagnostics.BulkSnapshot.BytesIn, diagnostics.BulkSnapshot.BytesOut, diagnostics.BulkSnapshot.BlocksRaw
// Claim: diagnostics.BulkSnapshot.BlocksWire
func TestBulkLanesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		ended := make(chan struct{})
		for _, name := range []string{"plain", "blocks"} {
			bulk.Handle(p.server, name, nil, func(l *bulk.Lane) {
				_, _ = io.CopyN(io.Discard, l, 600_000)
				<-ended
			})
		}
		require.NoError(t, p.server.Listen(tag))
		ours, theirs := p.connect(t)
		plain, err := bulk.Open(t.Context(), ours, "plain", nil)
		require.NoError(t, err)
		blocks, err := bulk.Open(t.Context(), ours, "blocks", &bulk.Options{Mode: bulk.Dedicated, Strands: 2, Compress: true})
		require.NoError(t, err)
		for _, l := range []*bulk.Lane{plain, blocks} {
			_, err = l.Write(bytes.Repeat([]byte("ab"), 300_000))
			require.NoError(t, err)
			require.NoError(t, l.CloseWrite())
		}
		c, s := p.both(t)
		require.Len(t, c.Bulk, 2)
		require.Len(t, s.Bulk, 2)
		one, two := c.Bulk[0], c.Bulk[1]
		require.Equal(t, BulkSnapshot{ID: one.ID, Name: "plain", Opened: one.Opened, Mode: "shared", Strands: 1, BytesOut: 600_000}, one)
		require.Equal(t, BulkSnapshot{ID: two.ID, Name: "blocks", Opened: two.Opened, Mode: "dedicated", Strands: 2, Compressed: true, BytesOut: 600_000,
			BlocksRaw: 600_000, BlocksWire: two.BlocksWire}, two)
		require.Less(t, two.BlocksWire, uint64(100_000))
		require.Equal(t, []uint64{600_000, 600_000}, []uint64{s.Bulk[0].BytesIn, s.Bulk[1].BytesIn})
		require.Equal(t, []string{"", ""}, []string{one.FellBack, s.Bulk[1].FellBack})
		require.Len(t, c.Streams, 3)
		require.Equal(t, 2, Summary(OfClient(p.client)).Bulk)

		// The accepting side cannot open a dedicated one, and its snapshot says so.
		bulk.Handle(p.client, "back", nil, func(*bulk.Lane) { <-ended })
		back, err := bulk.Open(t.Context(), theirs, "back", &bulk.Options{Mode: bulk.Dedicated})
		require.NoError(t, err)
		_, s = p.both(t)
		require.Len(t, s.Bulk, 3)
		require.Contains(t, s.Bulk[2].FellBack, "only the side that dialed")

		close(ended)
		for _, l := range []*bulk.Lane{plain, blocks, back} {
			_ = l.Close()
		}
		c, s = p.both(t)
		require.Empty(t, c.Bulk)
		require.Empty(t, s.Bulk)
		require.NoError(t, ours.Close())
		p.requireGone(t)
	})
}

// Claim: diagnostics.SessionSnapshot.Transfers, diagnostics.TransferSnapshot.Number, diagnostics.TransferSnapshot.ID
// Claim: diagnostics.TransferSnapshot.Name, diagnostics.TransferSnapshot.Receiving, diagnostics.TransferSnapshot.Began
// Claim: diagnostics.TransferSnapshot.Phase, diagnostics.TransferSnapshot.Files, diagnostics.TransferSnapshot.FilesDone
// Claim: diagnostics.TransferSnapshot.FilesBad, diagnostics.TransferSnapshot.Bytes, diagnostics.TransferSnapshot.Verified
// Claim: diagnostics.TransferSnapshot.Durable, diagnostics.TransferSnapshot.Resumed, diagnostics.TransferSnapshot.Crossed
// Claim: diagnostics.TransferSnapshot.Rate, diagnostics.TransferSnapshot.ETA, diagnostics.TransferSnapshot.Lanes
// Claim: diagnostics.TransferSnapshot.Stalls, diagnostics.TransferSnapshot.Losses, diagnostics.TransferSnapshot.Bad
// Claim: diagnostics.TransferSnapshot.Sources, diagnostics.SourceSnapshot.Peer, diagnostics.SourceSnapshot.Lanes
// Claim: diagnostics.SourceSnapshot.Bytes, diagnostics.SourceSnapshot.Rate, diagnostics.SourceSnapshot.Wanted
// Claim: diagnostics.SourceSnapshot.Bad
func TestTransfersAreCounted(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "photos"), t.TempDir()
	require.NoError(t, os.Mkdir(from, 0o755))
	const size = 1_000_000
	require.NoError(t, os.WriteFile(filepath.Join(from, "one"), make([]byte, size), 0o644))
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, &peerlanetest.HostsOptions{Rate: 200_000, Delay: time.Millisecond})
		var list transfer.Registry
		begun := make(chan *transfer.Transfer, 1)
		service, err := transfer.NewService(&transfer.ServiceConfig{
			Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
				return &transfer.Destination{Dir: to}, nil
			},
			OnBegun: func(t *transfer.Transfer) { begun <- t },
		})
		require.NoError(t, err)
		service.Handle(p.server)
		require.NoError(t, p.server.Listen(tag))
		ours, _ := p.connect(t)
		tree, err := source.Walk(t.Context(), []string{from}, nil)
		require.NoError(t, err)
		defer func() { _ = tree.Close() }()
		push := transfer.Push(t.Context(), func(context.Context) (*session.Session, error) { return ours, nil }, tree,
			&transfer.Options{Registry: &list})
		time.Sleep(4 * time.Second) // not all of it has crossed

		c, s := p.both(t)
		require.Len(t, c.Transfers, 1)
		require.Len(t, s.Transfers, 1)
		out, in := c.Transfers[0], s.Transfers[0]
		require.Equal(t, TransferSnapshot{
			Number: out.Number, ID: in.ID, Name: "photos", Began: out.Began, Phase: "data", Files: 1, Bytes: size,
			Verified: out.Verified, Durable: out.Durable, Crossed: out.Crossed, Rate: out.Rate, ETA: out.ETA, Lanes: out.Lanes,
		}, out)
		require.True(t, in.Receiving)
		require.Equal(t, []int{0, 0, 0, 0, 0}, []int{in.FilesDone, in.FilesBad, in.Stalls, in.Losses, in.Bad})
		require.Zero(t, in.Resumed)
		require.NotEqual(t, in.Number, out.Number)
		require.Positive(t, in.Verified)
		require.Less(t, in.Verified, int64(size))
		require.InDelta(t, 200_000, in.Rate, 150_000)
		require.Positive(t, in.ETA)
		require.Equal(t, in.Lanes, len(c.Bulk))
		require.Len(t, in.Sources, 1)
		by := in.Sources[0]
		require.Equal(t, SourceSnapshot{Peer: p.Alice.ID().String(), Lanes: in.Lanes, Bytes: in.Verified, Rate: by.Rate, Wanted: by.Wanted, Bad: 0}, by)
		require.Equal(t, out.Number, list.Snapshots()[0].Number)
		require.Equal(t, 2, Summary(OfClient(p.client), OfServer(p.server)).Transfers)
		require.Equal(t, 1, Summary(OfClient(p.client), OfClient(p.client)).Transfers, "each counts once")
		all := OfProcess(Sources{Clients: []*peerlane.Client{p.client}, Transfers: &list})
		require.Equal(t, []any{out.Number, 1}, []any{all.Transfers[0].Number, all.Summary.Transfers}, "one that is on a session, too")
		all = OfProcess(Sources{Servers: []*peerlane.Server{p.server}, Transfers: &list})
		require.Equal(t, 2, all.Summary.Transfers, "one that is on none of these sessions, and one that is")

		<-(<-begun).Done()
		require.Empty(t, OfServer(p.server).Sessions[0].Transfers, "not even for a moment")
		_, err = push.Wait()
		require.NoError(t, err)
		c, s = p.both(t)
		require.Empty(t, c.Transfers)
		require.Empty(t, s.Transfers)
		require.Empty(t, list.Snapshots())
		require.NoError(t, service.Close())
		require.NoError(t, ours.Close())
		p.requireGone(t)
	})
}
