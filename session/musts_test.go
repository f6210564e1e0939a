package session

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// A must is a rule of docs/PROTOCOL.md.
type must struct {
	rule   string // its words there
	broken string // the test that breaks it, as a hostile peer can; one of another package has its folder before it
	why    string // why there is none
}

// musts are all the rules with a MUST, or whose breach ends a session. TestBreachesAreToldByTheirCode breaks many of them, on either side.
var musts = []must{
	{rule: "MUST, SHOULD and MAY are as in RFC 2119", why: "it explains words"},
	{rule: "*Ends the session with* a code means 4.5", why: "it explains words"},
	{rule: "one side MUST NOT do something and names no consequence, the other side MAY end the session with codes.Protocol",
		why: "it allows what others demand"},
	{rule: "an accepting side MUST NOT wait for the end of the request's direction",
		broken: "../TestAnOldClientThatNeverClosesIsServedOnAndOn"},
	{rule: "it MUST do so rather than wait where REFUSE cannot be written", broken: "TestARefusalThatIsNotReadIsAReset"},
	{rule: "an accepting side that has sent ACK meanwhile then ends the session", broken: "TestASessionThatTheDialingSideNeverKnewEndsAtOnce"},
	{rule: "MUST NOT make a dialing side try without a key", broken: "TestARefusalDoesNotMakeADialingSideTryWithoutItsKey"},
	{rule: "A larger one ends the session with codes.Protocol as soon as the header is there", broken: breaches},
	{rule: "its length MUST be 0; else the session ends with codes.Protocol", broken: breaches},
	{rule: "are critical: the session ends with codes.Unsupported", broken: breaches},
	{rule: "ends the session all the same; every other code is then a loss", broken: "TestResetsThatEndASession"},
	{rule: "Total and Raw MUST each be at most the receiver's MaxMessage", broken: "TestTheReceiversLimitHoldsAgainstALyingPeer"},
	{rule: "COMPRESSED is allowed when both sides set zstd (3.3); else it ends the session with codes.Protocol", broken: breaches},
	{rule: "A body of Total bytes MUST NOT expand to more than 1 MiB + 8192 x Total", broken: "TestABodyThatExpandsTooMuchIsRefusedAlone"},
	{rule: "A byte more ends the session with codes.Protocol", broken: breaches},
	{rule: "The session ends with codes.Protocol at: an opening id of the wrong parity or not above all before", broken: breaches},
	{rule: "RESPONSE comes after the whole request, else the session ends with codes.Protocol",
		broken: "TestAResponseBeforeTheWholeRequestEndsTheSession"},
	{rule: "One more ends the session with codes.Protocol", broken: breaches},
	{rule: "A receiver MUST bound these too", broken: "TestCancelledHandlersThatStillRunAreBounded"},
	{rule: "before the next MESSAGE of the same side starts; else the session ends with codes.Protocol", broken: breaches},
	{rule: "A MESSAGE started beyond that ends the session with codes.Protocol", broken: breaches},
	{rule: "and only messages that were sent whole; else the session ends with codes.Protocol", broken: breaches},
	{rule: "The opener MUST NOT send STREAM_DATA before ACCEPT", broken: breaches},
	{rule: "a STREAM_CREDIT beyond that ends the session with codes.Protocol", broken: breaches},
	{rule: "a SESSION_CREDIT beyond that ends the session with codes.Protocol", broken: creditBreaches},
	{rule: "STREAM_DATA beyond the credit of the session ends the session with codes.FlowControl", broken: creditBreaches},
	{rule: "A receiver MUST NOT reset a stream because it has no memory for data within the credit", why: "who resets a stream harms its own: " +
		"TestUnreadStreamsOfAPeerHoldItsShareAndLoseNothing"},
	{rule: "More than it has ends the session with codes.Protocol", broken: creditBreaches},
	{rule: "Each of the three in a session without the bit ends the session with codes.Protocol", broken: creditBreaches},
	{rule: "A reader MUST grant credit as soon as 64 KiB have been read", why: "who grants none has its own peer wait: " +
		"TestAWriterNeverExceedsItsCredit"},
	{rule: "sends END with codes.Timeout instead of codes.Closed, and the other side then ends the session",
		broken: "TestAPeerThatGivesUpEndsTheSession"},
	{rule: "END before GOAWAY with codes.Closed, and a second END, end the session with codes.Protocol", broken: breaches},
	{rule: "one beyond the bytes written ends the session with codes.Protocol", broken: breaches},
	{rule: "Both sides MUST use the same four values; they are not sent", broken: "../psk/TestEveryParamChangesTheKey"},
	{rule: "`prologue` is made by the layer above and MUST name initiator and responder", broken: "TestTheKeyIsBoundToTheNamesOfBothSides"},
	{rule: "the responder MUST NOT run anything of the application before the first record has opened",
		broken: "TestADedicatedStreamsHandlerWaitsForTheFirstSealedByte"},
	{rule: "A receiver MUST take any cut", broken: "../psk/TestAnyChunkingIsTransparent"},
	{rule: "It MUST NOT encrypt anything else under a number it has used", broken: "../psk/TestWriteCutByItsDeadlineGoesOn"},
	{rule: "A received beyond what the other side has ever sent ends the session with codes.Protocol",
		broken: "TestAPeerThatHasReceivedMoreThanWasSentEndsTheSession"},
	{rule: "Where the length is \"none\" it MUST be 0", broken: "TestSegmentsThatBreakTheProtocolEndTheSession"},
	{rule: "What breaks one of these ends the session with codes.Protocol", broken: "TestSegmentsThatBreakTheProtocolEndTheSession"},
	{rule: "One beyond what its receiver has ever sent is a breach", broken: "TestAPeerThatHasReceivedMoreThanWasSentEndsTheSession"},
	{rule: "Unknown kinds are a breach", broken: "TestSegmentsThatBreakTheProtocolEndTheSession"},
}

