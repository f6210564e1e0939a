package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// Row: S2, S3. What a resumable stream carries arrives once and in order, however often its carriers and the session's are cut,
// within their hellos too.
func TestAResumableStreamLosesNothingOverManyCuts(t *testing.T) {
	for _, cuts := range []int{1, 10, 100} {
		for name, sealed := range map[string]bool{"plain": false, "sealed": true} {
			t.Run(fmt.Sprintf("%d %s", cuts, name), func(t *testing.T) {
				inBubble(t, func(t *testing.T) { surviveCuts(t, cuts, sealed) })
			})
		}
	}
}

func surviveCuts(t *testing.T, cuts int, sealed bool) {
	here, there := Config{}, AcceptorConfig{}
	if sealed {
		here.Keys, there.Keys = keyring(t, 0), keyring(t, 0)
	}
	r := newStreamRoad(t, here, there, faultnet.LinkOptions{Delay: time.Millisecond})
	st := r.openStream("echo")
	random := rand.New(rand.NewPCG(uint64(cuts), 7))
	left := cuts
	strike := func(l *faultnet.Link) {
		if left--; left >= 0 {
			l.CutAfter(1 + random.Int64N(40<<10))
		}
	}
	r.set(func() { r.prepare = func(_ int, l *faultnet.Link) { strike(l) } })
	strike(r.link(1))
	if cuts > 1 {
		strike(r.link(0)) // the session's
	}
	size := max(1<<20, cuts*48<<10)
	sent, received := sha256.New(), sha256.New()
	var writing sync.WaitGroup
	writing.Go(func() {
		p := make([]byte, 9000)
		for n := 0; n < size; n += len(p) {
			binary.LittleEndian.PutUint64(p, uint64(n))
			sent.Write(p)
			_, err := st.Write(p)
			require.NoError(t, err)
		}
		require.NoError(t, st.CloseWrite())
	})
	_, err := io.Copy(received, st)
	require.NoError(t, err)
	writing.Wait()
	require.Equal(t, sent.Sum(nil), received.Sum(nil))
	require.NoError(t, st.Close())
	require.Greater(t, len(r.carriers(frame.RoleStream)), min(cuts/4, 10))
	r.set(func() { r.prepare = nil })
	require.NoError(t, r.dialer.AwaitCarrier(within(t, time.Minute)))
	// The ends of both directions are acknowledged. When a cut has taken the very last acknowledgement, the side that waits for it keeps
	// the stream as long as it would wait for a carrier: the other side has nothing to come back for.
	time.Sleep(r.accepted.cfg.ResumeWindow + time.Second)
	wantZero(t, r.dialer)
	wantZero(t, r.accepted)
}

// A carrier that is cut after any number of bytes, in the middle of either hello, is a loss like any other.
func TestAResumableStreamOutlivesACutWithinAnyHello(t *testing.T) {
	for name, sealed := range map[string]bool{"plain": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				here, there := Config{}, AcceptorConfig{}
				if sealed {
					here.Keys, there.Keys = keyring(t, 0), keyring(t, 0)
				}
				r := newStreamRoad(t, here, there, faultnet.LinkOptions{})
				var served atomic.Int64
				r.mux.SetStream("count", func(st *Stream) {
					served.Add(1)
					_, _ = io.Copy(st, st)
				})
				st := r.openStream("count")
				for n := int64(0); n < 500; n += 11 {
					once := true
					r.set(func() {
						r.prepare = func(_ int, l *faultnet.Link) {
							if once {
								once = false
								l.CutAfter(n)
							}
						}
					})
					r.cutStream()
					echoes(t, st, fmt.Sprintf("after a cut at %d", n))
				}
				require.EqualValues(t, 1, served.Load(), "one stream, one handler")
				require.Equal(t, StateConnected, r.dialer.State())
				require.NoError(t, st.Close())
				time.Sleep(10 * time.Second) // the last carrier may be cut too
				wantZero(t, r.dialer)
				wantZero(t, r.accepted)
			})
		})
	}
}

