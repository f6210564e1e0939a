package transfer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/source"
)

var token = []byte("known to all sources")

// hashedTree is a tree that several sources have.
func hashedTree(t testing.TB, from string) *source.Tree {
	t.Helper()
	tree := walk(t, from)
	require.NoError(t, tree.Hash(t.Context(), nil))
	return tree
}

// shared has the peer of a pair share a tree, and returns its Dialer.
func shared(t testing.TB, p *peerlanetest.Sessions, tree *source.Tree, o transfer.Options) (transfer.Dialer, transfer.Ref) {
	t.Helper()
	share, err := service(t, p, &transfer.ServiceConfig{Options: o}).Share(tree, &transfer.ShareOptions{Token: token})
	require.NoError(t, err)
	return always(p.Alice), share.Ref()
}

// liar is a sender that has the tree and sends other bytes, as often as they are wanted.
func liar(t *testing.T, p *peerlanetest.Sessions, tree *source.Tree) transfer.Dialer {
	t.Helper()
	serveRogue(t, p, func(g *rogue) { lie(g, tree) })
	return always(p.Alice)
}

func lie(g *rogue, tree *source.Tree) {
	g.serveTree(tree, func(uint32) bool { return true }, func(w wire.Want) []byte { return wrongData(tree.Entries(), w) })
}

// serveTree answers what is wanted of a tree, until the other side has gone: layers as they are, of the files that has says are
// there, and the data that bring returns.
func (g *rogue) serveTree(tree *source.Tree, has func(id uint32) bool, bring func(wire.Want) []byte) {
	g.expect(wire.KindGet)
	g.list(tree.Entries())
	l := g.lane()
	for l != nil {
		f, err := g.in.Read()
		if err != nil {
			return
		}
		switch f.Kind {
		case wire.KindWantLayer:
			if id := wire.ConsumeFile(f.Body); has(id) {
				g.sendLayer(tree, id)
			}
		case wire.KindWant:
			wants, err := wire.ConsumeWants(nil, f.Body)
			require.NoError(g.t, err)
			for _, w := range wants {
				_, _ = l.Write(bring(w))
			}
		}
	}
}

// sendLayer sends the layer of a file.
func (g *rogue) sendLayer(tree *source.Tree, id uint32) {
	cvs, _, err := tree.Reader().Layer(context.Background(), id)
	require.NoError(g.t, err)
	g.send(wire.KindLayer, false, wire.Layer{File: id, CVs: b3tree.AppendLayer(nil, cvs)}.Append)
}

// wrongData returns data frames with what is wanted, of zeros.
func wrongData(entries []manifest.Entry, w wire.Want) []byte {
	return piecesOf(entries, w, func(_ int64, n int) []byte { return make([]byte, n) })
}

// piecesOf returns data frames with what is wanted, of what read says.
func piecesOf(entries []manifest.Entry, w wire.Want, read func(off int64, n int) []byte) (all []byte) {
	for id := w.File; id < w.File+w.Files; id++ {
		shape, _ := b3tree.ShapeOf(entries[id].Size)
		first, pieces := int(w.Piece), int(w.Pieces)
		if pieces == 0 {
			pieces = shape.Pieces()
		}
		for i := first; i < first+pieces; i++ {
			off, n := shape.Span(i)
			all = append(all, frame(header(wire.Data, id, uint32(i), 1), nil, read(off, n))...)
		}
	}
	return all
}

// lacker is a sender that has the folder of a tree but for some files, and says so as soon as it is asked for those.
type lacker struct {
	tree  *source.Tree
	from  string
	lacks func(path string) bool
}

func (k lacker) serve(g *rogue) {
	has := func(id uint32) bool { return k.has(g, id) }
	g.serveTree(k.tree, has, func(w wire.Want) []byte { return k.bring(g, w) })
}

// has reports whether it has a file, and tells the other side if not.
func (k lacker) has(g *rogue, id uint32) bool {
	if !k.lacks(k.tree.Entries()[id].Path) {
		return true
	}
	why := wire.Why{Code: string(transfer.CodeSourceChanged)}
	g.send(wire.KindFailed, false, func(b []byte) []byte { return wire.AppendFailed(b, id, why) })
	return false
}

// bring returns data frames with what is wanted and had.
func (k lacker) bring(g *rogue, w wire.Want) (all []byte) {
	entries := k.tree.Entries()
	for id := w.File; id < w.File+w.Files; id++ {
		if entries[id].Kind != manifest.KindFile || !k.has(g, id) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(k.from), filepath.FromSlash(entries[id].Path)))
		require.NoError(g.t, err)
		one := wire.Want{File: id, Files: 1, Piece: w.Piece, Pieces: w.Pieces}
		all = append(all, piecesOf(entries, one, func(off int64, n int) []byte { return b[off : off+int64(n)] })...)
	}
	return all
}

