package slowlink

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

func TestMain(m *testing.M) {
	procs.One()
	goleak.VerifyTestMain(m)
}

var whole = flag.Bool("grid", false, "run the whole grid of slow links, and not a part of it")

const kib = 1 << 10

var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 10*20*400*kib)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
})

// body returns n bytes that do not shrink.
func body(n int) []byte { return noise()[:n:n] }

// way is which way the bytes go: up is from the side that dialed.
type way string

const (
	up   way = "up"
	down way = "down"
	both way = "both"
)

// cell is one point of the grid.
type cell struct {
	name      string // of the lane
	way       way
	rate      int // bytes a second, in each direction
	heartbeat time.Duration
	rtt       time.Duration
	sealed    bool
	mortal    bool // the session ends with its carrier
}

func (c cell) String() string {
	seal := "plain"
	if c.sealed {
		seal = "sealed"
	}
	return fmt.Sprintf("%s %s, %d KiB per s, heartbeat %v, rtt %v, %s", c.name, c.way, c.rate/kib, c.heartbeat, c.rtt, seal)
}

// size is how many bytes cross the link one way: enough to fill the queue before it, and to take half a minute or more.
func (c cell) size() int { return max(512*kib, 20*c.rate) }

// queue is how many bytes the network takes before it makes a Write wait. A transfer opens lanes while another one's bytes are in it,
// and their hellos have 5 s.
func (c cell) queue() int {
	if c.name == "transfer" {
		return min(400*kib, 3*c.rate)
	}
	return 400 * kib
}

// most is how long the bytes of a cell may take.
func (c cell) most() time.Duration {
	least := time.Duration(c.size()) * time.Second / time.Duration(c.rate)
	most := least + least/10 + 3*time.Second + 8*c.rtt
	if c.name == "transfer" {
		most += 2*time.Second + least/10 // its disk is a real one, whose goroutines run in any order
	}
	if c.way == both {
		switch c.name {
		case "shared", "record": // the credit of each direction waits in the queue of the other, which slows both on a long way
			if c.rtt > 100*time.Millisecond && c.rate > 128*kib {
				most += least
			}
		case "reply", "transfer": // which are asked for behind what goes the same way
			most += time.Duration(c.queue()) * time.Second / time.Duration(c.rate)
		}
	}
	return most
}

// lanes carry size bytes each way of a cell, and return once all have arrived.
var lanes = []struct {
	name string
	run  func(g *grid)
}{
	{"call", (*grid).call},
	{"reply", (*grid).reply},
	{"one-way", (*grid).oneWay},
	{"shared", func(g *grid) { g.stream(nil) }},
	{"dedicated", func(g *grid) { g.stream(&session.StreamOptions{Dedicated: true}) }},
	{"resumable", func(g *grid) { g.stream(&session.StreamOptions{Dedicated: true, Resumable: true}) }},
	{"record", (*grid).record},
	{"bulk", (*grid).bulk},
	{"transfer", (*grid).transfer},
}

// grid is a session over a slow link.
type grid struct {
	*testing.T
	*peerlanetest.Sessions
	cell

	lost atomic.Int32
	errs sync.Map
	dirs [3]string // a tree of files, and where it is pushed and fetched to: made outside of the bubble
}

var keys = sync.OnceValue(func() *psk.Keyring {
	key, err := psk.Derive([]byte("a secret of the grid"), &psk.Params{Time: 1, MemoryKiB: 64, Threads: 1})
	if err != nil {
		panic(err)
	}
	keys, err := psk.NewKeyring(key)
	if err != nil {
		panic(err)
	}
	return keys
})

// open opens the session of a cell.
func (c cell) open(t *testing.T) *grid {
	g := &grid{T: t, cell: c}
	cfg := session.Config{
		Heartbeat: c.heartbeat, RequestTimeout: -1,
		OnState: func(s *session.Session, change session.StateChange) {
			if change.State == session.StateDetached {
				g.lost.Add(1)
				g.errs.Store(time.Now(), change.Err)
			}
		},
	}
	if c.sealed {
		cfg.Keys = keys()
	}
	if c.mortal {
		cfg.ResumeWindow = -1
	}
	g.Sessions = peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Rate: c.rate, Queue: c.queue(), Delay: c.rtt / 2, Buffer: 400 * kib, Config: cfg})
	return g
}

