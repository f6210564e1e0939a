package session

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/resume"
)

// late is a codec that only one side knows.
type late struct{}

func (late) Name() string                       { return "late" }
func (late) Marshal(any) ([]byte, error)        { return []byte("late"), nil }
func (late) Unmarshal(data []byte, v any) error { return errors.New("late cannot") }

// The handler has run, whatever becomes of its reply here.
func TestAReplyThatCannotBeDecodedIsATypedErrorOfACallThatRan(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		require.NoError(t, p.mux.RegisterCodec(late{}))
		ran := 0
		p.mux.SetLink("late", func(m *Message) { ran++; _ = m.ReplyObj("late", nil) })
		p.mux.SetLink("text", func(m *Message) { ran++; _ = m.Reply([]byte("no json")) })
		var got int
		e := asError(t, p.dialer.SendWaitObj(t.Context(), "late", "", 1, &got), Delivered)
		require.ErrorIs(t, e, ErrUnsupported)
		require.Equal(t, "late", e.Link)
		require.ErrorContains(t, e, "no codec")
		e = asError(t, p.dialer.SendWaitObj(t.Context(), "text", "", 1, &got), Delivered)
		require.Equal(t, "bob", e.Peer)
		require.ErrorContains(t, e, "json object of 7 bytes")
		require.Equal(t, 2, ran)
		require.NoError(t, p.dialer.SendWaitObj(t.Context(), "text", "", 1, nil), "a reply that nobody wants")
	})
}

// Claim: session.Config.Backoff
func TestABackoffThatCannotBeWaitedByIsRefused(t *testing.T) {
	for text, b := range map[string]resume.Backoff{
		"Backoff.Min is -1s":                 {Min: -time.Second},
		"Backoff.Max is -1ns":                {Max: -1},
		"Backoff.Max is 1s, want at least":   {Min: 2 * time.Second, Max: time.Second},
		"Backoff.Max is 1ns, want at least ": {Min: math.MaxInt64, Max: 1},
	} {
		here, there := net.Pipe()
		_, err := Dial(t.Context(), here, "bob", nil, &Config{Backoff: b})
		require.ErrorContains(t, err, text)
		_, err = there.Read(make([]byte, 1))
		require.Error(t, err, "closed")
		_, err = NewAcceptor(&AcceptorConfig{Config: Config{Backoff: b}})
		require.ErrorContains(t, err, text)
	}
	inBubble(t, func(t *testing.T) { // and what is taken is waited by
		for _, b := range []resume.Backoff{{}, {Min: 20 * time.Second}, {Min: time.Millisecond, Max: time.Millisecond}, {Max: 10 * time.Second}} {
			r := newRoad(t, Config{Backoff: b}, AcceptorConfig{}, faultnet.LinkOptions{})
			var attempts atomic.Int64
			r.dialer.carriers.open = func(context.Context, Want) (net.Conn, error) { attempts.Add(1); return nil, errNoRoute }
			began := time.Now()
			r.lose()
			<-r.dialer.Done()
			n := attempts.Load()
			require.Equal(t, time.Minute, time.Since(began))
			if b.Min == 20*time.Second { // 10 to 20 s each
				require.True(t, n >= 3 && n <= 6, "%d attempts", n)
			}
		}
	})
}

