package session_test

import (
	"crypto/rand"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A session that ends with its carrier remembers why, and one that both sides close remembers the phase.
func TestTheCarriersOfASessionThatHasEnded(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *peerlanetest.Sessions){
		"open": func(t *testing.T, p *peerlanetest.Sessions) {
			p.Cut()
			<-p.Alice.Done()
		},
		"over": func(t *testing.T, p *peerlanetest.Sessions) { require.NoError(t, p.Alice.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{ResumeWindow: -1}})
				began := time.Now()
				before := p.Alice.ForDiagnostics().State()
				addr := p.Alice.Conn().RemoteAddr()
				require.Equal(t, []registry.Carrier{{Path: addr.Network() + " " + addr.String(), Since: began}}, before.Carriers)
				require.Equal(t, p.Alice.Conn(), before.Conn)
				require.Zero(t, p.Alice.Snapshot().ReplayWindow)
				time.Sleep(time.Second)
				end(t, p)
				after := p.Alice.ForDiagnostics().State()
				require.Nil(t, after.Conn)
				require.Equal(t, []registry.Carrier{{Path: before.Carriers[0].Path, Since: began, Until: time.Now(), Phase: name, Err: p.Alice.Err()}},
					after.Carriers)
				require.Equal(t, p.Alice.Snapshot(), after.Snapshot)
				require.Equal(t, session.StateEnded, after.Snapshot.(session.Snapshot).State)
			})
		})
	}
}

// Claim: session.Snapshot.Tag, session.Snapshot.LastHeard, session.Snapshot.ReplayWindow, session.Snapshot.PeerBytes
func TestASnapshotHasTagWindowAndMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
			Delay: 10 * time.Millisecond, Config: session.Config{Tag: "/t", ReplayWindow: 64 << 10, Heartbeat: time.Hour},
		})
		before := p.Bob.Snapshot()
		held := make(chan struct{})
		p.ToBob.SetCall(func(*session.Message) ([]byte, error) {
			<-held
			return nil, nil
		})
		time.Sleep(time.Second)
		body := make([]byte, 50_000)
		_, _ = rand.Read(body) // it cannot be compressed
		go func() { _, _ = p.Alice.Call(t.Context(), "", body) }()
		time.Sleep(time.Second)
		alice, bob := p.Alice.Snapshot(), p.Bob.Snapshot()
		require.Equal(t, []string{"/t", "/t"}, []string{alice.Tag, bob.Tag})
		require.Equal(t, []int{64 << 10, 64 << 10}, []int{alice.ReplayWindow, bob.ReplayWindow})
		require.Zero(t, alice.PeerBytes, "nothing of Bob's counts on the side that has dialed")
		require.GreaterOrEqual(t, bob.PeerBytes, int64(50_000))
		require.True(t, bob.LastHeard.After(before.LastHeard.Add(900*time.Millisecond)))
		require.WithinDuration(t, time.Now(), bob.LastHeard, time.Second)
		close(held)
		time.Sleep(time.Minute)
		require.Less(t, p.Bob.Snapshot().PeerBytes, int64(50_000))
	})
}

type described struct{ net.Conn }

func (d described) Describe() string { return "on a wire" }

func TestACarrierDescribesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
			Wrap: func(here, there net.Conn) (net.Conn, net.Conn) { return described{here}, there },
		})
		require.Equal(t, "on a wire", p.Alice.ForDiagnostics().State().Carriers[0].Path)
	})
}

// What is shown is listed until it is removed, by itself: another with the same snapshot stays. Row: 5.3.
func TestLanesAreListedUntilTheyAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		show := p.Alice.ForDiagnostics()
		require.Empty(t, show.State().Lanes)
		over := false
		lane := func() any {
			_ = p.Alice.Snapshot() // no lock is held
			if over {
				return nil
			}
			return "a lane"
		}
		counted := uint64(1)
		count := func(c *registry.Counts) { c[registry.RecordsIn] += counted }
		first, second := show.Show("", "first", lane, count), show.Show("", "second", lane, nil)
		require.Equal(t, []any{"a lane", "a lane"}, show.State().Lanes)
		counted = 5
		require.EqualValues(t, 5, show.Counts()[registry.RecordsIn])
		first()
		counted = 7
		first()
		require.Equal(t, []any{"a lane"}, show.State().Lanes)
		require.EqualValues(t, 5, show.Counts()[registry.RecordsIn], "of a lane that is over")
		third := show.Show("", "third", lane, count)
		require.EqualValues(t, 12, show.Counts()[registry.RecordsIn])
		third()
		over = true
		require.Empty(t, show.State().Lanes)
		second()
		over = false
		require.Empty(t, show.State().Lanes)
	})
}

