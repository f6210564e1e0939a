package transfer_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/source"
)

// moods are what a source may be like, besides honest.
var moods = map[string]func(t *testing.T, rng *rand.Rand, tree *source.Tree, from string) transfer.Dialer{
	"lies": func(t *testing.T, _ *rand.Rand, tree *source.Tree, _ string) transfer.Dialer {
		return liar(t, newPair(t), tree)
	},
	"lacks some files": func(t *testing.T, rng *rand.Rand, tree *source.Tree, from string) transfer.Dialer {
		p, which := newPair(t), rng.Uint64()
		serveRogue(t, p, lacker{tree, from, func(path string) bool { return which>>(len(path)%64)&1 == 1 }}.serve)
		return always(p.Alice)
	},
	"dies": func(t *testing.T, rng *rand.Rand, tree *source.Tree, _ string) transfer.Dialer {
		p := newPair(t)
		dial, _ := shared(t, p, tree, transfer.Options{Rate: 1 << 20})
		time.AfterFunc(time.Duration(rng.IntN(5000))*time.Millisecond, func() { die(p) })
		return dial
	},
	"freezes": func(t *testing.T, rng *rand.Rand, tree *source.Tree, _ string) transfer.Dialer {
		p := newPair(t)
		dial, _ := shared(t, p, tree, transfer.Options{Rate: 1 << 20})
		time.AfterFunc(time.Duration(rng.IntN(5000))*time.Millisecond, func() {
			for _, l := range p.Links() {
				l.Freeze()
			}
		})
		return dial
	},
	"is cut": func(t *testing.T, rng *rand.Rand, tree *source.Tree, _ string) transfer.Dialer {
		p := newPair(t)
		p.OnLink(func(l *peerlanetest.Link) { l.CutAfter(rng.Int64N(1 << 20)) })
		dial, _ := shared(t, p, tree, transfer.Options{})
		return dial
	},
	"is far": func(t *testing.T, rng *rand.Rand, tree *source.Tree, _ string) transfer.Dialer {
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Duration(rng.IntN(500)) * time.Millisecond})
		dial, _ := shared(t, p, tree, transfer.Options{})
		return dial
	},
	"is never found": func(*testing.T, *rand.Rand, *source.Tree, string) transfer.Dialer {
		return func(ctx context.Context) (*session.Session, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	},
}

// Whatever the other sources are like, one honest one is enough.
func TestOneHonestSourceIsEnough(t *testing.T) {
	names := []string{"lies", "lacks some files", "dies", "freezes", "is cut", "is far", "is never found"}
	require.Len(t, moods, len(names))
	from := write(t, content{"large": 3<<20 + 17, "two": 262145, "small/a": 4096, "small/bb": 9, "small/ccc": 65536, "alone": 200000, "empty": 0})
	for n := range uint64(12) {
		to := t.TempDir()
		rng := rand.New(rand.NewPCG(*seed, n))
		var others []string
		for range 1 + rng.IntN(3) {
			others = append(others, names[rng.IntN(len(names))])
		}
		t.Run(fmt.Sprintf("%d, beside one that %s", n, strings.Join(others, ", one that ")), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tree := hashedTree(t, from)
				honest, ref := shared(t, newPair(t), tree, transfer.Options{Rate: 512 << 10})
				dials := []transfer.Dialer{honest}
				for _, name := range others {
					dials = append(dials, moods[name](t, rng, tree, from))
				}
				rng.Shuffle(len(dials), func(i, j int) { dials[i], dials[j] = dials[j], dials[i] })
				ctx, cancel := context.WithTimeout(t.Context(), hour)
				defer cancel()
				result, err := transfer.Fetch(ctx, dials, ref, to, &transfer.ReceiveOptions{Verify: transfer.VerifyAll}).Wait()
				require.NoError(t, err)
				require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
			})
			same(t, from, filepath.Join(to, "tree"))
		})
	}
}

// A push goes on with whichever Service answers next, as after a restart of the receiver.
func TestAPushSurvivesRestartsOfItsReceiver(t *testing.T) {
	from, to := write(t, content{"large": 12 << 20, "small/a": 10, "small/b": 70000}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		o := transfer.ReceiveOptions{Options: transfer.Options{Rate: 2 << 20}}
		v, err := transfer.NewService(into(to, o))
		require.NoError(t, err)
		v.Handle(p.ToBob)
		var k told
		var mu sync.Mutex
		now := p
		dial := func(context.Context) (*session.Session, error) {
			mu.Lock()
			defer mu.Unlock()
			return now.Alice, nil
		}
		pushed := transfer.Push(t.Context(), dial, walk(t, from), &transfer.Options{OnEvent: k.event})
		for range 3 {
			time.Sleep(time.Second)
			next := newPair(t) // the next process of the receiver: of the first nothing is heard any more
			service(t, next, into(to, o))
			mu.Lock()
			gone := now
			now = next
			mu.Unlock()
			die(gone)
		}
		result, err := pushed.Wait()
		require.NoError(t, err)
		require.GreaterOrEqual(t, result.Progress.Losses, 3)
		require.Less(t, result.Progress.Crossed, 2*result.Progress.Bytes, "what was received is not sent again")
		require.NoError(t, v.Close())
	})
	same(t, from, filepath.Join(to, "tree"))
}

