package slowlink

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/oldsession"
	"github.com/peerlane/peerlane/session"
)

// A peer of before acknowledges only what it is asked to: this side asks often enough on a slow link.
func TestASlowLinkToAnOldPeerLosesNothing(t *testing.T) {
	for _, lane := range []string{"call", "one-way", "shared", "dedicated", "resumable"} {
		for _, rate := range []int{8, 64, 400} {
			for _, heartbeat := range []time.Duration{2 * time.Second, 5 * time.Second} {
				for _, dials := range []bool{true, false} {
					c := cell{name: lane, rate: rate * kib, heartbeat: heartbeat, rtt: 600 * time.Millisecond}
					own := lane == "dedicated" || lane == "resumable"
					if own && !dials {
						continue // only who has dialed opens one
					}
					if own && time.Duration(c.queue())*time.Second/time.Duration(c.rate)+c.rtt >= 3*heartbeat/4 {
						continue // its session's heartbeat does not count what comes beside it, and the answer to its PING is behind that
					}
					name := fmt.Sprintf("%s to an old peer, %d KiB per s, heartbeat %v, dials %v", lane, rate, heartbeat, dials)
					t.Run(name, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { c.toOld(t, dials) })
					})
				}
			}
		}
	}
}

// toOld sends the bytes of a cell to an old peer, which has dialed or was dialed.
func (c cell) toOld(t *testing.T, dials bool) {
	began := time.Now()
	var lost atomic.Int32
	cfg := session.Config{Local: "new", Heartbeat: c.heartbeat, RequestTimeout: -1, OnState: func(_ *session.Session, change session.StateChange) {
		if change.State == session.StateDetached {
			lost.Add(1)
			t.Errorf("%v: after %v: %v", c, time.Since(began), change.Err)
		}
	}}
	read := make(chan int64, 1)
	old := oldsession.Config{
		Local: "old", Heartbeat: c.heartbeat, NoZstd: true,
		OnCall:    func(context.Context, string, []byte) ([]byte, error) { return nil, nil },
		OnMessage: func(string, []byte) error { return nil },
		OnStream: func(st *oldsession.Stream) {
			n, _ := io.Copy(io.Discard, st)
			read <- n
		},
	}
	opts := faultnet.LinkOptions{Road: faultnet.NewRoad(c.rate, c.queue()), Delay: c.rtt / 2, Buffer: 400 * kib}
	var serving sync.WaitGroup
	opener := func(serve func(net.Conn)) func(context.Context) (net.Conn, error) {
		return func(context.Context) (net.Conn, error) {
			here, there := faultnet.Pipe(opts)
			serving.Go(func() { serve(there) })
			return here, nil
		}
	}
	var s *session.Session
	if dials {
		a := oldsession.NewAcceptor(old, nil)
		open := opener(func(conn net.Conn) { _ = a.Serve(conn, "new") })
		first, err := open(t.Context())
		require.NoError(t, err)
		s, err = session.Dial(t.Context(), first, "old", func(ctx context.Context, _ session.Want) (net.Conn, error) { return open(ctx) }, &cfg)
		require.NoError(t, err)
	} else {
		opened := make(chan *session.Session, 1)
		a, err := session.NewAcceptor(&session.AcceptorConfig{Config: cfg, OnSession: func(s *session.Session) { opened <- s }})
		require.NoError(t, err)
		open := opener(func(conn net.Conn) { _ = a.Serve(conn, "old") })
		first, err := open(t.Context())
		require.NoError(t, err)
		peer, err := oldsession.Dial(first, "new", open, old)
		require.NoError(t, err)
		defer peer.Wait()
		defer peer.Close()
		s = <-opened
	}
	data := body(c.size())
	switch c.name {
	case "call":
		_, err := s.Call(t.Context(), "", data)
		require.NoError(t, err)
	case "one-way":
		for range c.size() / (64 * kib) {
			require.NoError(t, s.Send(t.Context(), "", data[:64*kib]))
		}
		require.NoError(t, s.Flush(t.Context()))
	default:
		st, err := s.OpenStream(t.Context(), "stream", &session.StreamOptions{Dedicated: c.name != "shared", Resumable: c.name == "resumable"})
		require.NoError(t, err)
		_, err = st.Write(data)
		require.NoError(t, err)
		require.NoError(t, st.CloseWrite())
		require.EqualValues(t, len(data), <-read)
		_ = st.Close()
	}
	require.Zero(t, lost.Load())
	_ = s.Close()
	serving.Wait()
}
