package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/psk"
)

// ring1 and ring2 return fresh keyrings of two keys; a Keyring remembers what it has seen.
var testKeys = sync.OnceValue(func() [2]*psk.Key {
	var keys [2]*psk.Key
	for i := range keys {
		var err error
		cheap := &psk.Params{Time: 1, MemoryKiB: 64, Threads: 1}
		if keys[i], err = psk.Derive(fmt.Appendf(nil, "a secret of this test %d", i), cheap); err != nil {
			panic(err)
		}
	}
	return keys
})

func keyring(t *testing.T, of ...int) *psk.Keyring {
	t.Helper()
	var previous []*psk.Key
	for _, i := range of[1:] {
		previous = append(previous, testKeys()[i])
	}
	k, err := psk.NewKeyring(testKeys()[of[0]], previous...)
	require.NoError(t, err)
	return k
}

// helloTo says raw bytes to an Acceptor and returns its answer, nil if it hangs up, and what Serve returned.
func helloTo(t *testing.T, a *Acceptor, body []byte) (*frame.Hello, error) {
	t.Helper()
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- a.Serve(there, "alice") }()
	go func() {
		_, _ = here.Write(binary.BigEndian.AppendUint16(nil, uint16(len(body))))
		_, _ = here.Write(body)
	}()
	answer, err := frame.ReadHello(here)
	if err != nil {
		_ = here.Close()
		return nil, <-served
	}
	h, _, err := frame.ConsumeHello(answer)
	require.NoError(t, err)
	_ = here.Close()
	return h, <-served
}

func TestHellosAreAcceptedOrRefusedWithAReason(t *testing.T) {
	ok := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: 1, Role: frame.RoleSession, Limits: &generous})
	with := func(change func(h *frame.Hello)) []byte {
		h := &frame.Hello{Kind: frame.KindHello, Version: 1, Role: frame.RoleSession, Limits: &generous}
		change(h)
		return frame.AppendHello(nil, h)
	}
	for name, c := range map[string]struct {
		body []byte
		code codes.Code
		text string
	}{
		"plain":                  {ok, codes.OK, ""},
		"later version":          {with(func(h *frame.Hello) { h.Version = 9 }), codes.OK, ""},
		"unknown optional field": {append(bytes.Clone(ok), 0xF1, 0, 2, 1, 2), codes.OK, ""},
		"unknown critical field": {append(bytes.Clone(ok), 0xF0, 0, 2, 1, 2), codes.Unsupported, "0xf0"},
		"version 0":              {with(func(h *frame.Hello) { h.Version = 0 }), codes.Version, "update the older"},
		"strange later version":  {[]byte{1, 7, 0xF0, 0, 0}, codes.Version, "the hello is 7"},
		"an ACK": {with(func(h *frame.Hello) { h.Kind, h.Role, h.SessionID = frame.KindAck, 0, newSessionID() }), codes.Protocol,
			"not HELLO"},
		"a role of tomorrow": {with(func(h *frame.Hello) { h.Role, h.Limits = 4, nil }), codes.Unsupported, "role 4"},
		"a resumption that tells nothing": {with(func(h *frame.Hello) {
			h.Role, h.Limits, h.SessionID = frame.RoleResume, nil, newSessionID()
		}), codes.Protocol, ""},
		"a resumption of no session": {with(func(h *frame.Hello) {
			h.Role, h.Limits, h.SessionID, h.Resume = frame.RoleResume, nil, newSessionID(), &frame.Resume{Attempt: 1}
		}), codes.NotFound, "no such session"},
		"garbage": {[]byte{1, 1, 2, 0, 9}, codes.Protocol, ""},
		"empty":   {nil, codes.Protocol, ""},
		"noise where there is no key": {with(func(h *frame.Hello) { h.Noise = make([]byte, 56) }), codes.PSKUnexpected,
			"no pre-shared key"},
		"a stream of no session": {with(func(h *frame.Hello) {
			h.Role, h.Limits, h.SessionID, h.Name = frame.RoleStream, nil, newSessionID(), "x"
		}), codes.NotFound, "no such session"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				a, err := NewAcceptor(nil)
				require.NoError(t, err)
				h, err := helloTo(t, a, c.body)
				if c.code == codes.OK {
					require.NoError(t, err)
					require.Equal(t, frame.KindAck, h.Kind)
					require.Equal(t, uint8(1), h.Version)
					return
				}
				require.Equal(t, frame.KindRefuse, h.Kind)
				require.Equal(t, c.code, h.Failure.Code, "%v", h.Failure)
				require.Contains(t, h.Failure.Text, c.text)
				var e *Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, c.code, e.Code)
				require.Equal(t, uint64(1), a.Refused())
				require.Empty(t, a.hellos)
				require.Empty(t, a.conns)
			})
		})
	}
}

