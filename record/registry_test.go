package record

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// opened returns a stream called who at a peer that only listens, and the peer's end of its conn.
func opened(t *testing.T, who identity, opts *Options) (*Stream, *faultnet.Conn) {
	t.Helper()
	near, far := newLink()
	_, err := far.Write(rawHello(helloOpen).append(nil))
	require.NoError(t, err)
	s, err := accept(t.Context(), near, who, opts)
	require.NoError(t, err)
	require.Equal(t, who, identity{s.Name(), s.Peer()})
	return s, far
}

// However a stream ends, it is gone from the list when it is done.
// Claim: record.Snapshot.Err
func TestRegistryListsWhatIsOpen(t *testing.T) {
	for name, end := range map[string]func(s *Stream, far *faultnet.Conn) error{
		"Close":          func(s *Stream, _ *faultnet.Conn) error { _ = s.Close(); return ErrClosed },
		"CloseWithError": func(s *Stream, _ *faultnet.Conn) error { _ = s.CloseWithError(256, ""); return ErrClosed },
		"the peer's end": func(_ *Stream, far *faultnet.Conn) error { _ = far.Close(); return io.ErrUnexpectedEOF },
		"a reset":        func(_ *Stream, far *faultnet.Conn) error { far.Link().Cut(); return syscall.ECONNRESET },
		"a breach":       func(_ *Stream, far *faultnet.Conn) error { _, _ = far.Write([]byte("not a frame")); return ErrProtocol },
		"the peer's CLOSE": func(_ *Stream, far *faultnet.Conn) error {
			_, _ = far.Write(appendClose(nil, codeBusy, ""))
			return ErrBusy
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := new(Registry)
			require.Empty(t, r.Snapshots())
			s, far := opened(t, identity{"orders", "bob"}, &Options{Registry: r})
			require.Len(t, r.Snapshots(), 1, name)
			require.Equal(t, s.Snapshot(), r.Snapshots()[0], name)
			want := end(s, far)
			<-s.Done()
			require.Empty(t, r.Snapshots(), name)
			require.ErrorIs(t, s.Snapshot().Err, want, name)
			_ = far.Close()
		})
	}
}

// Streams are listed by what they are, not by what they are called: the end of one takes no other off the list (as it did in the
// system before this one).
// Claim: record.Options.Registry
func TestRegistryListsStreamsOfTheSameNameApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(Registry)
		opts := &Options{Registry: r}
		first, end1 := opened(t, identity{"orders", "bob"}, opts)
		second, end2 := opened(t, identity{"orders", "bob"}, opts)
		all := r.Snapshots()
		require.Len(t, all, 2)
		require.Less(t, all[0].ID, all[1].ID)
		require.Equal(t, []string{"orders", "bob", "orders", "bob"}, []string{all[0].Name, all[0].Peer, all[1].Name, all[1].Peer})
		require.NoError(t, first.Close())
		require.NoError(t, first.Close(), "again")
		require.Equal(t, []Snapshot{second.Snapshot()}, r.Snapshots())
		third, end3 := opened(t, identity{"orders", "bob"}, opts)
		require.NoError(t, second.Close())
		require.Equal(t, []Snapshot{third.Snapshot()}, r.Snapshots())
		require.NoError(t, third.Close())
		require.Empty(t, r.Snapshots())
		for _, c := range []net.Conn{end1, end2, end3} {
			_ = c.Close()
		}
	})
}

func TestRegistrySortsByPeerNameAndAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(Registry)
		for _, who := range []identity{{"b", "x"}, {"a", "y"}, {"a", "x"}, {"b", "x"}, {"a", "x"}} {
			time.Sleep(time.Second)
			s, far := opened(t, who, &Options{Registry: r})
			defer func() { _, _ = s.Close(), far.Close() }()
		}
		var got []identity
		var last Snapshot
		for _, s := range r.Snapshots() {
			if s.Name == last.Name && s.Peer == last.Peer {
				require.Less(t, last.ID, s.ID)
				require.True(t, last.Opened.Before(s.Opened))
			}
			got, last = append(got, identity{s.Name, s.Peer}), s
		}
		require.Equal(t, []identity{{"a", "x"}, {"a", "x"}, {"b", "x"}, {"b", "x"}, {"a", "y"}}, got)
	})
}

func TestRegistryMayBeNil(t *testing.T) {
	var r *Registry
	r.add(nil)
	r.remove(nil)
	require.Nil(t, r.Snapshots())
}

// A stream that never comes about is never listed.
func TestRegistryListsNoStreamThatFailedToOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(Registry)
		o := begun(t, OpenConn, t.Context(), &Options{Registry: r})
		synctest.Wait()
		require.Empty(t, r.Snapshots(), "not yet")
		o.says(appendRefusal(nil, codeBusy, ""))
		o.failed(ErrBusy)
		require.Empty(t, r.Snapshots())
	})
}

// Snapshots may be taken while streams come, work and go.
func TestRegistryIsSafeForConcurrentUse(t *testing.T) {
	r := new(Registry)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				near, far := newLink()
				_, _ = far.Write(rawHello(helloOpen).append(nil))
				s, err := AcceptConn(context.Background(), near, &Options{Registry: r})
				if err != nil {
					panic(err)
				}
				_, _ = s.WriteRecord(context.Background(), []byte("x"))
				for _, snapshot := range r.Snapshots() {
					if snapshot.ID == 0 || snapshot.Written > 1 {
						panic(snapshot)
					}
				}
				_ = s.Close()
				_ = far.Close()
			}
		})
	}
	all.Wait()
	require.Empty(t, r.Snapshots())
}
