package session

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/resume"
)

// The kinds of segment (spec 7.3).
const (
	segStart = 1
	segData  = 2
	segAsk   = 3
	segEnd   = 4
	segFin   = 5
	segStop  = 6
)

// rawResumer is a raw peer that has dialed a session which outlives its carrier, and says segments by hand.
type rawResumer struct {
	t        *testing.T
	a        *Acceptor
	s        *Session
	id       ID
	patience uint32 // that the accepting side has told
	conn     net.Conn
	received atomic.Uint64 // bytes of segments, from the session
	resets   resets        // of carriers, by the session
}

// newRawResumer opens a session of the peer "raw".
func newRawResumer(t *testing.T, cfg AcceptorConfig) *rawResumer {
	t.Helper()
	opened := make(chan *Session, 1)
	cfg.OnSession = func(s *Session) { opened <- s }
	cfg.Local = "bob"
	if cfg.Mux == nil {
		cfg.Mux = echoing()
	}
	a, err := NewAcceptor(&cfg)
	require.NoError(t, err)
	p := &rawResumer{t: t, a: a}
	p.conn = p.connect("raw")
	ack := sayHello(t, p.conn, &frame.Hello{Role: frame.RoleSession, Limits: &generous, Caps: frame.CapResume, ResumeWindow: 60_000})
	require.Equal(t, frame.KindAck, ack.Kind)
	require.NotZero(t, ack.Caps&frame.CapResume)
	p.s, p.id, p.patience = <-opened, ack.SessionID, ack.ResumeWindow
	p.listen()
	t.Cleanup(func() {
		_ = p.s.Close()
		<-p.s.readerDone
	})
	return p
}

// connect returns one end of a link that the acceptor serves as peer's.
func (p *rawResumer) connect(peer string) net.Conn {
	here, there := faultnet.Pipe(faultnet.LinkOptions{Buffer: 1 << 20})
	go func() { _ = p.a.Serve(p.resets.of(there), peer) }()
	p.t.Cleanup(func() { _ = here.Close() })
	return here
}

// listen takes what the session sends on the carrier, in a goroutine that ends with the carrier.
func (p *rawResumer) listen() {
	conn := p.conn
	go func() {
		var h [12]byte
		for {
			if _, err := io.ReadFull(conn, h[:]); err != nil {
				return
			}
			n := int64(binary.BigEndian.Uint32(h[:]) & 0xffffff)
			if h[0] == segStart {
				p.received.Store(binary.BigEndian.Uint64(h[4:]))
			}
			m, _ := io.CopyN(io.Discard, conn, n)
			p.received.Add(uint64(m))
		}
	}()
}

// segment returns the bytes of one segment.
func segment(kind byte, length int, number uint64, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(kind)<<24|uint32(length))
	return append(binary.BigEndian.AppendUint64(b, number), body...)
}

// say writes segments to the carrier, and does not care whether the session still takes them.
func (p *rawResumer) say(segments ...[]byte) {
	for _, b := range segments {
		_, _ = p.conn.Write(b)
	}
	synctest.Wait()
}

// resume says the hello of a further carrier as peer, and goes on on it when it is taken.
func (p *rawResumer) resume(peer string, id ID, r frame.Resume) *frame.Hello {
	p.t.Helper()
	conn := p.connect(peer)
	answer := sayHello(p.t, conn, &frame.Hello{Role: frame.RoleResume, SessionID: id, Caps: frame.CapResume, Resume: &r})
	if answer.Kind == frame.KindAck {
		p.conn = conn
		p.listen()
	}
	synctest.Wait()
	return answer
}

// wantRefused fails unless answer refuses with code.
func wantRefused(t *testing.T, answer *frame.Hello, code codes.Code) {
	t.Helper()
	require.Equal(t, frame.KindRefuse, answer.Kind)
	require.Equal(t, code, answer.Failure.Code, "%q", answer.Failure.Text)
}

// wantProtocolEnd fails unless the session has ended because the peer broke the protocol.
func (p *rawResumer) wantProtocolEnd() {
	p.t.Helper()
	synctest.Wait()
	require.ErrorIs(p.t, p.s.Err(), ErrProtocol)
	require.ErrorIs(p.t, p.s.Err(), ErrSessionLost)
	require.Equal(p.t, codes.Protocol, codeOf(p.t, p.s.Err()), "%v", p.s.Err())
	require.Empty(p.t, p.a.Sessions())
	require.Zero(p.t, p.a.cfg.Quota.Snapshot().Sessions)
	require.Contains(p.t, p.resets.all(), codes.Protocol, "the peer is told")
}

