package transfer

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/source"
)

func newTestService(t *testing.T, cfg *ServiceConfig) *Service {
	t.Helper()
	v, err := NewService(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v
}

// emptyTree is a tree of one empty folder.
func emptyTree(t *testing.T) *source.Tree {
	t.Helper()
	tree, err := source.Walk(t.Context(), []string{t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tree.Close()) })
	return tree
}

func TestASecondPushOfATreeEndsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestService(t, nil)
		k := pushKey{"alice", [32]byte{1}}
		first, cancel := context.WithCancelCause(t.Context())
		leave, err := v.takePlace(first, k, cancel)
		require.NoError(t, err)

		other, err := v.takePlace(t.Context(), pushKey{"alice", [32]byte{2}}, nil)
		require.NoError(t, err, "another tree")
		other()
		other, err = v.takePlace(t.Context(), pushKey{"carol", [32]byte{1}}, nil)
		require.NoError(t, err, "another peer")
		other()
		require.NoError(t, first.Err())

		taken := false
		over := make(chan func())
		go func() {
			leave, err := v.takePlace(t.Context(), k, nil)
			if err != nil {
				t.Error(err)
			}
			taken = true
			over <- leave
		}()
		synctest.Wait()
		require.Equal(t, CodeLost, CodeOf(context.Cause(first)), "the peer has begun again")
		require.False(t, taken, "the first one is not over")
		leave()
		(<-over)()
		require.Empty(t, v.pushes)
	})
}

func TestAPushThatWaitsForItsPlaceCanBeStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newTestService(t, nil)
		k := pushKey{"alice", [32]byte{1}}
		leave, err := v.takePlace(t.Context(), k, func(error) {})
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := &Error{Code: CodeCanceled}
		time.AfterFunc(time.Second, func() { cancel(why) })
		_, err = v.takePlace(ctx, k, nil)
		require.Equal(t, error(why), err)
		leave()
	})
}

func TestAShareIsForWhoShowsItsToken(t *testing.T) {
	v := newTestService(t, nil)
	tree := emptyTree(t)
	one, err := v.Share(tree, &ShareOptions{Token: []byte("one")})
	require.NoError(t, err)
	many, err := v.Share(tree, &ShareOptions{Token: []byte("many"), Many: true, Name: "other"})
	require.NoError(t, err)
	none, err := v.Share(tree, &ShareOptions{Token: []byte{}})
	require.NoError(t, err)
	root := one.Ref().Root
	get := func(token string) wire.Get { return wire.Get{Root: root, Token: []byte(token)} }

	require.Same(t, one, v.find(get("one"), "alice"))
	require.Nil(t, v.find(get("one"), "carol"), "it is the first peer's")
	require.Same(t, one, v.find(get("one"), "alice"), "any number of times")
	require.Same(t, many, v.find(get("many"), "alice"))
	require.Same(t, many, v.find(get("many"), "carol"))
	require.Same(t, none, v.find(get(""), "carol"))
	require.Nil(t, v.find(get("on"), "alice"))
	require.Nil(t, v.find(wire.Get{Root: [32]byte{1}, Token: []byte("one")}, "alice"))

	one.Close()
	one.Close()
	require.Nil(t, v.find(get("one"), "alice"))
	require.Same(t, many, v.find(get("many"), "alice"), "the others stay")
	many.Close()
	none.Close()
	require.Empty(t, v.shares)
	require.Equal(t, CodeCanceled, CodeOf(context.Cause(one.ctx)))
}

func TestTokensAreCopiesAndRandomUnlessGiven(t *testing.T) {
	v := newTestService(t, nil)
	tree := emptyTree(t)
	token := []byte("mine")
	s, err := v.Share(tree, &ShareOptions{Token: token})
	require.NoError(t, err)
	token[0] = 'x'
	require.Equal(t, []byte("mine"), s.Ref().Token)
	s.Ref().Token[0] = 'x'
	require.Equal(t, []byte("mine"), s.Ref().Token)

	first, err := v.Share(tree, nil)
	require.NoError(t, err)
	second, err := v.Share(tree, nil)
	require.NoError(t, err)
	require.Len(t, first.Ref().Token, 16)
	require.False(t, bytes.Equal(first.Ref().Token, second.Ref().Token))
	require.Equal(t, first.Ref().ID(), second.Ref().ID(), "of one tree")
	require.Len(t, first.Ref().ID(), 32)
	root, err := tree.Root()
	require.NoError(t, err)
	require.Equal(t, root, first.Ref().Root)

	_, err = v.Share(nil, nil)
	require.ErrorContains(t, err, "tree is nil")
	_, err = v.Share(tree, &ShareOptions{Token: make([]byte, 65)})
	require.Equal(t, CodeInvalid, CodeOf(err))
}

