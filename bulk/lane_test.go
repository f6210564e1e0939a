package bulk

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// Row: N16. The same bytes, whatever carries them, both ways at once.
// Claim: bulk.Options.Mode, bulk.Options.Strands
func TestLanesCarryTheSameBytes(t *testing.T) {
	for name, opts := range kinds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
				here, there := p.lanes(t, opts)
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				var all sync.WaitGroup
				sums := make([][2][32]byte, 2)
				for i, l := range []*Lane{here, there} {
					rng := rand.New(rand.NewPCG(seed, uint64(i)))
					body := make([]byte, 3<<20+rng.IntN(1<<20))
					for k := 0; k < len(body); k += 1 + rng.IntN(3000) {
						body[k] = byte(rng.Uint32()) // compresses
					}
					sums[i][0] = sha256.Sum256(body)
					all.Go(func() {
						for rest := body; len(rest) > 0; {
							n := min(len(rest), 1+rng.IntN(1<<(1+rng.IntN(20))))
							_, err := l.Write(rest[:n])
							require.NoError(t, err)
							rest = rest[n:]
						}
						require.NoError(t, l.CloseWrite())
					})
					all.Go(func() {
						h := sha256.New()
						_, err := io.Copy(h, l)
						require.NoError(t, err)
						sums[1-i][1] = [32]byte(h.Sum(nil))
					})
				}
				all.Wait()
				for _, s := range sums {
					require.Equal(t, s[0], s[1])
				}
				v := here.Snapshot()
				require.Equal(t, opts != nil && opts.Compress, v.Compressed)
				require.NoError(t, v.FellBack)
				if v.Compressed {
					require.Less(t, v.Wire, v.Raw/2)
				}
				want := 1
				if opts != nil && opts.Strands > 1 {
					want = opts.Strands
				}
				require.Equal(t, want, v.Strands)
			})
		})
	}
}

func TestNettestLanes(t *testing.T) {
	t.Parallel() // CloseTimeout is waited for
	for name, opts := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{CloseTimeout: 2 * time.Second})
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				here, there := p.lanes(t, opts)
				return here, there, func() { // at once: a Close waits for the other side to read, or to close
					var closing sync.WaitGroup
					for _, l := range []*Lane{here, there} {
						closing.Go(func() { _ = l.Close() })
					}
					closing.Wait()
				}, nil
			})
		})
	}
}

func TestAbortTellsThePeerTheCode(t *testing.T) {
	for name, opts := range kinds {
		if name == "dedicated" {
			continue // a link has no resets: its end looks like one in order; peerlane_test.go does it over libp2p
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
				here, there := p.lanes(t, opts)
				_, err := here.Write(make([]byte, 100))
				require.NoError(t, err)
				require.NoError(t, here.Abort(codes.TooLarge))
				_, err = io.Copy(io.Discard, there)
				if here.Snapshot().Mode == Shared {
					require.ErrorIs(t, err, session.ErrTooLarge)
				} else {
					require.Error(t, err) // a pipe has no codes; libp2p's streams do
				}
				_, err = here.Write([]byte("x"))
				require.ErrorIs(t, err, net.ErrClosed)
			})
		})
	}
}

func TestCloseReadFailsThePeersWrites(t *testing.T) {
	for _, name := range []string{"shared", "shared, compressed"} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
			here, there := p.lanes(t, kinds[name])
			require.NoError(t, there.CloseRead())
			_, err := io.CopyN(here, zeros{}, 64<<20)
			require.ErrorIs(t, err, syscall.EPIPE)
			_, err = there.Write([]byte("the other way"))
			require.NoError(t, err)
			b := make([]byte, 13)
			_, err = io.ReadFull(here, b)
			require.NoError(t, err)
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Claim: bulk.Options.Rate
func TestRateBoundsWhatIsWritten(t *testing.T) {
	for name, opts := range kinds {
		synctest.Test(t, func(t *testing.T) {
			var o Options
			if opts != nil {
				o = *opts
			}
			o.Rate = 1 << 20
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
			here, there := p.lanes(t, &o)
			go func() { _, _ = io.Copy(io.Discard, there) }()
			began := time.Now()
			_, err := here.Write(make([]byte, 10<<20))
			require.NoError(t, err)
			require.InDelta(t, 10, time.Since(began).Seconds(), 0.2, name)
			require.NoError(t, here.SetWriteDeadline(time.Now().Add(time.Second)))
			began = time.Now()
			n, err := here.Write(make([]byte, 10<<20))
			require.ErrorContains(t, err, "timeout")
			require.InDelta(t, 1<<20, n, 1<<18)
			require.InDelta(t, 1, time.Since(began).Seconds(), 0.1)
		})
	}
}

func TestALaneOnALimitedConnectionWaits(t *testing.T) {
	for _, mode := range []Mode{Shared, Dedicated} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
			p.limited.Store(true)
			require.NoError(t, p.Alice.Reconnect(t.Context()))
			synctest.Wait()
			here, there := p.lanes(t, &Options{Mode: mode})
			require.Equal(t, Shared, here.Snapshot().Mode)
			require.Equal(t, mode == Dedicated, here.Snapshot().FellBack != nil)
			done := make(chan error, 1)
			go func() {
				_, err := here.Write(bytes.Repeat([]byte("x"), 1000))
				done <- err
			}()
			time.Sleep(time.Minute)
			require.Empty(t, done, "it is held back")
			p.limited.Store(false)
			require.NoError(t, p.Alice.Reconnect(t.Context()))
			_, err := io.ReadFull(there, make([]byte, 1000))
			require.NoError(t, err)
			require.NoError(t, <-done)
		})
	}
}

// Claim: bulk.Snapshot.FellBack
func TestADedicatedLaneThatIsRefusedIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{}, session.Config{})
		Handle(p.ToAlice, "back", nil, func(l *Lane) { _, _ = io.Copy(l, l) })
		l, err := Open(t.Context(), p.Bob, "back", &Options{Mode: Dedicated, Strands: 4}) // who has accepted opens no dedicated streams
		require.NoError(t, err)
		require.Equal(t, Shared, l.Snapshot().Mode)
		require.ErrorIs(t, l.Snapshot().FellBack, session.ErrUnsupported)
		_, err = l.Write([]byte("hello"))
		require.NoError(t, err)
		require.NoError(t, l.CloseWrite())
		b, err := io.ReadAll(l)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b))
		require.NoError(t, l.Close())
	})
}