// ping is a PING frame in a segment, whose answer shows that the session is alive.
func ping(kind byte, number, id uint64) []byte {
	f := frame.AppendHeader(nil, frame.Header{Type: frame.TypePing, ID: id})
	return segment(kind, len(f), number, string(f))
}

// Row: S3. Row: U14.
func TestTheHelloOfASessionTellsItsPatience(t *testing.T) {
	for window, want := range map[time.Duration]uint32{
		0: 60_000, time.Second: 1000, time.Microsecond: 1, 1500 * time.Microsecond: 1, 10000 * time.Hour: 1<<32 - 1,
	} {
		inBubble(t, func(t *testing.T) {
			p := newRawResumer(t, AcceptorConfig{Config: Config{ResumeWindow: window}})
			require.Equal(t, want, p.patience, "%v", window)
		})
	}
}

// Row: S3. A stranger can neither take, nor end, nor find a session, whatever he knows of it.
func TestAStrangerDoesNotFindASession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newRawResumer(t, AcceptorConfig{})
		p.say(segment(segStart, 0, 0, ""))
		before := p.s.Snapshot()
		unknown := p.id
		unknown[15]++
		for _, r := range []frame.Resume{
			{Attempt: 1}, {Attempt: 1, Live: true}, {Attempt: 1<<32 - 1, Received: 1 << 62}, {}, {Attempt: 7, Received: 1},
		} {
			theirs := p.resume("mallory", p.id, r)
			nobodys := p.resume("raw", unknown, r)
			wantRefused(t, theirs, codes.NotFound)
			require.Equal(t, nobodys, theirs, "the answer tells whether there is such a session")
		}
		// The victim's session is as it was, its number of attempts too.
		after := p.s.Snapshot()
		require.Equal(t, before, after)
		had := p.received.Load()
		p.say(ping(segData, had, 1))
		require.Equal(t, had+frame.HeaderSize, p.received.Load())
		require.Equal(t, frame.KindAck, p.resume("raw", p.id, frame.Resume{Received: had + frame.HeaderSize, Attempt: 1}).Kind)
		require.Equal(t, StateResumed, p.s.State())
	})
}

// Row: S3.
func TestASessionThatEndsWithItsCarrierIsNotResumed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{Mux: echoing()}}, 0, generous)
		here, there := net.Pipe()
		go func() { _ = w.a.Serve(there, "raw") }()
		wantRefused(t, sayHello(t, here, &frame.Hello{Role: frame.RoleResume, SessionID: w.s.ID(), Caps: frame.CapResume,
			Resume: &frame.Resume{Attempt: 1}}), codes.NotFound)
		w.request(1, "", "still here")
		w.want(frame.TypeResponse, 1)
	})
}

// Row: S3. Attempts count up: a hello that was overtaken, or is said again, does not take the carrier of a later one.
func TestAnAttemptThatDoesNotCountUpIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newRawResumer(t, AcceptorConfig{})
		p.say(segment(segStart, 0, 0, ""))
		wantRefused(t, p.resume("raw", p.id, frame.Resume{}), codes.Unavailable)
		require.Equal(t, StateConnected, p.s.State(), "a refused hello takes no carrier")
		require.Equal(t, frame.KindAck, p.resume("raw", p.id, frame.Resume{Received: p.received.Load(), Attempt: 5}).Kind)
		for _, attempt := range []uint32{5, 4, 1, 0} {
			wantRefused(t, p.resume("raw", p.id, frame.Resume{Received: p.received.Load(), Attempt: attempt}), codes.Unavailable)
		}
		require.Equal(t, StateResumed, p.s.State())
		had := p.received.Load()
		p.say(segment(segStart, 0, 0, ""), ping(segData, had, 1))
		require.Equal(t, had+frame.HeaderSize, p.received.Load(), "the carrier of attempt 5 works")
	})
}

// Row: S3. Defect S-e: what the peer says it has received is believed as far as it has been sent.
func TestAPeerThatHasReceivedMoreThanWasSentEndsTheSession(t *testing.T) {
	for _, more := range []uint64{1, 1 << 20, 1 << 62, 1<<64 - 1 - 1000} {
		inBubble(t, func(t *testing.T) {
			p := newRawResumer(t, AcceptorConfig{})
			p.say(segment(segStart, 0, 0, ""))
			wantRefused(t, p.resume("raw", p.id, frame.Resume{Received: p.received.Load() + more, Attempt: 1}), codes.Protocol)
			p.wantProtocolEnd()
		})
		inBubble(t, func(t *testing.T) {
			p := newRawResumer(t, AcceptorConfig{})
			p.say(segment(segStart, 0, 0, ""), segment(segData, 0, p.received.Load()+more, ""))
			p.wantProtocolEnd()
		})
	}
}