// each calls fn for each way that bytes go in the cell, at the same time, and waits for all of them.
func (g *grid) each(fn func(up bool)) {
	var running sync.WaitGroup
	if g.way != down {
		running.Go(func() { fn(true) })
	}
	if g.way != up {
		running.Go(func() { fn(false) })
	}
	running.Wait()
}

// side returns the session that bytes come from, and what the other side serves.
func (g *grid) side(up bool) (from *session.Session, at *session.Mux) {
	if up {
		return g.Alice, g.ToBob
	}
	return g.Bob, g.ToAlice
}

func (g *grid) call() {
	g.each(func(up bool) {
		from, at := g.side(up)
		at.SetCall(func(*session.Message) ([]byte, error) { return []byte{1}, nil })
		_, err := from.Call(g.Context(), "", body(g.size()))
		require.NoError(g, err, g)
	})
}

func (g *grid) reply() {
	g.each(func(up bool) {
		from, at := g.side(!up)
		at.SetCall(func(*session.Message) ([]byte, error) { return body(g.size()), nil })
		got, err := from.Call(g.Context(), "", nil)
		require.NoError(g, err, g)
		require.Len(g, got, g.size())
	})
}

func (g *grid) oneWay() {
	g.each(func(up bool) {
		from, at := g.side(up)
		var got atomic.Int64
		at.SetLink("one-way", func(m *session.Message) { got.Add(int64(len(m.Value))) })
		for range g.size() / (64 * kib) {
			require.NoError(g, from.Send(g.Context(), "one-way", body(64*kib)), g)
		}
		require.NoError(g, from.Flush(g.Context()), g)
		require.EqualValues(g, g.size()/(64*kib)*(64*kib), got.Load())
	})
}

// halfCloser is a net.Conn whose directions end one by one.
type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// pour writes from one side to the other, and reads it there.
func (g *grid) pour(ends [2]halfCloser) {
	g.each(func(up bool) {
		from, to := ends[0], ends[1]
		if !up {
			from, to = to, from
		}
		var writing sync.WaitGroup
		writing.Go(func() {
			_, err := from.Write(body(g.size()))
			require.NoError(g, err, g)
			require.NoError(g, from.CloseWrite(), g)
		})
		n, err := io.Copy(io.Discard, to)
		require.NoError(g, err, g)
		require.EqualValues(g, g.size(), n)
		writing.Wait()
	})
}

func (g *grid) stream(o *session.StreamOptions) {
	served, over := make(chan *session.Stream), make(chan struct{})
	g.ToBob.SetStream("stream", func(st *session.Stream) {
		served <- st
		<-over
	})
	st, err := g.Alice.OpenStream(g.Context(), "stream", o)
	require.NoError(g, err, g)
	g.pour([2]halfCloser{st, <-served})
	close(over)
	require.NoError(g, st.Close())
}

// A lane of several strands reads none of them while the block that is next is behind the others in the queue: bytes that come and are
// not read tell nobody that the link lives. So this lane has one.
func (g *grid) bulk() {
	served, over := make(chan *bulk.Lane), make(chan struct{})
	zstd := func(bulk.AcceptInfo) (*bulk.Options, error) { return &bulk.Options{Compress: true}, nil }
	bulk.Handle(g.ToBob, "bulk", zstd, func(l *bulk.Lane) {
		served <- l
		<-over
	})
	l, err := bulk.Open(g.Context(), g.Alice, "bulk", &bulk.Options{Mode: bulk.Dedicated, Compress: true})
	require.NoError(g, err, g)
	g.pour([2]halfCloser{l, <-served})
	close(over)
	require.NoError(g, l.Close())
}