func TestLanesJoinTheirTransferAlone(t *testing.T) {
	v := newTestService(t, nil)
	in := incomingLink{v: v, key: joinKey{"alice", wire.ID{1}}}
	leave, err := in.join(t.Context(), func(context.Context, *bulk.Lane, <-chan struct{}) {})
	require.NoError(t, err)
	_, err = in.join(t.Context(), nil)
	require.Equal(t, CodeProtocol, CodeOf(err), "a second transfer with the same id")
	other := incomingLink{v: v, key: joinKey{"carol", wire.ID{1}}}
	leaveToo, err := other.join(t.Context(), nil)
	require.NoError(t, err, "ids are of a peer")
	leave()
	leaveToo()
	require.Empty(t, v.joins)
}

func TestCloseWaitsForTheHandlersThatRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := NewService(nil)
		require.NoError(t, err)
		end := v.runs()
		closed := make(chan struct{})
		go func() {
			_ = v.Close()
			close(closed)
		}()
		synctest.Wait()
		late := v.runs() // a peer goes on opening streams
		time.Sleep(linger + time.Second)
		v.runs() // which is not waited for
		end()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("one that began in time still runs")
		default:
		}
		late()
		<-closed
		require.Equal(t, CodeCanceled, CodeOf(context.Cause(v.ctx)))
	})
}

func TestARegistryListsWhatRuns(t *testing.T) {
	var r Registry
	require.Empty(t, r.Snapshots())
	o := Options{Registry: &r}.withDefaults()
	first, _ := newTransfer(sends, "alice", o)
	second, _ := newTransfer(receives, "bob", o)
	second.listed("tree", [32]byte{0xab})
	all := r.Snapshots()
	require.Len(t, all, 2)
	require.Equal(t, "alice", all[0].Peer, "the oldest is first")
	require.Less(t, all[0].Number, all[1].Number)
	require.True(t, all[1].Receiving)
	require.False(t, all[0].Receiving)
	require.Equal(t, "tree", all[1].Name)
	require.Equal(t, "ab000000000000000000000000000000", all[1].ID)
	require.NoError(t, all[1].Err)
	first.end(nil)
	require.Len(t, r.Snapshots(), 1)
	second.end(&Error{Code: CodeLost})
	require.Empty(t, r.Snapshots())
	require.Equal(t, CodeLost, CodeOf(second.Snapshot().Err))
	require.Empty(t, (*Registry)(nil).Snapshots())
}

// A session lists a transfer that runs on it, until the transfer is over or has left the session.
func TestASessionListsItsTransfers(t *testing.T) {
	p := peerlanetest.NewSessions(t, nil)
	lanes := func() []any { return p.Alice.ForDiagnostics().State().Lanes }
	tr, _ := newTransfer(sends, "bob", Options{}.withDefaults())
	off := tr.on(p.Alice)
	require.Len(t, lanes(), 1)
	require.Equal(t, tr.Snapshot().Number, lanes()[0].(Snapshot).Number)
	off()
	require.Empty(t, lanes())
	off = tr.on(p.Alice)
	tr.end(nil)
	require.Empty(t, lanes(), "it is over, though it has not left yet")
	off()
}

func TestARegistryIsForManyGoroutines(t *testing.T) {
	var r Registry
	o := Options{Registry: &r}.withDefaults()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				tr, _ := newTransfer(sends, "x", o)
				tr.fileFailed(&Error{Path: "a"})
				r.Snapshots()
				tr.end(nil)
			}
		})
	}
	all.Wait()
	require.Empty(t, r.Snapshots())
}

func TestAFileFailsOnce(t *testing.T) {
	var events []Event
	tr, _ := newTransfer(sends, "bob", Options{OnEvent: func(e Event) { events = append(events, e) }}.withDefaults())
	tr.fileFailed(&Error{Path: "a", Peer: "bob", Code: CodeIO})
	tr.fileFailed(&Error{Path: "a", Peer: "bob", Code: CodeSourceChanged})
	tr.fileFailed(&Error{Path: "b", Code: CodeIO})
	tr.leftOut(2, "2 symlinks")
	tr.leftOut(1, "1 symlink")
	tr.end(nil)
	r, err := tr.Wait()
	require.Equal(t, error(r.Failed[0]), err, "the error is that of the first file")
	require.Len(t, r.Failed, 2)
	require.Equal(t, 2, r.Progress.FilesBad)
	require.Len(t, events, 2)
	require.Equal(t, 2, r.LeftOut, "with several senders, the largest number")
	require.Equal(t, "2 symlinks", r.LeftOutText)
	require.Equal(t, PhaseDone, r.Progress.Phase)
}

func TestWatchEndsWithTheTransferItsContextOrItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _ := newTransfer(sends, "bob", Options{}.withDefaults())
		n := 0
		for range tr.Watch(t.Context(), time.Minute) {
			if n++; n == 3 {
				break
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		for range tr.Watch(ctx, time.Minute) {
			n++
		}
		require.Equal(t, 3+2, n)
		time.AfterFunc(5500*time.Millisecond, func() { tr.end(nil) })
		var last Progress
		began := time.Now()
		for last = range tr.Watch(t.Context(), 0) { // each second
			n++
		}
		require.Equal(t, PhaseDone, last.Phase)
		require.Equal(t, 5500*time.Millisecond, time.Since(began))
		require.Equal(t, 3+2+6+1, n)
	})
}
