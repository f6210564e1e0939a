package bulk

import (
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// What lanes in blocks hold for a peer is in the peer's share, whether this side does not read, or the peer does not. The rest waits, and arrives
// once the other side reads, in order.
func TestLanesInBlocksAreInTheQuota(t *testing.T) {
	for name, opts := range map[string]*Options{
		"strands":    {Mode: Dedicated, Strands: 4},
		"compressed": {Mode: Dedicated, Strands: 4, Compress: true},
	} {
		for _, inward := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testLanesInTheQuota(t, opts, inward) })
			})
		}
	}
}

func testLanesInTheQuota(t *testing.T, opts *Options, inward bool) {
	const limit, lanes, size = 6 << 20, 6, 4 << 20
	quota := &session.Quota{MaxBytes: limit}
	p := newPair(t, peerlanetest.SessionsOptions{Accept: &session.AcceptorConfig{Config: session.Config{Quota: quota}}}, session.Config{})
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.IntN(16)) // shrinks
	}
	var all sync.WaitGroup
	send := func(l *Lane) {
		_, err := l.Write(data)
		require.NoError(t, err)
		require.NoError(t, l.CloseWrite())
	}
	receive := func(l *Lane) {
		got, err := io.ReadAll(l)
		require.NoError(t, err)
		require.Equal(t, size, len(got))
		require.Equal(t, data, got)
	}
	read := make(chan struct{})
	all.Add(lanes)
	Handle(p.ToBob, "lane", nil, func(l *Lane) {
		if inward {
			<-read
			receive(l)
		} else {
			send(l)
		}
		all.Done()
		_, _ = io.Copy(io.Discard, l)
	})
	for range lanes {
		l, err := Open(t.Context(), p.Alice, "lane", opts)
		require.NoError(t, err)
		all.Go(func() {
			if inward {
				send(l)
			} else {
				<-read
				receive(l)
			}
			require.NoError(t, l.Close())
		})
	}
	time.Sleep(20 * time.Second)
	require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
	require.Greater(t, quota.Snapshot().Bytes, int64(limit/3))
	close(read)
	all.Wait()
	time.Sleep(10 * time.Second)
	require.Zero(t, quota.Snapshot().Bytes)
}

// Lanes that wait for room end with Close, with Abort, and with their session, and nothing stays counted. A block that nobody reads any more
// needs no room.
func TestLanesThatWaitForRoomEnd(t *testing.T) {
	for name, end := range map[string]func(*pair, *Lane){
		"close":   func(_ *pair, l *Lane) { _ = l.Close() },
		"abort":   func(_ *pair, l *Lane) { _ = l.Abort(0) },
		"session": func(p *pair, _ *Lane) { p.Bob.Abort() },
		"deaf": func(_ *pair, l *Lane) {
			_ = l.CloseRead()
			time.Sleep(time.Second)
			_ = l.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				quota := &session.Quota{MaxBytes: 1 << 20}
				p := newPair(t, peerlanetest.SessionsOptions{Accept: &session.AcceptorConfig{Config: session.Config{Quota: quota}}}, session.Config{})
				here, there := p.lanes(t, &Options{Mode: Dedicated, Strands: 4})
				go func() { _, _ = here.Write(make([]byte, 8<<20)) }()
				go func() { _, _ = there.Write(make([]byte, 8<<20)) }()
				time.Sleep(10 * time.Second)
				require.Greater(t, quota.Snapshot().Bytes, int64(bufferSize))
				end(p, there)
				_ = here.Abort(0)
				_ = there.Close() // as its handler does when it returns
				time.Sleep(time.Minute)
				require.Zero(t, quota.Snapshot().Bytes)
			})
		})
	}
}