const (
	breaches       = "TestBreachesAreToldByTheirCode"
	creditBreaches = "TestBreachesOfTheSessionsCreditEndTheSession"
)

// demands find what a rule with a consequence says.
var demands = regexp.MustCompile(`MUST|[Ee]nds? the session (with|all)|then ends the session|session ends with|a breach`)

func TestEveryMustOfTheSpecificationIsBroken(t *testing.T) {
	text, err := os.ReadFile("../docs/PROTOCOL.md")
	require.NoError(t, err)
	spec := regexp.MustCompile(`\s+`).ReplaceAllString(string(text), " ")
	type span struct{ from, to int }
	var known []span
	for _, m := range musts {
		at := strings.Index(spec, m.rule)
		require.GreaterOrEqual(t, at, 0, "PROTOCOL.md does not say %q", m.rule)
		known = append(known, span{at, at + len(m.rule)})
		require.NotEqual(t, m.broken == "", m.why == "", "%q: a test, or why there is none", m.rule)
		if m.broken != "" {
			require.True(t, isTest(t, m.broken), "%q: there is no %s", m.rule, m.broken)
		}
	}
	for _, found := range demands.FindAllStringIndex(spec, -1) {
		covered := false
		for _, k := range known {
			covered = covered || found[0] >= k.from && found[1] <= k.to
		}
		require.True(t, covered, "no rule of musts has: ...%s...", spec[max(0, found[0]-80):min(len(spec), found[1]+40)])
	}
}