// Row: D11
func TestAHelloThatClaimsTooMuchIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, err := NewAcceptor(nil)
		require.NoError(t, err)
		h, err := helloTo(t, a, make([]byte, frame.MaxHello+1))
		require.Nil(t, h)
		require.ErrorIs(t, err, frame.ErrTooLong)
	})
}

// Claim: session.Config.HandshakeTimeout
func TestASlowHelloIsDroppedInTime(t *testing.T) {
	inBubble(t, func(t *testing.T) { // the accepting side, byte by byte
		a, err := NewAcceptor(&AcceptorConfig{Config: Config{HandshakeTimeout: 3 * time.Second}})
		require.NoError(t, err)
		here, there := net.Pipe()
		began := time.Now()
		go func() {
			for b := []byte{1}; ; time.Sleep(time.Second) {
				if _, err := here.Write(b); err != nil {
					return
				}
			}
		}()
		err = a.Serve(there, "x")
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(began))
		time.Sleep(2 * time.Second)
	})
	inBubble(t, func(t *testing.T) { // the dialing side
		here, there := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		go func() {
			for b := []byte{1}; ; time.Sleep(time.Second) {
				if _, err := there.Write(b); err != nil {
					return
				}
			}
		}()
		began := time.Now()
		_, err := Dial(t.Context(), here, "x", nil, &Config{HandshakeTimeout: 3 * time.Second})
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		asError(t, err, NotSent)
		require.Equal(t, 3*time.Second, time.Since(began))
		_, err = here.Write(nil)
		require.ErrorIs(t, err, io.ErrClosedPipe, "the carrier is dropped")
		_ = there.Close()
		time.Sleep(2 * time.Second)
	})
}

// Row: D7
func TestCancelInTheMiddleOfAHelloReturnsAtOnce(t *testing.T) {
	for name, serve := range map[string]func(c net.Conn){
		"nothing is read":     func(net.Conn) {},
		"nothing is answered": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				here, there := net.Pipe()
				go serve(there)
				ctx, cancel := context.WithCancel(t.Context())
				began := time.Now()
				time.AfterFunc(time.Second, cancel)
				_, err := Dial(ctx, here, "x", nil, nil)
				require.ErrorIs(t, err, context.Canceled)
				asError(t, err, NotSent)
				require.Equal(t, time.Second, time.Since(began))
				_, err = Dial(within(t, time.Second), here, "x", nil, nil)
				require.Error(t, err)
			})
		})
	}
}