// A stream is listed while it is being opened, and with its state from then on.
func TestTheStatesOfAStream(t *testing.T) {
	for _, kind := range []string{"shared", "dedicated", "resumable"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: 10 * time.Millisecond})
				end := make(chan struct{})
				p.ToBob.SetStream("s", func(st *session.Stream) {
					<-end
					_ = st.CloseWrite()
					_, _ = st.Read(make([]byte, 1))
					<-end
				})
				state := func() string {
					time.Sleep(time.Second)
					streams := p.Alice.ForDiagnostics().State().Streams
					if len(streams) == 0 {
						return "gone"
					}
					require.Equal(t, kind, streams[0].Kind)
					return streams[0].State
				}
				opened := make(chan *session.Stream)
				go func() {
					st, err := p.Alice.OpenStream(t.Context(), "s", &session.StreamOptions{Dedicated: kind != "shared", Resumable: kind == "resumable"})
					require.NoError(t, err)
					opened <- st
				}()
				time.Sleep(15 * time.Millisecond)
				require.Equal(t, "opening", p.Alice.ForDiagnostics().State().Streams[0].State)
				st := <-opened
				require.Equal(t, "open", state())
				end <- struct{}{}
				if kind != "shared" {
					_, err := st.Read(make([]byte, 1))
					require.Error(t, err)
				}
				require.Equal(t, "peer-closed", state())
				require.NoError(t, st.CloseWrite())
				want := map[string]string{"shared": "gone", "dedicated": "closing", "resumable": "closing"}[kind]
				require.Equal(t, want, state())
				close(end)
				require.NoError(t, st.Close())
				require.Equal(t, "gone", state())
			})
		})
	}
}

// What streams have moved stays in the counts of their session when they end.
func TestTheCountsKeepStreamsThatHaveEnded(t *testing.T) {
	for _, kind := range []string{"shared", "dedicated", "resumable"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := peerlanetest.NewSessions(t, nil)
				p.ToBob.SetStream("s", func(st *session.Stream) {
					_, err := io.Copy(st, st)
					require.NoError(t, err)
				})
				opts := &session.StreamOptions{Dedicated: kind != "shared", Resumable: kind == "resumable"}
				for n := range uint64(3) {
					st, err := p.Alice.OpenStream(t.Context(), "s", opts)
					require.NoError(t, err)
					_, err = st.Write(make([]byte, 1000))
					require.NoError(t, err)
					_, err = io.ReadFull(st, make([]byte, 1000))
					require.NoError(t, err)
					for _, s := range []*session.Session{p.Alice, p.Bob} {
						c := s.ForDiagnostics().Counts()
						require.Equal(t, []uint64{n, 1000 * (n + 1), 1000 * (n + 1)},
							[]uint64{c[registry.StreamsEnded], c[registry.StreamBytesIn], c[registry.StreamBytesOut]})
					}
					require.NoError(t, st.Close())
					synctest.Wait()
					for _, s := range []*session.Session{p.Alice, p.Bob} {
						c := s.ForDiagnostics().Counts()
						require.Equal(t, []uint64{n + 1, 1000 * (n + 1), 1000 * (n + 1)},
							[]uint64{c[registry.StreamsEnded], c[registry.StreamBytesIn], c[registry.StreamBytesOut]})
					}
				}
			})
		})
	}
}

type durations struct {
	mu  sync.Mutex
	all map[registry.Measure][]time.Duration
}

func (d *durations) Observe(m registry.Measure, tag string, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = make(map[registry.Measure][]time.Duration)
	}
	d.all[m] = append(d.all[m], took)
}

func TestCallsAreMeasuredWhileThereIsAnObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: 10 * time.Millisecond})
		p.ToBob.SetCall(func(m *session.Message) ([]byte, error) { return nil, nil })
		call := func(link string) { _, _ = p.Alice.Call(t.Context(), link, nil) }
		call("")
		var got durations
		var observers registry.Observers
		p.Alice.ForDiagnostics().SetWatch(&registry.Watch{Tag: "/t", Observers: &observers})
		call("")
		stop := observers.Add(&got)
		call("")
		call("nobody serves this")
		stop()
		call("")
		require.Equal(t, map[registry.Measure][]time.Duration{
			registry.CallAnswered: {20 * time.Millisecond}, registry.CallFailed: {20 * time.Millisecond}}, got.all)
	})
}