// isTest reports whether there is a test function.
func isTest(t *testing.T, name string) bool {
	dir, name := filepath.Split(name)
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	require.NoError(t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// A breaker is a raw peer that is one side of a session or the other. The session has sent a request, opened a stream, and sent a message;
// the peer has opened nothing.
type breaker struct {
	*wire
	first, own uint64 // ids: the peer's first, and the session's
}

// theirs returns the nth id of the peer.
func (b *breaker) theirs(n uint64) uint64 { return b.first + 2*(n-1) }

// breakers are breaches, and the code that they end the session with if it is not codes.Protocol.
var breakers = map[string]struct {
	code codes.Code
	do   func(b *breaker)
}{
	"a frame over the cap": {0, func(b *breaker) {
		n := frame.MaxPayload + 1
		_, _ = b.conn.Write([]byte{byte(n >> 16), byte(n >> 8), byte(n), 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 2})
	}},
	"a PING with a body":        {0, func(b *breaker) { b.push(frame.TypePing, 0, 1, []byte("x")) }},
	"a CANCEL with a body":      {0, func(b *breaker) { b.push(frame.TypeCancel, 0, b.theirs(1), []byte("x")) }},
	"a MESSAGE_ACK with a body": {0, func(b *breaker) { b.push(frame.TypeMessageAck, 0, b.own+4, []byte("x")) }},
	"a STREAM_ACCEPT with a body": {0, func(b *breaker) {
		b.push(frame.TypeStreamAccept, 0, b.own+2, []byte("x"))
	}},
	"an unknown type": {codes.Unsupported, func(b *breaker) { b.push(0x7F, 0, 1, nil) }},
	"a reserved type": {codes.Unsupported, func(b *breaker) { b.push(0, 0, 1, nil) }},
	"an unknown flag": {codes.Unsupported, func(b *breaker) { b.push(frame.TypePing, 0x80, 1, nil) }},
	"compression that was not agreed on": {0, func(b *breaker) {
		b.push(frame.TypeRequest, frame.FlagCompressed, b.theirs(1), make([]byte, 13))
	}},
	"a byte more than Total": {0, func(b *breaker) {
		b.push(frame.TypeMessage, 0, b.theirs(1), append(head(1), 1, 2))
	}},
	"a byte more than Total, later": {0, func(b *breaker) {
		b.message(b.theirs(1), "x", "1")
		b.push(frame.TypeMessage, 0, b.theirs(2), head(1))
		b.push(frame.TypeContinue, 0, b.theirs(2), []byte("12"))
	}},
	"an id of this side's": {0, func(b *breaker) { b.push(frame.TypeMessage, 0, b.own, head(0)) }},
	"an id that goes down": {0, func(b *breaker) {
		b.message(b.theirs(3), "x", "")
		b.push(frame.TypeMessage, 0, b.theirs(2), head(0))
	}},
	"an answer to nothing": {0, func(b *breaker) {
		b.push(frame.TypeResponse, 0, b.own+100, make([]byte, 4))
	}},
	"an answer to its own":    {0, func(b *breaker) { b.push(frame.TypeError, 0, b.first, make([]byte, 8)) }},
	"a CANCEL of this side's": {0, func(b *breaker) { b.push(frame.TypeCancel, 0, b.own, nil) }},
	"credit for nothing": {0, func(b *breaker) {
		b.push(frame.TypeStreamCredit, 0, b.own+100, []byte{0, 0, 0, 1})
	}},
	"one request more than MaxInFlight": {0, func(b *breaker) { pushRequests(b, 6) }},
	"a MESSAGE within a MESSAGE": {0, func(b *breaker) {
		b.push(frame.TypeMessage, 0, b.theirs(1), head(9))
		b.push(frame.TypeMessage, 0, b.theirs(2), head(0))
	}},
	"a MESSAGE beyond the window": {0, func(b *breaker) {
		b.message(b.theirs(1), "x", string(make([]byte, 500)))
		b.push(frame.TypeMessage, 0, b.theirs(2), head(0))
	}},
	"an acknowledgement of nothing": {0, func(b *breaker) { b.push(frame.TypeMessageAck, 0, b.own+100, nil) }},
	"an acknowledgement twice": {0, func(b *breaker) {
		b.push(frame.TypeMessageAck, 0, b.own+4, nil)
		b.push(frame.TypeMessageAck, 0, b.own+4, nil)
	}},
	"data before ACCEPT": {0, func(b *breaker) {
		b.push(frame.TypeStreamData, 0, b.own+2, []byte("x"))
	}},
	"credit beyond 2^30": {0, func(b *breaker) {
		b.push(frame.TypeStreamAccept, 0, b.own+2, nil)
		b.push(frame.TypeStreamCredit, 0, b.own+2, []byte{0x40, 0, 0, 0})
	}},
	"END before GOAWAY": {0, func(b *breaker) { b.push(frame.TypeEnd, 0, 0, failure(codes.Closed)) }},
	"END after GOAWAY of a drain": {0, func(b *breaker) {
		b.push(frame.TypeGoAway, 0, 0, failure(codes.GoingAway))
		b.push(frame.TypeEnd, 0, 0, failure(codes.Closed))
	}},
	"a second END": {0, func(b *breaker) {
		b.push(frame.TypeGoAway, 0, 0, failure(codes.Closed))
		b.push(frame.TypeEnd, 0, 0, failure(codes.Closed))
		b.push(frame.TypeEnd, 0, 0, failure(codes.Closed))
	}},
	"STREAM_TAKEN of number 0": {0, func(b *breaker) { b.push(frame.TypeStreamTaken, 0, 0, make([]byte, 8)) }},
	"STREAM_TAKEN of more than was written": {0, func(b *breaker) {
		b.s.mu.Lock()
		b.s.addEndsLocked(&Stream{s: b.s}, 1)
		b.s.mu.Unlock()
		b.push(frame.TypeStreamTaken, 0, 1, frame.AppendOffset(nil, 1))
	}},
}

func failure(code codes.Code) []byte { return frame.AppendFailure(nil, frame.Failure{Code: code}) }

// pushRequests sends requests that are never whole.
func pushRequests(b *breaker, n uint64) {
	for i := range n {
		b.push(frame.TypeRequest, 0, b.theirs(i+1), start(frame.TypeRequest, 0, frame.Start{Total: 2, Link: "x"}, nil))
	}
}

// What breaks a rule ends the session with the code that the rule names, on either side, and the peer is told by the reset of the carrier.
func TestBreachesAreToldByTheirCode(t *testing.T) {
	for name, breach := range breakers {
		for side, first := range map[string]uint64{"dialing": 1, "accepting": 2} { // the peer's
			t.Run(name+", "+side, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					cfg := Config{Mux: NewMux(), MaxInFlight: 5, MessageWindow: 500, MaxMessage: 1000}
					release := make(chan struct{})
					defer close(release)
					cfg.Mux.SetLink("x", func(*Message) { <-release })
					b := &breaker{first: first, own: 3 - first}
					if first == 1 {
						b.wire = accepted(t, AcceptorConfig{Config: cfg}, frame.CapEnds, generous)
					} else {
						b.wire = dialed(t, cfg, frame.CapEnds, generous)
					}
					go func() { _, _ = b.s.Call(t.Context(), "", nil) }()
					b.want(frame.TypeRequest, b.own)
					go func() { _, _ = b.s.OpenStream(t.Context(), "x", nil) }()
					b.want(frame.TypeStreamOpen, b.own+2)
					require.NoError(t, b.s.Send(t.Context(), "x", nil))
					b.want(frame.TypeMessage, b.own+4)
					breach.do(b)
					want := breach.code
					if want == codes.OK {
						want = codes.Protocol
					}
					require.Equal(t, want, b.wantEnd().Code, "%v", b.s.Err())
					require.ErrorIs(t, b.s.Err(), ErrSessionLost)
					synctest.Wait()
					require.Equal(t, []codes.Code{want}, b.resets.all(), "the peer is told")
				})
			})
		}
	}
}

