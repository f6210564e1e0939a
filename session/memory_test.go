package session

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// A hoarder is a raw peer with a session that outlives its carrier. It reads all that comes, and acknowledges nothing.
type hoarder struct {
	conn net.Conn
	id   uint64 // of its last request
}

// hoard opens a session of a hoarder.
func (c *guests) hoard(peer, subnet string) *hoarder {
	c.t.Helper()
	here, there := faultnet.Pipe(faultnet.LinkOptions{Buffer: 1 << 20})
	go func() { _ = c.acceptor.Serve(from{there, subnet}, peer) }()
	ack := sayHello(c.t, here, &frame.Hello{Role: frame.RoleSession, Limits: &generous, Caps: frame.CapResume, ResumeWindow: 60_000})
	require.Equal(c.t, frame.KindAck, ack.Kind)
	go func() { _, _ = io.Copy(io.Discard, here) }()
	_, _ = here.Write(segment(segStart, 0, 0, ""))
	c.t.Cleanup(func() { _ = here.Close() })
	return &hoarder{conn: here}
}

// request sends a request.
func (h *hoarder) request(link, body string) {
	if h.id++; h.id > 1 {
		h.id++
	}
	p := start(frame.TypeRequest, 0, frame.Start{Link: link, Total: len(body)}, []byte(body))
	f := frame.AppendHeader(nil, frame.Header{Type: frame.TypeRequest, ID: h.id, Length: len(p)})
	f = append(f, p...)
	_, _ = h.conn.Write(segment(segData, len(f), 0, string(f)))
}

// kept returns what all sessions keep to send again, in bytes.
func (c *guests) kept() (total int) {
	for _, s := range c.acceptor.Sessions() {
		n, _ := s.carriers.flow.Kept()
		total += n
	}
	return total
}

// replies makes a Mux whose link "big" replies with as many bytes as the request says.
func replies() *Mux {
	m := NewMux()
	m.SetCall(echo)
	m.SetLink("big", func(m *Message) { _ = m.Reply(make([]byte, binary.BigEndian.Uint32(m.Value))) })
	return m
}

func bytesOf(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

// What sessions keep to send again is in the quota, whether one peer acknowledges nothing on many sessions, or many peers do. Other peers have
// their replies meanwhile, over a session that outlives its carrier too.
func TestWhatIsKeptToSendAgainIsBounded(t *testing.T) {
	for _, peers := range []int{1, 8} {
		inBubble(t, func(t *testing.T) {
			const limit, sessions = 32 << 20, 64
			c := newGuests(t, Config{Quota: &Quota{MaxBytes: limit}, Mux: replies(), Heartbeat: -1, DisableCompression: true})
			for i := range sessions {
				h := c.hoard(fmt.Sprint("mallory ", i%peers), "bad")
				for range 15 {
					h.request("big", bytesOf(64<<10))
					synctest.Wait()
				}
			}
			require.LessOrEqual(t, c.quota.Snapshot().Bytes, int64(limit))
			require.Greater(t, c.kept(), limit/4)
			require.LessOrEqual(t, c.kept(), int(c.quota.Snapshot().Bytes)+sessions*4<<10)
			s := c.dialResumable("alice", "good")
			for range 20 {
				got, err := s.Call(within(t, 10*time.Second), "big", []byte(bytesOf(64<<10)))
				require.NoError(t, err)
				require.Len(t, got, 64<<10)
			}
			require.LessOrEqual(t, c.quota.Snapshot().Bytes, int64(limit))
			require.NoError(t, s.Close())
			for _, s := range c.acceptor.Sessions() {
				s.Abort()
			}
			synctest.Wait()
			require.Zero(t, c.quota.Snapshot().Bytes)
		})
	}
}

// The replies to calls of this side are in the quota of the peer that sends them, from their first part until the caller has them. One that
// there is no room for ends its call alone.
func TestRepliesToCallsBackAreBounded(t *testing.T) {
	for _, packed := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			const limit, calls, size, part = 1 << 20, 20, 128 << 10, 60 << 10
			quota := &Quota{MaxBytes: limit}
			w := accepted(t, AcceptorConfig{Config: Config{Quota: quota, RequestTimeout: -1}}, frame.CapZstd, generous)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			errs := make(chan error, calls)
			id := uint64(0)
			call := func(ctx context.Context) uint64 {
				go func() {
					_, err := w.s.Call(ctx, "x", nil)
					errs <- err
				}()
				synctest.Wait()
				id += 2
				return id
			}
			var flags frame.Flags
			head := frame.Start{Total: size}
			if packed { // what comes is no zstd frame, which shows only when it is whole
				flags, head.Raw = frame.FlagCompressed, 2*size
			}
			for range calls {
				w.send(frame.TypeResponse, flags, call(ctx), start(frame.TypeResponse, flags, head, make([]byte, part)))
				synctest.Wait()
			}
			require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
			had := int(quota.Snapshot().Bytes) / part
			require.Greater(t, had, calls/2)
			require.Len(t, errs, calls-had)
			for range calls - had {
				e := asError(t, <-errs, Delivered)
				require.ErrorIs(t, e, ErrUnavailable)
				require.Equal(t, retryHint, e.RetryAfter)
				require.ErrorContains(t, e, "no memory")
			}
			cancel()
			for range had {
				require.ErrorIs(t, <-errs, context.Canceled)
			}
			wantZero(t, w.s)
			small, ok := frame.Compress(make([]byte, size))
			require.True(t, ok)
			w.send(frame.TypeResponse, frame.FlagCompressed, call(t.Context()),
				start(frame.TypeResponse, frame.FlagCompressed, frame.Start{Total: len(small), Raw: size}, small))
			require.NoError(t, <-errs)
			wantZero(t, w.s)
		})
	}
}