func (g *grid) record() {
	served, over := make(chan *record.Stream), make(chan struct{})
	record.Handle(g.ToBob, "record", nil, func(s *record.Stream) {
		served <- s
		<-over
	})
	here, err := record.Open(g.Context(), g.Alice, "record", nil)
	require.NoError(g, err, g)
	ends := [2]*record.Stream{here, <-served}
	const size = 1000
	g.each(func(up bool) {
		from, to := ends[0], ends[1]
		if !up {
			from, to = to, from
		}
		var writing sync.WaitGroup
		writing.Go(func() {
			for range g.size() / size {
				_, err := from.WriteRecord(g.Context(), body(size))
				require.NoError(g, err, g)
			}
			require.NoError(g, from.Barrier(g.Context()), g)
		})
		for range g.size() / size {
			r, err := to.ReadRecord(g.Context())
			require.NoError(g, err, g)
			require.NoError(g, to.AckRecord(r.Seq))
		}
		writing.Wait()
	})
	require.NoError(g, here.Close(), g)
	close(over)
}

// transfer pushes a tree up, and fetches one down.
func (g *grid) transfer() {
	events := func(e transfer.Event) { g.Errorf("%v: %v %v", g, e.Kind, e.Err) }
	o := transfer.Options{OnEvent: events}
	dial := func(context.Context) (*session.Session, error) { return g.Alice, nil }
	tree, err := source.Walk(g.Context(), []string{g.dirs[0]}, nil)
	require.NoError(g, err)
	defer func() { require.NoError(g, tree.Close()) }()
	v, err := transfer.NewService(&transfer.ServiceConfig{
		Receive: func(context.Context, transfer.Incoming) (*transfer.Destination, error) {
			return &transfer.Destination{Dir: g.dirs[1], ReceiveOptions: transfer.ReceiveOptions{Options: o}}, nil
		},
	})
	require.NoError(g, err)
	v.Handle(g.ToBob)
	defer func() { require.NoError(g, v.Close()) }()
	g.each(func(up bool) {
		if up {
			_, err := transfer.Push(g.Context(), dial, tree, &o).Wait()
			require.NoError(g, err, g)
			return
		}
		share, err := v.Share(tree, nil)
		require.NoError(g, err)
		defer share.Close()
		_, err = transfer.Fetch(g.Context(), []transfer.Dialer{dial}, share.Ref(), g.dirs[2], &transfer.ReceiveOptions{Options: o}).Wait()
		require.NoError(g, err, g)
	})
}

// lane runs the lane of the cell.
func (g *grid) lane() {
	for _, l := range lanes {
		if l.name == g.name {
			l.run(g)
		}
	}
}

// run sends the bytes of a cell over its link, and fails unless no carrier is lost, also when it is probed, and it takes the time of
// the link's rate.
func (c cell) run(t *testing.T) {
	dirs := [3]string{filepath.Join(t.TempDir(), "tree"), t.TempDir(), t.TempDir()}
	if c.name == "transfer" {
		require.NoError(t, os.MkdirAll(dirs[0], 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dirs[0], "file"), body(c.size()), 0o644))
	}
	synctest.Test(t, func(t *testing.T) {
		g := c.open(t)
		g.dirs = dirs
		began := time.Now()
		over := make(chan struct{})
		var probing sync.WaitGroup
		probing.Go(func() { // as if the host's addresses changed all the time
			for {
				select {
				case <-over:
					return
				case <-time.After(7 * time.Second):
					g.Alice.Probe()
				}
			}
		})
		g.lane()
		close(over)
		probing.Wait()
		took := time.Since(began)
		g.errs.Range(func(at, err any) bool {
			t.Errorf("%v: lost after %v: %v", c, at.(time.Time).Sub(began), err)
			return true
		})
		require.LessOrEqual(t, took, c.most(), c)
		require.NoError(t, g.Alice.Err(), c)
		for _, s := range []*session.Session{g.Alice, g.Bob} {
			require.Zero(t, s.Snapshot().Resumes, c)
		}
	})
}

// cells returns the grid, or every nth cell of it.
func cells(nth int) (some []cell) {
	n := 0
	for _, rate := range []int{8, 16, 32, 64, 128, 400} {
		for _, lane := range lanes {
			for _, w := range []way{up, down, both} {
				for _, heartbeat := range []time.Duration{2 * time.Second, 5 * time.Second} {
					for _, rtt := range []time.Duration{20 * time.Millisecond, 600 * time.Millisecond} {
						if n++; n%nth == 0 {
							some = append(some, cell{lane.name, w, rate * kib, heartbeat, rtt, n%3 == 0, false})
						}
					}
				}
			}
		}
	}
	return some
}