// Claim: session.AcceptorConfig.MaxHandshakes, session.ErrUnavailable
func TestHandshakesOfOnePeerAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, err := NewAcceptor(&AcceptorConfig{MaxHandshakes: 3})
		require.NoError(t, err)
		var silent []net.Conn
		for range 6 { // three in progress, and three that wait for them
			here, there := net.Pipe()
			silent = append(silent, here)
			go func() { _ = a.Serve(there, "alice") }()
		}
		synctest.Wait()
		require.Equal(t, 3, a.hellos["alice"].answered)
		here, there := net.Pipe()
		require.ErrorIs(t, a.Serve(there, "alice"), ErrUnavailable)
		_, err = here.Read(make([]byte, 1))
		require.Error(t, err)
		other, there := net.Pipe()
		go func() { _ = a.Serve(there, "carol") }()
		ack := sayHello(t, other, &frame.Hello{Role: frame.RoleSession, Limits: &generous})
		require.Equal(t, frame.KindAck, ack.Kind)
		for _, c := range append(silent, other) {
			_ = c.Close()
		}
		synctest.Wait()
		require.Empty(t, a.hellos)
		require.Empty(t, a.Sessions())
	})
}

// Claim: session.AcceptorConfig.Admit, session.Quota.MaxSessions, session.QuotaSnapshot.Sessions, session.Config.Agent, session.Snapshot.Agent
// Claim: session.ErrNotAllowed
func TestAdmitAndQuotaDecideAboutSessions(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := &Quota{MaxSessions: 1}
		var admit error
		a, err := NewAcceptor(&AcceptorConfig{Config: Config{Quota: quota}, Admit: func(peer string) error {
			require.Equal(t, "alice", peer)
			return admit
		}})
		require.NoError(t, err)
		dial := func() (*Session, error) {
			here, there := net.Pipe()
			go func() { _ = a.Serve(there, "alice") }()
			return Dial(t.Context(), here, "bob", nil, &Config{Agent: "test/1"})
		}
		admit = errors.New("ask Eve first")
		_, err = dial()
		require.ErrorIs(t, err, ErrNotAllowed)
		require.Equal(t, "ask Eve first", asError(t, err, NotSent).Text)
		admit = &Error{Code: codes.Unavailable, RetryAfter: time.Minute}
		_, err = dial()
		require.Equal(t, time.Minute, asError(t, err, NotSent).RetryAfter)
		admit = nil
		s, err := dial()
		require.NoError(t, err)
		synctest.Wait()
		require.Len(t, a.Sessions(), 1)
		require.Equal(t, "test/1", a.Sessions()[0].Snapshot().Agent)
		require.Equal(t, s.ID(), a.Sessions()[0].ID())
		require.Equal(t, 1, quota.Snapshot().Sessions)
		_, err = dial()
		require.ErrorIs(t, err, ErrUnavailable)
		require.NotZero(t, asError(t, err, NotSent).RetryAfter)
		require.NoError(t, s.Close())
		synctest.Wait()
		require.Zero(t, quota.Snapshot().Sessions)
		s, err = dial()
		require.NoError(t, err)
		require.NoError(t, s.Close())
		require.Equal(t, uint64(3), a.Refused())
	})
}

// Row: N15
// Claim: session.Config.DisableCompression, session.Snapshot.BytesIn, session.Snapshot.BytesOut
func TestCapabilitiesAreTheIntersection(t *testing.T) {
	for _, off := range []string{"neither", "dialer", "acceptor"} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{DisableCompression: off == "dialer"},
				AcceptorConfig{Config: Config{DisableCompression: off == "acceptor"}})
			p.mux.SetCall(echo)
			zeros := make([]byte, 1<<20)
			reply, err := p.dialer.Call(t.Context(), "", zeros)
			require.NoError(t, err)
			require.True(t, bytes.Equal(zeros, reply))
			synctest.Wait()
			v := p.dialer.Snapshot()
			if off == "neither" {
				require.Less(t, v.BytesIn+v.BytesOut, uint64(64<<10))
			} else {
				require.Greater(t, v.BytesIn, uint64(1<<20))
				require.Greater(t, v.BytesOut, uint64(1<<20))
			}
		})
	}
}