// An opening that is cut, after any number of bytes, is made again by itself, and one handler runs for it.
func TestAResumableStreamThatIsCutWhileItOpensIsOpenedAgain(t *testing.T) {
	for name, sealed := range map[string]bool{"plain": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				here, there := Config{}, AcceptorConfig{}
				if sealed {
					here.Keys, there.Keys = keyring(t, 0), keyring(t, 0)
				}
				r := newStreamRoad(t, here, there, faultnet.LinkOptions{Delay: time.Millisecond})
				var served atomic.Int64
				r.mux.SetStream("count", func(st *Stream) {
					served.Add(1)
					_, _ = io.Copy(st, st)
				})
				for n := int64(0); n < 600; n += 7 {
					left := 3
					served.Store(0)
					r.set(func() {
						r.prepare = func(_ int, l *faultnet.Link) {
							if left--; left >= 0 {
								l.CutAfter(n)
							}
						}
					})
					st, err := r.dialer.OpenStream(within(t, time.Minute), "count", outlasting)
					require.NoError(t, err, "cut at %d", n)
					r.set(func() { r.prepare = nil })
					echoes(t, st, fmt.Sprintf("after a cut at %d", n))
					if err := st.Close(); err != nil {
						asError(t, err, Unknown) // the cut has taken the acknowledgement of the end
					}
					time.Sleep(time.Minute) // what the peer has made of the attempts before ends with its patience
					require.EqualValues(t, 1, served.Load(), "handlers after a cut at %d", n)
				}
				wantZero(t, r.dialer)
				wantZero(t, r.accepted)
			})
		})
	}
}

// Nothing is opened again for a refusal, nor beyond the caller's ctx.
func TestAResumableStreamIsOpenedAgainOnlyForACut(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		_, err := r.dialer.OpenStream(t.Context(), "nobody", outlasting)
		require.ErrorIs(t, err, ErrNotFound)
		require.Len(t, r.carriers(frame.RoleStream), 1)
		r.set(func() { r.prepare = func(_ int, l *faultnet.Link) { l.CutAfter(20) } })
		began := time.Now()
		_, err = r.dialer.OpenStream(within(t, time.Second), "echo", outlasting)
		require.Error(t, err)
		require.Equal(t, time.Second, time.Since(began))

		closed := &Error{Op: "open stream", Remote: true, Code: codes.Closed, Err: io.ErrUnexpectedEOF}
		require.True(t, r.dialer.wasCut(closed, false), "a connection that is closed in order takes the opening with it")
		require.False(t, r.dialer.wasCut(&Error{Remote: true, Code: codes.Closed}, false))
	})
}

// A stream that cannot be opened is given up when the peer would have given it up: the error says that, and what the peer has made of the
// attempts ends with its patience.
func TestAResumableStreamThatIsCutWhileItOpensLeavesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		for n := int64(0); n < 240; n += 7 {
			r.set(func() { r.prepare = func(_ int, l *faultnet.Link) { l.CutAfter(n) } })
			st, err := r.dialer.OpenStream(t.Context(), "echo", outlasting)
			r.set(func() { r.prepare = nil })
			if err == nil {
				require.Greater(t, n, int64(120), "both hellos have gone through")
				echoes(t, st, "on another carrier")
				require.NoError(t, st.Close())
				continue
			}
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "open stream", e.Op, "cut at %d: %v", n, err)
		}
		wantZero(t, r.dialer)
		time.Sleep(time.Minute)
		wantZero(t, r.accepted)
	})
}

// Row: N2, N9, N16
func TestResumableStreamsPassNettestSealedAndNot(t *testing.T) {
	for name, sealed := range map[string]bool{"sealed": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				here, there := Config{Local: "alice"}, Config{Local: "bob", Mux: NewMux()}
				if sealed {
					here.Keys, there.Keys = keyring(t, 0), keyring(t, 0)
				}
				got, release := make(chan *Stream, 1), make(chan struct{})
				there.Mux.SetStream("x", func(st *Stream) {
					got <- st
					<-release
				})
				a, err := NewAcceptor(&AcceptorConfig{Config: there})
				require.NoError(t, err)
				open := tcpCarriers(t, a)
				conn, err := open(t.Context(), Want{})
				require.NoError(t, err)
				s, err := Dial(t.Context(), conn, "bob", open, &here)
				require.NoError(t, err)
				st, err := s.OpenStream(t.Context(), "x", outlasting)
				require.NoError(t, err)
				return st, <-got, func() {
					close(release)
					_ = s.Close()
					<-s.readerDone
				}, nil
			})
		})
	}
}