// A reply counts unpacked, too, when it is unpacked.
func TestAReplyThatUnpacksBeyondTheQuotaIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := &Quota{MaxBytes: 1 << 20}
		w := accepted(t, AcceptorConfig{Config: Config{Quota: quota}}, frame.CapZstd, generous)
		require.NoError(t, w.s.part.Take(0, 600<<10))
		errs := make(chan error, 1)
		go func() {
			_, err := w.s.Call(t.Context(), "x", nil)
			errs <- err
		}()
		small, ok := frame.Compress(make([]byte, 500<<10))
		require.True(t, ok)
		w.send(frame.TypeResponse, frame.FlagCompressed, w.want(frame.TypeRequest, 2).ID,
			start(frame.TypeResponse, frame.FlagCompressed, frame.Start{Total: len(small), Raw: 500 << 10}, small))
		require.ErrorIs(t, <-errs, ErrUnavailable)
		w.s.part.Release(0, 600<<10)
		wantZero(t, w.s)
	})
}

// What a peer replies to calls on a session of this side counts nowhere.
func TestRepliesOnASessionOfThisSideAreNotCounted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := &Quota{MaxBytes: 1 << 10}
		p := newPair(t, Config{Quota: quota}, AcceptorConfig{})
		p.mux.SetCall(echo)
		got, err := p.dialer.Call(t.Context(), "", make([]byte, 100<<10))
		require.NoError(t, err)
		require.Len(t, got, 100<<10)
		require.Zero(t, quota.Snapshot().Refused)
	})
}