// Claim: session.Config.MaxMessage
func TestMaxMessageHoldsInEachDirectionOnBothSides(t *testing.T) {
	const small, large = 1000, 100000
	for _, v := range []struct{ dial, accept int }{{small, large}, {large, small}, {small, small}} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{MaxMessage: v.dial}, AcceptorConfig{Config: Config{MaxMessage: v.accept}})
			ran := 0
			p.mux.SetCall(func(m *Message) ([]byte, error) {
				ran++
				return make([]byte, small+int(m.Value[0])), nil
			})
			p.mux.SetLink("echo", func(m *Message) { ran++; _ = m.Reply(m.Value) })
			var told error
			p.mux.SetLink("grow", func(m *Message) { told = m.Reply(make([]byte, small+1)) })

			full := bytes.Repeat([]byte{0}, small)
			reply, err := p.dialer.Call(t.Context(), "", full)
			require.NoError(t, err)
			require.Len(t, reply, small)
			m, err := p.dialer.SendWait(t.Context(), "echo", full)
			require.NoError(t, err)
			require.Len(t, m.Value, small)
			require.NoError(t, p.dialer.Send(t.Context(), "echo", full))
			require.NoError(t, p.dialer.Flush(t.Context()))

			ran = 0
			more := make([]byte, small+1)
			_, err = p.dialer.Call(t.Context(), "", more)
			require.ErrorIs(t, asError(t, err, NotSent), ErrTooLarge)
			_, err = p.dialer.SendWait(t.Context(), "echo", more)
			require.ErrorIs(t, asError(t, err, NotSent), ErrTooLarge)
			require.ErrorIs(t, asError(t, p.dialer.Send(t.Context(), "echo", more), NotSent), ErrTooLarge)
			require.ErrorIs(t, asError(t, p.accepted.Send(t.Context(), "echo", more), NotSent), ErrTooLarge)
			require.Zero(t, ran)

			_, err = p.dialer.Call(t.Context(), "", []byte{1})
			require.ErrorIs(t, asError(t, err, Delivered), ErrTooLarge)
			require.Equal(t, 1, ran)
			_, err = p.dialer.SendWait(t.Context(), "grow", nil)
			require.ErrorIs(t, asError(t, err, Delivered), ErrTooLarge)
			synctest.Wait() // the handler returns after its reply has been refused
			require.ErrorIs(t, told, ErrTooLarge)
		})
	}
}

// Claim: session.Config.MessageWindow
func TestAMessageCountsItsBytesAnd64InTheWindow(t *testing.T) {
	for _, v := range []struct{ window, size, taken int }{
		{1000, 100, 7}, // 6 x 164 are 984, below the cap
		{984, 100, 6},
		{985, 100, 7},
		{1000, 1001, 1},
		{1, 0, 1},
		{65, 0, 2},
	} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{}, AcceptorConfig{Config: Config{MessageWindow: v.window}})
			release := make(chan struct{})
			p.mux.SetLink("slow", func(*Message) { <-release })
			taken := 0
			for p.dialer.Send(within(t, time.Second), "slow", make([]byte, v.size)) == nil {
				taken++
			}
			require.Equal(t, v.taken, taken, "%+v", v)
			close(release)
			require.NoError(t, p.dialer.Flush(t.Context()))
		})
	}
}

func TestArgumentsThatAreNilAreErrors(t *testing.T) {
	x := NewMux()
	require.ErrorContains(t, x.RegisterCodec(nil), "codec is nil")
	_, err := Dial(t.Context(), nil, "bob", nil, nil)
	require.ErrorContains(t, err, "conn is nil")
	a, err := NewAcceptor(nil)
	require.NoError(t, err)
	require.ErrorContains(t, a.Serve(nil, "alice"), "conn is nil")
	for _, fn := range []func(){func() { x.SetCall(nil) }, func() { x.SetLink("x", nil) }, func() { x.SetStream("x", nil) },
		func() { x.SetDefaultLink(nil) }, func() { x.SetDefaultStream(nil) }} {
		require.NotPanics(t, fn)
	}
	here, _ := net.Pipe()
	_, err = Dial(t.Context(), here, "bob", nil, &Config{Keys: new(psk.Keyring)})
	require.ErrorIs(t, err, psk.ErrInvalid)
}

// An Opener that returns nothing at all is as one that has failed.
func TestAnOpenerThatReturnsNothingHasFailed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.dialer.carriers.open = func(context.Context, Want) (net.Conn, error) { return nil, nil }
		for _, o := range []StreamOptions{{Dedicated: true}, {Dedicated: true, Resumable: true}} {
			_, err := p.dialer.OpenStream(t.Context(), "x", &o)
			require.ErrorContains(t, asError(t, err, NotSent), "neither a conn nor an error")
		}
		require.ErrorContains(t, p.dialer.Reconnect(t.Context()), "neither a conn nor an error")
		_ = p.dialer.Conn().Close()
		require.ErrorIs(t, wantLost(t, p.dialer), ErrSessionLost)
	})
}

// The names of a Mux have at most 255 bytes: a longer one is a mistake in the program that is told at once.
func TestNamesOfAMuxHaveAtMost255Bytes(t *testing.T) {
	for _, x := range []*Mux{NewMux(), {}} {
		most := strings.Repeat("n", frame.MaxName)
		require.NotPanics(t, func() { x.SetLink(most, func(*Message) {}); x.SetStream(most, func(*Stream) {}) })
		require.Panics(t, func() { x.SetLink(most+"n", nil) })
		require.Panics(t, func() { x.SetStream(most+"n", nil) })
	}
}

func TestTheZeroMuxIsOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{Mux: new(Mux)}, AcceptorConfig{Config: Config{Mux: new(Mux)}})
		require.Error(t, p.mux.RegisterCodec(JSON), "taken")
		require.NoError(t, p.mux.RegisterCodec(late{}))
		p.mux.SetLink("twice", func(m *Message) {
			var n int
			_ = m.Object(&n)
			_ = m.ReplyObj("json", 2*n)
		})
		var got int
		require.NoError(t, p.dialer.SendWaitObj(t.Context(), "twice", "json", 21, &got))
		require.Equal(t, 42, got)
	})
}

// A nil *Error in an error is an easy mistake: it refuses, and panics nowhere.
func TestANilErrorInAnErrorRefuses(t *testing.T) {
	var none *Error
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetLink("nil", func(m *Message) {
			m.ReplyLater()
			go func() { _ = m.Refuse(nil) }()
		})
		p.mux.SetLink("typed", func(m *Message) { _ = m.Refuse(none) })
		p.mux.SetCall(func(*Message) ([]byte, error) { return nil, none })
		for _, link := range []string{"nil", "typed", ""} {
			_, err := p.dialer.Call(t.Context(), link, nil)
			require.Equal(t, codes.Application, asError(t, err, Delivered).Code, link)
		}
		a, err := NewAcceptor(&AcceptorConfig{Admit: func(string) error { return none }})
		require.NoError(t, err)
		here, there := net.Pipe()
		done := make(chan error)
		go func() { done <- a.Serve(there, "alice") }()
		_, err = Dial(t.Context(), here, "bob", nil, nil)
		require.ErrorIs(t, err, ErrNotAllowed)
		require.ErrorIs(t, <-done, ErrNotAllowed)
	})
}

// What Take cannot reserve completely it does not reserve at all.
//
// Claim: session.QuotaSnapshot.Calls, session.QuotaSnapshot.Bytes, session.QuotaSnapshot.Refused
func TestAQuotaIsTakenCompletelyOrNotAtAll(t *testing.T) {
	q := &Quota{MaxCalls: 2, MaxBytes: 100}
	part := q.Hold("peer", "subnet")
	require.NoError(t, part.Take(1, 60))
	require.ErrorIs(t, part.Take(1, 60), ErrUnavailable, "no bytes")
	require.ErrorIs(t, part.Take(2, 10), ErrUnavailable, "no places")
	require.Equal(t, QuotaSnapshot{Calls: 1, Bytes: 60, Refused: 2}, q.Snapshot())
	require.NoError(t, part.Take(1, 27), "of all but an eighth")
	part.Release(2, 87)
	require.Equal(t, QuotaSnapshot{Refused: 2}, q.Snapshot())
	part.Leave()
}

func TestQuotasOfZeroOrLessBoundNothing(t *testing.T) {
	for _, n := range []int{0, -1, math.MinInt} {
		q := &Quota{MaxSessions: n, MaxCalls: n, MaxBytes: int64(n)}
		part := q.Hold("peer", "subnet")
		for range 10 {
			require.NoError(t, part.Take(1, 1<<20), n)
			require.Zero(t, part.take(fair.Sessions, 1), n)
		}
		require.Zero(t, q.Snapshot().Refused)
	}
}