// Without the capability, on either side, nothing is sent; and a peer that sends the field all the same is refused.
// Claim: session.StreamOptions.Resumable
func TestAResumableStreamNeedsBothSides(t *testing.T) {
	for name, cfgs := range map[string][2]Config{
		"the dialing side ends with its carrier":   {mortal, {}},
		"the accepting side ends with its carrier": {{}, mortal},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newStreamRoad(t, cfgs[0], AcceptorConfig{Config: cfgs[1]}, faultnet.LinkOptions{})
				_, err := r.dialer.OpenStream(t.Context(), "echo", outlasting)
				require.ErrorIs(t, err, ErrUnsupported)
				require.Equal(t, "echo", asError(t, err, NotSent).Link)
				require.Len(t, r.coded, 1, "no carrier was opened")
				st, err := r.dialer.OpenStream(t.Context(), "echo", &StreamOptions{Resumable: true})
				require.NoError(t, err, "it means nothing for a shared stream")
				require.NoError(t, st.Close())

				here, there := net.Pipe()
				go func() { _ = r.acceptor.Serve(there, "alice") }()
				answer := sayHello(t, here, &frame.Hello{Role: frame.RoleStream, SessionID: r.dialer.ID(), Name: "echo",
					Resumable: frame.ResumableNew})
				require.Equal(t, frame.KindRefuse, answer.Kind)
				require.Equal(t, codes.Unsupported, answer.Failure.Code)
			})
		})
	}
	inBubble(t, func(t *testing.T) { // a peer that is older than the capability
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.dialer.caps &^= frame.CapResumeStreams
		_, err := r.dialer.OpenStream(t.Context(), "echo", outlasting)
		require.ErrorIs(t, err, ErrUnsupported)
		asError(t, err, NotSent)
		_, err = r.accepted.OpenStream(t.Context(), "echo", outlasting)
		require.ErrorIs(t, err, ErrUnsupported, "the accepting side opens none at all")
	})
}

// A second peer neither opens nor resumes a stream of another's session.
func TestAResumableStreamIsKnownOnlyToItsOwnPeer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		st := r.openStream("echo")
		for _, kind := range []frame.Resumable{frame.ResumableNew, frame.ResumableAgain} {
			here, there := net.Pipe()
			go func() { _ = r.acceptor.Serve(there, "mallory") }()
			answer := sayHello(t, here, &frame.Hello{Role: frame.RoleStream, SessionID: r.dialer.ID(), Name: "echo", Resumable: kind})
			require.Equal(t, frame.KindRefuse, answer.Kind)
			require.Equal(t, codes.NotFound, answer.Failure.Code)
			require.Equal(t, "no such session", answer.Failure.Text)
		}
		echoes(t, st, "nobody was here")
	})
}

// resumeHello returns a hello of resume/SPEC.md.
func resumeHello(kind byte, id [16]byte, attempt uint32, received uint64) []byte {
	b := append([]byte{0xf5, 'p', 'l', 'r', 1, kind, 0, 0}, id[:]...)
	b = binary.BigEndian.AppendUint32(b, attempt)
	patience, buffer := uint32(60_000), uint32(1<<20)
	if attempt > 0 {
		patience, buffer = 0, 0
	}
	b = binary.BigEndian.AppendUint32(b, patience)
	b = binary.BigEndian.AppendUint32(b, buffer)
	return binary.BigEndian.AppendUint64(b, received)
}

// rawStream says HELLO for a carrier of a resumable stream, and returns it after ACK.
func (r *streamRoad) rawStream(kind frame.Resumable) net.Conn {
	r.t.Helper()
	here, there := net.Pipe()
	r.serving.Go(func() { _ = r.acceptor.Serve(there, "alice") })
	answer := sayHello(r.t, here, &frame.Hello{Role: frame.RoleStream, SessionID: r.dialer.ID(), Name: "echo", Resumable: kind})
	require.Equal(r.t, frame.KindAck, answer.Kind)
	return here
}

// Hostile carriers of the session's own peer: bytes of no protocol, ids that nobody has, a new stream where a further carrier was
// said to come, and the other way round.
func TestHostileCarriersOfResumableStreamsTouchNoStream(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		var served atomic.Int64
		r.mux.SetDefaultStream(func(*Stream) { served.Add(1) })
		st := r.openStream("echo")
		for name, test := range map[string]struct {
			kind frame.Resumable
			say  []byte
		}{
			"a stranger":                  {frame.ResumableNew, make([]byte, 44)},
			"an unknown id":               {frame.ResumableAgain, resumeHello(2, [16]byte{1}, 1, 0)},
			"new where a further was due": {frame.ResumableAgain, resumeHello(1, [16]byte{}, 0, 0)},
			"further where a new was due": {frame.ResumableNew, resumeHello(2, [16]byte{1}, 1, 0)},
			"ACCEPT":                      {frame.ResumableNew, resumeHello(3, [16]byte{1}, 0, 0)},
		} {
			conn := r.rawStream(test.kind)
			_, _ = conn.Write(test.say)           // as much of it as is read
			_, _ = io.CopyN(io.Discard, conn, 44) // the answer, if there is one
			_ = conn.Close()
			synctest.Wait()
			require.Equal(t, 1, dedicatedOf(r.accepted), name)
		}
		require.Zero(t, served.Load())
		echoes(t, st, "nobody was here")
		require.NoError(t, st.Close())
		wantZero(t, r.accepted)
	})
}

