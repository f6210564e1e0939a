package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// Row: N5, N7, D5, D18
// Claim: session.Config.Logger, session.ErrInternal, session.ErrNoReply, session.ErrReplied, session.Error.Text
// Claim: session.Error.Remote, session.Error.RetryAfter
func TestWhatAHandlerDoesIsWhatTheCallerLearns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var logged strings.Builder
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))}})
		call := func(link string) *Error {
			t.Helper()
			_, err := p.dialer.SendWait(t.Context(), link, []byte("x"))
			return asError(t, err, Delivered)
		}
		p.mux.SetLink("panics", func(*Message) { panic("boom") })
		err := call("panics")
		require.ErrorIs(t, err, ErrInternal)
		require.Contains(t, err.Text, "boom")
		require.Contains(t, logged.String(), "boom")

		p.mux.SetLink("exits", func(*Message) { runtime.Goexit() })
		require.ErrorIs(t, call("exits"), ErrNoReply)
		p.mux.SetLink("promises and exits", func(m *Message) {
			m.ReplyLater()
			runtime.Goexit()
		})
		require.ErrorIs(t, call("promises and exits"), ErrInternal)

		p.mux.SetLink("forgets", func(*Message) {})
		require.ErrorIs(t, call("forgets"), ErrNoReply)

		p.mux.SetLink("refuses", func(m *Message) {
			require.NoError(t, m.Refuse(errors.New("not today")))
			require.ErrorIs(t, m.Refuse(errors.New("again")), ErrReplied)
			require.ErrorIs(t, m.Reply(nil), ErrReplied)
		})
		err = call("refuses")
		require.Equal(t, "not today", err.Text)
		require.Equal(t, codes.Application, err.Code)
		require.True(t, err.Remote)

		p.mux.SetLink("busy", func(m *Message) {
			_ = m.Refuse(&Error{Code: codes.Unavailable, RetryAfter: 3 * time.Second, Text: "full"})
		})
		_, e := p.dialer.SendWait(t.Context(), "busy", nil)
		err = asError(t, e, Rejected)
		require.Equal(t, 3*time.Second, err.RetryAfter)
		require.True(t, err.Temporary())

		p.mux.SetCall(func(*Message) ([]byte, error) { return nil, io.ErrShortBuffer })
		_, e = p.dialer.Call(t.Context(), "", nil)
		require.Equal(t, io.ErrShortBuffer.Error(), asError(t, e, Delivered).Text)

		p.mux.SetLink("panics after", func(m *Message) {
			require.NoError(t, m.Reply([]byte("fine")))
			panic("late boom")
		})
		r, e := p.dialer.SendWait(t.Context(), "panics after", nil)
		require.NoError(t, e)
		require.Equal(t, "fine", string(r.Value))

		p.mux.SetLink("later", func(m *Message) {
			m.ReplyLater()
			go func() {
				time.Sleep(time.Second)
				require.NoError(t, m.Context().Err())
				require.NoError(t, m.Reply([]byte("later")))
				time.Sleep(time.Second)
				assert.Error(t, m.Context().Err())
			}()
		})
		r, e = p.dialer.SendWait(t.Context(), "later", nil)
		require.NoError(t, e)
		require.Equal(t, "later", string(r.Value))
		time.Sleep(2 * time.Second)
		wantZero(t, p.accepted)
		wantZero(t, p.dialer)
	})
}