// Row: S3. Defect S-e.
func TestSegmentsThatBreakTheProtocolEndTheSession(t *testing.T) {
	begin := segment(segStart, 0, 0, "")
	for name, said := range map[string][][]byte{
		"kind 0":               {begin, segment(0, 0, 0, "")},
		"kind 7":               {begin, segment(7, 0, 0, "")},
		"kind 255":             {begin, segment(255, 1<<24-1, 0, "")},
		"DATA before START":    {ping(segData, 0, 1)},
		"ASK before START":     {segment(segAsk, 0, 0, "")},
		"END before START":     {segment(segEnd, 0, 0, "")},
		"START twice":          {begin, begin},
		"START with bytes":     {segment(segStart, 1, 0, "x")},
		"END with bytes":       {begin, segment(segEnd, 1, 0, "x")},
		"END beyond":           {begin, segment(segEnd, 0, 1, "")},
		"END before its place": {begin, ping(segData, 0, 1), segment(segEnd, 0, 0, "")},
		"END at 2^62":          {begin, segment(segEnd, 0, 1<<62, "")},
		"FIN with bytes":       {begin, segment(segFin, 1, 0, "x")},
		"STOP with bytes":      {begin, segment(segStop, 1, 0, "x")},
		"a frame of type 0":    {begin, segment(segData, frame.HeaderSize, 0, string(make([]byte, frame.HeaderSize)))},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newRawResumer(t, AcceptorConfig{})
				p.say(said...)
				synctest.Wait()
				require.Error(t, p.s.Err())
				if name != "a frame of type 0" {
					p.wantProtocolEnd()
				}
				wantRefused(t, p.resume("raw", p.id, frame.Resume{Attempt: 1}), codes.NotFound)
			})
		})
	}
}

// Row: S3. FIN and STOP end a direction of a flow, which a session does not do: it ends.
func TestAPeerThatEndsADirectionHasLostTheSession(t *testing.T) {
	for name, kind := range map[string]byte{"FIN": segFin, "STOP": segStop} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newRawResumer(t, AcceptorConfig{})
				p.say(segment(segStart, 0, 0, ""), segment(kind, 0, 0, ""))
				_ = p.s.Send(t.Context(), "", []byte("something to write"))
				synctest.Wait()
				wantLost(t, p.s)
				require.Empty(t, p.a.Sessions())
			})
		})
	}
}

// A carrier that begins beyond what has been received has a gap: it is given up, again and again if need be, and the
// session goes on when one comes that has none.
func TestACarrierWithAGapIsGivenUpAndTheSessionGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newRawResumer(t, AcceptorConfig{})
		p.say(segment(segStart, 0, 0, ""), ping(segData, 0, 1))
		for attempt := range uint32(100) {
			answer := p.resume("raw", p.id, frame.Resume{Received: p.received.Load(), Attempt: attempt + 1})
			require.Equal(t, frame.KindAck, answer.Kind)
			require.EqualValues(t, frame.HeaderSize, answer.Resume.Received)
			require.Equal(t, attempt+1, answer.Resume.Attempt)
			require.False(t, answer.Resume.Live)
			beyond := []uint64{1, 1 << 62}[attempt%2]
			p.say(segment(segStart, 0, frame.HeaderSize+beyond, ""), ping(segData, 0, 2))
			require.Equal(t, StateDetached, p.s.State())
			require.NoError(t, p.s.Err())
		}
		had := p.received.Load()
		p.resume("raw", p.id, frame.Resume{Received: had, Attempt: 1000})
		p.say(segment(segStart, 0, 0, ""), ping(segData, 0, 1), ping(segData, had, 3)) // the first comes again, and is skipped
		require.Equal(t, had+frame.HeaderSize, p.received.Load())
		require.Equal(t, StateResumed, p.s.State())
	})
}