// Row: S-g. Who opens carriers and never says what for is given up after HandshakeTimeout, holds no more than the places for
// hellos, and leaves nothing.
func TestManyMuteCarriersOfResumableStreamsAreGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{MaxHandshakes: 8}, faultnet.LinkOptions{})
		st := r.openStream("echo")
		var mute []net.Conn
		for i := range 200 {
			here, there := faultnet.Pipe(faultnet.LinkOptions{})
			r.serving.Go(func() { _ = r.acceptor.Serve(there, "alice") })
			kind := frame.ResumableNew + frame.Resumable(i%2)
			_ = frame.WriteHello(here, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: 1,
				Role: frame.RoleStream, SessionID: r.dialer.ID(), Name: "echo", Resumable: kind}))
			mute = append(mute, here)
		}
		synctest.Wait()
		require.LessOrEqual(t, dedicatedOf(r.accepted), 1+8)
		echoes(t, st, "what is open goes on")
		time.Sleep(11 * time.Second) // two rounds of hellos
		synctest.Wait()
		require.Equal(t, 1, dedicatedOf(r.accepted))
		again := r.openStream("echo")
		echoes(t, again, "as if nothing had been")
		for _, conn := range mute {
			_ = conn.Close()
		}
		require.NoError(t, st.Close())
		require.NoError(t, again.Close())
		wantZero(t, r.accepted)
	})
}

// A carrier that resumes is no further stream.
func TestCarriersOfAResumableStreamCountOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{Config: Config{MaxStreams: 2}}, faultnet.LinkOptions{})
		var served atomic.Int64
		r.mux.SetStream("x", func(st *Stream) {
			served.Add(1)
			_, _ = io.Copy(st, st)
		})
		open := []*Stream{r.openStream("x"), r.openStream("x")}
		for range 5 {
			for _, c := range r.carriers(frame.RoleStream) {
				c.link.Cut()
			}
			for _, st := range open {
				echoes(t, st, "still one of two")
			}
			_, err := r.dialer.OpenStream(t.Context(), "x", outlasting)
			require.ErrorIs(t, err, ErrUnavailable)
			require.Equal(t, 2, r.dialer.Snapshot().Streams)
			require.Equal(t, 2, r.accepted.Snapshot().Streams)
		}
		require.EqualValues(t, 2, served.Load())
		_, err := r.dialer.OpenStream(t.Context(), "nobody", outlasting)
		require.ErrorIs(t, err, ErrUnavailable, "this side knows the limit too")
		for _, st := range open {
			require.NoError(t, st.Close())
			require.NoError(t, st.Close())
		}
		synctest.Wait()
		_, err = r.dialer.OpenStream(t.Context(), "nobody", outlasting)
		require.ErrorIs(t, err, ErrNotFound)
		require.NoError(t, r.openStream("x").Close())
		wantZero(t, r.dialer)
		wantZero(t, r.accepted)
	})
}

// Row: S9. A session that moves takes its resumable streams along.
func TestResumableStreamsMoveWithTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: time.Millisecond})
		var open []*Stream
		for range 3 {
			open = append(open, r.openStream("echo"))
		}
		old := r.carriers(frame.RoleStream)
		require.Len(t, old, 3)
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		time.Sleep(time.Second)
		require.Len(t, r.carriers(frame.RoleStream), 6, "by Reconnect")
		for _, c := range old {
			a, _ := c.link.Ends()
			_, err := a.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed, "the carriers before are closed in order")
		}
		for _, st := range open {
			echoes(t, st, "over the second carrier")
		}
		session := r.carriers(frame.RoleResume)
		session[len(session)-1].link.Cut()
		r.await(r.dialer, StateResumed)
		time.Sleep(time.Second)
		require.Len(t, r.carriers(frame.RoleStream), 9, "after a loss")
		for _, st := range open {
			echoes(t, st, "over the third")
			require.NoError(t, st.Close())
		}
		time.Sleep(time.Second)
		wantZero(t, r.dialer)
		wantZero(t, r.accepted)
	})
}