// Row: N5
// Claim: session.ErrNotFound, session.Message.Link, session.Message.Value, session.Snapshot.Refused
func TestUnclaimedLinksGoToTheDefaultOrAreNotFound(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		for _, link := range []string{"", "x"} {
			_, err := p.dialer.SendWait(t.Context(), link, nil)
			require.ErrorIs(t, err, ErrNotFound)
			asError(t, err, Rejected)
		}
		p.mux.SetDefaultLink(func(m *Message) { _ = m.Reply([]byte("default " + m.Link)) })
		r, err := p.dialer.SendWait(t.Context(), "x", nil)
		require.NoError(t, err)
		require.Equal(t, "default x", string(r.Value))
		p.mux.SetLink("x", func(m *Message) { _ = m.Reply([]byte("x")) })
		r, err = p.dialer.SendWait(t.Context(), "x", nil)
		require.NoError(t, err)
		require.Equal(t, "x", string(r.Value))
		p.mux.SetLink("x", nil)
		p.mux.SetDefaultLink(nil)
		_, err = p.dialer.SendWait(t.Context(), "x", nil)
		require.ErrorIs(t, err, ErrNotFound)
		require.Equal(t, uint64(3), p.accepted.Snapshot().Refused)
	})
}

func TestAChildMuxAsksItsParent(t *testing.T) {
	parent := NewMux()
	child := parent.Child()
	reply := func(*Message) {}
	parent.SetLink("a", reply)
	_, fn, _ := child.handler("a")
	require.NotNil(t, fn)
	parent.SetDefaultLink(reply)
	child.SetLink("b", reply)
	_, fn, _ = child.handler("zzz")
	require.NotNil(t, fn)
	_, fn, _ = parent.handler("b")
	require.NotNil(t, fn, "the default")
	child.SetCall(echo)
	call, _, _ := child.handler("")
	require.NotNil(t, call)
	parent.SetDefaultStream(func(*Stream) {})
	serve, _ := child.stream("s")
	require.NotNil(t, serve)
	_, err := child.codec("json")
	require.NoError(t, err)
	require.Panics(t, func() { child.SetLink(string(make([]byte, 256)), reply) })
}

// A guarded Mux serves the tag's calls, and refuses every kind of link and stream with the reason, those of its parents and defaults too.
func TestAGuardedMuxServesNothingButItsCall(t *testing.T) {
	parent := NewMux()
	x := parent.Child()
	x.SetCall(echo)
	why := &Error{Code: codes.NotAllowed, Text: "set a key"}
	for _, each := range []*Mux{parent, x} {
		each.SetLink("a", func(*Message) {})
		each.SetLink("", func(*Message) {})
		each.SetDefaultLink(func(*Message) {})
		each.SetStream("a", func(*Stream) {})
		each.SetDefaultStream(func(*Stream) {})
	}
	x.Guard(why)
	call, fn, refusal := x.handler("")
	require.NotNil(t, call)
	require.Nil(t, fn)
	require.Zero(t, refusal)
	for _, name := range []string{"a", "b"} {
		call, fn, refusal = x.handler(name)
		require.Nil(t, call)
		require.Nil(t, fn)
		require.Equal(t, frame.Failure{Code: codes.NotAllowed, Text: "set a key"}, refusal)
		serve, refusal := x.stream(name)
		require.Nil(t, serve)
		require.Equal(t, frame.Failure{Code: codes.NotAllowed, Text: "set a key"}, refusal)
	}
	_, fn, _ = x.Child().handler("a")
	require.NotNil(t, fn, "a guard is not its children's")
	x.SetCall(nil)
	call, fn, refusal = x.handler("")
	require.True(t, call == nil && fn == nil)
	require.Equal(t, codes.NotAllowed, refusal.Code)
	x.Guard(nil)
	_, fn, _ = x.handler("a")
	require.NotNil(t, fn)
}

