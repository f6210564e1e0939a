package bulk

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// What was written before Close is read by the peer to its end, or Close returns an error: on every kind of lane, with slow readers,
// readers that stop, ends of both sides in any order, and links that are cut.
func TestCloseOfALaneLosesNothingSilently(t *testing.T) {
	t.Parallel() // beside those that wait for real
	for name, opts := range kinds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(100) {
				synctest.Test(t, func(t *testing.T) { closeAtRandom(t, opts, rand.New(rand.NewPCG(seed, 5)), seed) })
			}
		})
	}
}

// end is one side of a lane.
type end struct {
	lane   *Lane
	wrote  int
	closed error
	read   int
	eof    bool
	quit   bool // it has read no more because it did not want to
}

func closeAtRandom(t *testing.T, opts *Options, rng *rand.Rand, seed uint64) {
	p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Duration(rng.IntN(int(10 * time.Millisecond)))}, session.Config{ResumeWindow: 10 * time.Second})
	p.resets.Store(true)
	var ends [2]end
	ends[0].lane, ends[1].lane = p.lanes(t, opts)
	var all sync.WaitGroup
	for i := range ends {
		own := rand.New(rand.NewPCG(rng.Uint64(), 6))
		all.Go(func() { ends[i].live(t, own) })
	}
	if rng.IntN(3) == 0 {
		time.Sleep(time.Duration(rng.IntN(int(500 * time.Millisecond))))
		links := p.Links()
		links[rng.IntN(len(links))].Cut()
	}
	all.Wait()
	for i, e := range ends {
		peer := ends[1-i]
		if e.closed == nil {
			require.True(t, peer.read == e.wrote || peer.quit, "seed %d, side %d: %d bytes, %d were read, and Close says nothing",
				seed, i, e.wrote, peer.read)
			continue
		}
		var failed *session.Error
		require.ErrorAs(t, e.closed, &failed, "seed %d, side %d", seed, i)
		require.NotEqual(t, session.Delivered, failed.Outcome)
	}
}

// live writes and reads some, and closes.
func (e *end) live(t *testing.T, rng *rand.Rand) {
	chunk := make([]byte, 1+rng.IntN(100_000))
	for i := range chunk {
		chunk[i] = byte(rng.IntN(256))
	}
	writes, naps := rng.IntN(30), [2]time.Duration{time.Duration(rng.IntN(int(5 * time.Millisecond))), time.Duration(rng.IntN(int(5 * time.Millisecond)))}
	var writing sync.WaitGroup
	writing.Go(func() {
		for range writes {
			_ = e.lane.SetWriteDeadline(time.Now().Add(20 * time.Second)) // a lane that has ended says so below
			n, err := e.lane.Write(chunk)
			e.wrote += n
			if err != nil {
				return
			}
			time.Sleep(naps[0])
		}
		_ = e.lane.CloseWrite() // likewise
	})
	most := 1 << 30
	if rng.IntN(3) == 0 {
		most = rng.IntN(1 << 20)
	}
	b := make([]byte, 50_000)
	for e.read < most {
		_ = e.lane.SetReadDeadline(time.Now().Add(time.Minute)) // likewise
		n, err := e.lane.Read(b)
		e.read += n
		if err != nil {
			e.eof = err == io.EOF
			break
		}
		time.Sleep(naps[1])
	}
	e.quit = e.read >= most
	if rng.IntN(2) == 0 {
		writing.Wait()
	}
	e.closed = e.lane.Close()
	writing.Wait()
}

// Two sides that have read each other's last word and close at once have lost nothing.
func TestBothSidesOfALaneMayCloseAtOnce(t *testing.T) {
	for name, opts := range kinds {
		for _, apart := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond} {
			t.Run(fmt.Sprint(name, apart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t, peerlanetest.SessionsOptions{Delay: 5 * time.Millisecond}, session.Config{})
					here, there := p.lanes(t, opts)
					for _, way := range [][2]*Lane{{here, there}, {there, here}} {
						_, err := way[0].Write([]byte("word"))
						require.NoError(t, err)
						_, err = io.ReadFull(way[1], make([]byte, 4))
						require.NoError(t, err)
					}
					time.Sleep(time.Second) // what has been read is known
					var closing sync.WaitGroup
					closing.Go(func() { require.NoError(t, here.Close()) })
					time.Sleep(apart)
					require.NoError(t, there.Close())
					closing.Wait()
				})
			})
		}
	}
}

// A slow link is no error, and a peer that does not read is one after defaults.Close.
func TestCloseOfALaneWaitsForProgress(t *testing.T) {
	for name, opts := range kinds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{Rate: 32 << 10, Buffer: 16 << 10}, session.Config{Heartbeat: time.Minute, WriteTimeout: time.Hour})
				here, there := p.lanes(t, opts)
				body := make([]byte, 600<<10)
				for i := range body {
					body[i] = byte(i * i >> 3)
				}
				var got bytes.Buffer
				var reading sync.WaitGroup
				reading.Go(func() {
					_, err := io.Copy(&got, there)
					require.NoError(t, err)
				})
				_, err := here.Write(body)
				require.NoError(t, err)
				require.NoError(t, here.Close())
				reading.Wait()
				require.True(t, bytes.Equal(body, got.Bytes()))
			})
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{Buffer: 16 << 10}, session.Config{})
				here, _ := p.lanes(t, opts)
				wrote := make(chan int, 1)
				go func() {
					n, _ := here.Write(make([]byte, 64<<20))
					wrote <- n
				}()
				synctest.Wait()
				began := time.Now()
				err := here.Close()
				if n := <-wrote; n > 0 && here.Snapshot().Mode == Dedicated {
					require.Error(t, err)
				}
				require.LessOrEqual(t, time.Since(began), 3*defaults.Close)
			})
		})
	}
}