// Row: N15, D13
func TestCompressionThatWasNotAgreedOnEndsTheSession(t *testing.T) {
	small, ok := frame.Compress(make([]byte, 1000))
	require.True(t, ok)
	s := frame.Start{Total: len(small), Raw: 1000}
	for _, typ := range []frame.Type{frame.TypeRequest, frame.TypeMessage, frame.TypeResponse} {
		inBubble(t, func(t *testing.T) {
			w := dialed(t, Config{DisableCompression: true}, frame.CapZstd|frame.CapBatchAck, generous)
			w.s.cfg.Mux.SetCall(echo)
			w.s.cfg.Mux.SetLink("", func(*Message) {})
			id := uint64(2)
			if typ == frame.TypeResponse {
				go func() { _, _ = w.s.Call(t.Context(), "", nil) }()
				id = w.want(frame.TypeRequest, 1).ID
			}
			w.push(typ, frame.FlagCompressed, id, start(typ, frame.FlagCompressed, s, small))
			require.ErrorIs(t, w.wantEnd(), ErrProtocol, "%v", typ)
		})
	}
}

// Row: N15
func TestAFrozenPeerWithoutCapabilitiesStillTalks(t *testing.T) {
	for _, caps := range []frame.Caps{0, frame.CapZstd, 1 << 40} {
		inBubble(t, func(t *testing.T) { // it accepts
			w := dialed(t, Config{}, caps, generous)
			require.Equal(t, caps&w.s.cfg.caps(), w.s.caps)
			go w.answerNext()
			reply, err := w.s.Call(t.Context(), "", []byte("x"))
			require.NoError(t, err)
			require.Equal(t, "fresh", string(reply))
			require.NoError(t, w.s.Send(t.Context(), "x", nil))
			w.want(frame.TypeMessage, 3)
			w.send(0x99, 0xFF, 77, []byte("an optional frame of tomorrow"))
			w.send(frame.TypeMessageAck, 0, 3, nil)
			require.NoError(t, w.s.Flush(t.Context()))
		})
		inBubble(t, func(t *testing.T) { // it dials
			w := accepted(t, AcceptorConfig{}, caps, generous)
			w.s.cfg.Mux.SetCall(echo)
			w.request(1, "", "hi")
			g := w.want(frame.TypeResponse, 1)
			require.Equal(t, "hi", string(g.body[4:]))
			w.message(3, "nobody", "")
			w.wantFailure(frame.TypeError, 3, codes.NotFound)
			w.want(frame.TypeMessageAck, 3)
		})
	}
}

// pskTry tries to open a session under keys, through change on the dialing side's conn, and makes one call if it opens.
func pskTry(t *testing.T, dial, accept *psk.Keyring, change func(net.Conn) net.Conn) (dialErr, serveErr error, ran int) {
	t.Helper()
	mux := NewMux()
	mux.SetCall(func(*Message) ([]byte, error) {
		ran++
		return nil, nil
	})
	a, err := NewAcceptor(&AcceptorConfig{Config: Config{Local: "bob", Keys: accept, Mux: mux, HandshakeTimeout: time.Second}})
	require.NoError(t, err)
	here, there := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- a.Serve(there, "alice") }()
	var conn net.Conn = here
	if change != nil {
		conn = change(here)
	}
	s, dialErr := Dial(t.Context(), conn, "bob", nil, &Config{Local: "alice", Keys: dial, HandshakeTimeout: time.Second,
		Heartbeat: time.Second, RequestTimeout: 10 * time.Second})
	if dialErr == nil {
		_, dialErr = s.Call(t.Context(), "", []byte("the first call"))
		_ = s.Close()
	}
	_ = there.Close()
	serveErr = <-served
	synctest.Wait()
	require.Empty(t, a.Sessions())
	return dialErr, serveErr, ran
}