// Claim: session.Config.Quota, session.Quota.MaxCalls
func TestQuotaOfCallsRefusesWithAHint(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := &Quota{MaxCalls: 2}
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{Quota: quota}})
		p.mux.SetCall(func(*Message) ([]byte, error) {
			time.Sleep(time.Second)
			return nil, nil
		})
		var wg sync.WaitGroup
		var refused int
		var mu sync.Mutex
		for range 5 {
			wg.Go(func() {
				if _, err := p.dialer.Call(t.Context(), "", nil); err != nil {
					require.ErrorIs(t, err, ErrUnavailable)
					require.Equal(t, retryHint, asError(t, err, Rejected).RetryAfter)
					mu.Lock()
					refused++
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		require.Equal(t, 2, quota.Snapshot().Calls)
		wg.Wait()
		require.Equal(t, 3, refused)
		require.Equal(t, uint64(3), quota.Snapshot().Refused)
		wantZero(t, p.accepted)
	})
}

// Row: D11
// Claim: session.Quota.MaxBytes
func TestQuotaOfBytesCountsPartsBombsAndReplies(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const limit = 100 << 10
		quota := &Quota{MaxBytes: limit}
		w := accepted(t, AcceptorConfig{Config: Config{Quota: quota}}, frame.CapZstd, generous)
		w.s.cfg.MaxMessage = 1 << 20 // so that the quota refuses
		ran := 0
		w.s.cfg.Mux.SetLink("count", func(m *Message) {
			ran++
			_ = m.Reply(nil)
		})
		w.s.cfg.Mux.SetCall(echo)
		part := make([]byte, 30<<10)
		w.send(frame.TypeRequest, 0, 1, start(frame.TypeRequest, 0, frame.Start{Total: 1 << 20}, part))
		synctest.Wait()
		require.Equal(t, int64(len(part)), quota.Snapshot().Bytes, "only what has come counts")
		w.send(frame.TypeContinue, 0, 1, part)
		w.send(frame.TypeContinue, 0, 1, part)
		w.send(frame.TypeContinue, 0, 1, part)
		require.Equal(t, retryHint, w.wantFailure(frame.TypeError, 1, codes.Unavailable).RetryAfter)
		synctest.Wait()
		require.Zero(t, quota.Snapshot().Bytes)
		w.send(frame.TypeContinue, 0, 1, part) // the rest of what has been refused
		require.Zero(t, quota.Snapshot().Bytes)

		bomb, ok := frame.Compress(make([]byte, 1<<20))
		require.True(t, ok)
		body := start(frame.TypeRequest, frame.FlagCompressed, frame.Start{Total: len(bomb), Raw: 1 << 20, Link: "count"}, bomb)
		w.send(frame.TypeRequest, frame.FlagCompressed, 3, body)
		w.wantFailure(frame.TypeError, 3, codes.Unavailable)
		body = start(frame.TypeMessage, frame.FlagCompressed, frame.Start{Total: len(bomb), Raw: 1 << 20, Link: "count"}, bomb)
		w.send(frame.TypeMessage, frame.FlagCompressed, 5, body)
		w.wantFailure(frame.TypeError, 5, codes.Unavailable)
		w.want(frame.TypeMessageAck, 5)
		require.Zero(t, ran)

		w.send(frame.TypeRequest, 0, 7, start(frame.TypeRequest, 0, frame.Start{Total: 1 << 20}, part))
		w.send(frame.TypeCancel, 0, 7, nil)
		wantZero(t, w.s)
		w.request(9, "", "small")
		w.want(frame.TypeResponse, 9)
		wantZero(t, w.s)

		lie := start(frame.TypeRequest, frame.FlagCompressed, frame.Start{Total: len(bomb), Raw: 10}, bomb)
		w.send(frame.TypeRequest, frame.FlagCompressed, 11, lie)
		w.wantFailure(frame.TypeError, 11, codes.Protocol)
		w.wantAlive()
		wantZero(t, w.s)
	})
}