// slowDisk takes its time to sync, or fails as it is told.
type slowDisk struct {
	staging.FS
	sync func(name string) error
}

func (d slowDisk) OpenFile(name string, flag int, perm fs.FileMode) (staging.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return slowFile{f, name, d}, nil
}

type slowFile struct {
	staging.File
	name string
	disk slowDisk
}

func (f slowFile) Datasync() error {
	if err := f.disk.sync(filepath.Base(f.name)); err != nil {
		return err
	}
	return f.File.Datasync()
}

// However fast data comes, no more than 64 MiB of it wait for the disk: that is what the end of the process may lose.
func TestNoMoreThanABoundedAmountWaitsForTheDisk(t *testing.T) {
	const size = 100 << 20
	to := t.TempDir()
	name := filepath.Join(write(t, content{"large": size}), "large")
	transfer.SetDisk(t, func(disk staging.FS) staging.FS {
		return slowDisk{disk, func(name string) error {
			if strings.HasSuffix(name, ".part") {
				time.Sleep(10 * time.Second)
			}
			return nil
		}}
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		cfg := into(to, transfer.ReceiveOptions{})
		var received atomic.Pointer[transfer.Transfer]
		cfg.OnBegun = received.Store
		service(t, p, cfg)
		pushed := transfer.Push(t.Context(), always(p.Alice), walk(t, name), nil)
		most := int64(0)
		for range pushed.Watch(t.Context(), time.Second) {
			if tr := received.Load(); tr != nil {
				progress := tr.Progress()
				most = max(most, progress.Verified-progress.Durable)
			}
		}
		_, err := pushed.Wait()
		require.NoError(t, err)
		require.LessOrEqual(t, most, int64(64<<20+4<<20), "and a piece of each writer")
		require.Greater(t, most, int64(48<<20), "which keeps the disk busy")
	})
	info, err := os.Stat(filepath.Join(to, "large"))
	require.NoError(t, err)
	require.EqualValues(t, size, info.Size())
}

// A disk that finds out that it is full only when it syncs pauses the transfer, and what it has lost is fetched again.
func TestADiskThatIsFullWhenItSyncsLosesNothing(t *testing.T) {
	for name, v := range map[string]func(file string) bool{
		"a part":      func(file string) bool { return strings.HasSuffix(file, ".part") },
		"the journal": func(file string) bool { return file == "journal" },
		"a layer":     func(file string) bool { return strings.HasSuffix(file, ".layer") },
	} {
		t.Run(name, func(t *testing.T) {
			from, to := write(t, content{"large": 5<<20 + 17, "b": 300000, "small": 10}), t.TempDir()
			tree := walk(t, from)
			fails := 3
			var mu sync.Mutex
			transfer.SetDisk(t, func(disk staging.FS) staging.FS {
				return slowDisk{disk, func(file string) error {
					mu.Lock()
					defer mu.Unlock()
					if v(file) && file != "meta" {
						if fails--; fails >= 0 && fails < 2 {
							return &fs.PathError{Op: "sync", Path: file, Err: syscall.ENOSPC}
						}
					}
					return nil
				}}
			})
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				var k told
				service(t, p, into(to, transfer.ReceiveOptions{Options: transfer.Options{OnEvent: k.event, Rate: 1 << 20}}))
				result, err := transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
				require.NoError(t, err)
				require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
				require.Contains(t, k.kinds(), transfer.EventPaused)
				require.Contains(t, k.kinds(), transfer.EventResumed)
			})
			same(t, from, filepath.Join(to, "tree"))
			mu.Lock()
			defer mu.Unlock()
			require.Negative(t, fails)
		})
	}
}

// refusing is a registrar that resets streams of a name until a time.
type refusing struct {
	*session.Mux
	name    string
	until   time.Time
	refused *int
}

func (r refusing) SetStream(name string, fn func(*session.Stream)) {
	r.Mux.SetStream(name, func(st *session.Stream) {
		if name == r.name && time.Now().Before(r.until) {
			*r.refused++
			_ = st.Reset(0)
			return
		}
		fn(st)
	})
}

// Lanes that are reset are opened again, less and less often.
func TestLanesThatArePutDownAreOpenedAgain(t *testing.T) {
	from, to := write(t, content{"large": 1 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		v, err := transfer.NewService(into(to, transfer.ReceiveOptions{Options: transfer.Options{StallAfter: hour}}))
		require.NoError(t, err)
		refused := 0
		v.Handle(refusing{p.ToBob, "transfer-data", time.Now().Add(time.Minute), &refused})
		began := time.Now()
		_, err = transfer.Push(t.Context(), always(p.Alice), walk(t, from), nil).Wait()
		require.NoError(t, err)
		require.Less(t, time.Since(began), 65*time.Second)
		require.Greater(t, refused, 25)
		require.Less(t, refused, 45, "every two seconds in the end")
		require.NoError(t, v.Close())
	})
	same(t, from, filepath.Join(to, "tree"))
}