// The Opener is told whether the connection that there is may be dead.
func TestTheOpenerLearnsThatAStreamHasLostItsCarrier(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		var mu sync.Mutex
		var lost []bool
		r.dialer.carriers.open = func(ctx context.Context, want Want) (net.Conn, error) {
			mu.Lock()
			lost = append(lost, want.Lost)
			mu.Unlock()
			return r.road.open(ctx, want)
		}
		st := r.openStream("echo")
		r.cutStream()
		echoes(t, st, "again")
		require.NoError(t, st.conn.(*resumable).Reconnect())
		synctest.Wait()
		echoes(t, st, "moved")
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, []bool{false, true, false}, lost)
		require.NoError(t, st.Close())
	})
}

// Claim: session.Want.Direct, session.Session.ReconnectDirect, session.Want.Lost
func TestTheOpenerLearnsThatOnlyADirectConnectionWillDo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		var wanted []Want
		r.dialer.carriers.open = func(ctx context.Context, want Want) (net.Conn, error) {
			wanted = append(wanted, want)
			return r.open(ctx, want)
		}
		require.NoError(t, r.dialer.ReconnectDirect(t.Context()))
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		r.link(2).Cut()
		r.await(r.dialer, StateResumed)
		require.Equal(t, []Want{{Direct: true}, {}, {Lost: true}}, wanted)
	})
}

// What was written before Close arrives, over another carrier if need be, and only then the stream is out of the books: a drain
// waits for it.
func TestCloseOfAResumableStreamStillDelivers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: time.Millisecond})
		got := make(chan int, 1)
		r.mux.SetStream("x", func(st *Stream) {
			b, err := io.ReadAll(st)
			require.NoError(t, err)
			got <- len(b)
		})
		st := r.openStream("x")
		r.block(true)
		r.cutStream()
		_, err := st.Write(make([]byte, 300<<10))
		require.NoError(t, err)
		began := time.Now()
		err = st.Close()
		asError(t, err, Unknown)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, r.dialer.cfg.CloseTimeout, time.Since(began))
		_, err = st.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
		require.Equal(t, 1, dedicatedOf(r.dialer))
		shut := make(chan error, 1)
		go func() { shut <- r.dialer.Shutdown(t.Context()) }()
		time.Sleep(10 * time.Second)
		require.Equal(t, 1, dedicatedOf(r.dialer))
		r.block(false)
		require.Equal(t, 300<<10, <-got, "the further carrier is taken though the session drains")
		require.NoError(t, <-shut)
		wantZero(t, r.dialer)
		wantZero(t, r.accepted)
	})
}

// Row: N9. Half close and deadlines are those of every stream, over carriers that know no half close too.
func TestAResumableStreamHasHalfCloseAndDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{}) // net.Pipe
		stopped := make(chan error, 1)
		p.mux.SetStream("x", func(st *Stream) {
			b, err := io.ReadAll(st)
			require.NoError(t, err)
			_, err = st.Write(b)
			require.NoError(t, err)
			for err == nil {
				_, err = st.Write(b)
			}
			stopped <- err
		})
		st, err := p.dialer.OpenStream(t.Context(), "x", outlasting)
		require.NoError(t, err)
		require.True(t, st.Dedicated())
		require.NoError(t, st.SetReadDeadline(time.Now().Add(time.Second)))
		_, err = st.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		require.NoError(t, st.SetDeadline(time.Time{}))
		_, err = st.Write([]byte("ping"))
		require.NoError(t, err)
		require.NoError(t, st.CloseWrite())
		_, err = st.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = io.ReadFull(st, make([]byte, 4))
		require.NoError(t, err)
		require.NoError(t, st.CloseRead())
		_, err = st.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorContains(t, <-stopped, "broken pipe")
		require.Equal(t, "pipe", st.RemoteAddr().String())
		require.NoError(t, st.Close())
		require.ErrorIs(t, st.SetDeadline(time.Time{}), net.ErrClosed)
		wantZero(t, p.dialer)
		wantZero(t, p.accepted)
	})
}

// A peer that breaks the protocol of a stream's carriers loses that stream.
func TestAResumableStreamEndsWhenThePeerBreaksItsProtocol(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		result := make(chan error, 1)
		r.mux.SetStream("echo", func(st *Stream) {
			_, err := st.Read(make([]byte, 1))
			result <- err
		})
		conn := r.rawStream(frame.ResumableNew)
		_, err := conn.Write(resumeHello(1, [16]byte{}, 0, 0))
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, 44))
		require.NoError(t, err)
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		_, _ = conn.Write(make([]byte, 64))
		err = <-result
		require.ErrorIs(t, err, ErrProtocol)
		require.Equal(t, "echo", asError(t, err, Unknown).Link)
		require.NoError(t, conn.Close())
		require.Nil(t, r.accepted.Err())
		wantZero(t, r.accepted)
	})
}
