package bulk

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// Claim: bulk.Snapshot.ID, bulk.Snapshot.Mode, bulk.Snapshot.Name, bulk.Snapshot.Opened, bulk.Snapshot.Peer
// Claim: bulk.Snapshot.Read, bulk.Snapshot.Written, bulk.Snapshot.Strands, bulk.Snapshot.Raw, bulk.Snapshot.Wire
func TestSnapshotSaysWhatALaneIsAndHasDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		opened := time.Now()
		here, there := p.lanes(t, &Options{Mode: Dedicated, Strands: 2})
		time.Sleep(time.Second)
		_, err := here.Write(make([]byte, maxBlock+10))
		require.NoError(t, err)
		_, err = io.ReadFull(there, make([]byte, maxBlock))
		require.NoError(t, err)
		time.Sleep(time.Second)
		v, w := here.Snapshot(), there.Snapshot()
		require.NotEqual(t, v.ID, w.ID)
		require.Equal(t, Snapshot{ID: v.ID, Name: "lane", Peer: "bob", Opened: opened, Mode: Dedicated, Strands: 2, Written: maxBlock + 10,
			Raw: maxBlock + 10, Wire: maxBlock + 10 + 2*blockHead}, v)
		require.Equal(t, Snapshot{ID: w.ID, Name: "lane", Peer: "alice", Opened: opened, Mode: Dedicated, Strands: 2, Read: maxBlock}, w)
		require.Equal(t, []any{"lane", "bob", Dedicated}, []any{here.Name(), here.Peer(), here.Snapshot().Mode})
		require.Equal(t, []any{v}, p.Alice.ForDiagnostics().State().Lanes, "its session lists it")
		require.Equal(t, []any{w}, p.Bob.ForDiagnostics().State().Lanes)

		plain, end := p.lanes(t, nil)
		_, err = plain.Write(make([]byte, 5))
		require.NoError(t, err)
		require.Equal(t, Snapshot{ID: plain.id, Name: "lane", Peer: "bob", Opened: plain.opened, Strands: 1, Written: 5}, plain.Snapshot())
		require.Equal(t, Shared, end.Snapshot().Mode)
	})
}

// However a lane ends on this side, it is gone from the list at once.
// Claim: bulk.Options.Registry
func TestRegistryListsWhatIsOpen(t *testing.T) {
	for name, opts := range kinds {
		synctest.Test(t, func(t *testing.T) {
			r := new(Registry)
			require.Empty(t, r.Snapshots())
			var o Options
			if opts != nil {
				o = *opts
			}
			o.Registry = r
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
			first, _ := p.lanes(t, &o)
			second, _ := p.lanes(t, &o)
			require.Equal(t, []Snapshot{first.Snapshot(), second.Snapshot()}, r.Snapshots(), name)
			require.NoError(t, first.Close())
			require.NoError(t, first.Close())
			require.Equal(t, []Snapshot{second.Snapshot()}, r.Snapshots(), name)
			require.NoError(t, second.Abort(codes.Cancelled))
			require.Empty(t, r.Snapshots(), name)
		})
	}
}

func TestRegistryMayBeNil(t *testing.T) {
	var r *Registry
	r.add(nil)
	r.remove(nil)
	require.Nil(t, r.Snapshots())
}

// Snapshots may be taken while lanes come, work and go.
func TestRegistryIsSafeForConcurrentUse(t *testing.T) {
	p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
	r := new(Registry)
	Handle(p.ToBob, "lane", func(AcceptInfo) (*Options, error) { return &Options{Registry: r, Compress: true}, nil },
		func(l *Lane) { _, _ = io.Copy(l, l) })
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 10 {
				l, err := Open(context.Background(), p.Alice, "lane", &Options{Mode: Dedicated, Strands: 1 + i%3, Compress: i%2 == 0, Registry: r})
				if err != nil {
					panic(err)
				}
				_, _ = l.Write([]byte("x"))
				for _, v := range r.Snapshots() {
					if v.ID == 0 || v.Written > 1 {
						panic(v)
					}
				}
				_ = l.CloseWrite()
				if b, err := io.ReadAll(l); err != nil || string(b) != "x" {
					panic(err)
				}
				_ = l.Close()
			}
		})
	}
	all.Wait()
	require.Eventually(t, func() bool { return len(r.Snapshots()) == 0 }, 10*time.Second, time.Millisecond)
}