func TestASlowLinkLosesNothingAndTakesItsTime(t *testing.T) {
	nth := 11
	if *whole {
		nth = 1
	}
	some := cells(nth)
	met := make(map[any]bool)
	for _, c := range some {
		for _, v := range []any{c.name, c.way, c.rate, c.heartbeat, c.rtt, c.sealed} {
			met[v] = true
		}
	}
	require.Len(t, met, len(lanes)+3+6+2+2+2, "every value of every axis")
	for _, c := range some {
		t.Run(c.String(), func(t *testing.T) { c.run(t) })
	}
}

// A session that ends with its carrier has no acknowledgements: its heartbeat alone keeps it.
func TestASlowLinkEndsNoSessionThatEndsWithItsCarrier(t *testing.T) {
	for _, rate := range []int{8, 64} {
		for i, lane := range []string{"call", "reply", "one-way", "shared", "dedicated"} {
			for _, w := range []way{up, down, both} {
				c := cell{lane, w, rate * kib, 2 * time.Second, 600 * time.Millisecond, (i+rate/8)%2 == 0, true}
				t.Run(c.String(), func(t *testing.T) { c.run(t) })
			}
		}
	}
}

// A link that brings nothing any more is found dead within twice the heartbeat, on both sides, however much was on its way.
func TestADeadSlowLinkIsFoundInTwiceTheHeartbeat(t *testing.T) {
	for i, lane := range []string{"idle", "call", "one-way", "shared", "dedicated", "resumable"} {
		for _, rate := range []int{8, 64, 400} {
			for _, heartbeat := range []time.Duration{2 * time.Second, 5 * time.Second} {
				c := cell{lane, []way{up, down, both}[(i+rate/8)%3], rate * kib, heartbeat, 600 * time.Millisecond, i%2 == 0, false}
				t.Run(c.String(), func(t *testing.T) { c.die(t) })
			}
		}
	}
}

// die runs a lane over a link that loses everything after a while.
func (c cell) die(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := c.open(t)
		var vanished atomic.Bool
		g.OnLink(func(l *peerlanetest.Link) {
			if vanished.Load() {
				l.Vanish()
			}
		})
		var running sync.WaitGroup
		running.Go(func() { g.ends() })
		time.Sleep(9300 * time.Millisecond)
		require.Zero(t, g.lost.Load(), c)
		vanished.Store(true)
		for _, l := range g.Links() {
			l.Vanish()
		}
		time.Sleep(2*c.heartbeat + c.rtt/2) // what was on its way back may count until then
		synctest.Wait()
		require.EqualValues(t, 2, g.lost.Load(), "%v: both sides", c)
		_, _ = g.Alice.Close(), g.Bob.Close()
		running.Wait()
	})
}

// ends runs the lane of a cell until its session ends.
func (g *grid) ends() {
	switch g.name {
	case "idle":
	case "call", "one-way":
		g.each(func(up bool) {
			from, at := g.side(up)
			at.SetCall(func(*session.Message) ([]byte, error) { return nil, nil })
			at.SetLink("one-way", func(*session.Message) {})
			for err := error(nil); err == nil; {
				if g.name == "call" {
					_, err = from.Call(g.Context(), "", body(g.size()))
				} else {
					err = from.Send(g.Context(), "one-way", body(64*kib))
				}
			}
		})
	default:
		served, over := make(chan *session.Stream), make(chan struct{})
		g.ToBob.SetStream("stream", func(st *session.Stream) {
			served <- st
			<-over
		})
		st, err := g.Alice.OpenStream(g.Context(), "stream", &session.StreamOptions{Dedicated: g.name != "shared", Resumable: g.name == "resumable"})
		require.NoError(g, err)
		defer close(over)
		ends := [2]io.ReadWriter{st, <-served}
		g.each(func(up bool) {
			from, to := ends[0], ends[1]
			if !up {
				from, to = to, from
			}
			var both sync.WaitGroup
			both.Go(func() { _, _ = from.Write(body(10 * g.size())) })
			both.Go(func() { _, _ = io.Copy(io.Discard, to) })
			both.Wait()
		})
	}
}