// Claim: session.AcceptorConfig.MaxDetached
func TestMaxDetachedEndsThePeersSessionThatHasWaitedLongest(t *testing.T) {
	for _, most := range []int{1, 3} {
		inBubble(t, func(t *testing.T) {
			var mu sync.Mutex
			var opened []*Session
			a, err := NewAcceptor(&AcceptorConfig{MaxDetached: most, OnSession: func(s *Session) {
				mu.Lock()
				defer mu.Unlock()
				opened = append(opened, s)
			}})
			require.NoError(t, err)
			var serving sync.WaitGroup
			open := func(peer string) (here, there *Session) {
				link := faultnet.NewLink(faultnet.LinkOptions{})
				near, far := link.Ends()
				serving.Go(func() { _ = a.Serve(far, peer) })
				here, err := Dial(t.Context(), near, "bob", func(context.Context, Want) (net.Conn, error) { return nil, errNoRoute }, nil)
				require.NoError(t, err)
				synctest.Wait()
				return here, opened[len(opened)-1]
			}
			var dialed, accepted []*Session
			for range most + 3 {
				d, s := open("alice")
				dialed, accepted = append(dialed, d), append(accepted, s)
			}
			carol, other := open("carol")
			_ = carol.Conn().Close()
			ended := func() (all []int) {
				synctest.Wait()
				for i, s := range accepted {
					if s.Err() != nil {
						all = append(all, i)
					}
				}
				return all
			}
			for n := range most + 2 { // the one that was opened last stays on its carrier
				i := most + 1 - n
				_ = dialed[i].Conn().Close()
				synctest.Wait()
				require.Equal(t, max(0, n+1-most), len(ended()), "after %d", n+1)
				time.Sleep(time.Second)
			}
			require.Equal(t, []int{most, most + 1}, ended(), "the longest first")
			require.ErrorIs(t, wantLost(t, accepted[most]), ErrSessionLost)
			require.ErrorContains(t, accepted[most].Err(), "wait for a carrier")
			require.NoError(t, other.Err(), "another peer's")
			for _, s := range append(dialed, append(accepted, carol, other)...) {
				_ = s.Close()
				<-s.Done()
			}
			serving.Wait()
		})
	}
}

// Claim: session.ErrVersion
func TestAnotherVersionIsToldOnBothSides(t *testing.T) {
	a, err := NewAcceptor(nil)
	require.NoError(t, err)
	_, err = helloTo(t, a, []byte{1, 0, 0xF0, 0, 0})
	require.ErrorIs(t, err, ErrVersion)
	inBubble(t, func(t *testing.T) {
		here, there := net.Pipe()
		go func() {
			_, _ = frame.ReadHello(there)
			_ = frame.WriteHello(there, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindRefuse, Version: 9,
				Failure: &frame.Failure{Code: codes.Version}}))
		}()
		_, err := Dial(t.Context(), here, "bob", nil, nil)
		require.ErrorIs(t, asError(t, err, NotSent), ErrVersion)
	})
}

// Claim: session.Config.Local
func TestTheKeyIsBoundToTheNamesOfBothSides(t *testing.T) {
	for name, v := range map[string]struct {
		local, peer string // as each side names alice
		ok          bool
	}{"the same": {"alice", "alice", true}, "another": {"alice", "carol", false}, "none": {"", "alice", false}} {
		inBubble(t, func(t *testing.T) {
			a, err := NewAcceptor(&AcceptorConfig{Config: Config{Local: "bob", Keys: keyring(t, 0)}})
			require.NoError(t, err)
			here, there := net.Pipe()
			served := make(chan error, 1)
			go func() { served <- a.Serve(there, v.peer) }()
			s, err := Dial(t.Context(), here, "bob", nil, &Config{Local: v.local, Keys: keyring(t, 0)})
			require.Equal(t, v.ok, err == nil, name)
			if !v.ok {
				require.ErrorIs(t, err, ErrPSKTampered, name)
				require.ErrorIs(t, <-served, ErrPSKTampered, name)
				return
			}
			require.NoError(t, s.Close())
			<-served
		})
	}
}

// Claim: session.Config.Mux
func TestWithoutAMuxNothingIsServed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		served := NewMux()
		served.SetLink("x", func(m *Message) { _ = m.Reply(nil) })
		for _, mux := range []*Mux{nil, served} {
			a, err := NewAcceptor(&AcceptorConfig{Config: Config{Mux: mux}})
			require.NoError(t, err)
			here, there := net.Pipe()
			done := make(chan error, 1)
			go func() { done <- a.Serve(there, "alice") }()
			s, err := Dial(t.Context(), here, "bob", nil, nil)
			require.NoError(t, err)
			_, err = s.SendWait(t.Context(), "x", nil)
			if mux == nil {
				require.ErrorIs(t, err, ErrNotFound)
			} else {
				require.NoError(t, err)
			}
			require.NoError(t, s.Close())
			<-done
		}
	})
}