// What resumable streams hold for their application is in the quota. Data that it has no room for ends its stream, which the peer learns with a
// reason, and the others go on.
func TestResumableStreamsThatNobodyReadsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit, streams, size = 4 << 20, 8, 1 << 20
		quota := &Quota{MaxBytes: limit}
		r := newStreamRoad(t, Config{}, AcceptorConfig{Config: Config{Quota: quota}}, faultnet.LinkOptions{})
		read := make(chan struct{})
		got := make(chan int, streams)
		r.mux.SetStream("x", func(st *Stream) {
			<-read
			b, _ := io.ReadAll(st)
			got <- len(b)
		})
		wrote := make(chan error, streams)
		for range streams {
			st := r.openStream("x")
			go func() {
				_, err := st.Write(make([]byte, size))
				if err == nil {
					err = st.CloseWrite()
				}
				wrote <- err
			}()
			synctest.Wait()
		}
		time.Sleep(10 * time.Second)
		require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
		require.Greater(t, quota.Snapshot().Bytes, int64(limit/2))
		failed := 0
		for len(wrote) > 0 {
			if err := <-wrote; err != nil {
				require.ErrorIs(t, err, ErrUnavailable)
				failed++
			}
		}
		require.Positive(t, failed)
		require.Less(t, failed, streams-2)
		close(read)
		whole := 0
		for range streams {
			if <-got == size {
				whole++
			}
		}
		require.GreaterOrEqual(t, whole, streams-failed)
		time.Sleep(10 * time.Second)
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// What resumable streams keep to send again is in the quota. What it has no room for waits in Write, and arrives once the peer reads.
func TestResumableStreamsThatThePeerDoesNotReadAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit, streams, size = 4 << 20, 8, 3 << 20
		quota := &Quota{MaxBytes: limit}
		r := newStreamRoad(t, Config{}, AcceptorConfig{Config: Config{Quota: quota}}, faultnet.LinkOptions{})
		r.mux.SetStream("x", func(st *Stream) {
			_, err := st.Write(make([]byte, size))
			require.NoError(t, err)
		})
		var all []*Stream
		for range streams {
			all = append(all, r.openStream("x"))
		}
		time.Sleep(10 * time.Second)
		require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
		require.Greater(t, quota.Snapshot().Bytes, int64(limit/4))
		var reading sync.WaitGroup
		for _, st := range all {
			reading.Go(func() {
				n, err := io.Copy(io.Discard, st)
				require.NoError(t, err)
				require.EqualValues(t, size, n)
				require.NoError(t, st.Close())
			})
		}
		reading.Wait()
		time.Sleep(10 * time.Second)
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// What is left unread of a stream that has ended with its session is in the quota until the handler returns, also when that panics.
func TestUnreadStreamsOfAnEndedSessionCountUntilTheirHandlersReturn(t *testing.T) {
	for _, fails := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			quota := &Quota{MaxBytes: 4 << 20}
			r := newStreamRoad(t, Config{}, AcceptorConfig{Config: Config{Quota: quota}}, faultnet.LinkOptions{})
			read := make(chan struct{})
			r.mux.SetStream("x", func(*Stream) {
				<-read
				if fails {
					panic("it fails")
				}
			})
			st := r.openStream("x")
			_, err := st.Write(make([]byte, 500<<10))
			require.NoError(t, err)
			require.NoError(t, st.CloseWrite())
			time.Sleep(time.Second)
			require.NoError(t, r.dialer.Close())
			synctest.Wait()
			require.Greater(t, quota.Snapshot().Bytes, int64(500<<10))
			close(read)
			time.Sleep(10 * time.Second)
			require.Zero(t, quota.Snapshot().Bytes)
		})
	}
}

// A peer that leaves with much that it has not acknowledged does not keep the memory for as long as its sessions wait for it: others who find
// none get it back within seconds. Sessions whose handlers run, and those of peers that have less, stay.
func TestMemoryOfPeersThatHaveLeftIsGivenBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit, sessions = 32 << 20, 64
		mux := replies()
		running := make(chan struct{})
		mux.SetLink("slow", func(m *Message) {
			<-running
			_ = m.Reply(nil)
		})
		c := newGuests(t, Config{Quota: &Quota{MaxBytes: limit}, Mux: mux, Heartbeat: -1, DisableCompression: true})
		small := c.hoard("bob", "good")
		small.request("", "x")
		synctest.Wait()
		_ = small.conn.Close()
		var all []*hoarder
		for range sessions {
			h := c.hoard("mallory", "bad")
			all = append(all, h)
			for range 15 {
				h.request("big", bytesOf(64<<10))
				synctest.Wait()
			}
		}
		all[0].request("slow", "")
		synctest.Wait()
		for _, h := range all {
			_ = h.conn.Close()
		}
		synctest.Wait()
		require.Greater(t, c.quota.Snapshot().Bytes, int64(limit/2))
		s := c.dialResumable("alice", "elsewhere")
		body := make([]byte, limit/8)
		_, err := s.Call(t.Context(), "", body)
		require.ErrorIs(t, err, ErrUnavailable)
		began := time.Now()
		for err != nil && time.Since(began) < time.Minute {
			time.Sleep(asError(t, err, Rejected).RetryAfter)
			_, err = s.Call(t.Context(), "", body)
		}
		require.NoError(t, err)
		require.Less(t, time.Since(began), 5*time.Second)
		left := map[string]int{}
		for _, s := range c.acceptor.Sessions() {
			left[s.Peer()]++
		}
		require.Equal(t, 1, left["bob"], "it has less than alice")
		require.GreaterOrEqual(t, left["mallory"], 1, "its handler runs")
		require.Less(t, left["mallory"], sessions)
		close(running)
	})
}