// Claim: transfer.Progress.Bad, transfer.Source.Bad
func TestSeveralSourcesBringOneTree(t *testing.T) {
	from, to := write(t, content{"large": 24 << 20, "small": 100, "b/two": 300000}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		var k told
		good, slow, cut := newPair(t), peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: 100 * time.Millisecond}), newPair(t)
		cut.OnLink(func(l *peerlanetest.Link) { l.CutAfter(100000) }) // each of its lanes
		first, ref := shared(t, good, tree, transfer.Options{Rate: 4 << 20})
		second, _ := shared(t, slow, tree, transfer.Options{})
		third, _ := shared(t, cut, tree, transfer.Options{})
		o := transfer.ReceiveOptions{Options: transfer.Options{OnEvent: k.event}}
		result, err := transfer.Fetch(t.Context(), []transfer.Dialer{first, second, third, liar(t, newPair(t), tree)}, ref, to, &o).Wait()
		require.NoError(t, err)
		require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
		require.Positive(t, result.Progress.Bad)
		require.Contains(t, k.kinds(), transfer.EventBadPiece)
		require.Contains(t, k.kinds(), transfer.EventSourceDropped)
		for _, e := range k.events {
			if e.Kind == transfer.EventBadPiece {
				require.Equal(t, transfer.CodeHashMismatch, transfer.CodeOf(e.Err))
			}
		}
	})
	same(t, from, filepath.Join(to, "tree"))
}

func TestSourcesThatAllLieAreGivenUp(t *testing.T) {
	from, to := write(t, content{"large": 4 << 20}), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		ref := transfer.Ref{Root: listed(t, tree.Entries()).Root}
		liars := []transfer.Dialer{liar(t, newPair(t), tree), liar(t, newPair(t), tree), liar(t, newPair(t), tree)}
		_, err := transfer.Fetch(t.Context(), liars, ref, to, nil).Wait()
		require.Equal(t, transfer.CodeHashMismatch, transfer.CodeOf(err), "%v", err)
		require.Equal(t, len(liars), strings.Count(err.Error(), "hash_mismatch")-1, "each says why: %v", err)
	})
	require.NoDirExists(t, filepath.Join(to, "tree"))
}

// twins returns two folders that are the same tree, and a place for a third.
func twins(t *testing.T) (one, other, to string) {
	contents := content{"a": 100, "b": 6 << 20, "c": 100000}
	one, other = write(t, contents), write(t, contents)
	for _, root := range []string{one, other} {
		require.NoError(t, os.Chtimes(root, time.Time{}, time.Unix(1700000000, 0)))
	}
	return one, other, t.TempDir()
}

func TestAFileThatOneSourceLacksComesFromAnother(t *testing.T) {
	from, lacking, to := twins(t)
	synctest.Test(t, func(t *testing.T) {
		has, lacks := hashedTree(t, from), hashedTree(t, lacking)
		for _, name := range []string{"a", "b"} {
			require.NoError(t, os.Remove(filepath.Join(lacking, name)))
		}
		first, ref := shared(t, newPair(t), has, transfer.Options{Rate: 1 << 20})
		second, other := shared(t, newPair(t), lacks, transfer.Options{})
		require.Equal(t, ref.Root, other.Root)
		result, err := transfer.Fetch(t.Context(), []transfer.Dialer{first, second}, ref, to, nil).Wait()
		require.NoError(t, err)
		require.Empty(t, result.Failed)
	})
	same(t, from, filepath.Join(to, "tree"))
}

// at is the Dialer of a session that is found at a time only.
func at(s *session.Session, when time.Time) transfer.Dialer {
	return func(ctx context.Context) (*session.Session, error) {
		select {
		case <-time.After(time.Until(when)):
			return s, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func TestFilesThatNoAttachedSourceHasHoldUpNoOther(t *testing.T) {
	contents := content{"y": 100000, "z": 6 << 20}
	for i := range 20 { // in order before the others, and more than are asked for at a time
		contents[fmt.Sprintf("a%02d", i)] = []int{100000, 2 << 20}[i%2] + i
	}
	for name, other := range map[string]func(lost, late *peerlanetest.Sessions) transfer.Dialer{
		"the other is looked for": func(_, late *peerlanetest.Sessions) transfer.Dialer {
			return at(late.Alice, time.Now().Add(time.Minute))
		},
		"the other was lost": func(lost, late *peerlanetest.Sessions) transfer.Dialer {
			first, next := at(lost.Alice, time.Now().Add(650*time.Millisecond)), at(late.Alice, time.Now().Add(time.Minute))
			time.AfterFunc(653*time.Millisecond, lost.Links()[0].Freeze) // between the asking of the one that lacks, and its answer
			time.AfterFunc(10*time.Second, func() { _, _ = lost.Alice.Close(), lost.Bob.Close() })
			return func(ctx context.Context) (*session.Session, error) {
				if lost.Alice.Context().Err() == nil {
					return first(ctx)
				}
				return next(ctx)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := write(t, contents), t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				tree, lost, late := hashedTree(t, from), newPair(t), newPair(t)
				some := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: 100 * time.Millisecond})
				serveRogue(t, some, lacker{tree, from, func(path string) bool { return strings.HasPrefix(path, "tree/a") }}.serve)
				_, ref := shared(t, lost, tree, transfer.Options{})
				shared(t, late, tree, transfer.Options{})
				got := transfer.Fetch(t.Context(), []transfer.Dialer{other(lost, late), always(some.Alice)}, ref, to, nil)
				time.Sleep(30 * time.Second) // in virtual time
				require.FileExists(t, filepath.Join(to, "tree/y"))
				require.FileExists(t, filepath.Join(to, "tree/z"))
				result, err := got.Wait()
				require.NoError(t, err)
				require.Empty(t, result.Failed)
			})
			same(t, from, filepath.Join(to, "tree"))
		})
	}
}