// Claim: session.AcceptorConfig.OnSession
func TestOnSessionIsCalledBeforeAnythingIsHandled(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		mux := NewMux()
		var told []*Session
		var knew []bool
		mux.SetLink("x", func(m *Message) {
			knew = append(knew, len(told) > 0 && told[len(told)-1] == m.Session())
			_ = m.Reply(nil)
		})
		a, err := NewAcceptor(&AcceptorConfig{Config: Config{Mux: mux}, OnSession: func(s *Session) {
			time.Sleep(time.Second) // the peer has sent meanwhile
			told = append(told, s)
		}})
		require.NoError(t, err)
		for n := range 3 {
			here, there := faultnet.Pipe(faultnet.LinkOptions{})
			done := make(chan error, 1)
			go func() { done <- a.Serve(there, "alice") }()
			s, err := Dial(t.Context(), here, "bob", nil, nil)
			require.NoError(t, err)
			_, err = s.SendWait(t.Context(), "x", nil)
			require.NoError(t, err)
			require.Len(t, told, n+1)
			require.NoError(t, s.Close())
			<-done
		}
		require.Equal(t, []bool{true, true, true}, knew)
	})
}

// Claim: session.Snapshot.Dialer, session.Snapshot.ID, session.Snapshot.Peer, session.Snapshot.MessagesIn, session.Snapshot.MessagesOut
// Claim: session.Snapshot.RequestsIn, session.Snapshot.RequestsOut
func TestASnapshotCountsRequestsAndMessagesOfBothWays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		for _, mux := range []*Mux{p.mux, p.ours} {
			mux.SetLink("x", func(m *Message) { _ = m.Reply(nil) })
		}
		for n := range 7 {
			if n < 3 {
				_, err := p.dialer.Call(t.Context(), "x", nil)
				require.NoError(t, err)
			}
			if n < 2 {
				require.NoError(t, p.dialer.Send(t.Context(), "x", nil))
				_, err := p.accepted.SendWait(t.Context(), "x", nil)
				require.NoError(t, err)
			}
			require.NoError(t, p.accepted.Send(t.Context(), "x", nil))
		}
		require.NoError(t, p.dialer.Flush(t.Context()))
		require.NoError(t, p.accepted.Flush(t.Context()))
		d, a := p.dialer.Snapshot(), p.accepted.Snapshot()
		require.Equal(t, []uint64{3, 2, 2, 7}, []uint64{d.RequestsOut, d.RequestsIn, d.MessagesOut, d.MessagesIn})
		require.Equal(t, []uint64{2, 3, 7, 2}, []uint64{a.RequestsOut, a.RequestsIn, a.MessagesOut, a.MessagesIn})
		require.True(t, d.Dialer)
		require.False(t, a.Dialer)
		require.Equal(t, d.ID, a.ID)
		require.NotZero(t, d.ID)
		require.Equal(t, []string{"bob", "alice"}, []string{d.Peer, a.Peer})
	})
}

// scarce is a carrier that lets through a limited number of bytes.
type scarce struct{ net.Conn }

func (scarce) Limited() bool { return true }

// Claim: session.StreamOptions.Bulk
func TestABulkStreamWaitsWhileTheCarrierIsLimited(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
		r.wrap = func(i int, here, there net.Conn) (net.Conn, net.Conn) {
			if i == 0 {
				return scarce{here}, there
			}
			return here, there
		}
		came := map[string]time.Time{}
		var mu sync.Mutex
		for _, name := range []string{"bulk", "plain"} {
			r.mux.SetStream(name, func(st *Stream) {
				_, _ = st.Read(make([]byte, 10))
				mu.Lock()
				defer mu.Unlock()
				came[name] = time.Now()
			})
		}
		r.dial(Config{}, AcceptorConfig{})
		began := time.Now()
		for _, name := range []string{"bulk", "plain"} {
			st, err := r.dialer.OpenStream(t.Context(), name, &StreamOptions{Bulk: name == "bulk"})
			require.NoError(t, err)
			go func() { _, _ = st.Write([]byte("x")) }()
		}
		time.Sleep(10 * time.Second)
		require.NoError(t, r.dialer.Reconnect(t.Context())) // to one that is not
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Less(t, came["plain"].Sub(began), time.Second)
		require.GreaterOrEqual(t, came["bulk"].Sub(began), 10*time.Second)
	})
}