// Row: S3. A long segment of which nothing comes, and any number of hellos, reserve nothing.
func TestHostileHellosAndSegmentsReserveNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newRawResumer(t, AcceptorConfig{})
		before := heap()
		p.say(segment(segStart, 0, 0, ""), segment(segAsk, 1<<24-1, 0, ""))
		require.Less(t, heap()-before, int64(64<<10), "for a segment of 16 MiB that has not come")
		for i := range uint32(500) {
			_ = p.resume("mallory", p.id, frame.Resume{Received: 1 << 62, Attempt: i})
			_ = p.conn
		}
		require.Less(t, heap()-before, int64(1<<20), "for 500 hellos of a stranger")
		require.NoError(t, p.s.Err())
		require.Len(t, p.a.Sessions(), 1)
	})
}

// An ASK is answered once its bytes have been taken, and one without bytes at once.
func TestAnAskIsAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newRawResumer(t, AcceptorConfig{})
		conn := p.connect("raw")
		require.NoError(t, frame.WriteHello(conn, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: 1,
			Role: frame.RoleResume, SessionID: p.id, Caps: frame.CapResume, Resume: &frame.Resume{Attempt: 1, Received: p.received.Load()}})))
		readHello(t, conn)
		p.conn = conn
		read := func(n int) []byte {
			b := make([]byte, n)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
			_, err := io.ReadFull(conn, b)
			require.NoError(t, err)
			return b
		}
		require.Equal(t, segment(segStart, 0, p.received.Load(), ""), read(12))
		p.say(segment(segStart, 0, 0, ""), segment(segAsk, 0, 0, ""))
		require.Equal(t, segment(segData, 0, 0, ""), read(12), "an empty ASK")
		frames := frame.AppendHeader(nil, frame.Header{Type: frame.TypePong, ID: 9})
		whole := segment(segAsk, len(frames), 0, string(frames))
		p.say(whole[:12+5])
		require.Equal(t, segment(segData, 0, 5, ""), read(12), "not the answer: what has come is told of in any case")
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "no answer before all of it has come")
		p.say(whole[12+5:])
		require.Equal(t, segment(segData, 0, uint64(len(frames)), ""), read(12))
	})
}

// rawAcceptor answers the hellos of a real session that dials: one function for each carrier, the first one for the
// session's own.
func rawAcceptor(
	t *testing.T, cfg Config, answers ...func(h *frame.Hello, conn net.Conn) *frame.Hello,
) (*Session, *atomic.Int64, *resets) {
	t.Helper()
	var opened atomic.Int64
	noted := new(resets)
	open := func(context.Context, Want) (net.Conn, error) {
		i := int(opened.Add(1)) - 1
		if i >= len(answers) {
			return nil, errNoRoute
		}
		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		t.Cleanup(func() { _ = there.Close() })
		go func() {
			body, err := frame.ReadHello(there)
			if err != nil {
				return
			}
			h, _, err := frame.ConsumeHello(body)
			if err != nil {
				return
			}
			if answer := answers[i](h, there); answer != nil {
				answer.Version = frame.Version
				_ = frame.WriteHello(there, frame.AppendHello(nil, answer))
			}
		}()
		return noted.of(here), nil
	}
	first, err := open(t.Context(), Want{})
	require.NoError(t, err)
	s, err := Dial(t.Context(), first, "raw", open, &cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = s.Close()
		<-s.readerDone
	})
	return s, &opened, noted
}

// takes is the answer to the first hello, after which the carrier is cut.
func takes(h *frame.Hello, conn net.Conn) *frame.Hello {
	time.AfterFunc(time.Second, conn.(*faultnet.Conn).Link().Cut)
	return &frame.Hello{Kind: frame.KindAck, Caps: frame.CapResume, Limits: &generous, SessionID: newSessionID(), ResumeWindow: 60_000}
}

// Row: S3. Which refusals are final, and which only mean "not now".
func TestARefusalOfTheSessionIsFinalAndOneOfTheMomentIsNot(t *testing.T) {
	for code, final := range map[codes.Code]bool{
		codes.NotFound: true, codes.Unsupported: true, codes.Protocol: true, codes.NotAllowed: true,
		codes.GoingAway: true, codes.Version: true, codes.PSKRequired: true, codes.PSKMismatch: true,
		codes.PSKUnexpected: true, codes.PSKTampered: true,
		codes.Unavailable: false, codes.Internal: false, codes.Timeout: false, codes.OK: false, 999: false,
	} {
		inBubble(t, func(t *testing.T) {
			refuse := func(*frame.Hello, net.Conn) *frame.Hello {
				return &frame.Hello{Kind: frame.KindRefuse, Failure: &frame.Failure{Code: code, Text: "no"}}
			}
			began := time.Now()
			s, opened, _ := rawAcceptor(t, Config{ResumeWindow: 10 * time.Second}, takes, refuse, refuse, refuse)
			e := wantLost(t, s)
			if final {
				require.EqualValues(t, 2, opened.Load(), "%v", code)
				require.Less(t, time.Since(began), 2*time.Second, "%v", code)
			} else {
				require.Greater(t, opened.Load(), int64(4), "%v", code)
				require.Equal(t, 11*time.Second, time.Since(began), "%v", code)
			}
			if final && code != codes.NotFound {
				require.Equal(t, code, e.Code)
			}
		})
	}
}

