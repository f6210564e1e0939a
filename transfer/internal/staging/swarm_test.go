package staging

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// swarm is files with pieces that lanes write in any order, while another goroutine syncs.
type swarm struct {
	s     *Staging
	mu    sync.Mutex
	heard said // what Have told
}

const (
	swarmFiles  = 6
	swarmPieces = 24
	swarmPiece  = 1024
)

func swarmEntries() []manifest.Entry {
	var entries []manifest.Entry
	for i := range swarmFiles {
		entries = append(entries, manifest.Entry{
			ID: uint32(3 * i), Kind: manifest.KindFile, Path: fmt.Sprintf("d/%d", i), Perm: 0o644, Size: swarmPieces * swarmPiece, ModTime: 1e18,
		})
	}
	return entries
}

// run writes what is missing with some lanes, and reports the last error of any.
func (w *swarm) run(seed uint64) error {
	var work []func() error
	for _, e := range w.s.Entries() {
		data := content(e.ID, e.Size)
		for _, r := range w.s.Missing(e.ID) {
			for at := r.From; at < r.To; at += swarmPiece {
				work = append(work, func() error {
					i := int(at / swarmPiece)
					if err := w.s.SetLayer(e.ID, i, cv(e.ID)); err != nil {
						return err
					}
					if err := w.s.WriteAt(e.ID, data[at:min(at+swarmPiece, r.To)], at); err != nil {
						return err
					}
					_, err := w.s.ReadAt(e.ID, make([]byte, 10), at)
					return err
				})
			}
		}
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	rng.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
	var failed atomic.Pointer[error]
	done := make(chan struct{})
	var syncer sync.WaitGroup
	syncer.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if w.s.Dirty() < 4*swarmPiece {
				runtime.Gosched()
				continue
			}
			if err := w.s.Sync(); err != nil {
				failed.Store(&err)
			}
			w.listen()
		}
	})
	inParallel(4, func(lane int) {
		for i := lane; i < len(work); i += 4 {
			if err := work[i](); err != nil {
				failed.Store(&err)
			}
		}
	})
	close(done)
	syncer.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (w *swarm) listen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.s.Entries() {
		for _, r := range w.s.Have(e.ID) {
			w.heard[e.ID] = w.heard[e.ID].add(r)
		}
	}
}

// requireHeard sees that s has what was heard, and that it is right.
func requireHeard(t *testing.T, s *Staging, heard said) {
	t.Helper()
	for _, e := range s.Entries() {
		if s.Published(e.ID) {
			continue
		}
		have := ranges(s.Have(e.ID))
		require.Empty(t, heard[e.ID].without(have), "of %s", e.Path)
		layer, err := s.Layer(e.ID)
		require.NoError(t, err)
		for _, r := range have {
			b := make([]byte, r.To-r.From)
			_, err := s.ReadAt(e.ID, b, r.From)
			require.NoError(t, err)
			require.Equal(t, content(e.ID, e.Size)[r.From:r.To], b, "a false have of %s, %v", e.Path, r)
			for i := r.From / swarmPiece; i < r.To/swarmPiece; i++ {
				require.Equal(t, cv(e.ID), layer[i*cvSize:(i+1)*cvSize], "piece %d of %s", i, e.Path)
			}
		}
	}
}

// inParallel returns when f has, in n goroutines.
func inParallel(n int, f func(i int)) {
	done := make(chan struct{})
	for i := range n {
		go func() {
			defer func() { done <- struct{}{} }()
			f(i)
		}()
	}
	for range n {
		<-done
	}
}