func TestAFileThatNoSourceHasAnyMoreFailsAlone(t *testing.T) {
	from, lacking, to := twins(t)
	synctest.Test(t, func(t *testing.T) {
		has, lacks := hashedTree(t, from), hashedTree(t, lacking)
		require.NoError(t, os.Remove(filepath.Join(lacking, "b")))
		dying, staying := newPair(t), newPair(t)
		first, ref := shared(t, dying, has, transfer.Options{Rate: 1 << 20})
		second, _ := shared(t, staying, lacks, transfer.Options{})
		time.AfterFunc(2*time.Second, func() {
			_, _ = dying.Alice.Close(), dying.Bob.Close() // and its Dialer has no other session
		})
		ctx, cancel := context.WithTimeout(t.Context(), hour)
		defer cancel()
		o := transfer.ReceiveOptions{Options: transfer.Options{ResumeWindow: 10 * time.Second}}
		result, err := transfer.Fetch(ctx, []transfer.Dialer{first, second}, ref, to, &o).Wait()
		require.NoError(t, ctx.Err())
		require.Equal(t, transfer.CodeSourceChanged, transfer.CodeOf(err), "%v", err)
		require.Len(t, result.Failed, 1)
		require.Equal(t, "tree/b", result.Failed[0].Path)
		require.Equal(t, 2, result.Progress.FilesDone)
	})
	require.FileExists(t, filepath.Join(to, "tree/a"))
	require.NoFileExists(t, filepath.Join(to, "tree/b"))
	require.FileExists(t, filepath.Join(to, "tree/c"))
}

func TestASourceThatCannotBeReachedHoldsNobodyUp(t *testing.T) {
	from, to := write(t, few), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tree := hashedTree(t, from)
		first, ref := shared(t, newPair(t), tree, transfer.Options{})
		never := func(ctx context.Context) (*session.Session, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		frozen := newPair(t)
		frozen.Links()[0].Freeze()
		began := time.Now()
		_, err := transfer.Fetch(t.Context(), []transfer.Dialer{never, first, always(frozen.Alice)}, ref, to, nil).Wait()
		require.NoError(t, err)
		require.Less(t, time.Since(began), 5*time.Second)
	})
	same(t, from, filepath.Join(to, "tree"))
}

func TestAPieceThatTwoSourcesBringIsNoBreachOfEither(t *testing.T) {
	// The liar has stolen from the slow one, and the slow one's copy comes when the liar's was thrown away.
	from, to := write(t, content{"large": 8 << 20}), t.TempDir()
	for seed := range 8 {
		synctest.Test(t, func(t *testing.T) {
			tree := hashedTree(t, from)
			slow := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Duration(seed) * 3 * time.Millisecond})
			first, ref := shared(t, slow, tree, transfer.Options{Rate: 8 << 20})
			var mu sync.Mutex
			var kinds []transfer.Event
			o := transfer.ReceiveOptions{Options: transfer.Options{ResumeWindow: -1, OnEvent: func(e transfer.Event) {
				mu.Lock()
				defer mu.Unlock()
				kinds = append(kinds, e)
			}}}
			late := liar(t, newPair(t), tree)
			dial := func(ctx context.Context) (*session.Session, error) {
				select {
				case <-time.After(time.Duration(seed) * 50 * time.Millisecond):
				case <-ctx.Done():
				}
				return late(ctx)
			}
			ctx, cancel := context.WithTimeout(t.Context(), hour)
			defer cancel()
			_, err := transfer.Fetch(ctx, []transfer.Dialer{first, dial}, ref, to, &o).Wait()
			require.NoError(t, err, "%v: %v", seed, kinds)
		})
		same(t, from, filepath.Join(to, "tree"))
		require.NoError(t, os.RemoveAll(filepath.Join(to, "tree")))
	}
}