func TestTheHeadsOfManyBodiesCostLittle(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const n = 4000
		w := accepted(t, AcceptorConfig{}, 0, generous)
		w.s.cfg.Mux.SetCall(echo)
		before := heap()
		for i := range n {
			total := 64 << 10
			if i%2 == 0 {
				total = 32 << 20
			}
			w.send(frame.TypeRequest, 0, uint64(2*i+1), start(frame.TypeRequest, 0, frame.Start{Total: total}, []byte{1}))
		}
		synctest.Wait()
		grown := heap() - before
		require.Equal(t, n, w.s.Snapshot().InFlightIn)
		require.Less(t, grown, int64(n*2048), "bytes held for %d heads", n)
		t.Logf("%d bytes held for each head", grown/n)
	})
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestEndlessFragmentsHoldWhatHasArrived(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{}, 0, generous)
		w.s.cfg.Mux.SetCall(echo)
		before := heap()
		const bodies, parts = 8, 20
		part := make([]byte, 50<<10)
		for i := range bodies {
			w.send(frame.TypeRequest, 0, uint64(2*i+1), start(frame.TypeRequest, 0, frame.Start{Total: 32 << 20}, part))
			for range parts - 1 {
				w.send(frame.TypeContinue, 0, uint64(2*i+1), part)
			}
		}
		synctest.Wait()
		require.Less(t, heap()-before, int64(bodies*(parts*len(part)+chunkSize)+1<<20))
		for i := range bodies {
			w.send(frame.TypeCancel, 0, uint64(2*i+1), nil)
		}
		wantZero(t, w.s)
	})
}

func TestCancelledHandlersThatStillRunAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{MaxInFlight: 5}}, 0, generous)
		release := make(chan struct{})
		w.s.cfg.Mux.SetCall(func(*Message) ([]byte, error) {
			<-release
			return nil, nil
		})
		for i := range 50 {
			w.request(uint64(2*i+1), "", "")
			w.send(frame.TypeCancel, 0, uint64(2*i+1), nil)
		}
		synctest.Wait()
		w.s.mu.Lock()
		require.Equal(t, 10, w.s.requests.running)
		w.s.mu.Unlock()
		for i := 10; i < 50; i++ {
			w.wantFailure(frame.TypeError, uint64(2*i+1), codes.Unavailable)
		}
		close(release)
		wantZero(t, w.s)
		w.wantNothing()
	})
}

func TestASlowHandlerHurtsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MessageWindow: 1000}})
		release := make(chan struct{})
		p.mux.SetCall(echo)
		p.mux.SetLink("stuck", func(*Message) { <-release })
		p.mux.SetStream("stuck", func(*Stream) { <-release })
		p.mux.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = p.dialer.SendWait(ctx, "stuck", nil) })
		wg.Go(func() {
			for p.dialer.Send(ctx, "stuck", make([]byte, 100)) == nil {
			}
		})
		stuck, err := p.dialer.OpenStream(t.Context(), "stuck", nil)
		require.NoError(t, err)
		wg.Go(func() { _, _ = stuck.Write(make([]byte, 64<<20)) })
		synctest.Wait()

		began := time.Now()
		for range 100 {
			_, err := p.dialer.Call(t.Context(), "", make([]byte, 10_000))
			require.NoError(t, err)
		}
		st, err := p.dialer.OpenStream(t.Context(), "echo", nil)
		require.NoError(t, err)
		go func() {
			_, _ = st.Write(make([]byte, 4<<20))
			_ = st.CloseWrite()
		}()
		n, err := io.Copy(io.Discard, st)
		require.NoError(t, err)
		require.Equal(t, int64(4<<20), n)
		require.NoError(t, st.Close())
		require.Equal(t, began, time.Now(), "virtual time passed: somebody waited")
		cancel()
		close(release)
		_ = stuck.Close() // its handler has read nothing, and may have said so already
		wg.Wait()
		require.NoError(t, p.dialer.Flush(t.Context()))
		wantZero(t, p.accepted)
		wantZero(t, p.dialer)
	})
}

// The caller's deadline and the handler's are the same moment: whichever is heard of first, the outcome is the same.
func TestAHandlerThatGivesUpAtTheDeadlineDecidesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		mux := NewMux()
		mux.SetCall(func(m *Message) ([]byte, error) {
			<-m.Context().Done()
			return nil, fmt.Errorf("gave up: %w", m.Context().Err())
		})
		w := accepted(t, AcceptorConfig{Config: Config{Mux: mux}}, 0, generous)
		w.send(frame.TypeRequest, 0, 1, frame.AppendStart(nil, frame.TypeRequest, 0, frame.Start{Timeout: time.Second}))
		w.wantFailure(frame.TypeError, 1, codes.Timeout)
	})
}