// The answers that wait for a peer that does not read are in the quota, the short ones too. A peer that makes this side keep more of them than
// there is room for loses its session.
func TestControlFramesThatNobodyReadsAreInTheQuota(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 256 << 10
		quota := &Quota{MaxBytes: limit}
		w := deaf(t, AcceptorConfig{Config: Config{Quota: quota, Heartbeat: -1}}, 0, generous)
		for i := 0; w.s.Err() == nil && i < 20000; i++ {
			w.push(frame.TypeRequest, 0, uint64(1+2*i), start(frame.TypeRequest, 0, frame.Start{Link: "nobody"}, nil))
			require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
		}
		synctest.Wait()
		require.Error(t, w.s.Err())
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// A peer whose flows have to make do with less does not ask the quota, which all share, with every batch.
func TestAFlowDoesNotAskAgainAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := &Quota{MaxBytes: 1 << 20}
		part := quota.Hold("alice", "")
		defer part.Leave()
		m := (*memory)(part)
		require.NoError(t, part.Take(0, 800<<10))
		require.False(t, m.Take(136<<10))
		part.Release(0, 800<<10)
		require.False(t, m.Take(1))
		require.True(t, arrived{m}.Take(1), "what has come is asked about")
		time.Sleep(refusedFor)
		require.True(t, m.Take(1))
		require.True(t, m.Take(1))
		m.Give(3)
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// The one-way messages that wait for a peer that does not read are in the quota, whatever window the peer has announced. Sends wait for room, with
// their ctx, and go on once the peer acknowledges.
func TestMessagesThatThePeerDoesNotHandleAreInTheQuota(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit, size = 1 << 20, 50 << 10
		quota := &Quota{MaxBytes: limit}
		limits := generous
		limits.MessageWindow = 1 << 30
		w := deaf(t, AcceptorConfig{Config: Config{Quota: quota, Heartbeat: -1, WriteTimeout: time.Hour}}, 0, limits)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sent := 0
		var err error
		for err == nil {
			if err = w.s.Send(ctx, "x", make([]byte, size)); err == nil {
				sent++
			}
			require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
		}
		require.ErrorIs(t, asError(t, err, NotSent), context.DeadlineExceeded)
		require.Greater(t, sent*size, limit/2)
		require.LessOrEqual(t, sent*size, limit)
		others := make(chan error, 1)
		go func() { others <- w.s.Send(t.Context(), "x", make([]byte, size)) }()
		go w.listen()
		for synctest.Wait(); len(w.got) > 0; synctest.Wait() {
			<-w.got
		}
		w.push(frame.TypeMessageAck, 0, uint64(2*sent), nil)
		require.NoError(t, <-others)
		synctest.Wait()
		w.push(frame.TypeMessageAck, 0, uint64(2*sent+2), nil)
		synctest.Wait()
		require.Zero(t, quota.Snapshot().Bytes)
		require.NoError(t, w.s.Send(t.Context(), "x", make([]byte, size)))
		w.s.Abort()
		synctest.Wait()
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// A Send that the quota has no room for goes on when there is some, though nothing is under way that could be acknowledged.
func TestASendThatWaitsForTheQuotaGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := &Quota{MaxBytes: 1 << 20}
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{Quota: quota, DisableCompression: true}})
		got := make(chan int, 1)
		p.ours.SetLink("x", func(m *Message) { got <- len(m.Value) })
		require.NoError(t, p.accepted.part.Take(0, 850<<10))
		sent := make(chan error, 1)
		go func() { sent <- p.accepted.Send(t.Context(), "x", make([]byte, 100<<10)) }()
		time.Sleep(10 * time.Second)
		require.Empty(t, sent)
		p.accepted.part.Release(0, 850<<10)
		require.NoError(t, <-sent)
		require.Equal(t, 100<<10, <-got)
		require.NoError(t, p.accepted.Flush(t.Context()))
		wantZero(t, p.accepted)
	})
}