// A session without a carrier does not ask the peer again before the peer has said, up to Backoff.Max, whoever is in a hurry.
func TestTheHintOfARefusedResumeIsKeptTo(t *testing.T) {
	for hint, want := range map[time.Duration]time.Duration{2 * time.Second: 2 * time.Second, time.Hour: 3 * time.Second} {
		inBubble(t, func(t *testing.T) {
			asks := make(chan time.Time, 16)
			refuse := func(*frame.Hello, net.Conn) *frame.Hello {
				asks <- time.Now()
				return &frame.Hello{Kind: frame.KindRefuse, Failure: &frame.Failure{Code: codes.Unavailable, RetryAfter: hint}}
			}
			s, _, _ := rawAcceptor(t, Config{ResumeWindow: 20 * time.Second, Backoff: resume.Backoff{Min: 1, Max: 3 * time.Second}},
				takes, refuse, refuse, refuse, refuse)
			for range 120 {
				time.Sleep(100 * time.Millisecond)
				s.Probe()
				s.kickRedial()
			}
			require.Len(t, asks, 4)
			for last := <-asks; len(asks) > 0; {
				next := <-asks
				require.GreaterOrEqual(t, next.Sub(last), want)
				require.Less(t, next.Sub(last), want+200*time.Millisecond)
				last = next
			}
		})
	}
}

// Row: S3. An answer that is none, or claims what cannot be.
func TestAnAnswerThatBreaksTheProtocolDoesNotResume(t *testing.T) {
	resumed := func(change func(r *frame.Resume)) func(h *frame.Hello, _ net.Conn) *frame.Hello {
		return func(h *frame.Hello, _ net.Conn) *frame.Hello {
			r := *h.Resume
			r.Received, r.Live = 0, false
			change(&r)
			return &frame.Hello{Kind: frame.KindAck, Caps: frame.CapResume, Resume: &r}
		}
	}
	for name, answer := range map[string]func(h *frame.Hello, _ net.Conn) *frame.Hello{
		"received 2^62":      resumed(func(r *frame.Resume) { r.Received = 1 << 62 }),
		"received 1 more":    resumed(func(r *frame.Resume) { r.Received = 1000 }),
		"an ACK of a stream": func(*frame.Hello, net.Conn) *frame.Hello { return &frame.Hello{Kind: frame.KindAck} },
		"an ACK of a session": func(*frame.Hello, net.Conn) *frame.Hello {
			return &frame.Hello{Kind: frame.KindAck, Limits: &generous, SessionID: newSessionID()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				s, opened, noted := rawAcceptor(t, Config{ResumeWindow: 10 * time.Second}, takes, answer)
				e := wantLost(t, s)
				t.Logf("%d attempts: %v", opened.Load()-1, e)
				if name == "received 2^62" || name == "received 1 more" {
					require.EqualValues(t, 2, opened.Load())
					require.Equal(t, codes.Protocol, e.Code)
					synctest.Wait() // the carrier is dropped by the goroutine that opened it
					require.Contains(t, noted.all(), codes.Protocol, "the peer is told")
				}
			})
		})
	}
}

// Row: S3. Attempts of the dialing side count up, and tell what it has received.
func TestTheDialingSideCountsItsAttempts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said []frame.Resume
		hangUp := func(h *frame.Hello, conn net.Conn) *frame.Hello {
			require.Equal(t, frame.RoleResume, h.Role)
			said = append(said, *h.Resume)
			_ = conn.Close()
			return nil
		}
		s, _, _ := rawAcceptor(t, Config{ResumeWindow: 10 * time.Second}, takes, hangUp, hangUp, hangUp)
		wantLost(t, s)
		require.Equal(t, []frame.Resume{{Attempt: 1}, {Attempt: 2}, {Attempt: 3}}, said)
		require.False(t, errors.Is(s.Err(), ErrProtocol))
	})
}