// The session's Close has lanes in blocks put what was written on their strands first: it is read to its end.
func TestCloseOfTheSessionLosesNoBlock(t *testing.T) {
	for name, opts := range kinds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond, Rate: 4 << 20}, session.Config{})
				here, there := p.lanes(t, opts)
				body := make([]byte, 2<<20)
				for i := range body {
					body[i] = byte(i * i >> 5)
				}
				var got []byte
				var err error
				var reading sync.WaitGroup
				reading.Go(func() { got, err = io.ReadAll(there) })
				_, failed := here.Write(body)
				require.NoError(t, failed)
				require.NoError(t, p.Alice.Close())
				reading.Wait()
				require.NoError(t, err)
				require.True(t, bytes.Equal(body, got), "%d bytes", len(got))
			})
		})
	}
}

// The session's Close waits for a lane in blocks that is being closed: both say nil, and all is read, or both say what is lost.
func TestCloseOfTheSessionWaitsForALaneThatIsBeingClosed(t *testing.T) {
	for _, name := range []string{"shared, compressed", "dedicated, 4 strands", "dedicated, 3 strands, compressed"} {
		size := 3 * max(kinds[name].Strands, 1) * maxBlock // Write returns, and the peer's lane has not all of it
		t.Run(name, func(t *testing.T) {
			closeBoth := func(t *testing.T, there func(*Lane)) (ofLane, ofSession error, read int) {
				p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond, Buffer: 16 << 10}, session.Config{StreamWindow: 32 << 10})
				got := make(chan int, 1)
				Handle(p.ToBob, "lane", nil, func(l *Lane) {
					there(l)
					n, _ := io.Copy(io.Discard, l)
					got <- int(n)
				})
				l, err := Open(t.Context(), p.Alice, "lane", kinds[name])
				require.NoError(t, err)
				body := make([]byte, size)
				_, err = rand.NewChaCha8([32]byte{}).Read(body)
				require.NoError(t, err)
				_, err = l.Write(body)
				require.NoError(t, err)
				closed := make(chan error, 1)
				go func() { closed <- l.Close() }()
				synctest.Wait()
				ofSession = p.Alice.Close()
				return <-closed, ofSession, <-got
			}
			synctest.Test(t, func(t *testing.T) {
				ofLane, ofSession, read := closeBoth(t, func(*Lane) { time.Sleep(3 * time.Second) })
				require.NoError(t, ofLane)
				require.NoError(t, ofSession)
				require.Equal(t, size, read)
			})
			synctest.Test(t, func(t *testing.T) {
				ofLane, ofSession, _ := closeBoth(t, func(*Lane) { time.Sleep(time.Minute) })
				require.Error(t, ofLane)
				require.Error(t, ofSession)
			})
		})
	}
}

// A lane that was aborted is no loss to the Close of its session.
func TestCloseOfTheSessionIsNoErrorAfterAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond, Buffer: 16 << 10}, session.Config{StreamWindow: 32 << 10})
		here, _ := p.lanes(t, kinds["shared, compressed"])
		body := make([]byte, 400<<10)
		_, err := rand.NewChaCha8([32]byte{}).Read(body)
		require.NoError(t, err)
		_, err = here.Write(body)
		require.NoError(t, err)
		closed := make(chan error, 1)
		go func() { closed <- p.Alice.Close() }()
		synctest.Wait()
		require.Empty(t, closed)
		require.NoError(t, here.Abort(codes.Cancelled))
		require.NoError(t, <-closed)
	})
}

// A reader that is slow and steady is progress, on every lane of one strand, also to a Close of the session, and for bytes that shrink.
func TestASlowReaderIsProgress(t *testing.T) {
	const size, rate = 3 << 20, 40_000
	for name, opts := range kinds {
		if opts != nil && opts.Strands > 1 {
			continue // strands wait for each other
		}
		for _, shrinks := range []bool{false, true} {
			t.Run(fmt.Sprint(name, shrinks), func(t *testing.T) {
				for _, ofSession := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) {
						p := newPair(t, peerlanetest.SessionsOptions{Buffer: 16 << 10}, session.Config{StreamWindow: 32 << 10})
						got := make(chan int, 1)
						Handle(p.ToBob, "lane", nil, func(l *Lane) {
							n, err := 0, error(nil)
							for b := make([]byte, rate/10); err == nil; {
								var k int
								k, err = l.Read(b)
								n += k
								time.Sleep(time.Second * time.Duration(k) / rate)
							}
							got <- n
						})
						l, err := Open(t.Context(), p.Alice, "lane", opts)
						require.NoError(t, err)
						body := make([]byte, size)
						_, err = rand.NewChaCha8([32]byte{}).Read(body)
						require.NoError(t, err)
						if shrinks {
							for i := range body {
								body[i] &= 0x1f
							}
						}
						_, err = l.Write(body)
						require.NoError(t, err)
						if ofSession {
							require.NoError(t, p.Alice.Close())
						} else {
							require.NoError(t, l.Close())
						}
						require.Equal(t, size, <-got)
					})
				}
			})
		}
	}
}