// Row: N1, N3
// Claim: session.Config.Keys
func TestKeysThatDifferOpenNothing(t *testing.T) {
	for name, c := range map[string]struct {
		dial, accept []int
		is           error
		code         codes.Code
	}{
		"same":                      {[]int{0}, []int{0}, nil, 0},
		"other":                     {[]int{1}, []int{0}, ErrPSKMismatch, codes.PSKMismatch},
		"previous at the acceptor":  {[]int{1}, []int{0, 1}, nil, 0},
		"previous at the dialer":    {[]int{0, 1}, []int{1, 0}, nil, 0},
		"only the dialer has one":   {[]int{0}, nil, ErrPSKRequired, codes.PSKUnexpected},
		"only the acceptor has one": {nil, []int{0}, ErrPSKRequired, codes.PSKRequired},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var dial, accept *psk.Keyring
				if c.dial != nil {
					dial = keyring(t, c.dial...)
				}
				if c.accept != nil {
					accept = keyring(t, c.accept...)
				}
				dialErr, serveErr, ran := pskTry(t, dial, accept, nil)
				if c.is == nil {
					require.NoError(t, dialErr)
					require.NoError(t, serveErr)
					require.Equal(t, 1, ran)
					return
				}
				require.Zero(t, ran)
				require.ErrorIs(t, dialErr, c.is)
				require.ErrorIs(t, serveErr, c.is)
				e := asError(t, dialErr, NotSent)
				require.True(t, e.Remote)
				require.Equal(t, c.code, e.Code)
			})
		})
	}
}

func TestAKeyIsRotatedWithoutAGap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		dial, accept := keyring(t, 0, 1), keyring(t, 0, 1)
		try := func() error { err, _, _ := pskTry(t, dial, accept, nil); return err }
		require.NoError(t, try())
		require.NoError(t, accept.Rotate(testKeys()[1]))
		require.NoError(t, try())
		require.NoError(t, dial.Rotate(testKeys()[1]))
		require.NoError(t, try())
		accept.Retire()
		require.NoError(t, try())
		require.NoError(t, dial.Rotate(testKeys()[0]))
		require.ErrorIs(t, try(), ErrPSKMismatch)
	})
}

// flip changes byte at of what is written (or read) through a conn.
func flip(at int, written bool) func(net.Conn) net.Conn {
	return func(c net.Conn) net.Conn {
		seen := 0
		change := func(p []byte) []byte {
			p = bytes.Clone(p)
			if i := at - seen; i >= 0 && i < len(p) {
				p[i] ^= 0x01
			}
			seen += len(p)
			return p
		}
		f := &fakeConn{Conn: c}
		if written {
			f.write = func(p []byte) (int, error) { return c.Write(change(p)) }
		} else {
			f.read = func(p []byte) (int, error) {
				n, err := c.Read(p)
				copy(p, change(p[:n]))
				return n, err
			}
		}
		return f
	}
}

// Row: N3
func TestAChangedByteOfEitherHelloIsFound(t *testing.T) {
	var hello, ack int
	inBubble(t, func(t *testing.T) {
		var c capture
		err, _, _ := pskTry(t, keyring(t, 0), keyring(t, 0), c.tap)
		require.NoError(t, err)
		out, in := c.seen()
		hello, ack = 2+int(binary.BigEndian.Uint16(out)), 2+int(binary.BigEndian.Uint16(in))
	})
	require.Greater(t, hello, 80)
	require.Greater(t, ack, 100)
	for at := range hello {
		inBubble(t, func(t *testing.T) {
			dialErr, serveErr, ran := pskTry(t, keyring(t, 0), keyring(t, 0), flip(at, true))
			require.Error(t, dialErr, "HELLO byte %d", at)
			require.Error(t, serveErr, "HELLO byte %d", at)
			require.Zero(t, ran, "HELLO byte %d", at)
		})
	}
	for at := range ack {
		inBubble(t, func(t *testing.T) {
			dialErr, _, ran := pskTry(t, keyring(t, 0), keyring(t, 0), flip(at, false))
			require.Error(t, dialErr, "ACK byte %d", at)
			require.Zero(t, ran, "ACK byte %d", at)
		})
	}
}