// RESPONSE before the whole of the request: the session ends, and with it the call, of which nobody can tell what has become.
func TestAResponseBeforeTheWholeRequestEndsTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{}, 0, generous)
		result := make(chan error, 1)
		go func() {
			_, err := w.s.Call(t.Context(), "x", make([]byte, 1<<20))
			result <- err
		}()
		h, err := frameShape.Read(w.conn) // and no more of it
		require.NoError(t, err)
		require.Equal(t, byte(frame.TypeRequest), h[3])
		w.push(frame.TypeResponse, 0, 1, make([]byte, 4))
		require.Equal(t, codes.Protocol, w.wantEnd().Code)
		require.ErrorIs(t, <-result, ErrSessionLost)
		synctest.Wait()
		require.Equal(t, []codes.Code{codes.Protocol}, w.resets.all())
		close(w.gone)
	})
}

// A peer that sends END with codes.Timeout no longer waits: the session ends although work is in flight.
func TestAPeerThatGivesUpEndsTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, frame.CapEnds, generous)
		result := make(chan error, 1)
		go func() {
			_, err := w.s.Call(t.Context(), "x", nil)
			result <- err
		}()
		w.want(frame.TypeRequest, 1)
		w.push(frame.TypeGoAway, 0, 1, failure(codes.Closed))
		w.push(frame.TypeEnd, 0, 0, failure(codes.Timeout))
		began := time.Now()
		w.wantEnd()
		require.Less(t, time.Since(began), w.s.cfg.CloseTimeout)
		asError(t, <-result, Unknown)
	})
}