// Claim: session.ErrPSKReplayed
func TestAReplayedHelloIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		keys := keyring(t, 0)
		a, err := NewAcceptor(&AcceptorConfig{Config: Config{Local: "bob", Keys: keys}})
		require.NoError(t, err)
		var c capture
		here, there := net.Pipe()
		go func() { _ = a.Serve(there, "alice") }()
		s, err := Dial(t.Context(), c.tap(here), "bob", nil, &Config{Local: "alice", Keys: keyring(t, 0)})
		require.NoError(t, err)
		said, _ := c.seen()
		h, err := helloTo(t, a, said[2:2+binary.BigEndian.Uint16(said)])
		require.ErrorIs(t, err, ErrPSKReplayed)
		require.Equal(t, codes.PSKReplayed, h.Failure.Code)
		require.NoError(t, s.Close())
	})
}

func TestAPeerThatAnswersWithoutProofIsNotBelieved(t *testing.T) {
	for name, keys := range map[string]*psk.Keyring{"a key here": keyring(t, 0), "no key here": nil} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				here, there := net.Pipe()
				go func() {
					readHello(t, there)
					ack := &frame.Hello{Kind: frame.KindAck, Version: 1, Limits: &generous, SessionID: newSessionID()}
					if keys == nil {
						ack.Noise = make([]byte, 88)
					}
					_ = frame.WriteHello(there, frame.AppendHello(nil, ack))
				}()
				_, err := Dial(t.Context(), here, "bob", nil, &Config{Keys: keys})
				require.ErrorIs(t, err, ErrPSKRequired)
				require.False(t, asError(t, err, NotSent).Remote)
			})
		})
	}
}

// Row: N2
// Claim: session.Snapshot.Sealed
func TestNothingOfThePayloadIsSeenOnASealedCarrier(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var c capture
		secret := make([]byte, 64)
		_, _ = rand.Read(secret)
		secret = fmt.Appendf(nil, "%x", secret)
		mux := NewMux()
		mux.SetCall(echo)
		mux.SetLink("confidential-link", func(*Message) {})
		mux.SetStream("confidential-stream", func(st *Stream) { _, _ = io.Copy(st, st) })
		a, err := NewAcceptor(&AcceptorConfig{Config: Config{Local: "bob", Keys: keyring(t, 0), Mux: mux}})
		require.NoError(t, err)
		carriers := 0
		open := func(context.Context, Want) (net.Conn, error) {
			carriers++
			here, there := net.Pipe()
			go func() { _ = a.Serve(there, "alice") }()
			return c.tap(here), nil
		}
		conn, _ := open(t.Context(), Want{})
		s, err := Dial(t.Context(), conn, "bob", open, &Config{Local: "alice", Keys: keyring(t, 0), DisableCompression: true})
		require.NoError(t, err)
		require.True(t, s.Snapshot().Sealed)
		reply, err := s.Call(t.Context(), "", secret)
		require.NoError(t, err)
		require.Equal(t, secret, reply)
		require.NoError(t, s.Send(t.Context(), "confidential-link", secret))
		require.NoError(t, s.Flush(t.Context()))
		for _, dedicated := range []bool{false, true} {
			st, err := s.OpenStream(t.Context(), "confidential-stream", &StreamOptions{Dedicated: dedicated})
			require.NoError(t, err)
			_, err = st.Write(secret)
			require.NoError(t, err)
			back := make([]byte, len(secret))
			_, err = io.ReadFull(st, back)
			require.NoError(t, err)
			require.Equal(t, secret, back)
			require.NoError(t, st.CloseWrite())
			require.NoError(t, st.Close())
		}
		require.Equal(t, 2, carriers)
		require.NoError(t, s.Close())
		out, in := c.seen()
		seen := append(out, in...)
		require.Greater(t, len(seen), 8*len(secret))
		require.False(t, bytes.Contains(seen, secret[:16]))
		require.False(t, bytes.Contains(seen, []byte("confidential-link")))
		require.Equal(t, 1, bytes.Count(seen, []byte("confidential-stream")), "the HELLO of the dedicated one names it")
	})
}