// A peer that does not read why it was refused gets a reset with the same code, and is not waited for.
func TestARefusalThatIsNotReadIsAReset(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, err := NewAcceptor(nil)
		require.NoError(t, err)
		noted, served := new(resets), make(chan error, 1)
		here, there := net.Pipe()
		go func() { served <- a.Serve(noted.of(there), "raw") }()
		require.NoError(t, frame.WriteHello(here, frame.AppendHello(nil, &frame.Hello{
			Kind: frame.KindHello, Version: 1, Role: frame.RoleResume, SessionID: newSessionID(), Resume: &frame.Resume{Attempt: 1}})))
		began := time.Now()
		require.Equal(t, codes.NotFound, asError(t, <-served, Rejected).Code)
		require.LessOrEqual(t, time.Since(began), partingGrace)
		require.Equal(t, []codes.Code{codes.NotFound}, noted.all())
	})
}

// Whatever a peer refuses a key with, the dialing side comes back with its key, or not at all.
func TestARefusalDoesNotMakeADialingSideTryWithoutItsKey(t *testing.T) {
	for _, code := range []codes.Code{codes.PSKUnexpected, codes.PSKMismatch, codes.PSKTampered, codes.Unavailable, codes.OK} {
		inBubble(t, func(t *testing.T) {
			here, there := net.Pipe()
			said := make(chan *frame.Hello, 1)
			go func() {
				said <- readHello(t, there)
				_ = frame.WriteHello(there, frame.AppendHello(nil, &frame.Hello{
					Kind: frame.KindRefuse, Version: 1, Failure: &frame.Failure{Code: code, Text: "come without"}}))
			}()
			opened := 0
			open := func(context.Context, Want) (net.Conn, error) {
				opened++
				return nil, errNoRoute
			}
			_, err := Dial(t.Context(), here, "bob", open, &Config{Keys: keyring(t, 0)})
			require.Equal(t, code, asError(t, err, NotSent).Code)
			require.NotNil(t, (<-said).Noise)
			require.Zero(t, opened)
			_, err = there.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF, "the carrier ends")
		})
	}
}

// A reset with a code that tells of a breach ends a session that outlives its carriers; one with another code is a loss.
func TestResetsThatEndASession(t *testing.T) {
	for code, ends := range map[codes.Code]bool{
		codes.Protocol: true, codes.Unsupported: true, codes.FlowControl: true, codes.Internal: true, codes.Timeout: true,
		codes.Cancelled: false, codes.Unavailable: false, codes.Closed: false, codes.NotFound: false, codes.GoingAway: false, 4711: false,
	} {
		for _, side := range []string{"dialing", "accepting"} {
			inBubble(t, func(t *testing.T) {
				r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
				resets, other := r.accepted, r.dialer
				if side == "accepting" {
					resets, other = r.dialer, r.accepted
				}
				if ends { // who tells of a breach does not come back
					r.block(true)
				}
				_ = resets.Conn().(*codedEnd).Reset(code)
				time.Sleep(time.Second)
				require.Equal(t, ends, other.Err() != nil, "%v at the %s side: %v", code, side, other.Err())
				if ends {
					require.ErrorIs(t, other.Err(), ErrSessionLost)
					require.ErrorContains(t, other.Err(), "remote: "+code.String())
				} else {
					require.Equal(t, StateResumed, other.State(), "%v at the %s side", code, side)
				}
			})
		}
	}
}
